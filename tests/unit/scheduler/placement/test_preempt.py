"""Does a task of high priority displace the fewest and lowest tasks, and never its equals?"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dray.model import (
    Gpu,
    GpuRequest,
    NodeCapacity,
    ResourceReservations,
    ServiceExtensions,
    ServiceKey,
    ServiceSpec,
)
from scheduler.placement import (
    Eviction,
    PlacementNode,
    PlacementRules,
    RunningShare,
    TaskGroup,
    cluster_view,
    place,
)
from tests.builders import a_group, a_placement_node, a_service, a_slot, node_id, reserving


def spec(name: str, cpus: float, priority: int = 0, *, preempts: bool = False) -> ServiceSpec:
    """Return a service of a priority."""
    extensions = ServiceExtensions(priority=priority, preempt=preempts)
    return a_service(name, reservations=reserving(cpus), dray=extensions)


def share(of: ServiceSpec, count: int = 1, project: str = "shop", ending: int = 0) -> RunningShare:
    """Return running tasks of it."""
    key = ServiceKey(project, of.name)
    return RunningShare(key, count, of.task.reservations, of, ending=ending)


def evicted(nodes: list[PlacementNode], *groups: TaskGroup) -> list[tuple[str, str, int]]:
    """Return on which node how many tasks of which service are to end."""
    result = place(cluster_view(nodes), groups)
    names = {node.node_id: node.name for node in nodes}
    return [(names[each.node_id], each.service.service, each.count) for each in result.evictions]


def test_the_lowest_victims_come_first() -> None:
    """A node with tasks of the lowest priority makes room, though another has fewer to end."""
    nodes = [
        a_placement_node(1, running=(share(spec("mid", 4, 5)),)),
        a_placement_node(2, running=(share(spec("low", 1, 1), 4),)),
    ]
    assert evicted(nodes, a_group(spec("web", 2, 9, preempts=True))) == [("n2", "low", 2)]


def test_the_fewest_victims_of_equal_rank() -> None:
    """One large task ends rather than two small ones."""
    nodes = [
        a_placement_node(1, running=(share(spec("small", 1), 4),)),
        a_placement_node(2, running=(share(spec("small", 1), 2), share(spec("large", 2)))),
    ]
    assert evicted(nodes, a_group(spec("web", 2, 9, preempts=True))) == [("n2", "large", 1)]


def test_the_slot_waits_and_its_room_is_kept() -> None:
    """The slot stays unplaced until the victims ended; nobody else gets their room, or its own."""
    nodes = [a_placement_node(1, running=(share(spec("low", 3)),))]
    groups = [a_group(spec("web", 3, 9, preempts=True)), a_group(spec("later", 1))]
    result = place(cluster_view(nodes), groups)
    assert result.evictions == (Eviction(a_slot(), node_id(1), ServiceKey("shop", "low"), 1),)
    assert [each.slots for each in result.unplaced] == [(a_slot(),)]
    assert [placed.slot.service for placed in result.placed] == ["later"]
    tight = [a_group(spec("web", 4, 9, preempts=True)), a_group(spec("later", 1))]
    result = place(cluster_view(nodes), tight)
    assert len(result.unplaced) == 2


def test_what_is_ending_already_is_waited_for() -> None:
    """Victims that were told to end in an earlier round are not followed by others."""
    nodes = [a_placement_node(1, running=(share(spec("low", 2), 2, ending=1),))]
    assert evicted(nodes, a_group(spec("web", 2, 9, preempts=True))) == []


@pytest.mark.parametrize("across", [False, True])
def test_other_projects_are_left_alone_by_default(across: bool) -> None:
    """Only where the operator's rules say so are tasks of other projects displaced."""
    node = a_placement_node(1, running=(share(spec("low", 4), project="other"),))
    view = cluster_view([node], PlacementRules(preempts_across_projects=across))
    result = place(view, [a_group(spec("web", 2, 9, preempts=True))])
    assert bool(result.evictions) is across


@pytest.mark.parametrize(("priority", "preempts"), [(5, True), (4, True), (9, False)])
def test_equals_and_those_who_may_not_displace_nobody(priority: int, preempts: bool) -> None:
    """Equal and higher priorities are never displaced, and nobody is without `preempt`."""
    nodes = [a_placement_node(1, running=(share(spec("db", 4, 5)),))]
    assert evicted(nodes, a_group(spec("web", 2, priority, preempts=preempts))) == []


def test_conditions_are_not_made_room_for() -> None:
    """A node that the task could not run on anyway keeps its tasks."""
    nodes = [a_placement_node(1, accepts_new=False, running=(share(spec("low", 4)),))]
    assert evicted(nodes, a_group(spec("web", 2, 9, preempts=True))) == []


def test_gpus_are_freed_where_it_is_known_who_has_them() -> None:
    """The tasks of a share that hold the devices end together."""
    asked = ResourceReservations(gpu=GpuRequest())
    low = a_service("low", reservations=asked)
    capacity = NodeCapacity(4000, 2**33, gpus=(Gpu("a", "T4"), Gpu("b", "T4")))
    key = ServiceKey("shop", "low")
    held = RunningShare(key, 2, asked, low, gpu_ids=(("a",), ("b",)))
    web = a_service(reservations=asked, dray=ServiceExtensions(priority=1, preempt=True))
    known = a_placement_node(1, capacity=capacity, running=(held,))
    assert evicted([known], a_group(web)) == [("n1", "low", 2)]
    unknown = replace(known, running=(replace(held, gpu_ids=()),))
    assert evicted([unknown], a_group(web)) == []


def test_each_slot_gets_its_own_room() -> None:
    """Several slots displace tasks for each of them, as long as there are any."""
    nodes = [a_placement_node(number, running=(share(spec("low", 2), 2),)) for number in (1, 2)]
    group = a_group(spec("web", 2, 9, preempts=True), 5)
    assert sorted(evicted(nodes, group)) == [("n1", "low", 1)] * 2 + [("n2", "low", 1)] * 2


running = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(1, 2)), min_size=1, max_size=3
)


@given(loads=st.lists(running, min_size=1, max_size=3), cpus=st.integers(1, 8))
def test_no_better_way_exists(loads: list[list[tuple[int, int, int]]], cpus: int) -> None:
    """Of all sets of victims on one node, none is lower, or as low and smaller."""
    nodes = []
    for number, shares in enumerate(loads, start=1):
        made = [
            share(spec(f"s{number}{index}", size, priority), count)
            for index, (size, priority, count) in enumerate(shares)
        ]
        total = sum(size * count for size, _, count in shares)
        nodes.append(a_placement_node(number, cpus=total, memory_gib=64, running=tuple(made)))
    result = place(cluster_view(nodes), [a_group(spec("web", cpus, 2, preempts=True))])
    best = None
    for node, shares in zip(nodes, loads, strict=True):
        for counts in product(*(range(count + 1) for _, _, count in shares)):
            ended = [(s, n) for s, n in zip(shares, counts, strict=True) if n]
            if sum(size * n for (size, _, _), n in ended) < cpus:
                continue
            highest = max(priority for (_, priority, _), _ in ended)
            if highest < 2:
                way = (highest, sum(n for _, n in ended), node.name)
                best = way if best is None else min(best, way)
    if best is None:
        assert result.evictions == ()
        return
    specs = {s.service: s.spec for node in nodes for s in node.running}
    victims = [(specs[each.service], each.count) for each in result.evictions]
    highest = max(each.dray.priority for each, _ in victims if each is not None)
    assert (highest, sum(count for _, count in victims)) == best[:2]
    assert sum(each.task.reservations.cpu_millis * n for each, n in victims if each) >= cpus * 1000
