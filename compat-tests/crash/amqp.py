"""Crash-test worker of the AMQP face (pika): one publisher with confirms, one consumer that acknowledges some, one transaction
after the other over two queues."""

import os
import sys
import threading

import pika
from pika import exceptions

from lib.journal import Journal

HOST, PORT = os.environ["AMQP_ADDR"].rsplit(":", 1)
ACTION, JOURNAL, ROUND = sys.argv[1], Journal(*sys.argv[2:5]), int(sys.argv[3])
PERSISTENT = pika.BasicProperties(delivery_mode=2)
GONE = (exceptions.AMQPError, OSError)


def connect():
    return pika.BlockingConnection(pika.ConnectionParameters(HOST, int(PORT), heartbeat=20, socket_timeout=10, blocked_connection_timeout=10))


def queue(number):
    return f"crash.{number}"


def write():
    journal = JOURNAL.open()
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue(ROUND), durable=True)
    channel.queue_declare(queue(ROUND) + ".kept", durable=True)
    channel.queue_declare(queue(ROUND) + ".stream", durable=True, arguments={"x-queue-type": "stream"})
    channel.exchange_declare(f"crash.fan.{ROUND}", "fanout", durable=True)
    for name in (queue(ROUND), queue(ROUND) + ".kept", queue(ROUND) + ".stream"):
        channel.queue_bind(name, f"crash.fan.{ROUND}")
    channel.confirm_delivery()
    helpers = [threading.Thread(target=work, args=(journal,), daemon=True) for work in (consume, transact)]
    for helper in helpers:
        helper.start()
    JOURNAL.started()
    i = 0
    try:
        while True:
            journal.write("try", i)
            channel.basic_publish(f"crash.fan.{ROUND}", "", b"%d %s" % (i, b"x" * (i % 7 * 300)), PERSISTENT)
            journal.write("ok", i)
            i += 1
    except GONE:
        pass
    for helper in helpers:
        helper.join(20)


def consume(journal):
    """Takes from the first queue; acknowledges two of three, each in the round trip of a synchronous method."""
    try:
        connection = connect()
        channel = connection.channel()
        channel.basic_qos(prefetch_count=50)
        for method, _, body in channel.consume(queue(ROUND)):
            n = int(body.split()[0])
            journal.write("seen", n)
            if n % 3:
                journal.write("acking", n)
                channel.basic_ack(method.delivery_tag)
                if n % 50 == 1:
                    # the answer comes after the acknowledgements before it were carried out
                    channel.queue_declare(queue(ROUND), passive=True)
                    journal.write("acked", n)
    except GONE:
        pass


def transact(journal):
    """Each transaction puts its number into both queues, in two messages each."""
    try:
        connection = connect()
        channel = connection.channel()
        for name in pair(ROUND):
            channel.queue_declare(name, durable=True)
        channel.tx_select()
        n = 0
        while True:
            for name in pair(ROUND) * 2:
                channel.basic_publish("", name, b"%d" % n, PERSISTENT)
            channel.tx_commit()
            journal.write("committed", n)
            n += 1
    except GONE:
        pass


def pair(number):
    return [f"{queue(number)}.tx.{side}" for side in "ab"]


def drain(channel, name):
    """What is in the queue, which stays unacknowledged: it comes back when the channel is closed."""
    out = []

    def took(method, body):
        out.append((int(body.split()[0]), method.redelivered, len(body)))

    waiting = channel.queue_declare(name, passive=True).method.message_count
    for method, _, body in channel.consume(name, inactivity_timeout=30) if waiting else ():
        if method is None:
            break
        took(method, body)
        if len(out) == waiting:
            break
    channel.cancel()
    method, _, body = channel.basic_get(name)  # there is none
    if method is not None:
        took(method, body)
    return out


def stream(connection, name):
    """Offsets and numbers of the messages in a stream."""
    out = []
    channel = connection.channel()
    channel.basic_qos(prefetch_count=500)
    waiting = channel.queue_declare(name, passive=True).method.message_count
    for method, properties, body in channel.consume(name, arguments={"x-stream-offset": "first"}, inactivity_timeout=30) if waiting else ():
        if method is None:
            break
        channel.basic_ack(method.delivery_tag)
        out.append((properties.headers["x-stream-offset"], int(body.split()[0])))
        if len(out) == waiting:
            break
    channel.close()
    return out


def check():
    connection = connect()
    problems = []
    total = 0
    for number, lines in JOURNAL.rounds():
        confirmed = [int(w[1]) for w in lines if w[0] == "ok"]
        tried = {int(w[1]) for w in lines if w[0] == "try"}
        seen = {int(w[1]) for w in lines if w[0] == "seen"}
        acking = {int(w[1]) for w in lines if w[0] == "acking"}
        barrier = max((int(w[1]) for w in lines if w[0] == "acked"), default=-1)
        surely_acked = {n for n in acking if n <= barrier}
        total += len(confirmed)
        channel = connection.channel()
        try:
            kept = drain(channel, queue(number) + ".kept")
            rest = drain(channel, queue(number))
        except exceptions.ChannelClosedByBroker as error:
            problems.append(f"round {number}: {error}")
            continue
        order = [n for n, _, _ in kept]
        if order != sorted(set(order)):
            problems.append(f"round {number}: order or duplicates in the kept queue: {len(order)} messages, {len(set(order))} different")
        lost = set(confirmed) - set(order)
        if lost:
            problems.append(f"round {number}: {len(lost)} confirmed messages lost, first {min(lost)} of {len(confirmed)}")
        if set(order) - tried:
            problems.append(f"round {number}: messages nobody published: {sorted(set(order) - tried)[:5]}")
        if any(size != len(b"%d %s" % (n, b"x" * (n % 7 * 300))) for n, _, size in kept):
            problems.append(f"round {number}: a body changed its length")
        # One record for all queues of the exchange.
        streamed = stream(connection, queue(number) + ".stream")
        if streamed != list(enumerate(order)):
            problems.append(f"round {number}: {len(order)} messages in the queue, {len(streamed)} in the stream: {streamed[-2:]}")
        numbers = [n for n, _, _ in rest]
        if numbers != sorted(set(numbers)):
            problems.append(f"round {number}: order or duplicates in the consumed queue {numbers[:10]}")
        lost = set(confirmed) - acking - set(numbers)
        if lost:
            problems.append(f"round {number}: {len(lost)} confirmed and unacknowledged messages lost, first {min(lost)}")
        back = surely_acked & set(numbers)
        if back:
            problems.append(f"round {number}: {len(back)} acknowledged messages came back, first {min(back)}")
        unmarked = [n for n, redelivered, _ in rest if n in seen and not redelivered]
        if unmarked:
            problems.append(f"round {number}: {len(unmarked)} delivered before, not marked redelivered, first {unmarked[0]}")
        committed = max((int(w[1]) for w in lines if w[0] == "committed"), default=-1)
        if committed >= 0:
            a, b = ([n for n, _, _ in drain(channel, name)] for name in pair(number))
            if a != b or a != sorted(list(range(len(a) // 2)) * 2) or len(a) // 2 <= committed:
                problems.append(f"round {number}: torn transaction: {len(a)} and {len(b)} messages, {committed} acknowledged, {a[-3:]} {b[-3:]}")
        channel.close()  # gives everything back: the next round checks it again
    print("\n".join(problems))
    print(f"amqp {total} confirms")
    connection.close()
    sys.exit(bool(problems))


write() if ACTION == "write" else check()
