#!/usr/bin/env python3
"""Runs transcripts that use all three protocols of one server, through real clients (redis-py, pika, confluent-kafka).

A transcript reads like a demo and is its own oracle: a line `resp> …`, `amqp> …` or `kafka> …` does something, the
lines up to the next such line, blank line or comment say what must come back.

  resp>  any command, quoted as in a shell; several connections: `resp2>` …
  amqp>  queue NAME [durable] | exchange NAME TYPE | bind QUEUE EXCHANGE KEY | publish exchange=E routing_key=K body=B
         get QUEUE (acknowledges) | count QUEUE | delete QUEUE
         stream NAME [argument=value …] | read STREAM from=first|N count=N [filter=V]: offset, exchange, routing key, body, headers
  kafka> topic NAME PARTITIONS | drop NAME | config NAME CONFIG … | produce NAME key=K value=V | fetch NAME/PARTITION from=N | end NAME/PARTITION
"""

import os
import re
import shlex
import sys
import uuid
from pathlib import Path

import confluent_kafka
import confluent_kafka.admin
import pika
import redis

HERE = Path(__file__).resolve().parent


class Resp:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.connection = redis.Connection(host=host, port=int(port), protocol=2)

    def run(self, words):
        self.connection.send_command(*words)
        try:
            return self.show(self.connection.read_response(disable_decoding=True))
        except redis.ResponseError as error:
            return [f"(error) {error}"]

    def show(self, reply, depth=0):
        if reply is None:
            return ["(nil)"]
        if isinstance(reply, redis.ResponseError):
            return [f"(error) {reply}"]
        if isinstance(reply, list):
            lines = [line for item in reply for line in self.show(item, depth + 1)]
            return lines if lines else ["(empty)"]
        return [reply.decode() if isinstance(reply, bytes) else str(reply)]


class Amqp:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.connection = pika.BlockingConnection(pika.ConnectionParameters(host, int(port)))
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()

    def run(self, words):
        verb, *rest = words
        named = dict(word.split("=", 1) for word in rest if "=" in word)
        if verb == "queue":
            ok = self.channel.queue_declare(rest[0], durable="durable" in rest)
            return [f"{ok.method.queue} {ok.method.message_count} messages"]
        if verb == "exchange":
            self.channel.exchange_declare(rest[0], rest[1], durable=True)
            return ["declared"]
        if verb == "bind":
            self.channel.queue_bind(rest[0], rest[1], rest[2])
            return ["bound"]
        if verb == "publish":
            properties = pika.BasicProperties(delivery_mode=2)
            self.channel.basic_publish(named["exchange"], named["routing_key"], named["body"].encode(), properties, mandatory=True)
            return ["confirmed"]
        if verb == "get":
            method, properties, body = self.channel.basic_get(rest[0])
            if method is None:
                return ["(empty)"]
            self.channel.basic_ack(method.delivery_tag)
            headers = "".join(f" {k}={v}" for k, v in sorted((properties.headers or {}).items()))
            return [f"{method.exchange or '(default)'} {method.routing_key} {body.decode()}{headers}"]
        if verb == "stream":
            arguments = {"x-queue-type": "stream", **{name: int(value) if value.isdigit() else value for name, value in named.items()}}
            ok = self.channel.queue_declare(rest[0], durable=True, arguments=arguments)
            return [f"{ok.method.queue} {ok.method.message_count} messages"]
        if verb == "read":
            return self.read(rest[0], named)
        if verb == "delete":
            self.channel.queue_delete(rest[0])
            return ["deleted"]
        if verb == "count":
            return [str(self.channel.queue_declare(rest[0], passive=True).method.message_count)]
        raise ValueError(verb)


    def read(self, queue, named):
        """A consumer of a stream, until it has what is asked for."""
        arguments = {"x-stream-offset": int(named["from"]) if named["from"].isdigit() else named["from"]}
        if "filter" in named:
            arguments["x-stream-filter"] = named["filter"]
        lines = []
        channel = self.connection.channel()
        channel.basic_qos(prefetch_count=10)
        for method, properties, body in channel.consume(queue, arguments=arguments, inactivity_timeout=20):
            if method is None:
                lines.append("(timed out)")
                break
            channel.basic_ack(method.delivery_tag)
            offset = properties.headers.pop("x-stream-offset")
            headers = "".join(f" {k}={v}" for k, v in sorted(properties.headers.items()))
            lines.append(f"{offset} {method.exchange or '(default)'} {method.routing_key} {body.decode()}{headers}")
            if len(lines) == int(named["count"]):
                break
        channel.close()
        return lines


class Kafka:
    def __init__(self, address):
        self.config = {"bootstrap.servers": address}
        self.admin = confluent_kafka.admin.AdminClient(self.config)
        self.producer = confluent_kafka.Producer({**self.config, "acks": "all", "linger.ms": 0})

    def run(self, words):
        verb, *rest = words
        named = dict(word.split("=", 1) for word in rest if "=" in word)
        if verb == "config":
            resource = confluent_kafka.admin.ConfigResource("topic", rest[0])
            found = next(iter(self.admin.describe_configs([resource]).values())).result()
            return [found[name].value for name in rest[1:]]
        if verb == "drop":
            next(iter(self.admin.delete_topics([rest[0]]).values())).result()
            return ["deleted"]
        if verb == "topic":
            new = confluent_kafka.admin.NewTopic(rest[0], int(rest[1]), 1)
            for future in self.admin.create_topics([new]).values():
                future.result()
            return ["created"]
        if verb == "produce":
            got = []
            self.producer.produce(rest[0], named["value"], named.get("key"), on_delivery=lambda error, m: got.append((error, m)))
            self.producer.flush(30)
            error, message = got[0]
            return [str(error)] if error else [f"{message.partition()}@{message.offset()}"]
        topic, partition = rest[0].rsplit("/", 1)
        consumer = confluent_kafka.Consumer({**self.config, "group.id": uuid.uuid4().hex, "enable.auto.commit": False, "enable.partition.eof": True})
        try:
            if verb == "end":
                _, high = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, int(partition)), timeout=30)
                return [str(high)]
            if verb == "fetch":
                consumer.assign([confluent_kafka.TopicPartition(topic, int(partition), int(named["from"]))])
                lines = []
                while True:
                    message = consumer.poll(30)
                    if message is None:
                        return [*lines, "(timed out)"]
                    if message.error():
                        return lines or ["(empty)"]
                    key = message.key().decode() if message.key() is not None else None
                    headers = "".join(f" {k}={v.decode()}" for k, v in message.headers() or [])
                    lines.append(f"{message.offset()} key={key} value={message.value().decode()}{headers}")
        finally:
            consumer.close()
        raise ValueError(verb)


def steps(text):
    """(line number, face, words, expected lines)"""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r"(resp|amqp|kafka)(\d*)>\s+(.*)", line)
        if match:
            found.append((number, match[1] + match[2], shlex.split(match[3]), []))
        elif not line.strip() or line.startswith("#"):
            found.append(None)
        elif found and found[-1]:
            found[-1][3].append(line.strip())
        else:
            sys.exit(f"line {number}: an answer without a step")
    return [step for step in found if step]


def main():
    clients, failed, passed = {}, 0, 0
    kinds = {"resp": Resp, "amqp": Amqp, "kafka": Kafka}
    for path in sorted((HERE / "scripts").glob("*.txt")):
        for number, face, words, expected in steps(path.read_text()):
            kind = face.rstrip("0123456789")
            if face not in clients:
                clients[face] = kinds[kind](os.environ[f"{kind.upper()}_ADDR"])
            try:
                got = clients[face].run(words)
            except Exception as error:  # noqa: BLE001 - whatever a client raises is the step's answer
                got = [f"(exception) {type(error).__name__}: {error}"]
                clients.pop(face)
            if got == expected:
                passed += 1
                continue
            failed += 1
            print(f"{path.name}:{number}: {' '.join(words)}\n  expected {expected}\n  got      {got}", file=sys.stderr)
    print(f"> {passed} steps as written, {failed} not")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
