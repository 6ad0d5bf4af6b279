"""Do the written commands lead from what the table holds to what it should hold?"""

from __future__ import annotations

from node.network.balance import HeldPort, service_table
from node.network.ruleset import SKELETON_CHAINS, Layout, skeleton
from node.network.tables import ELEMENTS_PER_COMMAND, Entry, Tables
from tests.unit.node.network.builders import LAYOUT, VIP, facts, view
from tests.unit.node.network.nft_model import Nft


def started() -> tuple[Tables, Nft]:
    """Return empty tables that were written."""
    tables, nft = Tables(LAYOUT), Nft()
    nft.carry_out(tables.rebuild_text())
    tables.written()
    return tables, nft


def written(tables: Tables, nft: Nft) -> str:
    """Carry out what changed; return it."""
    text = tables.change_text()
    nft.carry_out(text)
    tables.written()
    return text


def test_one_changed_endpoint_is_one_changed_element() -> None:
    """Replacing one of three endpoints touches nothing else, and no chain."""
    tables, nft = started()
    first = service_table(facts(), [view(1), view(2), view(3)], [], LAYOUT)
    tables.put("web", first.entries)
    written(tables, nft)
    second = service_table(facts(), [view(1), view(9), view(3)], [], LAYOUT, first.places)
    tables.put("web", second.entries)
    assert written(tables, nft).splitlines() == [
        f"delete element ip dray vip_1 {{ {VIP} : 10.192.4.2 }}",
        f"add element ip dray vip_1 {{ {VIP} : 10.192.4.9 }}",
    ]


def test_nothing_changed() -> None:
    """What is as it was is not written again."""
    tables, nft = started()
    table = service_table(facts(), [view(1)], [HeldPort("tcp", "", 80, 80)], LAYOUT)
    tables.put("web", table.entries)
    written(tables, nft)
    tables.put("web", dict(table.entries))
    assert written(tables, nft) == ""


def test_an_owner_that_goes_leaves_what_others_want() -> None:
    """An entry of two owners stays until both are gone."""
    tables, nft = started()
    shared = Entry("known", "10.192.4.1")
    tables.put("a", {shared: ""})
    tables.put("b", {shared: ""})
    written(tables, nft)
    tables.put("a", {})
    assert written(tables, nft) == ""
    tables.put("b", {})
    written(tables, nft)
    assert nft.elements["known"] == {}
    assert tables.owners() == frozenset()


def test_a_key_that_two_want() -> None:
    """The lower owner is served, both are named, and the other one inherits."""
    tables, nft = started()
    key = Entry("pub_0", "tcp . 80")
    base = service_table(facts(), [view(1)], [HeldPort("tcp", "", 80, 80)], LAYOUT).entries
    tables.put("b", {**base, key: "10.192.4.9 . 80"})
    tables.put("a", base)
    written(tables, nft)
    assert nft.elements["pub_0"]["tcp . 80"] == "10.192.4.1 . 80"
    assert tables.contested() == {key: ("a", "b")}
    tables.put("a", {})
    written(tables, nft)
    assert nft.elements["pub_0"]["tcp . 80"] == "10.192.4.9 . 80"
    assert tables.contested() == {}


def test_chains_of_networks_are_made_with_their_sets() -> None:
    """The chain of a container on two networks names both sets, also while these are empty."""
    tables, nft = started()
    chain = tables.group("to", ("a", "b"))
    tables.put("task", {Entry("locals", "10.192.2.2"): f"goto {chain}"})
    written(tables, nft)
    assert len(nft.chains[chain]) == 3
    assert nft.chains[chain][-1] == "goto refuse"


def test_the_whole_table_is_written_anew() -> None:
    """Whatever is there, one transaction leads to what is wanted, around other addresses too."""
    tables, nft = started()
    entries = service_table(facts(affinity=True), [view(1), view(2)], [], LAYOUT).entries
    tables.put("web", entries)
    fresh = Nft()
    fresh.carry_out(tables.rebuild_text())
    tables.written()
    written(tables, nft)
    assert fresh.elements["vips"] == {VIP: "goto vip_stick_64"}
    other = Layout("10.192.8.0/23", LAYOUT.range_cidr, LAYOUT.vip_range_cidr)
    text = tables.rebuild_text(other)
    assert "snat to 10.192.8.1" in text
    assert tables.layout == other


def test_text_that_was_not_carried_out_is_written_again() -> None:
    """Without `written` the same changes are in the next text, together with later ones."""
    tables, nft = started()
    tables.put("a", {Entry("known", "10.192.4.1"): ""})
    lost = tables.change_text()
    tables.put("b", {Entry("known", "10.192.4.2"): ""})
    text = written(tables, nft)
    assert "10.192.4.1" in lost
    assert set(nft.elements["known"]) == {"10.192.4.1", "10.192.4.2"}
    assert "10.192.4.1" in text


def test_long_lists_are_cut() -> None:
    """A command names a bounded number of elements."""
    tables, nft = started()
    count = ELEMENTS_PER_COMMAND * 2 + 1
    tables.put(
        "a",
        {Entry("known", f"10.{200 + n // 65536}.{n // 256}.{n % 256}"): "" for n in range(count)},
    )
    assert len(written(tables, nft).splitlines()) == 3
    assert len(nft.elements["known"]) == count


def test_the_skeleton_holds_the_addresses_it_was_made_with() -> None:
    """The ranges and the gateway are in it, and every chain that it leads to."""
    nft = Nft()
    text = "\n".join(skeleton(LAYOUT))
    nft.carry_out(text)
    assert nft.chains.keys() == SKELETON_CHAINS
    assert LAYOUT.gateway == "10.192.2.1"
    assert LAYOUT.gateway_interface == "10.192.2.1/23"
    for part in ("snat to 10.192.2.1", LAYOUT.subnet, LAYOUT.range_cidr, LAYOUT.vip_range_cidr):
        assert part in text
