"""What a crash-test writer did, line by line: `try` before an operation, `ok` when its acknowledgement came."""

from pathlib import Path


class Journal:
    """Append-only files beside `base`, one per round; only this process is never killed, so no fsync is needed."""

    def __init__(self, base, number, first):
        self.base, self.number, self.first = Path(base), int(number), int(first)
        self.file = None

    def open(self):
        self.file = open(self.base.with_suffix(f".{self.number}.log"), "w", buffering=1, encoding="ascii")
        return self

    def started(self):
        self.base.with_suffix(f".{self.number}.started").touch()

    def write(self, *words):
        self.file.write(" ".join(map(str, words)) + "\n")

    def rounds(self):
        """(number, [words]) of every round that is to be checked."""
        for number in range(self.first, self.number + 1):
            path = self.base.with_suffix(f".{number}.log")
            if path.exists():
                yield number, [line.split() for line in path.read_text(encoding="ascii").splitlines()]
