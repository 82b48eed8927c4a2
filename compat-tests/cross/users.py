#!/usr/bin/env python3
"""Users and grants with real clients, added with the command line to a server of its own: redis-py, pika and confluent-kafka
(PLAIN, SCRAM-SHA-256, SCRAM-SHA-512), each with right, wrong and missing credentials, and on objects that they may and may not
touch. Its own oracle: exits non-zero at the first answer that is not as it should be."""

import hashlib
import os
import subprocess

import confluent_kafka
import confluent_kafka.admin
import pika
import redis
from lib import servers
from lib.steps import same, step
from redis.backoff import NoBackoff
from redis.retry import Retry

PASSWORD = "battery staple"


class Guarded(servers.FlowMesh):
    def __init__(self):
        super().__init__(extra=["--user=root", "--password=s3cret"])


def refused(text, kind, call):
    try:
        call()
    except kind as error:
        if text not in str(error):
            raise SystemExit(f"refused with {error!r}, wanted {text!r}") from error
        print(text)
        return
    raise SystemExit(f"allowed, wanted {text!r}")


def cli(server, *words, stdin="", fails=False):
    binary = server.command()[0]
    env = dict(os.environ, FLOWMESH_USER="root", FLOWMESH_PASSWORD="s3cret", FLOWMESH_HTTP_ADDR=server.addresses["http"])
    done = subprocess.run([binary, *words], input=stdin, env=env, cwd=server.dir, capture_output=True, text=True, timeout=30, check=False)
    if bool(done.returncode) != fails:
        raise SystemExit(f"{words}: {done.stdout}{done.stderr}")
    return done.stderr if fails else done.stdout


def users(server):
    step("flowmesh user, flowmesh grant")
    cli(server, "user", "add", "alice", stdin=f"{PASSWORD}\n")
    for kind, pattern, verbs in (
        ("key", "cart:*", "read,write"),
        ("channel", "news.*", "read"),
        ("queue", "orders*", "read,configure,write"),
        ("exchange", "amq.default", "write"),
        ("topic", "orders*", "read,write,configure"),
        ("group", "billing*", "read"),
    ):
        cli(server, "grant", "add", "alice", kind, pattern, verbs)
    same(cli(server, "user", "list"), "alice\tenabled\targon2id,scram-sha-256,scram-sha-512\n")
    same(len(cli(server, "grant", "list", "alice").splitlines()), 6)


def redis_clients(address):
    host, port = address.rsplit(":", 1)

    def connect(**login):
        # Its own tries again would take seconds.
        return redis.Redis(host=host, port=int(port), retry=Retry(NoBackoff(), 0), **login)

    step("redis-py")
    alice = connect(username="alice", password=PASSWORD, protocol=3)
    same(alice.set("cart:7", "full"), True)
    same(alice.get("cart:7"), b"full")
    refused("No permissions to access a key", redis.exceptions.NoPermissionError, lambda: alice.get("other"))
    refused("has no permissions to run the 'flushall' command", redis.exceptions.NoPermissionError, alice.flushall)
    refused("No permissions to access a channel", redis.exceptions.NoPermissionError, lambda: alice.publish("news.eu", "x"))
    wrong = connect(username="alice", password="no")
    refused("invalid username-password pair", redis.exceptions.AuthenticationError, wrong.ping)
    refused("HELLO must be called with the client already authenticated", redis.exceptions.AuthenticationError, connect().ping)
    step("redis-py: the configured password still works alone")
    same(connect(password="s3cret").get("cart:7"), b"full")


def amqp_clients(address):
    host, port = address.rsplit(":", 1)

    def connect(user, password):
        login = pika.PlainCredentials(user, password)
        return pika.BlockingConnection(pika.ConnectionParameters(host, int(port), credentials=login))

    step("pika")
    connection = connect("alice", PASSWORD)
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("orders.eu", durable=True)
    channel.basic_publish("", "orders.eu", b"one")
    same(channel.basic_get("orders.eu", auto_ack=True)[2], b"one")
    closed = pika.exceptions.ChannelClosedByBroker
    refused(
        "access to queue 'secret' in vhost '/' refused for user 'alice'",
        closed,
        lambda: connection.channel().queue_declare("secret"),
    )
    refused(
        "access to exchange 'amq.topic' in vhost '/' refused for user 'alice'",
        closed,
        lambda: (lambda c: (c.confirm_delivery(), c.basic_publish("amq.topic", "k", b"x")))(connection.channel()),
    )
    connection.close()
    text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile."
    for user, password in (("alice", "no"), ("bob", PASSWORD), ("guest", "guest")):
        refused(text, pika.exceptions.ProbableAuthenticationError, lambda u=user, p=password: connect(u, p))


def kafka_clients(address):
    def base(mechanism, password):
        return {
            "bootstrap.servers": address,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": mechanism,
            "sasl.username": "alice",
            "sasl.password": password,
            "log_level": 0,
        }

    for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        step(f"confluent-kafka: {mechanism}")
        right = base(mechanism, PASSWORD)
        errors = []
        producer = confluent_kafka.Producer({**right, "enable.idempotence": True, "message.timeout.ms": 10000})
        for topic in ("orders", "secret"):
            try:
                producer.produce(topic, b"x", on_delivery=lambda error, message: errors.append((message.topic(), error and error.code())))
            except confluent_kafka.KafkaException as error:  # the metadata came before the record was queued
                errors.append((topic, error.args[0].code()))
            producer.flush(20)
        same(sorted(errors), [("orders", None), ("secret", confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED)])
        consumer = confluent_kafka.Consumer({**right, "group.id": f"billing-{mechanism}", "auto.offset.reset": "earliest"})
        consumer.subscribe(["orders"])
        message = consumer.poll(20)
        same(message and message.error() or message.value(), b"x")
        consumer.close()
        other = confluent_kafka.Consumer({**right, "group.id": "other"})
        other.subscribe(["orders"])
        message = other.poll(20)
        same(message.error().code(), confluent_kafka.KafkaError.GROUP_AUTHORIZATION_FAILED)
        other.close()
        seen = []
        wrong = confluent_kafka.Producer({**base(mechanism, "no"), "error_cb": lambda error, seen=seen: seen.append(error.code())})
        for _ in range(50):
            wrong.poll(0.2)
            if confluent_kafka.KafkaError._AUTHENTICATION in seen:
                break
        same(confluent_kafka.KafkaError._AUTHENTICATION in seen, True)
    step("confluent-kafka: without a login")
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": address, "log_level": 0})
    refused("", confluent_kafka.KafkaException, lambda: admin.list_topics(timeout=2))


def acl_users(server):
    """Users that Redis' ACL makes are nobody else's, and a grant gives them more only where it says."""

    def connect(face, **login):
        host, port = server.addresses[face].rsplit(":", 1)
        if face == "resp":
            return redis.Redis(host=host, port=int(port), retry=Retry(NoBackoff(), 0), decode_responses=True, **login)
        credentials = pika.PlainCredentials(login["username"], login["password"])
        return pika.BlockingConnection(pika.ConnectionParameters(host, int(port), credentials=credentials))

    step("redis-py: acl_setuser")
    root = connect("resp", username="root", password="s3cret")
    made = root.acl_setuser("shop", enabled=True, passwords=[f"+{PASSWORD}"], categories=["+@all"], keys=["shop:*"], selectors=[("+get", "%R~stock:*")])
    same(made, True)
    shop = connect("resp", username="shop", password=PASSWORD)
    same(shop.set("shop:1", "x"), True)
    same(shop.get("stock:1"), None)
    refused("No permissions to access a key", redis.exceptions.NoPermissionError, lambda: shop.set("stock:1", "x"))
    same(shop.acl_whoami(), "shop")
    same(cli(server, "user", "list").splitlines()[1], "shop\tenabled\tacl-sha256")
    step("pika and confluent-kafka: as such a user")
    vhost = "access to vhost '/' refused for user 'shop'"
    login = {"username": "shop", "password": PASSWORD}
    refused(vhost, pika.exceptions.ProbableAccessDeniedError, lambda: connect("amqp", **login))
    base = {"bootstrap.servers": server.addresses["kafka"], "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "log_level": 0}
    errors = []
    producer = confluent_kafka.Producer({**base, "sasl.username": "shop", "sasl.password": PASSWORD, "message.timeout.ms": 10000})
    try:
        producer.produce("orders", b"x", on_delivery=lambda error, message: errors.append(error.code()))
    except confluent_kafka.KafkaException as error:
        errors.append(error.args[0].code())
    producer.flush(20)
    same(errors, [confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED])
    step("with a grant of queues it is one user of both")
    cli(server, "grant", "add", "shop", "queue", "shop*", "read,configure")
    connection = connect("amqp", **login)
    connection.channel().queue_declare("shop.1")
    connection.close()
    refused("grants of kind key", redis.exceptions.ResponseError, lambda: root.acl_setuser("alice", keys=["other:*"]) and denied(server, root))
    same(shop.get("shop:1"), "x")
    same(root.acl_deluser("shop"), 1)


def denied(server, root):
    """Redis' words cannot say what is denied, so they do not touch what it is denied of."""
    cli(server, "grant", "add", "alice", "key", "cart:secret", "read", "--deny")
    return root.acl_setuser("alice", keys=["third:*"])


def imported(server):
    """An ACL file as Redis writes it, taken whole or not at all."""
    host, port = server.addresses["resp"].rsplit(":", 1)
    connect = lambda user: redis.Redis(host=host, port=int(port), username=user, password=PASSWORD, retry=Retry(NoBackoff(), 0), decode_responses=True)
    sha = hashlib.sha256(PASSWORD.encode()).hexdigest()
    file = server.dir / "users.acl"
    step("flowmesh user import: a line that is wrong")
    file.write_text(f"user one on #{sha} ~* +@all\n\nuser two on +nosuch\n")
    same(cli(server, "user", "import", str(file), fails=True).replace(str(file), "FILE").strip().endswith("FILE: line 3: '+nosuch': Unknown command or category name in ACL"), True)
    same("one\t" in cli(server, "user", "list"), False)
    step("flowmesh user import: the whole")
    lines = [
        f"user one on sanitize-payload #{sha} ~one:* resetchannels -@all +@read +set (%R~other:* resetchannels -@all +get)",
        "user two off resetchannels -@all",
    ]
    file.write_text("user default on nopass sanitize-payload ~* &* +@all\n" + "\n".join(lines) + "\n")
    said = cli(server, "user", "import", str(file)).splitlines()
    same([said[0], said[1].partition(" is left out")[0]], ["added: one,two", "line 1: 'default' with nopass"])
    one = connect("one")
    same(one.set("one:1", "x"), True)
    same(one.get("other:1"), None)
    refused("No permissions to access a key", redis.exceptions.NoPermissionError, lambda: one.get("third"))
    refused("has no permissions to run the 'del' command", redis.exceptions.NoPermissionError, lambda: one.delete("one:1"))
    refused("invalid username-password pair", redis.exceptions.AuthenticationError, connect("two").ping)
    root = redis.Redis(host=host, port=int(port), username="root", password="s3cret", decode_responses=True)
    shown = {line.split()[1]: line for line in root.acl_list()}
    same([shown["one"], shown["two"]], [line.replace("sanitize-payload ", "") for line in lines])


with Guarded() as guarded:
    users(guarded)
    redis_clients(guarded.addresses["resp"])
    amqp_clients(guarded.addresses["amqp"])
    kafka_clients(guarded.addresses["kafka"])
    acl_users(guarded)
    imported(guarded)
    step("flowmesh audit")
    same("denied\tget\tother" in cli(guarded, "audit", "show"), True)
    same(" rows, the last is " in cli(guarded, "audit", "verify"), True)
    code = guarded.stop()
    if code:
        raise SystemExit(f"flowmesh exited with {code}:\n{servers.tail(guarded.log)}")
