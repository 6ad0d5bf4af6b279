"""Is what is kept from view to view, and from task to task, the same as starting over?"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dray.model import (
    Gpu,
    GpuRequest,
    NodeCapacity,
    PackingPolicy,
    Placement,
    ResourceReservations,
    ServiceExtensions,
    ServiceSpec,
)
from dray.names import NodeId
from scheduler.placement import (
    ClusterView,
    PlacementNode,
    Placer,
    RunningShare,
    TaskGroup,
    cluster_view,
    folded,
    place,
)
from scheduler.placement.fill import ROWS_MIN
from tests.builders import (
    GIB,
    a_group,
    a_key,
    a_placement_node,
    a_service,
    a_slot,
    node_id,
    reserving,
)

SPECS = [
    a_service("s0", reservations=reserving(cpus=0.5, memory_gib=1)),
    a_service("s1", reservations=reserving(cpus=1, memory_gib=0.5)),
    a_service("s2", reservations=ResourceReservations(cpu_millis=250, gpu=GpuRequest(1, 500))),
    a_service(
        "s3",
        reservations=reserving(cpus=2, memory_gib=4),
        dray=ServiceExtensions(policy=PackingPolicy.SPREAD),
    ),
]


def a_node(number: int, counts: tuple[int, ...], *, accepts_new: bool = True) -> PlacementNode:
    """Return a node that runs so many tasks of the first services."""
    shares = tuple(
        RunningShare(a_key(spec.name), count, spec.task.reservations, spec)
        for spec, count in zip(SPECS, counts, strict=False)
        if count
    )
    gpus = (Gpu("a", "T4"),) if number % 2 else ()
    capacity = NodeCapacity(8000, 16 * GIB, gpus=gpus)
    return a_placement_node(number, capacity=capacity, accepts_new=accepts_new, running=shares)


def assert_same(view: ClusterView, other: ClusterView) -> None:
    """Assert that two views say the same."""
    assert view.nodes == other.nodes
    for name in ("capacity", "free", "gpu_free", "gpu_model", "accepts_new"):
        assert np.array_equal(getattr(view, name), getattr(other, name)), name
    for name in ("rows", "resources", "replicas", "services", "ports", "kinds", "tasks"):
        assert getattr(view, name) == getattr(other, name), name


changes = st.tuples(
    st.integers(1, 12), st.tuples(*[st.integers(0, 3)] * 2), st.booleans(), st.booleans()
)


@given(rounds=st.lists(st.lists(changes, max_size=3), max_size=3))
def test_a_folded_view_says_what_a_new_one_says(
    rounds: list[list[tuple[int, tuple[int, ...], bool, bool]]],
) -> None:
    """Whatever changes, appears and goes: columns, sums and a placement are those of a new view."""
    nodes = {number: a_node(number, (number % 3,)) for number in range(1, 9)}
    view = cluster_view(list(nodes.values()))
    for changed in rounds:
        gone = {n for n, _, _, is_gone in changed if is_gone and n in nodes}
        kept = [(n, counts, ok) for n, counts, ok, _ in changed if n not in gone]
        now = {n: a_node(n, counts, accepts_new=ok) for n, counts, ok in kept}
        nodes = {n: node for n, node in {**nodes, **now}.items() if n not in gone}
        before = view.free.copy()
        old = view
        view = folded(view, now.values(), [node_id(n) for n in gone])
        assert np.array_equal(old.free, before)
        assert_same(view, cluster_view(list(nodes.values())))
        groups = [a_group(spec, 2) for spec in SPECS]
        fresh = cluster_view(list(nodes.values()))
        assert place(view, groups).placed == place(fresh, groups).placed


def test_small_rounds_keep_what_was_computed() -> None:
    """With much running, a round by the kept ranks places as one that has kept nothing."""
    nodes = [a_node(number, (2, 2)) for number in range(1, 40)]
    view = cluster_view(nodes)
    followed = 0
    for number in range(1, 30):
        place(view, [a_group(SPECS[number % 4])])
        assert view.lineage.asks
        view = folded(view, [a_node(number, (3, 1))])
        nodes[number - 1] = view.nodes[number - 1]
        followed += view.position > 0
        groups = [a_group(spec) for spec in SPECS]
        alone = folded(cluster_view(nodes), [])
        alone.lineage.scoring = view.lineage.scoring  # the mix is that of the lineage's beginning
        assert place(view, groups).placed == place(alone, groups).placed
    assert followed > 20  # a lineage ends when much has changed


def test_two_views_can_follow_one() -> None:
    """Of two views folded from one, each keeps its own columns."""
    view = cluster_view([a_node(number, (2, 2)) for number in range(1, 40)])
    place(view, [a_group(SPECS[0])])
    first = folded(view, [a_node(1, (9, 9))])
    second = folded(view, [a_node(2, (9, 9))])
    for each, full in ((first, 1), (second, 2)):
        fresh = cluster_view(each.nodes)
        groups = [a_group(SPECS[0]), a_group(SPECS[1])]
        assert place(each, groups).placed == place(fresh, groups).placed
        assert node_id(full) not in {p.node_id for p in place(each, groups).placed}


def test_two_placers_at_a_time_do_not_disturb_each_other() -> None:
    """What one has taken out of the lineage is found anew by the other, and both answer alike."""
    view = cluster_view([a_node(number, (2, 2)) for number in range(1, 40)])
    groups = [a_group(spec, 2) for spec in SPECS]
    expected = place(view, groups).placed
    first, second = Placer(view), Placer(view)
    assert first.place(groups).placed == expected
    assert second.place(groups).placed == expected
    first.close()
    third = Placer(view)
    second.close()
    assert third.place(groups).placed == expected
    assert place(view, groups).placed == expected


def test_threads_share_a_lineage() -> None:
    """Many rounds at once on one view, and on the one folded from it, give what one alone gives."""
    view = cluster_view([a_node(number, (2, 2)) for number in range(1, 40)])
    views = [view, folded(view, [a_node(1, (3, 1))])]
    groups = [a_group(spec, 2) for spec in SPECS]
    expected = [place(each, groups).placed for each in views]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: place(views[n % 2], groups).placed, range(40)))
    assert found == [expected[n % 2] for n in range(40)]


def test_a_changed_node_that_became_better_is_seen() -> None:
    """A full node that empties comes first again though another has been chosen meanwhile."""
    spec = SPECS[1]
    full = a_placement_node(1, cpus=8, memory_gib=16, running=shares_of(spec, 8))
    others = [
        a_placement_node(number, cpus=8, memory_gib=16, running=shares_of(spec, 3))
        for number in range(2, 30)
    ]
    view = cluster_view([full, *others])
    assert place(view, [a_group(spec)]).placed[0].node_id == node_id(2)
    view = folded(view, [a_placement_node(1, cpus=8, memory_gib=16, running=shares_of(spec, 3))])
    assert view.position
    assert place(view, [a_group(spec)]).placed[0].node_id == node_id(1)


def shares_of(spec: ServiceSpec, count: int) -> tuple[RunningShare, ...]:
    """Return so many running tasks of another service that asks for the same."""
    return (RunningShare(a_key("other"), count, spec.task.reservations, spec),)


def one_by_one(view: ClusterView, group: TaskGroup) -> list[NodeId]:
    """Return the nodes of a group whose slots are placed each on its own."""
    placer = Placer(view, [group])
    chosen = []
    for slot in group.slots:
        placed = placer.place([replace(group, slots=(slot,))]).placed
        chosen += [each.node_id for each in placed]
    return chosen


def grouped(spec: ServiceSpec, count: int, wanted: int) -> TaskGroup:
    """Return many new tasks of a service."""
    slots = tuple(a_slot(number, spec.name) for number in range(1, count + 1))
    return TaskGroup(a_key(spec.name), spec, slots, wanted)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("labels", [(), ("zone",), ("zone", "rack")], ids=str)
@pytest.mark.parametrize("wanted", [1, 900])
def test_a_group_is_placed_as_its_tasks_would_be(
    spec: ServiceSpec, labels: tuple[str, ...], wanted: int
) -> None:
    """Looking ahead gives every task the node that it would get at its own turn."""
    rng = np.random.default_rng(5)
    nodes = []
    for number in range(1, 3 * ROWS_MIN):
        node = a_node(number, tuple(int(count) for count in rng.integers(0, 4, 2)))
        where = (("rack", f"r{number % 7}"), ("zone", f"z{number % 3}"))
        nodes.append(replace(node, labels=where))
    over = tuple(f"node.labels.{label}" for label in labels)
    asked = replace(spec, placement=Placement(spread_over=over))
    group = grouped(asked, 60, wanted)
    view = cluster_view(nodes)
    together = [each.node_id for each in place(view, [group]).placed]
    alone = one_by_one(view, group)
    assert Counter(together) == Counter(alone)
    assert len(together) == 60
