"""FlowMesh and a live peer that are asked the same."""

import argparse
import contextlib
import random

import redis

from . import servers
from .steps import equal, split

#: So little memory that collections of some thousand elements are mostly in the tables, which are checked at the end.
LITTLE = ["--memory-limit=2MiB", "--fold-size=1MiB", "--resp-durability=os", servers.CHECK_LAW]


def connect(server, **more):
    return redis.Redis(*split(server.addresses["resp"]), decode_responses=False, socket_timeout=60, **more)


class Pair:
    def __init__(self, ours, peer, seed):
        self.ours, self.peer, self.seed = ours, peer, seed

    def ask(self, *command, of=lambda answer: answer):
        """Both answers, or what `of` takes of them, which are equal."""
        answers = []
        for server in (self.ours, self.peer):
            try:
                answers.append(of(server.execute_command(*command)))
            except redis.ResponseError as error:
                answers.append(str(error))
        if answers[0] != answers[1]:
            got, wanted = (repr(answer)[:600] for answer in answers)
            raise SystemExit(f"seed {self.seed}: {command!r:.300} answered {got}, the peer {wanted}")
        return answers[0]


@contextlib.contextmanager
def beside(connect=connect):
    """FlowMesh with LITTLE beside a live Valkey: the pair, chance, the rounds that the command line asks for, and what kills FlowMesh and
    starts it again. At the end its memory and tables are compared."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=20261201)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(servers.Valkey())
        ours = stack.enter_context(servers.FlowMesh(extra=LITTLE))
        both = Pair(connect(ours), connect(peer), options.seed)

        def restart():
            nonlocal ours
            ours.kill()
            ours = stack.enter_context(ours.again())
            both.ours = connect(ours)

        yield both, random.Random(options.seed), options.rounds, restart
        equal(ours.stop(), 0)
