#!/usr/bin/env python3
"""TLS with real clients against a `flowmesh dev --tls` of its own: redis-py and redis-cli, pika with a password and with
EXTERNAL, confluent-kafka and kcat, curl. Its own oracle: exits non-zero at the first answer that is not as it should be."""

import shutil
import ssl
import subprocess

import confluent_kafka
import confluent_kafka.admin
import pika
import redis
from lib import servers


class Dev(servers.FlowMesh):
    """`flowmesh dev --tls`, with clients known by their certificates only."""

    def __init__(self, user):
        super().__init__(extra=[f"--user={user}", "--password=s3cret"])
        self.tls = {face: servers.free_ports(1) for face in ("resp", "amqp", "kafka", "http", "grpc")}
        self.extra += [f"--{face}-tls-addr=127.0.0.1:{port}" for face, port in self.tls.items()]

    def command(self):
        plain = super().command()
        return [plain[0], "dev", "--tls", *plain[2:]]

    def file(self, name):
        return str(self.data / "tls" / name)


def step(text):
    print(f"> {text}", flush=True)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return (done.stdout + done.stderr).strip()


def same(got, wanted):
    if got != wanted:
        raise SystemExit(f"got {got!r}, wanted {wanted!r}")
    print(got)


def redis_clients(dev):
    port, ca = dev.tls["resp"], dev.file("ca.crt")
    mine = {"ssl_certfile": dev.file("client.crt"), "ssl_keyfile": dev.file("client.key")}
    step("redis-py: the certificate is the AUTH")
    client = redis.from_url(f"rediss://localhost:{port}", ssl_ca_certs=ca, **mine)
    same(client.set("tls", "yes"), True)
    same(client.get("tls"), b"yes")
    same(client.set("large", "x" * 5_000_000), True)
    same(len(client.get("large")), 5_000_000)
    with client.pipeline(transaction=False) as pipe:
        for i in range(1000):
            pipe.rpush("list", i)
        same(pipe.execute()[-1], 1000)
    step("redis-py: a password without a certificate")
    same(redis.from_url(f"rediss://:s3cret@localhost:{port}", ssl_ca_certs=ca).get("tls"), b"yes")
    step("redis-py: neither")
    try:
        redis.from_url(f"rediss://localhost:{port}", ssl_ca_certs=ca).get("tls")
        raise SystemExit("no certificate and no password, and in")
    except redis.AuthenticationError:
        print("refused")
    step("redis-py: an authority it does not know")
    try:
        redis.from_url(f"rediss://localhost:{port}").ping()
        raise SystemExit("the client trusts anybody")
    except redis.ConnectionError as error:
        same("CERTIFICATE_VERIFY_FAILED" in str(error), True)
    if shutil.which("redis-cli"):
        step("redis-cli --tls")
        keys = ["--cert", dev.file("client.crt"), "--key", dev.file("client.key")]
        same(run("redis-cli", "--tls", "--cacert", ca, *keys, "-p", str(port), "get", "tls"), "yes")


def amqp_clients(dev):
    def connect(credentials, certificate):
        context = ssl.create_default_context(cafile=dev.file("ca.crt"))
        if certificate:
            context.load_cert_chain(dev.file("client.crt"), dev.file("client.key"))
        return pika.BlockingConnection(
            pika.ConnectionParameters(
                "localhost", dev.tls["amqp"], credentials=credentials, ssl_options=pika.SSLOptions(context, "localhost")
            )
        )

    for what, credentials, certificate in (
        ("EXTERNAL", pika.credentials.ExternalCredentials(), True),
        ("PLAIN", pika.PlainCredentials("alice", "s3cret"), False),
    ):
        step(f"pika: {what}")
        connection = connect(credentials, certificate)
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("tls", durable=True)
        body = b"b" * 1_000_000
        channel.basic_publish("", "tls", body)
        same(channel.basic_get("tls", auto_ack=True)[2] == body, True)
        connection.close()
    step("pika: EXTERNAL without a certificate")
    try:
        connect(pika.credentials.ExternalCredentials(), False)
        raise SystemExit("in")
    except pika.exceptions.AMQPConnectionError as error:
        print(type(error).__name__)


def kafka_clients(dev):
    at = f"localhost:{dev.tls['kafka']}"
    ca = dev.file("ca.crt")
    mine = {
        "security.protocol": "SSL",
        "ssl.certificate.location": dev.file("client.crt"),
        "ssl.key.location": dev.file("client.key"),
    }
    sasl = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "alice", "sasl.password": "s3cret"}
    for number, (what, more) in enumerate((("SSL with a certificate", mine), ("SASL_SSL", sasl))):
        step(f"confluent-kafka: {what}")
        base = {"bootstrap.servers": at, "ssl.ca.location": ca, **more}
        errors = []
        producer = confluent_kafka.Producer({**base, "acks": "all"})
        for i in range(1000):
            producer.produce("tls", f"{i}", on_delivery=lambda error, _: errors.append(error) if error else None)
        same(producer.flush(30), 0)
        same(errors, [])
        consumer = confluent_kafka.Consumer({**base, "group.id": f"tls-{number}", "auto.offset.reset": "earliest"})
        consumer.subscribe(["tls"])
        got = 0
        for message in iter(lambda c=consumer: c.poll(20), None):
            if message.error():
                raise SystemExit(message.error())
            got += 1
            if got == 1000 * (number + 1):
                break
        same(got, 1000 * (number + 1))
        consumer.close()
    step("confluent-kafka: SSL without a certificate")
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": at, "ssl.ca.location": ca, "security.protocol": "SSL", "log_level": 0})
    try:
        admin.list_topics(timeout=2)
        raise SystemExit("in")
    except confluent_kafka.KafkaException:
        print("refused")
    if shutil.which("kcat"):
        step("kcat: SSL with a certificate")
        flags = [f"-X{name}={value}" for name, value in {**mine, "ssl.ca.location": ca}.items()]
        same(run("kcat", "-b", at, "-q", *flags, "-C", "-t", "tls", "-c", "2", "-e"), "0\n1")


def http_clients(dev):
    if not shutil.which("curl"):
        return
    url, ca = f"https://localhost:{dev.tls['http']}", dev.file("ca.crt")
    status = ("-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", ca)
    step("curl")
    same(run("curl", "-s", "--cacert", ca, f"{url}/healthz"), "ok")
    same(run("curl", *status, f"{url}/api/v1/info"), "401")
    same(run("curl", *status, "-u", "alice:s3cret", f"{url}/api/v1/info"), "200")
    same(run("curl", *status, "--cert", dev.file("client.crt"), "--key", dev.file("client.key"), f"{url}/api/v1/info"), "200")


with Dev("alice") as server:
    redis_clients(server)
    amqp_clients(server)
    kafka_clients(server)
    http_clients(server)
    code = server.stop()
    if code:
        raise SystemExit(f"flowmesh exited with {code}:\n{servers.tail(server.log)}")
