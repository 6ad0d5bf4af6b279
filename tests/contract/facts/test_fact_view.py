"""Does every `FactView` keep what `dray.model.facts` promises its readers?"""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from dray.model import (
    Fact,
    FactKey,
    FactView,
    Member,
    MemberState,
    ReachKind,
    ServiceFacts,
    ServiceKey,
    ServiceRevision,
)
from node.gossip.packing import pack_service
from tests.contract.facts.builders import WEB, endpoint, fact, member, node_id, service_fact
from tests.contract.facts.implementations import MAKERS, MakeViews

API = ServiceKey("shop", "api")


@pytest.fixture(params=sorted(MAKERS))
def make(request: pytest.FixtureRequest) -> MakeViews:
    """Return each implementation's maker in turn."""
    return MAKERS[request.param]


def slots(view: FactView, service: ServiceKey = WEB) -> list[int]:
    """Return the slots of a service that a view has, in its order."""
    return [found.endpoint.slot.slot for found in view.endpoints(service)]


def test_empty(make: MakeViews) -> None:
    """The first view knows nobody and nothing, and says so without raising."""
    view = make([])[0]
    assert list(view.members()) == []
    assert list(view.services()) == []
    assert view.member(node_id("a")) is None
    assert view.endpoints(WEB) == ()
    assert view.service(WEB) is None
    assert view.fact(FactKey(node_id("a"), "node:address")) is None
    assert view.changed_since(view.sequence) == frozenset()


def test_members_by_id_with_the_dead(make: MakeViews) -> None:
    """Every member is listed by node id, dead and left ones included, and found by its id."""
    given = [
        member("a"),
        member("b", MemberState.DEAD),
        member("c", MemberState.LEFT),
        member("d", MemberState.SUSPECT),
    ]
    view = make(given)[-1]
    assert list(view.members()) == sorted(given, key=lambda m: m.node_id)
    assert view.member(node_id("b")) == given[1]


def test_endpoints_by_slot_and_node(make: MakeViews) -> None:
    """Endpoints of all nodes come by (slot, node id) with the state of their member."""
    view = make(
        [
            member("a"),
            member("b", MemberState.DEAD),
            service_fact("a", 3, 1),
            service_fact("b", 2, 1),
        ]
    )[-1]
    found = view.endpoints(WEB)
    assert [e.endpoint.slot.slot for e in found] == [1, 1, 2, 3]
    assert [e.node_id for e in found[:2]] == sorted([node_id("a"), node_id("b")])
    assert {e.node_id: e.member_state for e in found} == {
        node_id("a"): MemberState.ALIVE,
        node_id("b"): MemberState.DEAD,
    }
    assert found[3].endpoint == endpoint(3)


def test_services_in_order_while_they_are_published(make: MakeViews) -> None:
    """A service is listed as long as any node publishes it."""
    views = make(
        [
            member("a"),
            service_fact("a", 1),
            service_fact("a", 1, service=API, version=2),
            service_fact("a", version=3),
        ]
    )
    assert list(views[3].services()) == [API, WEB]
    assert list(views[4].services()) == [API]


def test_a_service_is_what_its_newest_usable_revision_says(make: MakeViews) -> None:
    """Of nodes that differ the highest revision counts, the dead's last; endpoints are everyone's.

    Of equal revisions the lowest node id's, so that all nodes answer the same.
    """
    ids = sorted("abc", key=node_id)
    given: list[Member | Fact] = [
        *(member(name) for name in "abc"),
        service_fact(ids[0], 3, revision=1, vip="10.224.0.1"),
        service_fact(ids[1], 1, revision=2, vip="10.224.0.2"),
        service_fact(ids[2], 2, revision=2, vip="10.224.0.3"),
    ]
    dead = [member(name, MemberState.DEAD) for name in (ids[1], ids[2], ids[0])]
    views = make([*given, *dead])
    found = [view.service(WEB) for view in views[6:]]
    assert [facts.vip if facts is not None else None for facts in found] == [
        "10.224.0.2",
        "10.224.0.3",
        "10.224.0.1",
        "10.224.0.2",
    ]
    for facts in found:
        assert facts is not None
        assert facts.endpoints == (endpoint(1), endpoint(2), endpoint(3))


def test_a_service_may_have_no_endpoints(make: MakeViews) -> None:
    """A node that only knows of a service makes its address known."""
    value = pack_service(ServiceFacts(ServiceRevision(4), "10.224.0.9", affinity=True))
    assert isinstance(value, bytes)
    view = make([member("a"), fact("a", "service:shop/web", value)])[-1]
    assert list(view.services()) == [WEB]
    assert view.endpoints(WEB) == ()
    assert view.service(WEB) == ServiceFacts(ServiceRevision(4), "10.224.0.9", affinity=True)


def test_facts_are_read_until_deleted(make: MakeViews) -> None:
    """A fact about anything is found by its key; a deleted one is not."""
    key = FactKey(node_id("a"), "node:address")
    given = fact("a", key.name, b"here")
    views = make([member("a"), given, fact("a", key.name, None, version=2)])
    assert views[2].fact(key) == given
    assert views[3].fact(key) is None


def test_a_new_life_deletes_older_facts(make: MakeViews) -> None:
    """Facts of an older life are gone with the first word of a newer one: member or fact."""
    before: list[Member | Fact] = [member("a"), service_fact("a", 1)]
    by_member = make([*before, member("a", life=2)])[-1]
    by_fact = make([*before, fact("a", "node:address", b"x", life=2)])[-1]
    late = make([*before, member("a", life=2), service_fact("a", 5, version=9)])[-1]
    assert slots(by_member) == slots(by_fact) == slots(late) == []


def test_unreadable_endpoints_are_none(make: MakeViews) -> None:
    """A service's fact that cannot be decoded counts as no endpoints, and raises nowhere."""
    junk = fact("a", "service:shop/web", b"\xffjunk", version=2)
    view = make([member("a"), service_fact("a", 1), junk])[-1]
    assert view.endpoints(WEB) == ()


def test_numbers_grow(make: MakeViews) -> None:
    """A newer view has a higher number; a change that changes nothing may keep it."""
    views = make([member("a"), service_fact("a", 1), service_fact("a", 1), service_fact("a", 2)])
    numbers = [view.sequence for view in views]
    assert numbers == sorted(numbers)
    assert numbers[1] < numbers[2] <= numbers[3]


def test_a_view_never_changes(make: MakeViews) -> None:
    """What an older view says stays the same whatever happens afterwards."""
    states = (MemberState.ALIVE, MemberState.SUSPECT, MemberState.DEAD)
    changes: list[Member] = [member("a", state) for state in states]
    views = make([changes[0], service_fact("a", 1, 2), *changes[1:], member("b")])
    read = [list(views[2].members()), views[2].endpoints(WEB), list(views[2].services())]
    assert read == [[changes[0]], views[2].endpoints(WEB), [WEB]]
    assert {found.member_state for found in views[2].endpoints(WEB)} == {MemberState.ALIVE}
    assert {found.member_state for found in views[4].endpoints(WEB)} == {MemberState.DEAD}


def test_changed_since_names_what_to_read_again(make: MakeViews) -> None:
    """Between two views exactly the services whose endpoints or their members changed are named."""
    views = make(
        [
            member("a"),
            member("b"),
            service_fact("a", 1),
            service_fact("b", 1, service=API),
            fact("a", "node:faults", b"disk", version=2),
            member("a", MemberState.SUSPECT),
        ]
    )
    last = views[-1]
    assert last.changed_since(views[5].sequence) == frozenset({WEB})
    assert last.changed_since(views[4].sequence) == frozenset({WEB})
    assert views[5].changed_since(views[4].sequence) == frozenset()
    assert views[4].changed_since(views[2].sequence) == frozenset({WEB, API})
    assert last.changed_since(last.sequence) == frozenset()


def test_a_daemon_that_is_down_is_told_from_a_dead_node(make: MakeViews) -> None:
    """What the kernel of a dead member says decides: own findings before what others said.

    A change of it is a change of the services on that node.
    """
    dead = member("a", MemberState.DEAD)
    refused, silent = ReachKind.REFUSED, ReachKind.SILENT
    given = [
        dataclasses.replace(member("a"), seen=refused),
        dataclasses.replace(dead, seen=ReachKind.ANSWERED, heard_reach=refused),
        dataclasses.replace(dead, seen=silent, heard_reach=refused),
        dataclasses.replace(dead, seen=refused, heard_reach=silent),
        dataclasses.replace(dead, seen=None, heard_reach=silent),
    ]
    views = make([member("a"), service_fact("a", 1), *given])[2:]
    found = [each.is_daemon_down for view in views for each in view.endpoints(WEB)]
    assert found == [False, False, True, False, True, False]
    for before, after in itertools.pairwise(views[2:]):
        assert after.changed_since(before.sequence) == frozenset({WEB})


def test_changed_since_never_leaves_one_out(make: MakeViews) -> None:
    """However much has changed since: all of it is named, or None says to look at everything."""
    count = 600
    changes = [
        service_fact("a", 1, service=ServiceKey("shop", f"s{n}"), version=n + 1)
        for n in range(count)
    ]
    views = make([member("a"), *changes])
    answers = [views[-1].changed_since(view.sequence) for view in views[1:]]
    assert answers[-1] == frozenset()
    for index, answer in enumerate(answers):
        assert answer is None or len(answer) == count - index
    assert answers[-10] is not None, "a recent view is not too old"


def test_an_unknown_future_view_is_too_old_to_tell(make: MakeViews) -> None:
    """A number that this node has not given out (it restarted) gets None."""
    view = make([member("a")])[-1]
    assert view.changed_since(view.sequence + 1) is None
