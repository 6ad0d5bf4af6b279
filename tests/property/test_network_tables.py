"""Does the table end as it should, through every sequence of changes?"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dray.model import EndpointView, Health, MemberState
from node.network.balance import HeldPort, arranged, membership_entries, service_table
from node.network.isolation import LocalTask, local_entries
from node.network.tables import Tables
from tests.unit.node.network.builders import LAYOUT, facts, view
from tests.unit.node.network.nft_model import Nft

SERVICES = st.integers(0, 3)
VIEWS = st.lists(
    st.builds(
        view,
        st.integers(1, 9),
        state=st.sampled_from(MemberState),
        health=st.sampled_from(Health),
        draining=st.booleans(),
        networks=st.sampled_from([("a",), ("b",), ("a", "b")]),
    ),
    max_size=9,
    unique_by=lambda each: each.endpoint.slot,
)
CHANGES = st.lists(st.tuples(SERVICES, VIEWS, st.booleans(), st.booleans()), min_size=1, max_size=6)


@given(CHANGES)
def test_changes_lead_where_a_new_table_starts(
    changes: list[tuple[int, list[EndpointView], bool, bool]],
) -> None:
    """Element by element the table comes to hold what one that is written whole would hold."""
    tables, nft = Tables(LAYOUT), Nft()
    nft.carry_out(tables.rebuild_text())
    tables.written()
    places: dict[int, tuple[str, ...]] = {}
    for number, views, affinity, is_written in changes:
        vip = f"10.224.0.{number}"
        port = HeldPort("tcp", "", 8000 + number // 2, 80)  # two services each want one
        static = (("a", "10.5.0.9"),) if number % 2 else ()  # several services want it
        known = replace(facts(vip, affinity=affinity), static=static)
        table = service_table(
            known,
            views,
            [port],
            LAYOUT,
            places.get(number, ()),
        )
        places[number] = table.places
        tables.put(f"service {number}", table.entries)
        tables.put(f"members {number}", membership_entries(known, views, {"a"}, LAYOUT))
        task = LocalTask(f"10.192.2.{number + 2}", "02:42:00:00:00:01", ("a",), affinity)
        tables.put("task", local_entries(task, tables))
        if is_written:
            nft.carry_out(tables.change_text())
            tables.written()
    nft.carry_out(tables.change_text())
    tables.written()
    assert tables.change_text() == ""
    fresh = Nft()
    fresh.carry_out(tables.rebuild_text())
    tables.written()
    fresh.carry_out(tables.change_text())
    for name, elements in nft.elements.items():
        assert fresh.elements.get(name, {}) == elements, name


ADDRESSES = st.lists(st.sampled_from("abcdefgh"), unique=True)


@given(ADDRESSES, ADDRESSES)
def test_arranging_moves_little(before: list[str], after: list[str]) -> None:
    """All usable endpoints have one place each; those that stay move only into a hole."""
    found = arranged(tuple(before), after)
    assert sorted(found) == sorted(after)
    moved = [
        each for place, each in enumerate(before) if each in after and found.index(each) != place
    ]
    gone = [each for each in before if each not in after]
    assert len(moved) <= len(gone)
