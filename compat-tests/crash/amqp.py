"""Crash-test worker of the AMQP face (pika): one publisher with confirms, one consumer that acknowledges some, one transaction
after the other over two queues, and one client that does anything in any order with a quorum queue."""

import os
import random
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
    helpers = [threading.Thread(target=work, args=(journal,), daemon=True) for work in (consume, transact, mix)]
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


def mix(journal):
    """Publishes, takes, acknowledges, gives back and rejects at random; of four messages one expires in an hour, each before the last."""
    rng = random.Random(ROUND)
    try:
        connection = connect()
        channel = connection.channel()
        mixed, dead = queue(ROUND) + ".mixed", queue(ROUND) + ".dead"
        channel.queue_declare(dead, durable=True)
        channel.queue_declare(mixed, durable=True, arguments={"x-queue-type": "quorum", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
        channel.confirm_delivery()
        n = 0
        while True:
            what = rng.choice("pppptttt.")
            if what == "p":
                journal.write("mtry", n)
                expiration = str(3600000 - n) if n % 4 == 0 else None
                channel.basic_publish("", mixed, b"%d %s" % (n, b"y" * rng.choice((10, 10, 2000))), pika.BasicProperties(delivery_mode=2, expiration=expiration))
                journal.write("mok", n)
                n += 1
            elif what == "t":
                method, _, body = channel.basic_get(mixed)
                if method is None:
                    continue
                got = int(body.split()[0])
                journal.write("mseen", got)
                decision = rng.choice(("ack", "ack", "reject", "back", "keep"))
                if decision == "ack":
                    journal.write("macking", got)
                    channel.basic_ack(method.delivery_tag)
                elif decision == "reject":
                    journal.write("mrejecting", got)
                    channel.basic_reject(method.delivery_tag, requeue=False)
                elif decision == "back":
                    channel.basic_nack(method.delivery_tag, requeue=True)
            else:
                # The answer comes after what was done before it.
                channel.queue_declare(dead, passive=True)
                journal.write("mbarrier", n)
    except GONE:
        pass


def check_mixed(number, lines, channel):
    """What became of the messages of the client that does anything."""
    barrier = max((at for at, w in enumerate(lines) if w[0] == "mbarrier"), default=-1)

    def told(word, until=len(lines)):
        return {int(w[1]) for w in lines[:until] if w[0] == word}

    if not told("mtry"):
        return
    mixed, dead = (drain(channel, f"{queue(number)}.{name}") for name in ("mixed", "dead"))
    there, buried = ([n for n, _, _ in found] for found in (mixed, dead))
    if there != sorted(set(there)):
        yield f"mixed queue: order or duplicates {there[:20]}"
    if len(buried) != len(set(buried)) or set(buried) & set(there):
        yield f"dead letters doubled: {len(buried)} of {len(set(buried))}, {sorted(set(buried) & set(there))[:5]}"
    everything = set(there) | set(buried)
    lost = told("mok") - told("macking") - everything
    if lost:
        yield f"mixed queue: {len(lost)} confirmed messages lost, first {min(lost)}"
    back = told("macking", barrier) & everything
    if back:
        yield f"mixed queue: {len(back)} acknowledged messages came back, first {min(back)}"
    not_buried = told("mrejecting", barrier) - set(buried)
    if not_buried:
        yield f"mixed queue: {len(not_buried)} rejected messages are no dead letters, first {min(not_buried)}"
    unmarked = [n for n, redelivered, _ in mixed if n in told("mseen") and not redelivered]
    if unmarked:
        yield f"mixed queue: {len(unmarked)} delivered before, not marked redelivered, first {unmarked[0]}"
    if everything - told("mtry"):
        yield f"mixed queue: messages nobody published: {sorted(everything - told('mtry'))[:5]}"


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
        total += len(confirmed) + sum(w[0] == "mok" for w in lines)
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
        problems.extend(f"round {number}: {problem}" for problem in check_mixed(number, lines, channel))
        channel.close()  # gives everything back: the next round checks it again
    print("\n".join(problems))
    print(f"amqp {total} confirms")
    connection.close()
    sys.exit(bool(problems))


write() if ACTION == "write" else check()
