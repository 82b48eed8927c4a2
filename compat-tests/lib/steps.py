"""What programs share that judge themselves: they print steps and what came back, and exit non-zero at the first answer that is
not as it should be."""


def step(text):
    print(f"> {text}", flush=True)


def equal(got, wanted):
    if got != wanted:
        raise SystemExit(f"got {got!r}, wanted {wanted!r}")


def same(got, wanted):
    equal(got, wanted)
    print(got)


def split(address):
    """Host and port."""
    host, port = address.rsplit(":", 1)
    return host, int(port)
