"""Does `place` keep its guarantees on clusters that nobody thought of?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dray.model import (
    Affinity,
    AffinityTarget,
    ConstraintOp,
    GenericResource,
    Gpu,
    GpuRequest,
    NodeCapacity,
    PackingPolicy,
    Placement,
    PlacementConstraint,
    Platform,
    PublishedPort,
    PublishMode,
    ResourceReservations,
    ServiceExtensions,
    ServiceSpec,
    Taint,
    TaintEffect,
    Toleration,
)
from scheduler.placement import (
    NodeClass,
    PlacementNode,
    PlacementRules,
    RunningShare,
    TaskGroup,
    cluster_view,
    place,
)
from tests.builders import (
    a_group,
    a_key,
    a_placement_node,
    a_service,
    node_id,
)
from tests.contract.placement import oracle
from tests.contract.placement.implementations import PLACES

HUGE = 2**63 - 1
SERVICES = ("web", "db", "job")

# Few values, close together, so that nodes are often just full, equal, or short of one unit.
amounts = st.one_of(st.integers(0, 4), st.sampled_from([0, 1000, HUGE]))
sizes = st.one_of(st.integers(0, 4), st.sampled_from([0, 1000, HUGE - 1]))
zones = st.sampled_from(["a", "b"])
models = st.sampled_from(["T4", "A100"])

reservations = st.builds(
    ResourceReservations,
    cpu_millis=st.one_of(st.integers(0, 4), st.just(100_000_000)),
    memory_bytes=amounts,
    disk_bytes=st.one_of(st.just(0), amounts),
    pids=st.one_of(st.just(0), amounts),
    gpu=st.sampled_from(
        [
            *[None] * 5,
            GpuRequest(),
            GpuRequest(2),
            GpuRequest(1, 400),
            GpuRequest(1, 700, ("T4",)),
            GpuRequest(1, 1000, ("A100", "T4")),
        ]
    ),
    generic=st.sampled_from(
        [(), (), (), (GenericResource("ssd", 1),), (GenericResource("fpga", 2),)]
    ),
)
taints = st.builds(Taint, st.sampled_from(["x", "y"]), zones, st.sampled_from(TaintEffect))

AFFINITIES = (
    Affinity(AffinityTarget.SERVICE, "db", required=True),
    Affinity(AffinityTarget.SERVICE, "web", required=True, topology="zone"),
    Affinity(AffinityTarget.SERVICE, "shop/job", anti=True, required=True),
    Affinity(AffinityTarget.SERVICE, "web", anti=True, required=True, topology="zone"),
    Affinity(AffinityTarget.SERVICE, "web", anti=True, topology="rack"),
    Affinity(AffinityTarget.SERVICE, "db", weight=7),
    Affinity(AffinityTarget.SERVICE_LABEL, "tier", "a", required=True, topology="rack"),
    Affinity(AffinityTarget.SERVICE_LABEL, "tier", "a", anti=True, required=True),
    Affinity(AffinityTarget.NODE_LABEL, "zone", "a", anti=True, required=True),
    Affinity(AffinityTarget.NODE_LABEL, "zone", "b", weight=3),
)
PORTS = (
    PublishedPort(80, 80, mode=PublishMode.HOST),
    PublishedPort(80, 80, mode=PublishMode.HOST, host_ip="10.0.0.1"),
    PublishedPort(80, 79, 80, mode=PublishMode.HOST),
    PublishedPort(80, 80),
    PublishedPort(80, mode=PublishMode.HOST),
)


constraints = st.builds(
    PlacementConstraint,
    st.sampled_from(
        ["node.labels.zone", "node.hostname", "node.id", "node.platform.arch", "node.ip"]
    ),
    st.sampled_from(ConstraintOp),
    st.sampled_from(["a", "b", "n1", node_id(1), "arm64"]),
)
spreads = st.sampled_from(["node.labels.zone", "node.labels.rack", "node.id", "engine.labels.x"])


@st.composite
def services(draw: st.DrawFn, name: str) -> ServiceSpec:
    """Draw a service that asks for some of what placement knows, and sometimes for more."""
    placement = Placement(
        tuple(draw(st.lists(constraints, max_size=1))),
        tuple(draw(st.lists(spreads, max_size=2, unique=True))),
        draw(st.integers(0, 2)),
        draw(st.sampled_from([(), (), ("linux/amd64",), ("linux/arm64", "linux/amd64")])),
    )
    extensions = ServiceExtensions(
        policy=draw(st.sampled_from(PackingPolicy)),
        priority=draw(st.sampled_from([0, 0, 0, 0, 7])),
        preempt=draw(st.booleans()),
        affinities=tuple(draw(st.lists(st.sampled_from(AFFINITIES), max_size=2))),
        tolerations=tuple(
            draw(
                st.lists(
                    st.builds(
                        Toleration,
                        st.sampled_from(["x", "y"]),
                        st.sampled_from(["", "a", "b"]),
                        st.sampled_from(TaintEffect),
                    ),
                    max_size=2,
                )
            )
        ),
    )
    spec = a_service(
        name,
        reservations=draw(reservations),
        placement=placement,
        ports=draw(st.one_of(st.just(()), st.tuples(st.sampled_from(PORTS)))),
        dray=extensions,
    )
    labels = draw(st.sampled_from([(), (("tier", "a"),)]))
    return replace(spec, labels=labels)


@st.composite
def shares(draw: st.DrawFn, gpus: tuple[Gpu, ...]) -> RunningShare:
    """Draw running tasks; the devices that they have are said."""
    name = draw(st.sampled_from(SERVICES))
    asked = draw(reservations)
    count = draw(st.integers(1, 3))
    if asked.gpu is not None:
        count = 1
        if asked.gpu.count > len(gpus) or asked.gpu.models:
            asked = replace(asked, gpu=None)
    spec = draw(st.one_of(st.none(), services(name)))
    if asked.gpu is None:
        return RunningShare(a_key(name), count, asked, spec)
    devices = tuple(gpu.id for gpu in gpus[: asked.gpu.count])
    return RunningShare(a_key(name), count, asked, spec, (devices,))


@st.composite
def nodes(draw: st.DrawFn, number: int) -> PlacementNode:
    """Draw a node, sometimes one that shrank below what it runs."""
    capacity = NodeCapacity(
        draw(st.integers(0, 8)),
        draw(sizes),
        draw(sizes),
        draw(sizes),
        tasks_max=draw(st.integers(0, 6)),
        gpus=tuple(
            Gpu(str(index), model) for index, model in enumerate(draw(st.lists(models, max_size=3)))
        ),
        generic=draw(st.sampled_from([(), (), (GenericResource("ssd", 2),)])),
    )
    return a_placement_node(
        number,
        capacity=capacity,
        accepts_new=draw(st.sampled_from([True, True, True, False])),
        labels=draw(st.dictionaries(st.sampled_from(["zone", "rack"]), zones)),
        taints=tuple(draw(st.lists(taints, max_size=1))),
        platform=Platform(architecture=draw(st.sampled_from(["amd64", "arm64"]))),
        running=_without_overlap(draw(st.lists(shares(capacity.gpus), max_size=2))),
    )


def _without_overlap(drawn: list[RunningShare]) -> tuple[RunningShare, ...]:
    """Return the shares with GPUs for the first that has some only: devices are not shared out."""
    kept: list[RunningShare] = []
    for share in drawn:
        if any(each.gpu_ids for each in kept) and share.gpu_ids:
            continue
        kept.append(share)
    return tuple(kept)


@st.composite
def group_lists(draw: st.DrawFn) -> tuple[TaskGroup, ...]:
    """Draw groups of different services, one of them in two turns now and then."""
    groups = []
    for name in draw(st.lists(st.sampled_from(SERVICES), max_size=3, unique=True)):
        spec = draw(services(name))
        slots = draw(st.integers(0, 5))
        pinned = draw(st.sampled_from([None, None, None, node_id(1), node_id(9)]))
        wanted = slots + draw(st.integers(0, 2))
        group = a_group(spec, slots, replicas_wanted=wanted, pinned_to=pinned)
        cut = draw(st.integers(0, slots))
        group = replace(group, gang=draw(st.sampled_from(["", "", "", "shop"])))
        groups += [replace(group, slots=group.slots[:cut]), replace(group, slots=group.slots[cut:])]
    return tuple(groups)


clusters = st.integers(0, 5).flatmap(
    lambda count: st.tuples(*(nodes(number) for number in range(1, count + 1)))
)


@pytest.mark.parametrize("name", sorted(PLACES))
@given(cluster=clusters, groups=group_lists())
def test_every_guarantee_holds(
    name: str, cluster: tuple[PlacementNode, ...], groups: tuple[TaskGroup, ...]
) -> None:
    """Never over-committed, nothing violated, nothing lost, refused only when no node will do."""
    result = PLACES[name](cluster_view(cluster), groups)
    oracle.check(cluster, groups, result)


@pytest.mark.parametrize("name", sorted(PLACES))
@given(cluster=clusters, groups=group_lists(), data=st.data())
def test_the_order_of_nodes_means_nothing(
    name: str,
    cluster: tuple[PlacementNode, ...],
    groups: tuple[TaskGroup, ...],
    data: st.DataObject,
) -> None:
    """The same cluster gives the same answer, twice and in any order, and is left as it was."""
    shuffled = data.draw(st.permutations(cluster))
    view = cluster_view(cluster)
    free = view.free.copy()
    first = PLACES[name](view, groups)
    assert PLACES[name](view, groups) == first
    assert PLACES[name](cluster_view(shuffled), groups) == first
    assert np.array_equal(view.free, free)


@pytest.mark.parametrize("name", sorted(PLACES))
@given(
    zones_of_nodes=st.lists(zones, min_size=1, max_size=6),
    replicas=st.integers(1, 12),
    policy=st.sampled_from(PackingPolicy),
)
def test_replicas_spread_evenly_over_zones_with_room(
    name: str, zones_of_nodes: list[str], replicas: int, policy: PackingPolicy
) -> None:
    """With room everywhere, no zone ends with two replicas more than another."""
    cluster = [
        a_placement_node(number, labels={"zone": zone})
        for number, zone in enumerate(zones_of_nodes, start=1)
    ]
    spec = a_service(
        placement=Placement(spread_over=("node.labels.zone",)),
        dray=ServiceExtensions(policy=policy),
    )
    result = PLACES[name](cluster_view(cluster), (a_group(spec, replicas),))
    zone_of = dict(zip((node.node_id for node in cluster), zones_of_nodes, strict=True))
    counts = dict.fromkeys(zones_of_nodes, 0)
    for placed in result.placed:
        counts[zone_of[placed.node_id]] += 1
    assert sum(counts.values()) == replicas
    assert max(counts.values()) - min(counts.values()) <= 1


@given(
    cluster=clusters,
    groups=group_lists(),
    percent=st.tuples(st.integers(100, 400), st.integers(100, 400)),
    reserve=st.builds(
        ResourceReservations,
        st.integers(0, 3),
        st.integers(0, 3),
        disk_bytes=st.integers(0, 3),
        pids=st.integers(0, 3),
    ),
)
def test_a_class_of_nodes_is_other_capacities(
    cluster: tuple[PlacementNode, ...],
    groups: tuple[TaskGroup, ...],
    percent: tuple[int, int],
    reserve: ResourceReservations,
) -> None:
    """Overcommitted nodes that keep a reserve are as nodes that have just that; others stay."""
    labelled = [
        replace(node, labels=(("class", "batch"), *node.labels)) if row % 2 else node
        for row, node in enumerate(cluster)
    ]
    rules = PlacementRules(classes=(NodeClass("batch", reserve, *percent),))
    same = [
        replace(node, capacity=_given_out(node.capacity, percent, reserve)) if row % 2 else node
        for row, node in enumerate(labelled)
    ]
    assert place(cluster_view(labelled, rules), groups) == place(cluster_view(same), groups)


def _given_out(
    capacity: NodeCapacity, percent: tuple[int, int], reserve: ResourceReservations
) -> NodeCapacity:
    """Return what is given out of a capacity. Nothing left of a limited amount is not drawn."""
    cpu = max(capacity.cpu_millis - reserve.cpu_millis, 0) * percent[0] // 100
    memory = max(capacity.memory_bytes - reserve.memory_bytes, 0) * percent[1] // 100
    disk, pids = capacity.disk_bytes, capacity.pids
    assume(not disk or disk > reserve.disk_bytes)
    assume(not pids or pids > reserve.pids)
    return replace(
        capacity,
        cpu_millis=cpu,
        memory_bytes=memory,
        disk_bytes=disk and disk - reserve.disk_bytes,
        pids=pids and pids - reserve.pids,
    )
