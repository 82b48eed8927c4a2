"""FlowMesh and a live peer that are asked the same."""

import redis

from .steps import split


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
