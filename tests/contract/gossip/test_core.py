"""Does every gossip `Core` keep what `node.gossip.core` promises its driver?"""

from __future__ import annotations

import random
import sys
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dray.model import FACTS_BYTES_MAX, FactKey, MemberState, ReachKind
from node.gossip.core import (
    DATAGRAM_BYTES_MAX,
    Address,
    ArmTimer,
    Core,
    DatagramReceived,
    Effect,
    FactRefused,
    Join,
    Leave,
    MemberChanged,
    PublishFact,
    ReachProbed,
    SendDatagram,
    StreamReceived,
    TimerFired,
    TimerKey,
    ViewChanged,
)
from node.gossip.identity import Identity
from tests.contract.gossip.implementations import CORES, MakeCore
from tests.simulation.faults import BadLinks, schedule
from tests.simulation.gossip_cluster import CLUSTER_ID, PORT, GossipCluster, node_id_of
from tests.simulation.world import LinkQuality

SOURCE = Address("127.1.0.99", PORT)


@pytest.fixture(params=sorted(CORES), scope="module")
def make(request: pytest.FixtureRequest) -> MakeCore:
    """Return each implementation's maker in turn."""
    return CORES[request.param]


def new_core(make: MakeCore, name: str = "x") -> Core:
    """Return a core that has not started."""
    address = Address("127.1.0.90", PORT)
    return make(Identity(CLUSTER_ID, node_id_of(name), name, address, 5), random.Random(1))


def whole_cluster(make: MakeCore, names: str = "abcd", seed: int = 1) -> GossipCluster:
    """Return a cluster in which everybody knows everybody."""
    cluster = GossipCluster(seed, make=make)
    for name in names:
        cluster.start(name)
    assert cluster.world.run_until_true(
        lambda: all(
            sum(m.state is MemberState.ALIVE for m in cluster.view(name).members()) == len(names)
            for name in names
        ),
        limit_s=30.0,
    ), "the cluster never became whole"
    return cluster


def state_of(cluster: GossipCluster, observer: str, name: str) -> MemberState | None:
    """Return what one node holds another to be."""
    member = cluster.view(observer).member(node_id_of(name))
    return member.state if member is not None else None


def datagrams_of(cluster: GossipCluster) -> list[bytes]:
    """Return what a cluster sends in some seconds of news and faults."""
    cluster.world.quality = LinkQuality(loss=0.2)
    for name in cluster.names:
        cluster.command(name, PublishFact("service:shop/web", name.encode() * 100))
    cluster.world.recorded = []
    cluster.world.run_for(5.0)
    return cluster.world.recorded


def test_same_events_same_effects(make: MakeCore) -> None:
    """A core is a function of its events and its seed: two worlds of one seed are one."""
    traces = []
    for seed in (7, 7, 8):
        cluster = whole_cluster(make, seed=seed)
        cluster.world.run_for(10.0)
        traces.append(cluster.world.trace)
    assert traces[0] == traces[1] != traces[2]


def test_a_core_draws_from_its_own_generator_only(make: MakeCore) -> None:
    """The process's shared generator is as it was."""
    before = random.getstate()
    whole_cluster(make).world.run_for(5.0)
    assert random.getstate() == before


def test_old_generations_are_ignored(make: MakeCore) -> None:
    """A timer that fires with another generation than the newest of its key does nothing."""
    core = new_core(make)
    armed: dict[TimerKey, ArmTimer] = {}
    for effect in core.start(0.0) + core.handle(Join((SOURCE,)), 0.0):
        if isinstance(effect, ArmTimer):
            armed[effect.key] = effect
    assert armed, "a core that waits for nothing does nothing"
    for timer in armed.values():
        for generation in (timer.generation - 1, timer.generation + 1_000):
            assert core.handle(TimerFired(timer.key, generation), timer.at_s) == []
    for timer in armed.values():
        assert core.handle(TimerFired(timer.key, timer.generation), timer.at_s) != []
        assert core.handle(TimerFired(timer.key, timer.generation), timer.at_s) == [], "fired twice"


def test_timers_are_not_in_the_past(make: MakeCore) -> None:
    """Every timer is due at or after the moment at which it is armed."""
    cluster = whole_cluster(make)
    core = cluster.core("a")
    for effect in core.handle(Join((SOURCE,)), cluster.world.now_s):
        assert not isinstance(effect, ArmTimer) or effect.at_s >= cluster.world.now_s


def test_effects_end_with_one_view(make: MakeCore) -> None:
    """At most one `ViewChanged` an event, last, with the number of the view of then."""
    core = new_core(make)
    core.start(0.0)
    effects = core.handle(PublishFact("node:address", b"here"), 0.0)
    last = effects[-1]
    assert isinstance(last, ViewChanged)
    assert last.sequence == core.view().sequence
    assert last.keys == (FactKey(node_id_of("x"), "node:address"),)
    cluster = whole_cluster(make)
    for effects in cluster.effects:
        views = [index for index, e in enumerate(effects) if isinstance(e, ViewChanged)]
        assert views in ([], [len(effects) - 1])
        if any(isinstance(e, MemberChanged) for e in effects):
            assert views, "readers of the view learn of a member's change"


def test_a_view_costs_the_same_at_any_size(make: MakeCore) -> None:
    """`view` makes as many calls with many facts as with few, and is the same object again."""
    counts = []
    for number in (1, 400):
        core = new_core(make)
        core.start(0.0)
        for index in range(number):
            core.handle(PublishFact(f"node:{index}", b"x"), 0.0)
        counts.append(_calls(core))
        assert core.view() is core.view()
    assert counts[0] == counts[1]


def _calls(core: Core) -> int:
    """Return how many calls one `view` makes."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        core.view()
    finally:
        sys.setprofile(None)
    return calls


def test_a_view_never_changes(make: MakeCore) -> None:
    """A view that was taken says the same after more events."""
    cluster = whole_cluster(make)
    view = cluster.view("a")
    read = (view.sequence, list(view.members()), list(view.services()))
    cluster.world.crash(cluster.host("b"))
    cluster.world.run_for(20.0)
    assert read == (view.sequence, list(view.members()), list(view.services()))
    assert cluster.view("a").sequence > view.sequence


def test_no_datagram_is_too_large(make: MakeCore) -> None:
    """Whatever is published and however bad the links: datagrams keep to the limit."""
    cluster = whole_cluster(make, "abcdef")
    for name in cluster.names:
        for index in range(20):
            cluster.command(name, PublishFact(f"service:shop/s{index}", bytes(300 + 50 * index)))
        cluster.command(name, PublishFact("service:shop/large", bytes(9_000)))
    cluster.world.recorded = []
    schedule(cluster.world, [(cluster.world.now_s, BadLinks(LinkQuality(0.3, 0.3)))], print)
    cluster.world.run_for(15.0)
    assert len(cluster.world.recorded) > 100
    assert max(map(len, cluster.world.recorded)) <= DATAGRAM_BYTES_MAX


@given(st.binary(max_size=2_000))
def test_junk_is_dropped(make: MakeCore, data: bytes) -> None:
    """Bytes that nobody sent change nothing, cause nothing and raise nothing."""
    core = new_core(make)
    core.start(0.0)
    before = core.view()
    assert core.handle(DatagramReceived(SOURCE, data), 0.1) == []
    assert core.view() is before


@given(st.data())
def test_damaged_datagrams_raise_nothing(make: MakeCore, data: st.DataObject) -> None:
    """Real datagrams cut, changed and repeated, to a core in the midst of its work."""
    core, datagrams = _fuzzed(make)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged = bytearray(data.draw(st.sampled_from(datagrams)))
        for _ in range(data.draw(st.integers(0, 3))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(1, len(damaged)))
        effects = core.handle(DatagramReceived(SOURCE, bytes(damaged[:cut])), 1_000.0)
        _check_sends(effects)
    assert core.view().member(node_id_of("x")) is not None


_FUZZED: dict[MakeCore, tuple[Core, list[bytes]]] = {}


def _fuzzed(make: MakeCore) -> tuple[Core, list[bytes]]:
    if make not in _FUZZED:
        core = new_core(make)
        core.start(0.0)
        datagrams = datagrams_of(whole_cluster(make))
        for datagram in datagrams:
            _check_sends(core.handle(DatagramReceived(SOURCE, datagram), 10.0))
        assert len(list(core.view().members())) == 5, "it has heard of the others"
        _FUZZED[make] = (core, datagrams)
    return _FUZZED[make]


def _check_sends(effects: list[Effect]) -> None:
    for effect in effects:
        assert not isinstance(effect, SendDatagram) or len(effect.data) <= DATAGRAM_BYTES_MAX


def test_what_it_did_not_ask_for_is_ignored(make: MakeCore) -> None:
    """An answer on a stream, or of a kernel, that nobody waits for does nothing."""
    core = new_core(make)
    core.start(0.0)
    assert core.handle(StreamReceived(SOURCE, 9, b"junk"), 0.1) == []
    assert core.handle(ReachProbed(node_id_of("nobody"), ReachKind.REFUSED), 0.1) == []


def test_join_is_repeated_until_answered(make: MakeCore) -> None:
    """A node whose seed is not there yet finds it when it appears; its own address is no seed."""
    cluster = GossipCluster(1, make=make)
    cluster.start("a")
    cluster.world.crash(cluster.host("a"))
    cluster.start("b")
    cluster.world.run_for(10.0)
    assert state_of(cluster, "b", "a") is None
    cluster.start("a")
    assert cluster.world.run_until_true(
        lambda: state_of(cluster, "b", "a") is state_of(cluster, "a", "b") is MemberState.ALIVE,
        limit_s=5.0,
    )


def test_the_dead_are_found_and_come_back(make: MakeCore) -> None:
    """A node that crashes is dead to all, and alive again, in its new life, after a restart."""
    cluster = whole_cluster(make)
    cluster.world.crash(cluster.host("c"))
    others = "abd"
    assert cluster.world.run_until_true(
        lambda: all(state_of(cluster, name, "c") is MemberState.DEAD for name in others), 15.0
    )
    cluster.start("c")
    assert cluster.world.run_until_true(
        lambda: all(state_of(cluster, name, "c") is MemberState.ALIVE for name in others), 10.0
    )
    found = cluster.view("a").member(node_id_of("c"))
    assert found is not None
    assert found.life == cluster.life("c")


def test_leaving_is_not_dying(make: MakeCore) -> None:
    """A node that leaves is LEFT to all at once, and stays so when it is gone."""
    cluster = whole_cluster(make)
    cluster.command("b", Leave())
    cluster.world.run_for(2.0)
    cluster.world.crash(cluster.host("b"))
    assert {state_of(cluster, name, "b") for name in "acd"} == {MemberState.LEFT}
    cluster.world.run_for(20.0)
    assert {state_of(cluster, name, "b") for name in "acd"} == {MemberState.LEFT}


def test_facts_reach_everybody_and_go_again(make: MakeCore) -> None:
    """A published fact, small or large, is read everywhere; so is its end."""
    cluster = whole_cluster(make)
    small, large = b"small", bytes(range(256)) * 63

    def read() -> set[tuple[bytes | None, ...]]:
        keys = [FactKey(node_id_of("a"), name) for name in ("node:address", "node:large")]
        views = [cluster.view(name) for name in "abcd"]
        found = [[view.fact(key) for key in keys] for view in views]
        return {tuple(f.value if f is not None else None for f in facts) for facts in found}

    for address, more in ((small, large), (small, small), (None, None)):
        cluster.command("a", PublishFact("node:address", address))
        cluster.command("a", PublishFact("node:large", more))
        wanted = {(address, more)}
        assert cluster.world.run_until_true(lambda w=wanted: read() == w, 30.0)  # type: ignore[misc]


def test_an_unchanged_value_costs_nothing(make: MakeCore) -> None:
    """Publishing what is published already, or deleting what is not there, has no effect."""
    core = new_core(make)
    core.start(0.0)
    assert core.handle(PublishFact("node:address", b"here"), 0.0) != []
    assert core.handle(PublishFact("node:address", b"here"), 0.0) == []
    assert core.handle(PublishFact("node:other", None), 0.0) == []


def test_what_is_too_large_is_refused(make: MakeCore) -> None:
    """A publication beyond the limits is refused with a reason; the earlier value stands."""
    core = new_core(make)
    core.start(0.0)
    core.handle(PublishFact("node:address", b"here"), 0.0)
    refused = core.handle(PublishFact("node:address", bytes(FACTS_BYTES_MAX + 1)), 0.0)
    assert [type(effect) for effect in refused] == [FactRefused]
    fact = core.view().fact(FactKey(node_id_of("x"), "node:address"))
    assert fact is not None
    assert fact.value == b"here"
    taken = 0
    for index in range(100):
        effects = core.handle(PublishFact(f"node:{index}", bytes(1_000)), 0.0)
        taken += not any(isinstance(effect, FactRefused) for effect in effects)
    assert 0 < taken * 1_000 <= FACTS_BYTES_MAX
