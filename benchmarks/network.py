"""What does the containers' network cost, beside direct addresses and Swarm's overlay? JSON.

`python -m benchmarks.network [--repeats N] [--seconds N] [--without-swarm] [--upkeep]`

Needs root; three hosts of the lab with real engines. Milliseconds of the table's and the routes'
upkeep on one host; between containers of two hosts, connections a second, throughput and round-trip
time, each by the container's own address (direct) and by its service's (VIP), and without any
tunnel between the hosts themselves; in turn with them, between two containers of a Swarm overlay
on the same hosts. Client and server each keep to a processor of their own: free to move, a run has
12 or 29 Gbit/s on one host by where they happen to be, whatever the way between them.
Load and product share the machine's processors: compare, do not extrapolate.
Upkeep is also told in processor time, which what else runs on the machine changes little.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.told import about
from tests.integration.network_rig import Box, Cluster, cluster_of, service, vip
from tests.lab import BUSYBOX, Host, Lab, Process

SPEED_PORT: Final = 7100
SWARM_START_S: Final = 60.0

# Serves until it is killed. The first byte says what the client wants: "c" to be answered and
# closed at once (with a reset, so that no side keeps the port), "t" to send, "r" to be echoed.
SERVER: Final = """
import os, socket, struct, sys, threading
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
listening = socket.create_server(("0.0.0.0", int(sys.argv[1])), backlog=512)
print("ready", flush=True)
def serve(client):
    with client:
        kind = client.recv(1)
        if kind == b"c":
            client.sendall(b"x")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = bytearray(1 << 20)
        while size := client.recv_into(buffer):
            if kind == b"r":
                client.sendall(buffer[:size])
while True:
    client, _ = listening.accept()
    if len(sys.argv) > 2:
        serve(client)
    else:
        threading.Thread(target=serve, args=(client,), daemon=True).start()
"""
# Prints connections a second, Gbit/s, and round trips in microseconds (median and 99th percentile).
CLIENT: Final = """
import json, os, socket, statistics, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
def connect(kind):
    client = socket.create_connection((address, port), timeout=10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(kind)
    return client
def rate():
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        with connect(b"c") as client:
            client.recv(1)
        count += 1
    return count / (time.perf_counter() - begin)
def throughput():
    block, sent = bytes(1 << 20), 0
    with connect(b"t") as client:
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            client.sendall(block)
            sent += len(block)
    return sent * 8 / (time.perf_counter() - begin) / 1e9
def trips():
    took = []
    with connect(b"r") as client:
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            at = time.perf_counter()
            client.sendall(b"ping")
            client.recv(4)
            took.append((time.perf_counter() - at) * 1e6)
    took.sort()
    return statistics.median(took), took[int(len(took) * 0.99)]
median, high = trips()
print(json.dumps({"connections_per_s": rate(), "gbit_per_s": throughput(),
                  "round_trip_us": median, "round_trip_p99_us": high}))
"""

Figures = dict[str, float]

SWARM: Final = "other host, Swarm's overlay"
RATIOS: Final = (
    ("other host, VIP", "other host, direct"),
    ("same host, VIP", "same host, direct"),
    ("other host, direct", SWARM),
    ("other host, VIP", SWARM),
)


@dataclass(frozen=True, slots=True)
class Place:
    """A network to run programs in: a host's own (pid 0), or that of a process of the host."""

    host: Host
    pid: int = 0

    def argv(self, *argv: str) -> list[str]:
        """Return the command that runs a program there."""
        inside = ["nsenter", f"--net=/proc/{self.pid}/ns/net"] if self.pid else []
        return [*inside, *argv]

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Run the server there."""
        process: Process = self.host.popen(
            self.argv(sys.executable, "-c", SERVER, str(SPEED_PORT)), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            process.kill()
            process.communicate()

    def measure(self, address: str, seconds: float) -> Figures:
        """Return what a client there finds."""
        words = (sys.executable, "-c", CLIENT, address, str(SPEED_PORT), str(seconds))
        done = self.host.exec(self.argv(*words), timeout_s=60 + 5 * seconds)
        found: Figures = json.loads(done.stdout)
        return found


def place_of(box: Box) -> Place:
    """Return a container's network."""
    return Place(box.node.host, box.pid)


def compare(ways: dict[str, tuple[Place, str]], seconds: float, repeats: int) -> dict[str, Any]:
    """Measure all ways in turn, several times; return the medians, and what pairs of runs say."""
    found: dict[str, list[Figures]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, (client, address) in ways.items():
            found[name].append(client.measure(address, seconds))
    medians = {
        name: {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}
        for name, runs in found.items()
    }
    ratios = {
        f"{one} / {other}": ratio(found[one], found[other])
        for one, other in RATIOS
        if one in found and other in found
    }
    return {"medians": medians, "medians of the ratios of neighbouring runs": ratios}


def ratio(one: list[Figures], other: list[Figures]) -> Figures:
    """Return, for each figure, the median of its ratios in runs that followed each other."""
    return {
        key: round(statistics.median(a[key] / b[key] for a, b in zip(one, other, strict=True)), 3)
        for key in one[0]
    }


def traffic(cluster: Cluster, seconds: float, repeats: int, *, with_swarm: bool) -> dict[str, Any]:
    """Measure between hosts and between containers, by address and by VIP, far and near."""
    first, second = cluster.nodes[:2]
    cluster.services = {"client": service(1), "far": service(2), "near": service(3)}
    client = place_of(cluster.start(first, "client", 1))
    far, near = cluster.start(second, "far", 1), cluster.start(first, "near", 1)
    cluster.tell()
    ways = {
        "host to host, no tunnel": (Place(first.host), second.config.address),
        "other host, direct": (client, far.address),
        "other host, VIP": (client, vip(2)),
        "same host, direct": (client, near.address),
        "same host, VIP": (client, vip(3)),
    }
    with contextlib.ExitStack() as servers:
        for place in (place_of(far), place_of(near), Place(second.host)):
            servers.enter_context(place.serving())
        if with_swarm:
            overlay, peer, address = swarm(first.host, second.host)
            servers.enter_context(peer.serving())
            ways[SWARM] = (overlay, address)
        return compare(ways, seconds, repeats)


def upkeep(cluster: Cluster) -> dict[str, Any]:
    """Return the milliseconds of keeping table and routes, on a host without a node."""
    node = cluster.nodes[-1]
    node.stop()
    words = [sys.executable, "-m", "benchmarks.network_inside"]
    found = {}
    for what in ("peers", "table"):
        done = node.host.exec([*words, what, node.config.address], timeout_s=120)
        found[f"{what}, ms"] = json.loads(done.stdout)
    return found


def swarm(first: Host, second: Host) -> tuple[Place, Place, str]:
    """Run two containers on a Swarm overlay; return both networks, and the second one's address."""
    first.docker.swarm.init(advertise_addr=first.address, listen_addr=first.address)
    token = first.docker.swarm.attrs["JoinTokens"]["Worker"]
    second.docker.swarm.join(
        [first.address], token, advertise_addr=second.address, listen_addr=second.address
    )
    first.docker.networks.create("peer", driver="overlay", attachable=True)
    boxes = [
        host.docker.containers.run(
            BUSYBOX.reference, ["sleep", "100000"], network="peer", detach=True, name="peer"
        )
        for host in (first, second)
    ]
    for box in boxes:
        box.reload()
    address = boxes[1].attrs["NetworkSettings"]["Networks"]["peer"]["IPAddress"]
    pids = [box.attrs["State"]["Pid"] for box in boxes]
    return Place(first, pids[0]), Place(second, pids[1]), str(address)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, metavar="N")
    parser.add_argument("--repeats", type=int, default=5, metavar="N")
    parser.add_argument("--without-swarm", action="store_true")
    parser.add_argument("--upkeep", action="store_true", help="measure the upkeep alone")
    arguments = parser.parse_args(argv)
    told = about("network")
    found: dict[str, Any] = {}
    # Swarm does not bear live-restore.
    hosts = 1 if arguments.upkeep else 3
    with Lab.up(hosts, engine={"live-restore": False}) as lab, cluster_of(lab) as cluster:
        if not arguments.upkeep:
            found["traffic"] = traffic(
                cluster,
                arguments.seconds,
                arguments.repeats,
                with_swarm=not arguments.without_swarm,
            )
        found["upkeep"] = upkeep(cluster)
    result = {**told, "figures": found}
    json.dump(result, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
