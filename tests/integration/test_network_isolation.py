"""Do exactly the containers reach each other that share a Compose network, whatever happens?"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from dray.model import (
    ContainerSpec,
    ImageOptions,
    NetworkAttachment,
    NetworkSpec,
    TaskTemplate,
)
from node.network.ipam import gateway
from node.ports import AttachRefused
from tests.integration.network_rig import (
    CLIENT,
    PORT,
    PROJECT,
    SERVER,
    VIPS,
    Box,
    Cluster,
    Node,
    Outcome,
    Try,
    kept_cluster,
    published,
    service,
    vip,
)
from tests.lab import Process, wait_for

pytestmark = pytest.mark.timeout(300)  # a lab with containers, on a machine that does much else

# Six services in three networks; the last network has no way out of the cluster.
SERVICES: dict[str, tuple[str, ...]] = {
    "edge": ("front",),
    "web": ("front", "back"),
    "api": ("back",),
    "job": ("back", "vault"),
    "keys": ("vault",),
    "log": ("vault", "front"),
}
NETWORKS = [NetworkSpec(name, f"{PROJECT}_{name}", internal=name == "vault") for name in (
    "front", "back", "vault",
)]  # fmt: skip
STATIC = "10.5.0.9"  # of a subnet that no machine here has a way to
DOMAIN = f"{PROJECT}.dray.internal"
LISTENER = """
import socket
opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
opened.bind(("0.0.0.0", 7001))
print("ready", flush=True)
while True:
    data, sender = opened.recvfrom(1000)
    print(sender[0], data.decode(), flush=True)
"""
# Sends one datagram with any source, through the device that leads to the target.
SPOOFER = """
import socket, struct, sys
source, target, text = sys.argv[1], sys.argv[2], sys.argv[3].encode()
datagram = struct.pack("!HHHH", 7002, 7001, 8 + len(text), 0) + text
header = struct.pack(
    "!BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0,
    socket.inet_aton(source), socket.inet_aton(target),
)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.sendto(header + datagram, (target, 0))
"""
# The same wrapped as a packet of the tunnel (VXLAN) for a node's own end, and sent to the node.
FORGER = """
import socket, struct, sys
node, router, source, target, text = *sys.argv[1:5], sys.argv[5].encode()
datagram = struct.pack("!HHHH", 7002, 7001, 8 + len(text), 0) + text
def header(checksum):
    return struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, checksum,
        socket.inet_aton(source), socket.inet_aton(target),
    )
total = sum(struct.unpack("!10H", header(0)))
total = (total & 0xFFFF) + (total >> 16)
inner = header(0xFFFF & ~((total & 0xFFFF) + (total >> 16))) + datagram
outer = struct.pack("!BBH", 0x08, 0, 0) + struct.pack("!I", 7777 << 8)
outer += b"\\x02\\x42" + socket.inet_aton(router) + b"\\x02\\x42" + bytes(4) + b"\\x08\\x00"
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(outer + inner, (node, 4790))
"""


@pytest.fixture(scope="module")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """Keep one container of every service on each of two nodes; the third node is idle."""
    with kept_cluster(pytestconfig, NETWORKS) as made:
        for number, name in enumerate(SERVICES, start=1):
            made.services[name] = service(number)
        made.start_all(
            (node, name, node.host.index, networks)
            for node in made.nodes[:2]
            for name, networks in SERVICES.items()
        )
        made.services["edge"] = service(1, (published(8080),))
        made.tell()
        for node in made.nodes[:2]:
            node.ask("serve_names", node.config)
        yield made


def may_reach(source: str, target: str) -> bool:
    """Return whether two services share a network."""
    return not set(SERVICES[source]).isdisjoint(SERVICES[target])


def matrix_faults(cluster: Cluster) -> list[tuple[str, str, Outcome]]:
    """Return every pair that is not as it should be.

    Containers by address, on both nodes, and by their slots' names; services by VIP and by name.
    """
    boxes = list(cluster.boxes.values())
    numbers = {name: number for number, name in enumerate(SERVICES, start=1)}
    found: list[tuple[str, str, Outcome]] = []
    for source in boxes:
        targets = [
            (box.slot.service, where)
            for box in boxes
            if box is not source
            for where in (box.address, f"{box.slot.slot}.{box.slot.service}.{DOMAIN}")
        ]
        targets += [(name, vip(number)) for name, number in numbers.items()]
        targets += [(name, f"{name}.{DOMAIN}") for name in numbers]
        tries: list[Try] = [("tcp", where, PORT, 0) for _, where in targets]
        for (name, where), outcome in zip(targets, source.reach(tries, 10.0), strict=True):
            refusal = "NoSuchName" if where.endswith(DOMAIN) else "ConnectionRefusedError"
            if may_reach(source.slot.service, name):
                is_right = isinstance(outcome, list) and outcome[0].startswith(f"{name}.")
            else:
                is_right = outcome == refusal
            if not is_right:
                found.append((source.name, where, outcome))
    return found


def test_exactly_the_allowed_pairs_work(cluster: Cluster) -> None:
    """Every pair of 12 containers, by address and by name: those that share a network alone.

    All others are refused, and their names do not exist for who may not reach them.
    """
    assert matrix_faults(cluster) == []


def listener(box: Box) -> Process:
    """Print every datagram that arrives in a container."""
    process = box.node.host.popen(
        ["nsenter", f"--net=/proc/{box.pid}/ns/net", sys.executable, "-c", LISTENER],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def heard(process: Process) -> str:
    """Return the next datagram: source and text."""
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def spoof(box: Box, source: str, target: str, text: str) -> None:
    """Send a datagram with a made-up source out of a container."""
    box.run(sys.executable, "-c", SPOOFER, source, target, text)


def test_spoofed_sources_are_dropped(cluster: Cluster) -> None:
    """A container that takes a friend's address reaches nothing, on its own node and another."""
    boxes = cluster.boxes
    for target in (boxes["web.1"], boxes["web.2"]):
        process = listener(target)
        try:
            liar, friend = boxes["keys.1"], boxes["edge.1"]
            spoof(liar, friend.address, target.address, "lie")
            spoof(liar, liar.address, target.address, "stranger")
            spoof(friend, boxes["edge.2"].address, target.address, "lie of a friend")
            spoof(friend, friend.address, target.address, "truth")
            assert heard(process) == f"{friend.address} truth"
        finally:
            process.kill()
            process.communicate()


def test_forged_tunnel_packets_are_dropped(cluster: Cluster) -> None:
    """Strangers and containers cannot put packets into the tunnel; only nodes can."""
    boxes, lab = cluster.boxes, cluster.lab
    target, friend = boxes["web.1"], boxes["edge.2"]
    node, peer = target.node.config.address, cluster.nodes[1].host
    router = target.node.config.subnet.partition("/")[0]
    forge = [sys.executable, "-c", FORGER, node, router, friend.address, target.address]
    process = listener(target)
    lab.switch_exec(["ip", "route", "replace", "10.192.0.0/11", "via", node])
    try:
        lab.switch_exec([*forge, "stranger"])
        friend.run(*forge, "container")
        lab.switch_exec([sys.executable, "-c", SPOOFER, friend.address, target.address, "routed"])
        peer.exec([*forge, "node"])
        assert heard(process) == f"{friend.address} node"
    finally:
        process.kill()
        process.communicate()


def test_internal_networks_have_no_way_out(cluster: Cluster) -> None:
    """A container on internal networks alone cannot leave the cluster; all others can."""
    lab = cluster.lab
    server = lab.switch_popen(
        [sys.executable, "-c", SERVER, "outside", "7070"], stdout=subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        for name, box in cluster.boxes.items():
            (outcome,) = box.reach([("tcp", lab.switch_address, 7070, 100)])
            if SERVICES[box.slot.service] == ("vault",):
                assert outcome == "ConnectionRefusedError", name
            else:
                assert outcome == ["outside", box.node.config.address], name
    finally:
        server.kill()
        server.communicate()


def test_an_address_that_a_file_names_leads_to_its_service(cluster: Cluster) -> None:
    """From its network, on the same host and across, also after a restart at another address.

    Containers of other networks are refused, as all are while nobody serves it.
    """
    asked: list[Try] = [("tcp", STATIC, PORT, 2**16), ("udp", STATIC, PORT, 1_000)]
    friends = [cluster.boxes[name] for name in ("web.1", "api.2", "job.1", "job.2")]
    strangers = [cluster.boxes[name] for name in ("edge.1", "edge.2", "keys.1", "log.2")]
    back = cluster.networks["back"].name
    cluster.services["sql"] = replace(service(7), static=((back, STATIC),))
    for slot, node in enumerate(cluster.nodes[:2], start=1):
        box = cluster.start(node, "sql", slot, ("back",))
        cluster.tell()
        for friend in friends:
            assert friend.reach(asked) == [[box.name, friend.address]] * 2
        assert box.reach(asked) == [[box.name, gateway(node.config.subnet)]] * 2
        for stranger in strangers:
            assert stranger.reach(asked[:1]) == ["ConnectionRefusedError"]
        cluster.remove(box)
    for each in (*friends, *strangers):
        assert each.reach(asked[:1]) == ["ConnectionRefusedError"]


def test_an_address_of_the_machines_neighbours_is_none_for_a_service(cluster: Cluster) -> None:
    """The node says whose it may be, and starts nothing."""
    node = cluster.nodes[0]
    template = TaskTemplate(
        ContainerSpec(ImageOptions("web:1")),
        networks=(NetworkAttachment("back", ipv4_address=cluster.lab.switch_address),),
    )
    outcome = node.ask("attach", cluster.task("sql", 3), template, cluster.parts(), ())
    assert isinstance(outcome, AttachRefused)
    assert f"{cluster.lab.switch_address} of the service lies in the machine's" in outcome.message


def test_published_ports_are_open_to_all_containers(cluster: Cluster) -> None:
    """What is published to the world is so to containers of other networks, on every node."""
    tries: list[Try] = [("tcp", node.config.address, 8080, 0) for node in cluster.nodes]
    for outcome in cluster.boxes["api.1"].reach(tries):
        assert outcome[0] in ("edge.1", "edge.2")


def test_a_container_that_gossip_does_not_know_yet_tries_again(cluster: Cluster) -> None:
    """A connection begun before its source is known is not refused, and comes through."""
    cluster.services["late"] = service(7)
    box = cluster.start(cluster.nodes[1], "late", 1, ("front",))
    target = cluster.boxes["edge.1"]
    client = box.node.host.popen(
        ["nsenter", f"--net=/proc/{box.pid}/ns/net", sys.executable, "-c", CLIENT, "10"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert client.stdin is not None
        client.stdin.write(json.dumps([("tcp", target.address, PORT, 0)]).encode())
        client.stdin.close()
        asked = ["conntrack", "-L", "-s", box.address]
        wait_for(lambda: box.address in box.node.host.exec(asked).stdout, "the connection is begun")
        cluster.tell()
        assert client.stdout is not None
        assert json.loads(client.stdout.readline()) == [["edge.1", box.address]]
    finally:
        client.kill()
        client.wait()
        assert client.stdout is not None
        client.stdout.close()
        cluster.remove(box)
        cluster.services["late"] = service(0)
        cluster.tell()
        del cluster.services["late"]


def test_the_matrix_holds_after_faults(cluster: Cluster) -> None:
    """The engine restarts, the link flaps, the daemon dies: the same pairs work and no others."""
    node = cluster.nodes[0]
    node.host.kill_engine()
    node.host.start_engine()
    node.host.link_flap()
    node.stop(kill=True)
    begin_again(cluster, node)


def test_the_matrix_holds_after_a_power_cut(cluster: Cluster) -> None:
    """The node boots, its containers start again, and the same pairs work and no others."""
    node = cluster.nodes[1]
    mine = cluster.lose_power(node)
    node.ask("ensure", node.config)
    for box in mine:
        cluster.start_again(box)
    begin_again(cluster, node)
    for box in mine:  # they are of this test's boot, which the guard takes for this test's own
        cluster.remove(box, tell=False)


def begin_again(cluster: Cluster, node: Node) -> None:
    """Start a node's daemon if it does not run, and wait until the matrix holds."""
    if node.process is None:
        node.start()
        node.ask("ensure", node.config)
    cluster.tell()
    node.ask("serve_names", node.config)
    wait_for(lambda: not node.ask("diagnose").steps, "nothing is left to repair", deadline_s=60)
    wait_for(lambda: matrix_faults(cluster) == [], "the matrix holds", deadline_s=60)


def test_the_matrix_is_not_trivial() -> None:
    """Some pairs are allowed and some are not, or the other tests would prove little."""
    pairs = [may_reach(*pair) for pair in itertools.combinations(SERVICES, 2)]
    assert sorted(set(pairs)) == [False, True]
    assert VIPS.startswith("10.224.")
