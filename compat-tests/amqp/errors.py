"""pika: every refusal, with RabbitMQ's code and text, and whether it closed the channel or the connection."""

import os

import pika
from pika import exceptions

HOST, PORT = os.environ["AMQP_ADDR"].rsplit(":", 1)


def connect(**more):
    return pika.BlockingConnection(pika.ConnectionParameters(HOST, int(PORT), blocked_connection_timeout=10, **more))


connection = connect()


def ignore(*_):
    """A consumer's callback; what it gets is not the point here."""


def step(text):
    print(f"> {text}", flush=True)


def refused(text, action, *args, **kwargs):
    """Run `action(channel, ...)` on a fresh channel and print how it ended."""
    global connection
    step(text)
    if connection.is_closed:
        connection = connect()
    channel = connection.channel()
    try:
        result = action(channel, *args, **kwargs)
        # asynchronous methods are refused before the answer to the next synchronous one
        channel.queue_declare("errors.barrier", durable=True)
        print("accepted", result if isinstance(result, (int, str)) else "")
    except exceptions.ChannelClosedByBroker as error:
        print(f"channel {error.reply_code} {error.reply_text}")
    except exceptions.ConnectionClosedByBroker as error:
        print(f"connection {error.reply_code} {error.reply_text}")
    except exceptions.AMQPError as error:
        print(f"{type(error).__name__} {error}")
    if channel.is_open:
        channel.close()


def declare(name="", **kwargs):
    return lambda ch: ch.queue_declare(name, **kwargs) and None


def publish(exchange, key, body=b"x", mandatory=False, **properties):
    return lambda ch: ch.basic_publish(exchange, key, body, pika.BasicProperties(**properties), mandatory)


setup = connect().channel()  # outlives the connections that errors close
setup.queue_declare("q1", durable=True)
setup.queue_declare("q2", durable=False)
setup.queue_declare("full", durable=True)
setup.basic_publish("", "full", b"one")
setup.exchange_declare("x1", "direct", durable=True)
setup.exchange_declare("internal", "fanout", internal=True)
setup.queue_declare("qex", exclusive=True)

# -- 404
refused("passive declare of a missing queue", declare("nope", passive=True))
refused("consume from a missing queue", lambda ch: ch.basic_consume("nope", ignore))
refused("get from a missing queue", lambda ch: ch.basic_get("nope"))
refused("purge a missing queue", lambda ch: ch.queue_purge("nope") and None)
refused("delete a missing queue", lambda ch: ch.queue_delete("nope").method.message_count)
refused("bind a missing queue", lambda ch: ch.queue_bind("nope", "x1", "k"))
refused("bind to a missing exchange", lambda ch: ch.queue_bind("q1", "nope", "k"))
refused("unbind what is not bound", lambda ch: ch.queue_unbind("q1", "x1", "not-bound") and None)
refused("unbind from a missing exchange", lambda ch: ch.queue_unbind("q1", "nope", "k") and None)
refused("passive declare of a missing exchange", lambda ch: ch.exchange_declare("nope", passive=True) and None)
refused("delete a missing exchange", lambda ch: ch.exchange_delete("nope") and None)
refused("publish to a missing exchange", publish("nope", "k"))
refused("exchange bind from a missing exchange", lambda ch: ch.exchange_bind("x1", "nope", "k"))
refused("exchange bind to a missing exchange", lambda ch: ch.exchange_bind("nope", "x1", "k"))
refused("bind without any queue declared before", lambda ch: ch.queue_bind("", "x1", "k"))

# -- 403, 405
refused("declare a reserved queue name", declare("amq.foo"))
refused("declare a reserved exchange name", lambda ch: ch.exchange_declare("amq.foo", "direct") and None)
refused("passive declare of a built-in exchange", lambda ch: ch.exchange_declare("amq.topic", passive=True) and None)
refused("redeclare a built-in exchange as it is", lambda ch: ch.exchange_declare("amq.topic", "topic", durable=True) and None)
refused("declare the default exchange", lambda ch: ch.exchange_declare("", "direct", durable=True) and None)
refused("delete the default exchange", lambda ch: ch.exchange_delete("") and None)
refused("delete a built-in exchange", lambda ch: ch.exchange_delete("amq.direct") and None)
refused("bind to the default exchange", lambda ch: ch.queue_bind("q1", "", "k"))
refused("unbind from the default exchange", lambda ch: ch.queue_unbind("q1", "", "k") and None)
refused("publish to an internal exchange", publish("internal", "k"))
other = connect()
others = other.channel()
others.queue_declare("locked", exclusive=True)
for name, action in [("declare", declare("locked", exclusive=True)), ("passive declare", declare("locked", passive=True)),
                     ("consume", lambda ch: ch.basic_consume("locked", ignore)), ("get", lambda ch: ch.basic_get("locked")),
                     ("purge", lambda ch: ch.queue_purge("locked") and None), ("delete", lambda ch: ch.queue_delete("locked") and None),
                     ("bind", lambda ch: ch.queue_bind("locked", "amq.direct", "k") and None)]:
    refused(f"{name} another connection's exclusive queue", action)
others.queue_declare("solo", durable=True)
others.basic_consume("solo", ignore, exclusive=True)
refused("consume beside an exclusive consumer", lambda ch: ch.basic_consume("solo", ignore))
refused("get beside an exclusive consumer", lambda ch: ch.basic_get("solo") and None)
refused("delete if-unused with a consumer", lambda ch: ch.queue_delete("solo", if_unused=True) and None)
others.queue_declare("shared", durable=True)
others.basic_consume("shared", ignore)
refused("exclusive consume beside a consumer", lambda ch: ch.basic_consume("shared", ignore, exclusive=True))

# -- 406 equivalence
refused("redeclare with another durable", declare("q2", durable=True))
refused("redeclare with another auto-delete", declare("q1", durable=True, auto_delete=True))
refused("redeclare with exclusive", declare("q1", durable=True, exclusive=True))
refused("redeclare with an argument more", declare("q1", durable=True, arguments={"x-max-length": 5}))
refused("redeclare with an unknown argument", declare("q1", durable=True, arguments={"x-unheard-of": "v"}))
refused("declare with arguments", declare("args", durable=True, arguments={"x-max-length": 5, "x-message-ttl": 60000}))
refused("redeclare with an argument less", declare("args", durable=True, arguments={"x-max-length": 5}))
refused("redeclare with another value", declare("args", durable=True, arguments={"x-max-length": 6, "x-message-ttl": 60000}))
refused("redeclare with equal arguments", declare("args", durable=True, arguments={"x-message-ttl": 60000, "x-max-length": 5}))
refused("redeclare with a string for a number", declare("args", durable=True, arguments={"x-max-length": "5", "x-message-ttl": 60000}))
refused("redeclare an exchange with another type", lambda ch: ch.exchange_declare("x1", "fanout", durable=True) and None)
refused("redeclare an exchange with another durable", lambda ch: ch.exchange_declare("x1", "direct") and None)
refused("redeclare an exchange with auto-delete", lambda ch: ch.exchange_declare("x1", "direct", durable=True, auto_delete=True) and None)
refused("redeclare an exchange with internal", lambda ch: ch.exchange_declare("x1", "direct", durable=True, internal=True) and None)
refused("redeclare an exchange with an argument", lambda ch: ch.exchange_declare("x1", "direct", durable=True, arguments={"alternate-exchange": "y"}) and None)
refused("negative x-message-ttl", declare("bad1", arguments={"x-message-ttl": -1}))
refused("textual x-message-ttl", declare("bad2", arguments={"x-message-ttl": "5"}))
refused("negative x-max-length", declare("bad3", arguments={"x-max-length": -1}))
refused("zero x-expires", declare("bad4", arguments={"x-expires": 0}))
refused("x-max-priority too high", declare("bad5", arguments={"x-max-priority": 256}))
refused("unknown x-overflow", declare("bad6", arguments={"x-overflow": "nope"}))
refused("unknown x-queue-type", declare("bad7", durable=True, arguments={"x-queue-type": "zz"}))
refused("dead-letter routing key without exchange", declare("bad8", arguments={"x-dead-letter-routing-key": "k"}))
refused("numeric x-dead-letter-exchange", declare("bad9", arguments={"x-dead-letter-exchange": 5}))

# -- 406 in use, tags, properties
refused("delete if-empty with a message", lambda ch: ch.queue_delete("full", if_empty=True) and None)
setup.queue_bind("q1", "x1", "used")
refused("delete an exchange if-unused with a binding", lambda ch: ch.exchange_delete("x1", if_unused=True) and None)
refused("ack an unknown tag", lambda ch: ch.basic_ack(99))
refused("nack an unknown tag", lambda ch: ch.basic_nack(99))
refused("reject an unknown tag", lambda ch: ch.basic_reject(99))
refused("ack multiple up to an unknown tag", lambda ch: ch.basic_ack(7, multiple=True))
refused("ack all with none outstanding", lambda ch: ch.basic_ack(0, multiple=True))


def twice(ch):
    method, _, _ = ch.basic_get("full")
    ch.basic_ack(method.delivery_tag)
    ch.basic_ack(method.delivery_tag)


refused("ack the same tag twice", twice)
refused("expiration that is negative", publish("", "q1", expiration="-1"))
refused("expiration that is no number", publish("", "q1", expiration="abc"))
refused("expiration that is no whole number", publish("", "q1", expiration="1.5"))
refused("user-id of somebody else", publish("", "q1", user_id="bob"))
refused("user-id of oneself", publish("", "q1", user_id="guest"))
refused("CC that is no array", publish("", "q1", headers={"CC": "x"}))
refused("BCC that is no array", publish("", "q1", headers={"BCC": "x"}))


def tx_then_confirm(ch):
    ch.tx_select()
    ch.confirm_delivery()


def confirm_then_tx(ch):
    ch.confirm_delivery()
    ch.tx_select()


refused("confirm.select after tx.select", tx_then_confirm)
refused("tx.select after confirm.select", confirm_then_tx)
refused("tx.commit without tx.select", lambda ch: ch.tx_commit() and None)
refused("tx.rollback without tx.select", lambda ch: ch.tx_rollback() and None)

# -- connection errors
refused("declare an unknown exchange type", lambda ch: ch.exchange_declare("xbad", "x-nope") and None)


def same_tag(ch):
    ch.basic_consume("q1", ignore, consumer_tag="t")
    ch._impl._rpc(pika.spec.Basic.Consume(queue="q1", consumer_tag="t"), None, [pika.spec.Basic.ConsumeOk])
    ch.connection.process_data_events(1)


refused("use a consumer tag twice", same_tag)
refused("prefetch size", lambda ch: ch.basic_qos(prefetch_size=10))


def immediate(ch):
    ch._impl._send_method(pika.spec.Basic.Publish(exchange="", routing_key="q1", immediate=True), (pika.BasicProperties(), b"x"))


refused("publish immediate", immediate)
refused("channel.flow off", lambda ch: ch.flow(False))
refused("channel.flow on", lambda ch: ch.flow(True))


def recover_without_requeue(ch):
    ch._impl._rpc(pika.spec.Basic.Recover(requeue=False), None, [pika.spec.Basic.RecoverOk])
    ch.connection.process_data_events(1)


refused("basic.recover without requeue", recover_without_requeue)
refused("cancel an unknown consumer tag", lambda ch: ch._impl._rpc(pika.spec.Basic.Cancel(consumer_tag="nobody"), None, [pika.spec.Basic.CancelOk]))

for text, more in [("a missing vhost", {"virtual_host": "nope"}),
                   ("a wrong password", {"credentials": pika.PlainCredentials("guest", "wrong")}),
                   ("an unknown user", {"credentials": pika.PlainCredentials("nobody", "x")})]:
    step(f"open with {text}")
    try:
        connect(**more).close()
        print("accepted")
    except exceptions.AMQPError as error:
        print(type(error).__name__, getattr(error, "reply_code", ""), getattr(error, "reply_text", "") or error)

step("what the server says of itself")
properties = connection._impl.server_properties if connection.is_open else connect()._impl.server_properties
print(properties["product"].decode() if isinstance(properties["product"], bytes) else properties["product"], properties["version"].split(".")[0])
print(sorted(properties["capabilities"].items()))
for open_connection in (connection, other):
    if open_connection.is_open:
        open_connection.close()
