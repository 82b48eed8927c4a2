#!/usr/bin/env python3
"""TLS with real clients against a `flowmesh dev --tls` of its own: redis-py and redis-cli, pika with a password and with
EXTERNAL, confluent-kafka and kcat, curl, Node's clients (tls.js), Kafka's and RabbitMQ's Java clients; and with RSA keys.
Its own oracle: exits non-zero at the first answer that is not as it should be."""

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import confluent_kafka
import confluent_kafka.admin
import pika
import redis
import scenarios
from lib import servers
from lib.steps import same, step


class Dev(servers.FlowMesh):
    """`flowmesh dev --tls`, with clients known by their certificates only."""

    def __init__(self, user):
        super().__init__(extra=[f"--user={user}", "--password=s3cret"])
        self.tls = {face: servers.free_ports(1) for face in ("resp", "amqp", "kafka", "http", "grpc")}
        self.extra += [f"--{face}-tls-addr=127.0.0.1:{port}" for face, port in self.tls.items()]

    def command(self):
        plain = super().command()
        return [plain[0], "dev", *self.certificates(), *plain[2:]]

    def certificates(self):
        return ["--tls"]

    def file(self, name):
        return str(self.data / "tls" / name)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return (done.stdout + done.stderr).strip()


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


def node_clients(dev):
    step("node")
    ports = {face.upper(): str(dev.tls[face]) for face in ("resp", "amqp", "kafka")}
    env = {**os.environ, **ports, "USER": "alice", "PASSWORD": "s3cret", "FILES": dev.file(""), "NODE_PATH": scenarios.client("node")}
    program = str(scenarios.HERE / "cross/tls.js")
    done = subprocess.run(["node", program], env=env, capture_output=True, text=True, timeout=60, check=False)
    same((done.stdout + done.stderr).splitlines(), [
        "ioredis, certificate: 1000000", "ioredis, password: 1000000", "ioredis, neither: NOAUTH",
        "amqplib, PLAIN: 1000000", "amqplib, EXTERNAL: 1000000", "kafkajs, certificate: 100", "kafkajs, scram: 100"])


def java(jars, program, *arguments):
    small = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
    return run("java", *small, "-cp", f"{scenarios.client('jars', jars)}/*", program, *arguments)


def java_clients(dev):
    step("Kafka's Java client: SSL with a certificate")
    pem, properties = dev.dir / "client.pem", dev.dir / "ssl.properties"
    pem.write_text("".join(Path(dev.file(f"client.{kind}")).read_text() for kind in ("key", "crt")))
    properties.write_text(
        f"security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location={dev.file('ca.crt')}\n"
        f"ssl.keystore.type=PEM\nssl.keystore.location={pem}\n")
    tools = "org.apache.kafka.tools"
    at = ("--bootstrap-server", f"localhost:{dev.tls['kafka']}", "--command-config", str(properties))
    java("kafka-tools", f"{tools}.TopicCommand", *at, "--create", "--topic", "java", "--partitions", "1")
    load = ("--num-records", "1000", "--record-size", "100", "--throughput", "-1")
    same("1000 records sent" in java("kafka-tools", f"{tools}.ProducerPerformance", *at, "--topic", "java", *load), True)
    same(java("kafka-tools", f"{tools}.GetOffsetShell", *at, "--topic", "java").splitlines()[-1], "java:0:1000")
    step("RabbitMQ's Java client: a password over TLS")
    load = ("-s", "100", "-f", "persistent", "-c", "100", "-q", "100", "-u", "java", "-C", "1000", "-D", "1000")
    told = java("rabbitmq-perf-test", "com.rabbitmq.perf.PerfTest", "-h", f"amqps://alice:s3cret@localhost:{dev.tls['amqp']}/%2F", *load)
    same("receiving rate avg" in told, True)


class Rsa(Dev):
    """A server whose key is RSA, in the file formats that there are."""

    def __init__(self, user, form):
        super().__init__(user)
        for name, subject, more in (("ca", "authority", ()), ("server", "localhost", ("-CA", self.own("ca.crt"), "-CAkey", self.own("ca.key")))):
            self.openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", self.own(f"{name}.key"), "-out", self.own(f"{name}.crt"),
                         "-subj", f"/CN={subject}", "-addext", "subjectAltName=DNS:localhost", "-days", "2", *more)
        if form == "PKCS#1":
            self.openssl("rsa", "-traditional", "-in", self.own("server.key"), "-out", self.own("server.key"))

    def own(self, name):
        return str(self.dir / name)

    @staticmethod
    def openssl(*words):
        subprocess.run(("openssl", *words), check=True, capture_output=True)

    def certificates(self):
        return [f"--tls-cert={self.own('server.crt')}", f"--tls-key={self.own('server.key')}"]


def rsa(form):
    """The server's answers to clients with TLS 1.3, and with the 1.2 that old ones speak."""
    step(f"an RSA key, {form}")
    with Rsa("alice", form) as server:
        ca = server.own("ca.crt")
        client = redis.from_url(f"rediss://alice:s3cret@localhost:{server.tls['resp']}", ssl_ca_certs=ca)
        same(client.set("rsa", "yes"), True)
        context = ssl.create_default_context(cafile=ca)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        login = pika.PlainCredentials("alice", "s3cret")
        options = pika.SSLOptions(context, "localhost")
        pika.BlockingConnection(pika.ConnectionParameters("localhost", server.tls["amqp"], credentials=login, ssl_options=options)).close()
        same(server.stop(), 0)


for key in ("PKCS#8", "PKCS#1"):
    rsa(key)
with Dev("alice") as server:
    redis_clients(server)
    amqp_clients(server)
    kafka_clients(server)
    http_clients(server)
    node_clients(server)
    java_clients(server)
    code = server.stop()
    if code:
        raise SystemExit(f"flowmesh exited with {code}:\n{servers.tail(server.log)}")
