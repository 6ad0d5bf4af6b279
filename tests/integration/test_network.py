"""Does every container reach every other one, in every way, and does the network repair itself?"""

from __future__ import annotations

import ipaddress
import json
import sys
from collections.abc import Callable, Iterator

import pytest

from dray.model import PortProtocol, PublishedPort
from tests.integration.network_rig import (
    CLIENT,
    PAYLOAD_BYTES,
    PORT,
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
from tests.lab import Host, wait_for

pytestmark = pytest.mark.timeout(300)  # a lab with containers, on a machine that does much else

UDP_BYTES = 60_000  # of one datagram: forty fragments


@pytest.fixture(scope="module")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """Keep three nodes with three containers of two services each."""
    with kept_cluster(pytestconfig) as made:
        udp = PublishedPort(PORT, 8080, protocol=PortProtocol.UDP)
        made.services = {"web": service(1, (published(8080), udp)), "db": service(2)}
        made.start_all(
            (node, name, 2 * node.host.index + slot, ("default",))
            for node in made.nodes
            for name, slot in (("web", 1), ("web", 2), ("db", 0))
        )
        made.tell()
        yield made


@pytest.fixture(autouse=True)
def _whole(cluster: Cluster) -> None:
    """Start every test with daemons that run and know everything, whatever the one before did."""
    cluster.mend()


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


def from_host(host: Host, *tries: Try) -> list[Outcome]:
    """Return what comes of trying to reach addresses from a program of the host."""
    done = host.exec([sys.executable, "-c", CLIENT, "5"], stdin_text=json.dumps(tries))
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def unreached(cluster: Cluster, timeout_s: float = 10.0) -> list[tuple[Try, Outcome]]:
    """Return what one container of every node does not reach as it should, with small payloads."""
    sources = {box.node.host.index: box for box in cluster.boxes.values()}
    found = []
    for source in sources.values():
        tries = [((a, b, c, 0), allowed) for (a, b, c, _), allowed in ways(cluster, source)]
        found += wrong(tries, source.reach([each for each, _ in tries], timeout_s=timeout_s))
    return found


def is_all_well(cluster: Cluster) -> bool:
    """Return whether everything is reached at once."""
    return not unreached(cluster, timeout_s=2.0)


def test_programs_of_nodes_and_of_outside_reach_services(cluster: Cluster) -> None:
    """A node's own programs use VIPs and 127.0.0.1; strangers use published ports, and no more."""
    web = {name for name in cluster.boxes if name.startswith("web")}
    for node in cluster.nodes:
        for address, port in ((vip(1), PORT), ("127.0.0.1", 8080), (node.config.address, 8080)):
            for protocol in ("tcp", "udp"):
                (outcome,) = from_host(node.host, (protocol, address, port, 100))
                assert outcome[0] in web, (node.host, protocol, address, outcome)
    box = next(iter(cluster.boxes.values()))
    tries: list[Try] = [("tcp", node.config.address, 8080, 100) for node in cluster.nodes]
    cluster.lab.switch_exec(["ip", "route", "add", "10.192.0.0/11", "via", box.node.config.address])
    tries += [("tcp", box.address, PORT, 0), ("udp", box.address, PORT, 0)]
    done = cluster.lab.switch_exec(
        [sys.executable, "-c", CLIENT, "1"], stdin_text=json.dumps(tries)
    )
    *public, tcp, udp = json.loads(done.stdout)
    assert {outcome[0] for outcome in public} <= web
    assert (tcp, udp) == ("TimeoutError", "TimeoutError")


def test_packets_are_as_large_as_the_tunnel_takes(cluster: Cluster) -> None:
    """Containers know the tunnel's packet size, so the first full datagram passes unharmed."""
    boxes = cluster.boxes
    source, target = boxes["web.3"], boxes["web.7"]
    assert " mtu 1450 " in source.run("ip", "link", "show", "eth0")
    for size in (1358, 1359, 1450):  # 28 bytes of headers and 64 of our own beside them
        assert source.reach([("udp", target.address, PORT, size)]) == [["web.7", source.address]]


def test_the_client_is_known_where_that_is_promised(cluster: Cluster) -> None:
    """Between containers the client's own address is seen, by address and by VIP, on any node."""
    for source in cluster.boxes.values():
        tries: list[Try] = [("tcp", vip(2), PORT, 0)] * 4
        tries += [("tcp", box.address, PORT, 0) for box in cluster.boxes.values()]
        seen = {outcome[1] for outcome in source.reach(tries) if outcome[0] != source.name}
        assert seen == {source.address}


def test_a_container_reaches_itself_through_its_own_service(cluster: Cluster) -> None:
    """With one endpoint left, that endpoint is served by itself when it asks its VIP."""
    cluster.services["lone"] = service(9, (published(8090),))
    box = cluster.start(cluster.nodes[0], "lone", 1)
    try:
        cluster.tell()
        own = cluster.nodes[0].config.address
        tries: list[Try] = [("tcp", vip(9), PORT, 10), ("udp", vip(9), PORT, 10)]
        tries += [("tcp", own, 8090, 10)]
        assert [outcome[0] for outcome in box.reach(tries)] == ["lone.1"] * 3
    finally:
        cluster.remove(box)
        del cluster.services["lone"]


def wipe(*argv: str) -> Callable[[Node], object]:
    """Return a fault: a command that somebody runs on the host."""
    return lambda node: node.host.exec(argv)


def restart_engine(node: Node) -> None:
    """Kill the engine and start it again; containers run on."""
    node.host.kill_engine()
    node.host.start_engine()


def restart_daemon(node: Node) -> None:
    """Kill the network's daemon and start it again."""
    node.stop(kill=True)
    node.start()
    node.ask("ensure", node.config)


ENTRIES_LOST = (
    "ip route flush dev dray-vx; ip neighbour flush nud permanent dev dray-vx; "
    "bridge fdb flush dev dray-vx"
)
FAULTS: dict[str, tuple[Callable[[Node], object], ...]] = {
    "tunnel": (
        wipe("ip", "link", "delete", "dray-vx"),
        wipe("ip", "link", "set", "dray-vx", "down"),
        wipe("sh", "-c", ENTRIES_LOST),
    ),
    "bridge": (
        wipe("ip", "link", "set", "dray0", "down"),
        wipe("ip", "address", "flush", "dev", "dray0"),
        wipe("ip", "link", "set", "dray0", "type", "bridge", "nf_call_iptables", "0"),
    ),
    "bridge-gone": (
        wipe("ip", "link", "delete", "dray0"),
        wipe("sh", "-c", "ip link delete dray0; ip link delete dray-vx"),
        wipe("sh", "-c", "ip link set $(ls /sys/class/net/dray0/brif | head -1) nomaster"),
    ),
    "rules": (
        wipe("nft", "delete", "table", "ip", "dray"),
        wipe("nft", "flush", "chain", "ip", "dray", "forward"),
        wipe("iptables", "-F", "DOCKER-USER"),
    ),
    "engine": (
        restart_engine,
        restart_daemon,
        lambda node: node.host.link_flap(),
    ),
    "firewall": (
        wipe("nft", "flush", "ruleset"),
        wipe("iptables", "-P", "FORWARD", "DROP"),
        wipe("sh", "-c", "nft flush ruleset; iptables -P FORWARD DROP"),
    ),
}


@pytest.mark.parametrize("faults", FAULTS)
def test_the_network_repairs_itself(cluster: Cluster, faults: str) -> None:
    """Whatever somebody does to the nodes, one fault each, all is whole again within seconds."""
    for node, fault in zip(cluster.nodes, FAULTS[faults], strict=True):
        fault(node)
    cluster.tell()
    for node in cluster.nodes:
        wait_for(
            lambda node=node: not node.ask("diagnose").steps,  # type: ignore[misc]
            "nothing is left to repair",
            deadline_s=60,
        )
    wait_for(lambda: is_all_well(cluster), "everybody reaches everybody", deadline_s=60)
    for node in cluster.nodes:
        wait_for(
            lambda node=node: node.ask("problems") == [],  # type: ignore[misc]
            "nothing is reported any more",
            deadline_s=60,
        )
        assert hairpins(node) == {"1"}, "a container does not reach itself by its service"


def hairpins(node: Node) -> set[str]:
    """Return what the bridge's ports say of giving a container its own packets."""
    command = ["sh", "-c", "cat /sys/class/net/dray0/brif/*/hairpin_mode"]
    return set(node.host.exec(command).stdout.split())


def test_a_daemon_that_starts_harms_nobody(cluster: Cluster) -> None:
    """The table of the one before it serves until it has heard what there is, however long."""
    stranger = "10.223.255.254"
    for node in cluster.nodes:
        node.host.exec(["nft", "add", "element", "ip", "dray", "known", f"{{ {stranger} }}"])
        restart_daemon(node)
    assert unreached(cluster) == []
    assert all(is_known(node, stranger) for node in cluster.nodes)  # those tables, not new ones
    cluster.tell()
    for node in cluster.nodes:
        wait_for(
            lambda node=node: not is_known(node, stranger),  # type: ignore[misc]
            "the daemon replaces what it found",
            deadline_s=30,
        )
    assert unreached(cluster) == []


def is_known(node: Node, address: str) -> bool:
    """Return whether the node's table knows of a container's address."""
    return address in node.host.exec(["nft", "list", "set", "ip", "dray", "known"]).stdout


def move_host(host: Host, old: str, new: str) -> None:
    """Take an address from the interface that has it, and give it another one."""
    links = json.loads(host.exec(["ip", "-j", "-4", "address", "show"]).stdout)
    device, length = next(
        (link["ifname"], each["prefixlen"])
        for link in links
        for each in link["addr_info"]
        if each["local"] == old
    )
    way = host.exec(["ip", "route", "show", "default"]).stdout.strip()
    host.exec(["ip", "address", "delete", f"{old}/{length}", "dev", device])
    host.exec(["ip", "address", "add", f"{new}/{length}", "dev", device])
    if way:
        host.exec(["ip", "route", "replace", *way.split()])


def test_a_node_with_another_address_is_found_again(cluster: Cluster) -> None:
    """All routes lead to the new one, its old one may use the tunnel no more, and back."""
    node, other = cluster.nodes[1], cluster.nodes[0]
    old = node.config.address
    new = str(ipaddress.ip_address(old) + 100)
    for before, now in ((old, new), (new, old)):
        move_host(node.host, before, now)
        cluster.readdress(node, now)
        assert unreached(cluster) == []
        peers = other.host.exec(["nft", "list", "set", "ip", "dray", "peers"]).stdout
        assert f"{now}," in peers or f"{now} " in peers
        assert f"{before}," not in peers
        assert f"{before} " not in peers


def test_leftovers_of_a_crash_are_put_right(cluster: Cluster) -> None:
    """A tunnel of another form, stale routes and half a table; the doctor names them before."""
    node = cluster.nodes[0]
    node.stop(kill=True)
    for command in (
        "ip link delete dray-vx",
        "ip link add dray-vx type vxlan id 5 dstport 4789",
        "ip link set dray-vx up",
        "ip route add 10.199.0.0/23 dev dray-vx",
        "nft delete table ip dray",
        "nft add table ip dray",
    ):
        node.host.exec(command.split())
    node.host.exec(["sh", "-c", "iptables -F DOCKER-USER || iptables -F FORWARD"])
    node.start()
    said = node.ask("doctor", node.config)
    for problem in (
        "problem  the tunnel dray-vx was made with other options",
        "repair   ip link delete dray-vx",
        "problem  Docker's firewall does not let containers' packets pass (-i dray-vx)",
        "problem  the filter and balancing rules are not there",
    ):
        assert problem in said
    node.ask("ensure", node.config)
    cluster.tell()
    assert node.ask("doctor", node.config) == ["nothing is wrong"]
    assert unreached(cluster) == []


def test_a_tunnel_that_somebody_has_closed_is_noticed(cluster: Cluster) -> None:
    """A firewall that drops the tunnel's packets alone is a fault with the port to open."""
    node, other, third = cluster.nodes
    assert [each.ask("unheard_peers") for each in cluster.nodes] == [[], [], []]
    rule = ["INPUT", "-p", "udp", "--dport", "4790", "-j", "DROP"]
    other.host.exec(["iptables", "-I", *rule])
    try:
        (said,) = node.ask("unheard_peers")
        assert said.startswith(f"nothing comes back from {other.config.address} through the tunnel")
        assert said.endswith("open UDP port 4790 between all nodes")
        assert len(other.ask("unheard_peers")) == 2
        silent = f"problem  nothing comes back from {other.config.address} through the tunnel"
        assert silent in node.ask("doctor", node.config)
        assert len(third.ask("unheard_peers")) == 1
    finally:
        other.host.exec(["iptables", "-D", *rule])
    assert node.ask("unheard_peers") == []


def test_ranges_that_the_machine_uses_are_refused(cluster: Cluster) -> None:
    """A network of the machine's own within the range stops the node's network with a message."""
    node = cluster.nodes[0]
    node.host.exec(["ip", "link", "add", "office", "type", "bridge"])
    try:
        node.host.exec(["ip", "address", "add", "10.200.1.1/24", "dev", "office"])
        node.host.exec(["ip", "link", "set", "office", "up"])
        kind, message = node.try_asking("ensure", node.config)
        assert kind == "failed"
        assert "own route 10.200.1.0/24 (interface office) collides" in message
        assert any("office" in each for each in node.ask("problems"))
        assert unreached(cluster) == []  # what runs is left alone
    finally:
        node.host.exec(["ip", "link", "delete", "office"])
    node.ask("ensure", node.config)
    assert node.ask("problems") == []


def test_a_node_that_lost_power_comes_back_whole(cluster: Cluster) -> None:
    """After a boot its network is made anew, and containers start again with their addresses."""
    node = cluster.nodes[2]
    mine = cluster.lose_power(node)
    kind, message = node.try_asking("diagnose")
    assert (kind, "does not know its network yet" in message) == ("failed", True)
    node.ask("ensure", node.config)
    for box in mine:
        cluster.start_again(box)
    cluster.tell()
    wait_for(lambda: is_all_well(cluster), "everybody reaches everybody", deadline_s=60)
    assert node.ask("problems") == []
    for box in mine:
        cluster.remove(box, tell=False)
