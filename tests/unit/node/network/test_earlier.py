"""What of an earlier daemon's table is served while this one has not heard of everything?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from dray.model import Fact, FactKey, FactVersion, Health, Member, MemberState, ServiceKey
from dray.names import TaskId
from node.gossip.facts import FactStore
from node.gossip.packing import pack_service, service_fact_name
from node.network.attachments import AttachedTask
from node.network.balancer import Balancer
from node.network.claims import Claims
from node.network.earlier import Earlier
from node.network.firewall import Firewall
from node.network.isolation import LocalTask, hardware_address
from node.network.tables import Entry, Tables
from node.ports import NetworkConfig
from tests.unit.node.network.builders import LAYOUT, VIP, facts, node_id, task_id, view
from tests.unit.node.network.nft_model import Nft

LOCAL, GONE = "10.192.2.7", "10.192.2.8"
REMOTE, UNHEARD = "10.192.4.3", "10.192.6.4"

LISTING = f"""table ip dray {{
\tset peers {{
\t\ttype ipv4_addr
\t\telements = {{ 10.0.0.2 }}
\t}}
\tset known {{
\t\ttype ipv4_addr
\t\telements = {{ {LOCAL}, {GONE},
\t\t\t     {REMOTE}, {UNHEARD} }}
\t}}
\tmap vips {{
\t\ttype ipv4_addr : verdict
\t\telements = {{ {VIP} : goto vip_pick_4, 10.224.0.2 : goto vip_pick_1 }}
\t}}
\tmap pubs {{
\t\ttype inet_proto . inet_service : verdict
\t\telements = {{ tcp . 8080 : goto pub_stick_2,
\t\t\t     udp . 53 : goto pub_pick_2 }}
\t}}
\tset net_0123456789ab {{
\t\ttype ipv4_addr
\t\telements = {{ {REMOTE} }}
\t}}
\tmap pub_0 {{
\t\ttype inet_proto . inet_service : ipv4_addr . inet_service
\t\telements = {{ tcp . 8080 : {LOCAL} . 80 }}
\t}}
\tmap pub_1 {{
\t\ttype inet_proto . inet_service : ipv4_addr . inet_service
\t\telements = {{ tcp . 8080 : {REMOTE} . 80 }}
\t}}
\tmap vip_0 {{
\t\ttype ipv4_addr : ipv4_addr
\t\telements = {{ {VIP} : {LOCAL}, 10.224.0.2 : {GONE} }}
\t}}
\tmap vip_1 {{
\t\ttype ipv4_addr : ipv4_addr
\t\telements = {{ {VIP} : {GONE} }}
\t}}
\tmap vip_2 {{
\t\ttype ipv4_addr : ipv4_addr
\t\telements = {{ {VIP} : {REMOTE} }}
\t}}
\tmap vip_3 {{
\t\ttype ipv4_addr : ipv4_addr
\t\telements = {{ {VIP} : {UNHEARD} }}
\t}}
\tchain pre {{
\t\ttype nat hook prerouting priority -105; policy accept;
\t}}
}}
"""


class WrittenFirewall(Firewall):
    """A firewall that carries out what it is told on a model of nftables."""

    def __init__(self) -> None:
        """Hold nothing."""
        super().__init__()
        self.nft = Nft()
        self.ended: set[str] = set()

    def rebuild(self, tables: Tables) -> None:
        """Replace the table."""
        self.nft.carry_out(tables.rebuild_text())
        tables.written()
        self.update(tables)

    def update(self, tables: Tables) -> None:
        """Write what changed."""
        self.nft.carry_out(tables.change_text())
        tables.written()

    def end_flows(self, addresses: Collection[str]) -> None:
        """Note whose connections are ended."""
        self.ended |= set(addresses)

    def served(self, vip: str = VIP) -> list[str]:
        """Return where connections to a service's own address go."""
        verdict = self.nft.elements["vips"].get(vip, "goto vip_pick_0")
        count = int(verdict.rpartition("_")[2])
        return sorted(self.nft.elements[f"vip_{place}"][vip] for place in range(count))


def started() -> tuple[Balancer, WrittenFirewall]:
    """Return a balancer that has found the table, with one container left."""
    config = NetworkConfig(
        node_id(1), "10.0.0.1", LAYOUT.subnet, LAYOUT.range_cidr, LAYOUT.vip_range_cidr
    )
    firewall = WrittenFirewall()
    balancer = Balancer(config, firewall, Claims())
    local = LocalTask(LOCAL, hardware_address(LOCAL), ("shop_default",), may_leave=True)
    balancer.set_task(task_id(7), AttachedTask(ServiceKey("shop", "web"), local))
    balancer.take_over(LISTING)
    balancer.write()
    return balancer, firewall


def heard(
    store: FactStore,
    node: int,
    *addresses: str,
    health: Health = Health.NONE,
    version: int = 1,
) -> None:
    """Let gossip tell of a node and its endpoints of the service."""
    store.put_member(
        Member(node_id(node), f"n{node}", f"10.0.0.{node}", 7401, 1, 0, MemberState.ALIVE)
    )
    endpoints = tuple(
        replace(view(number, health=health).endpoint, address=address)
        for number, address in enumerate(addresses, 1)
    )
    value = pack_service(replace(facts(), endpoints=endpoints))
    assert isinstance(value, bytes)
    key = FactKey(node_id(node), service_fact_name(ServiceKey("shop", "web")))
    store.merge(Fact(key, FactVersion(1, version), value), 0.0)


def test_what_the_table_led_to_is_read() -> None:
    """Every place of every key; one of which a place is missing is left out."""
    entries = Earlier(LISTING).entries()
    assert entries[Entry("vips", VIP)] == "goto vip_pick_4"
    assert [entries[Entry(f"vip_{place}", VIP)] for place in range(4)] == [
        LOCAL, GONE, REMOTE, UNHEARD,
    ]  # fmt: skip
    assert entries[Entry("pubs", "tcp . 8080")] == "goto pub_stick_2"
    assert Entry("pubs", "udp . 53") not in entries
    assert {entry.key for entry in entries if entry.name == "known"} == {
        LOCAL, GONE, REMOTE, UNHEARD,
    }  # fmt: skip
    assert Entry("net_0123456789ab", REMOTE) in entries
    assert not any(entry.name == "peers" for entry in entries)


def test_what_cannot_be_read_is_left_out() -> None:
    """A table of another form is as good as none."""
    for text in ("", "table ip dray {\n}\n", LISTING.replace("elements", "things"), "\tmap vips {"):
        assert Earlier(text).entries() == {}


def test_clients_of_one_that_is_gone_are_spread_over_the_others() -> None:
    """A service with session affinity keeps the number of its places."""
    earlier = Earlier(LISTING)
    assert earlier.drop(lambda address: address == LOCAL)
    assert not earlier.drop(lambda address: address == LOCAL)
    entries = earlier.entries()
    assert entries[Entry("pubs", "tcp . 8080")] == "goto pub_stick_2"
    assert entries[Entry("pub_0", "tcp . 8080")] == f"{REMOTE} . 80"
    assert entries[Entry("vips", VIP)] == "goto vip_pick_3"


def test_a_start_serves_what_was_served_but_this_nodes_dead() -> None:
    """Before anything is heard, and also when a container starts meanwhile."""
    balancer, firewall = started()
    assert firewall.served() == sorted([LOCAL, REMOTE, UNHEARD])
    assert firewall.served("10.224.0.2") == []
    new = LocalTask("10.192.2.9", hardware_address("10.192.2.9"), ("x",), may_leave=True)
    balancer.set_task(task_id(9), AttachedTask(ServiceKey("shop", "db"), new))
    balancer.write()
    assert firewall.served() == sorted([LOCAL, REMOTE, UNHEARD])
    assert balancer.problems() == ()


def test_a_container_of_this_node_that_ends_is_out_at_once() -> None:
    """The earlier table must not lead to it, whatever gossip says or not."""
    balancer, firewall = started()
    balancer.set_task(TaskId(task_id(7)), None)
    balancer.write()
    assert firewall.served() == sorted([REMOTE, UNHEARD])


def test_what_this_node_publishes_counts_for_its_own_containers() -> None:
    """One that runs no more but is still a task's is out when the node has said so."""
    balancer, firewall = started()
    store = FactStore()
    heard(store, 1)
    balancer.set_view(store.view())
    balancer.write()
    assert firewall.served() == sorted([REMOTE, UNHEARD])


def test_a_service_that_gossip_tells_of_replaces_its_entries() -> None:
    """Usable endpoints do; last resorts wait until all was heard."""
    balancer, firewall = started()
    store = FactStore()
    heard(store, 2, REMOTE, health=Health.STARTING)
    balancer.set_view(store.view())
    balancer.write()
    assert firewall.served() == sorted([LOCAL, REMOTE, UNHEARD])
    heard(store, 2, REMOTE, version=2)
    balancer.set_view(store.view())
    balancer.write()
    assert firewall.served() == [REMOTE]


def test_in_the_end_gossip_alone_counts() -> None:
    """What nobody has told of is out, and connections to it are ended."""
    balancer, firewall = started()
    store = FactStore()
    heard(store, 2, REMOTE, health=Health.STARTING)
    balancer.set_view(store.view())
    balancer.end_handover()
    balancer.write()
    assert firewall.served() == [REMOTE]
    assert "8080" not in str(firewall.nft.elements["pubs"])
    assert firewall.ended == {LOCAL, UNHEARD}
    balancer.end_handover()
