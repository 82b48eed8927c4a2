"""The process itself: idle cost, size, readiness after a clean stop and after SIGKILL; peers idle beside it."""

import time
from pathlib import Path

from measure import cpu_seconds, rss_mb, servers
from redis_face import pipe_keys


def idle(server, pid, seconds):
    time.sleep(2)
    before = cpu_seconds(pid)
    time.sleep(seconds)
    return rss_mb(pid), (cpu_seconds(pid) - before) / seconds * 100


def again(server):
    fresh = servers.FlowMesh(data=server.data, addresses=server.addresses)
    start = time.monotonic()
    fresh.start()
    return fresh, (time.monotonic() - start) * 1000


def run(rounds, scale, only=None):
    seconds = max(3, int(10 * scale))
    lines = ["| what | server | figure |", "| --- | --- | --- |"]
    size = Path(servers.FlowMesh.binary()).stat().st_size / 1e6
    lines.append(f"| binary | flowmesh | {size:.1f} MB |")
    with servers.FlowMesh() as ours:
        rss, cpu = idle(ours, ours.pid, seconds)
        lines.append(f"| idle | flowmesh | {rss:.0f} MB RSS, {cpu:.2f} % of a core |")
        ready = []
        server = ours
        for _ in range(rounds):
            pipe_keys(server, int(100_000 * scale))
            server.stop()
            server, ms = again(server)
            ready.append(ms)
        lines.append(f"| ready after SIGTERM | flowmesh | {min(ready):.0f} to {max(ready):.0f} ms |")
        ready = []
        for _ in range(rounds):
            pipe_keys(server, int(1_000_000 * scale))
            server.kill()
            server, ms = again(server)
            ready.append(ms)
        lines.append(f"| ready after SIGKILL, {1_000_000 * scale:,.0f} SETs of 128 bytes since the last stop | flowmesh | {min(ready):.0f} to {max(ready):.0f} ms |")
        server.stop()
    for peer in (servers.Valkey(), servers.RabbitMQ(), servers.Kafka()):
        with peer:
            rss, cpu = idle(peer, getattr(peer, "beam_pid", None) or peer.pid, seconds)
            lines.append(f"| idle | {peer.name} | {rss:.0f} MB RSS, {cpu:.2f} % of a core |")
    return [("Process", "\n".join(lines))]
