"""Does every container reach every other one, in every way, and does the network repair itself?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dray.model import PortProtocol, PublishedPort
from tests.integration.network_rig import (
    PAYLOAD_BYTES,
    PORT,
    Box,
    Cluster,
    Outcome,
    Try,
    cluster_of,
    published,
    service,
    vip,
)
from tests.lab.fixtures import kept_lab

UDP_BYTES = 60_000  # of one datagram: forty fragments


@pytest.fixture(scope="module")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """Keep three nodes with three containers of two services each."""
    with kept_lab(pytestconfig, 3) as lab, cluster_of(lab) as made:
        udp = PublishedPort(PORT, 8080, protocol=PortProtocol.UDP)
        made.services = {"web": service(1, (published(8080), udp)), "db": service(2)}
        for node in made.nodes:
            for slot in (1, 2):
                made.start(node, "web", 2 * node.host.index + slot)
            made.start(node, "db", node.host.index)
        made.tell()
        yield made


def ways(cluster: Cluster, source: Box) -> Iterator[tuple[Try, set[str]]]:
    """Yield every way to reach something from a container, with the servers that may answer."""
    boxes = cluster.boxes.values()
    web = {box.name for box in boxes if box.slot.service == "web"}
    db = {box.name for box in boxes if box.slot.service == "db"}
    for protocol, size in (("tcp", PAYLOAD_BYTES // 8), ("udp", UDP_BYTES)):
        for box in boxes:
            if box is not source:
                yield (protocol, box.address, PORT, size), {box.name}
        yield (protocol, vip(1), PORT, size), web
        yield (protocol, vip(2), PORT, 0), db
        for node in cluster.nodes:
            yield (protocol, node.config.address, 8080, 0), web


def wrong(tries: list[tuple[Try, set[str]]], outcomes: list[Outcome]) -> list[tuple[Try, Outcome]]:
    """Return every try that was not answered by one of those that may."""
    pairs = zip(tries, outcomes, strict=True)
    return [(each, outcome) for (each, allowed), outcome in pairs if outcome[0] not in allowed]


def test_every_container_reaches_every_other_one(cluster: Cluster) -> None:
    """By address, by VIP and by published port, over TCP and UDP, unharmed."""
    for source in cluster.boxes.values():
        tries = list(ways(cluster, source))
        assert wrong(tries, source.reach([each for each, _ in tries])) == []
