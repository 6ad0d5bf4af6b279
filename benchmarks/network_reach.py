"""Does every container of five nodes reach every other one, in every way? JSON; 1 if any does not.

`python -m benchmarks.network_reach [--hosts N] [--services N]`

Needs root: hosts of the lab with real engines and the FORWARD policy DROP, one container of every
service on each. From inside each container, over TCP (a mebibyte there and back) and UDP (a
datagram of 60,000 bytes there and back): every other container by its slot's name, every service by
its name and by its own address, every service's published port on every node. Names are asked of
the container's node. Then the path MTU of every pair.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from benchmarks.told import about
from dray.model import PortProtocol, PublishedPort
from tests.integration.network_rig import (
    PAYLOAD_BYTES,
    PORT,
    PROJECT,
    Box,
    Cluster,
    Outcome,
    Try,
    cluster_of,
    published,
    service,
    vip,
)
from tests.lab import Lab

DOMAIN: Final = f"{PROJECT}.dray.internal"
UDP_BYTES: Final = 60_000
FIRST_PORT: Final = 8_080
SHOWN_MAX: Final = 50  # failures in the result
MTU: Final = 1_450

# For each address: the MTU of the way there as the kernel knows it, the segment size that TCP
# agreed on, whether the largest datagram that must not be split comes back, and whether one byte
# more is refused.
MEASURE: Final = """
import json, socket, sys
port, mtu = int(sys.argv[1]), int(sys.argv[2])
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 10, 2, 14
found = []
for address in json.load(sys.stdin):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    udp.settimeout(5)
    udp.connect((address, port))
    udp.send(bytes(mtu - 28))
    try:
        largest = len(udp.recv(65536)) == mtu - 28
    except OSError:
        largest = False
    try:
        udp.send(bytes(mtu - 27))
        refused = False
    except OSError:
        refused = True
    with socket.create_connection((address, port), timeout=5) as tcp:
        segment = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    path = udp.getsockopt(socket.IPPROTO_IP, IP_MTU)
    found.append([path, segment, largest, refused])
print(json.dumps(found))
"""

Way = tuple[str, Try, frozenset[str]]
"""Kind, what is tried, and the servers that may answer."""


def ways(cluster: Cluster, source: Box) -> Iterator[Way]:
    """Yield every way to reach something from a container."""
    servers = collections.defaultdict(set)
    for box in cluster.boxes.values():
        servers[box.slot.service].add(box.name)
    for protocol, size in (("tcp", PAYLOAD_BYTES), ("udp", UDP_BYTES)):
        for box in cluster.boxes.values():
            if box is not source:
                name = f"{box.slot.slot}.{box.slot.service}.{DOMAIN}"
                yield "slot name", (protocol, name, PORT, size), frozenset({box.name})
        for number, (name, allowed) in enumerate(sorted(servers.items()), 1):
            found = frozenset(allowed)
            yield "name", (protocol, f"{name}.{DOMAIN}", PORT, size), found
            yield "VIP", (protocol, vip(number), PORT, size), found
            for node in cluster.nodes:
                where = node.config.address
                yield "published port", (protocol, where, FIRST_PORT + number, size), found


def start(cluster: Cluster, services: int) -> None:
    """Run one container of each service on every node, and let all nodes know and serve names."""
    names = [f"s{number}" for number in range(1, services + 1)]
    for number, name in enumerate(names, 1):
        port = FIRST_PORT + number
        udp = PublishedPort(PORT, port, protocol=PortProtocol.UDP)
        cluster.services[name] = service(number, (published(port), udp))
    cluster.start_all(
        (node, name, node.host.index, ("default",)) for node in cluster.nodes for name in names
    )
    cluster.tell()
    for node in cluster.nodes:
        node.ask("serve_names", node.config)


def reach(cluster: Cluster) -> dict[str, Any]:
    """Try every way from every container; return how many of each kind were tried and failed."""
    tried: collections.Counter[str] = collections.Counter()
    failed: list[tuple[str, Try, Outcome]] = []
    for source in cluster.boxes.values():
        found = list(ways(cluster, source))
        outcomes = source.reach([each for _, each, _ in found], timeout_s=60.0)
        for (kind, each, allowed), outcome in zip(found, outcomes, strict=True):
            tried[f"{each[0]} by {kind}"] += 1
            if outcome[0] not in allowed:
                failed.append((source.name, each, outcome))
    return {"tried": dict(tried), "failed": len(failed), "failures": failed[:SHOWN_MAX]}


def path_mtu(cluster: Cluster) -> dict[str, Any]:
    """Measure the way from every container to every other one."""
    wrong: list[tuple[str, str, list[Any]]] = []
    pairs = 0
    for source in cluster.boxes.values():
        others = [box for box in cluster.boxes.values() if box is not source]
        words = (sys.executable, "-c", MEASURE, str(PORT), str(MTU))
        printed = source.run(*words, stdin=json.dumps([box.address for box in others]))
        for box, found in zip(others, json.loads(printed), strict=True):
            pairs += 1
            path, segment, passes, refuses = found
            # Of a segment's 1,424 bytes twelve are for time stamps.
            if path != MTU or segment not in (MTU - 40, MTU - 52) or not passes or not refuses:
                wrong.append((source.name, box.name, found))
    return {"pairs": pairs, "mtu": MTU, "wrong": len(wrong), "shown": wrong[:SHOWN_MAX]}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network_reach", description=__doc__)
    parser.add_argument("--hosts", type=int, default=5, metavar="N")
    parser.add_argument("--services", type=int, default=3, metavar="N")
    arguments = parser.parse_args(argv)
    told = about("network_reach")
    with Lab.up(arguments.hosts, forward_drop=True) as lab, cluster_of(lab) as cluster:
        start(cluster, arguments.services)
        begin_s = time.monotonic()
        found = reach(cluster)
        found["seconds"] = round(time.monotonic() - begin_s, 1)
        mtu = path_mtu(cluster)
        problems = {node.host.name: node.ask("problems") for node in cluster.nodes}
    result = {
        **told,
        "forward policy": "DROP",
        "containers": arguments.hosts * arguments.services,
        "hosts": arguments.hosts,
        "reach": found,
        "path MTU": mtu,
        "problems": {name: said for name, said in problems.items() if said},
    }
    json.dump(result, sys.stdout, indent=2)
    print()
    return 1 if found["failed"] or mtu["wrong"] or result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
