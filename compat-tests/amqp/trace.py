"""pika: copies of messages on the trace exchange, switched by the administrator. Its oracle is RabbitMQ's rabbit_trace.erl of 3.13: keys, headers and their types."""

import json
import os
import time
import urllib.request

import pika
from lib.steps import equal, until

HOST, PORT = os.environ["AMQP_ADDR"].rsplit(":", 1)
connection = pika.BlockingConnection(pika.ConnectionParameters(HOST, int(PORT), heartbeat=0))
channel = connection.channel()
channel.confirm_delivery()
TRACE = f"http://{os.environ['HTTP_ADDR']}/api/v1/amqp/trace"


def switch(on):
    request = urllib.request.Request(TRACE, json.dumps({"on": on}).encode(), {"content-type": "application/json"})
    equal(json.load(urllib.request.urlopen(request)), {"on": on})
    equal(json.load(urllib.request.urlopen(TRACE)), {"on": on})


def heard():
    return until(lambda: (found := channel.basic_get("tr.heard", auto_ack=True))[0] and found)


def shown(found):
    method, properties, body = found
    headers = dict(properties.headers)
    for name in ("connection", "node"):
        equal(type(headers.pop(name)), str)
    return method.exchange, method.routing_key, body, headers


channel.queue_declare("tr.heard", exclusive=True)
channel.queue_bind("tr.heard", "amq.rabbitmq.trace", "#")
channel.exchange_declare("tr.x", "topic")
for name in ("tr.a", "tr.b"):
    channel.queue_delete(name)
    channel.queue_declare(name)
    channel.queue_bind(name, "tr.x", "k.#")
print("> off, nothing is copied")
channel.basic_publish("tr.x", "k", b"unseen")
equal([channel.basic_get(name, auto_ack=True)[2] for name in ("tr.a", "tr.b")], [b"unseen"] * 2)
equal(channel.basic_get("tr.heard")[0], None)
print("> published")
switch(True)
properties = pika.BasicProperties(content_type="text/plain", message_id="m1", priority=3, delivery_mode=2, timestamp=1700000000, headers={"CC": ["k.copy"], "mine": 1})
channel.basic_publish("tr.x", "k.1", b"body", properties)
found = shown(heard())
found[3]["routed_queues"].sort()
sent = {"content_type": "text/plain", "message_id": "m1", "priority": 3, "delivery_mode": 2, "timestamp": 1700000000, "headers": {"CC": ["k.copy"], "mine": 1}}
shared = {"exchange_name": "tr.x", "routing_keys": ["k.1", "k.copy"], "properties": sent, "vhost": "/", "channel": 1, "user": "guest"}
equal(found, ("amq.rabbitmq.trace", "publish.tr.x", b"body", {**shared, "routed_queues": ["tr.a", "tr.b"]}))
print("> delivered, and taken")
got = []
tag = channel.basic_consume("tr.a", lambda ch, method, properties, body: got.append(method.delivery_tag))
while not got:
    connection.process_data_events(0.01)
# What was traced itself is not.
equal(shown(heard()), ("amq.rabbitmq.trace", "deliver.tr.a", b"body", {**shared, "redelivered": 0}))
channel.basic_cancel(tag)
channel.basic_nack(got[0], requeue=True)
equal(until(lambda: channel.basic_get("tr.a", auto_ack=True)[2]), b"body")
equal(shown(heard())[3]["redelivered"], 1)
print("> what no queue takes")
channel.basic_publish("tr.x", "nobody", b"lost")
equal(shown(heard())[3]["routed_queues"], [])
print("> off again")
switch(False)
channel.basic_publish("tr.x", "k", b"unseen")
time.sleep(0.1)
equal(channel.basic_get("tr.heard")[0], None)
for name in ("tr.a", "tr.b"):
    channel.queue_delete(name)
channel.exchange_delete("tr.x")
connection.close()
