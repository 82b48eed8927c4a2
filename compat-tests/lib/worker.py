"""A face's part of the crash test as a process that stays: its client library is loaded once, each order runs in a fork of it.

Orders come on standard input, one line of JSON each: [arguments of the script, file for its output]; the answer is the exit code.
"""

import json
import os
import runpy
import sys
import traceback

# Loading these is what takes the time.
LIBRARIES = {"resp": ["redis"], "amqp": ["pika"], "kafka": ["confluent_kafka.admin"], "transactions": ["confluent_kafka.admin"], "cross": ["pika", "redis", "confluent_kafka"]}


def run(script, arguments, output):
    """In the fork: as if the script had been started alone."""
    to = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(to, 1)
    os.dup2(to, 2)
    sys.argv = [script, *arguments]
    code = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  reported as the script's own end
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve(script, face):
    for library in LIBRARIES[face]:
        __import__(library)
    for line in sys.stdin:
        arguments, output = json.loads(line)
        child = os.fork()
        if child == 0:
            run(script, arguments, output)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
