"""Does every implementation of `place` keep its stated guarantees? Cases chosen by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dray.model import (
    Affinity,
    AffinityTarget,
    ConstraintOp,
    DeviceRequest,
    GenericResource,
    GpuRequest,
    NetworkMode,
    NodeCapacity,
    PackingPolicy,
    Placement,
    PlacementConstraint,
    Platform,
    ResourceReservations,
    ServiceExtensions,
    ServiceSpec,
    Taint,
)
from scheduler.placement import (
    PlacementNode,
    PlacementResult,
    RefusalReason,
    TaskGroup,
    cluster_view,
)
from tests.builders import (
    GIB,
    a_group,
    a_placement_node,
    a_service,
    a_share,
    a_slot,
    node_id,
    reserving,
)
from tests.contract.placement import oracle
from tests.contract.placement.implementations import PLACES, Place

HUGE = 2**63 - 1  # the largest amount that the file format takes


@pytest.fixture(params=sorted(PLACES))
def place(request: pytest.FixtureRequest) -> Place:
    """Return one implementation after the other."""
    return PLACES[request.param]


def placed_by(
    place: Place, nodes: list[PlacementNode], *groups: TaskGroup
) -> tuple[list[str], PlacementResult]:
    """Return the names of the chosen nodes in order, and the result, after the oracle saw it."""
    result = place(cluster_view(nodes), groups)
    oracle.check(nodes, groups, result)
    names = {node.node_id: node.name for node in nodes}
    return [names[placed.node_id] for placed in result.placed], result


def with_service(**changes: object) -> ServiceSpec:
    """Return a service whose template is changed."""
    spec = a_service()
    return replace(spec, task=replace(spec.task, **changes))  # type: ignore[arg-type]


def test_nothing_asked_is_nothing_answered(place: Place) -> None:
    """No groups, and a group without slots, give an empty result."""
    nodes = [a_placement_node()]
    assert place(cluster_view(nodes), ()) == PlacementResult()
    nothing = place(cluster_view(nodes), (a_group(slots=0),))
    assert (nothing.placed, nothing.unplaced) == ((), ())


def test_a_cluster_without_nodes_refuses_everything(place: Place) -> None:
    """With no nodes every slot is unplaced, and no node is counted."""
    result = place(cluster_view([]), (a_group(slots=2), a_group(a_service("db"))))
    assert result.placed == ()
    assert [each.slots for each in result.unplaced] == [
        (a_slot(1), a_slot(2)),
        (a_slot(1, "db"),),
    ]
    assert all(each.refusals == () and each.nearest is None for each in result.unplaced)


def test_a_used_node_comes_before_an_unused_one(place: Place) -> None:
    """Of nodes that lose alike by taking the task, one that runs something is taken."""
    busy = a_placement_node(2, running=(a_share("db", 1, reserving(cpus=1, memory_gib=1)),))
    group = a_group(a_service(reservations=reserving(cpus=1, memory_gib=1)))
    assert placed_by(place, [a_placement_node(1), busy], group)[0] == ["n2"]


def test_the_policy_spread_takes_the_emptiest_node(place: Place) -> None:
    """A service, or its project, can ask for even use of all nodes."""
    busy = a_placement_node(1, running=(a_share("db", 1, reserving(cpus=2, memory_gib=4)),))
    nodes = [busy, a_placement_node(2)]
    spread = ServiceExtensions(policy=PackingPolicy.SPREAD)
    packed = ServiceExtensions(policy=PackingPolicy.BINPACK)
    by_project = replace(a_group(), project_policy=PackingPolicy.SPREAD)
    against = replace(a_group(a_service(dray=packed)), project_policy=PackingPolicy.SPREAD)
    assert placed_by(place, nodes, a_group(a_service(dray=spread)))[0] == ["n2"]
    assert placed_by(place, nodes, by_project)[0] == ["n2"]
    assert placed_by(place, nodes, against)[0] == ["n1"]
    assert placed_by(place, nodes, a_group())[0] == ["n1"]


def test_equal_nodes_are_taken_by_id_whatever_their_order(place: Place) -> None:
    """Ties go to the lower node id, and the order in which nodes are listed means nothing."""
    nodes = [a_placement_node(number) for number in (3, 1, 2)]
    assert placed_by(place, nodes, a_group())[0] == ["n1"]
    groups = (a_group(slots=4), a_group(a_service("db"), slots=2))
    assert place(cluster_view(nodes), groups) == place(cluster_view(nodes[::-1]), groups)


@pytest.mark.parametrize("replicas", [2, 3, 5])
def test_replicas_are_kept_apart(place: Place, replicas: int) -> None:
    """No node gets all replicas of a service while another one has room."""
    nodes = [a_placement_node(1), a_placement_node(2)]
    names, _ = placed_by(place, nodes, a_group(slots=replicas))
    assert set(names) == {"n1", "n2"}


def test_replicas_are_kept_apart_from_those_that_run(place: Place) -> None:
    """What runs already counts: the second replica avoids the node of the first one."""
    nodes = [a_placement_node(1, running=(a_share(),)), a_placement_node(2)]
    names, _ = placed_by(place, nodes, a_group(slots=(2,), replicas_wanted=2))
    assert names == ["n2"]


def test_replicas_are_kept_apart_beside_a_node_that_shrank(place: Place) -> None:
    """A node far below zero in a resource that is not asked for is not preferred to apartness."""
    shrunk = a_placement_node(1, memory_gib=0, running=(a_share("db", 1, reserving(0, 64)),))
    names, _ = placed_by(place, [shrunk, a_placement_node(2)], a_group(slots=2))
    assert set(names) == {"n1", "n2"}


def test_new_replicas_are_kept_apart_beside_the_old_ones(place: Place) -> None:
    """While two old replicas still run on two nodes, the two new ones go to both."""
    nodes = [a_placement_node(number, running=(a_share(),)) for number in (1, 2)]
    names, _ = placed_by(place, nodes, a_group(slots=2, replicas_wanted=2))
    assert set(names) == {"n1", "n2"}


def test_all_replicas_share_a_node_when_no_other_will_do(place: Place) -> None:
    """Apart is a preference: availability of the service comes first."""
    nodes = [a_placement_node(1), a_placement_node(2, accepts_new=False)]
    assert placed_by(place, nodes, a_group(slots=3))[0] == ["n1"] * 3


@pytest.mark.parametrize(
    ("capacity", "asked", "reason"),
    [
        (NodeCapacity(1000, GIB), ResourceReservations(cpu_millis=400), RefusalReason.CPU),
        (
            NodeCapacity(1000, GIB),
            ResourceReservations(memory_bytes=400 * 1024**2),
            RefusalReason.MEMORY,
        ),
        (
            NodeCapacity(1000, GIB, disk_bytes=GIB),
            ResourceReservations(disk_bytes=400 * 1024**2),
            RefusalReason.DISK,
        ),
        (NodeCapacity(1000, GIB, pids=100), ResourceReservations(pids=40), RefusalReason.PIDS),
        (NodeCapacity(1000, GIB, tasks_max=2), ResourceReservations(), RefusalReason.TASKS),
    ],
    ids=["cpu", "memory", "disk", "pids", "tasks"],
)
def test_a_node_takes_what_fits_and_not_one_more(
    place: Place, capacity: NodeCapacity, asked: ResourceReservations, reason: RefusalReason
) -> None:
    """In every resource two fit, the third is refused, and the reason names the resource."""
    nodes = [a_placement_node(1, capacity=capacity)]
    names, result = placed_by(place, nodes, a_group(a_service(reservations=asked), slots=3))
    assert names == ["n1", "n1"]
    assert [(count.reason, count.nodes) for count in result.unplaced[0].refusals] == [(reason, 1)]


def test_what_a_group_takes_is_gone_for_the_next_one(place: Place) -> None:
    """Groups have their turns in order, and the last free amount is given out once."""
    half = reserving(cpus=2)
    groups = [a_group(a_service(name, reservations=half)) for name in ("a", "b", "c")]
    names, result = placed_by(place, [a_placement_node()], *groups)
    assert names == ["n1", "n1"]
    assert [unplaced.slots for unplaced in result.unplaced] == [(a_slot(1, "c"),)]


def test_a_node_that_shrank_takes_nothing_that_it_lacks(place: Place) -> None:
    """With less than nothing left of a resource, only tasks that do not ask for it fit."""
    nodes = [a_placement_node(1, cpus=1, running=(a_share("db", 1, reserving(cpus=4)),))]
    asking = a_group(a_service(reservations=ResourceReservations(cpu_millis=1)))
    assert placed_by(place, nodes, asking)[0] == []
    assert placed_by(place, nodes, a_group(a_service(reservations=reserving(0, 1))))[0] == ["n1"]


def test_what_a_node_does_not_report_does_not_limit_it(place: Place) -> None:
    """Disk and pids that are not reported are never used up, not even by the largest amounts."""
    asked = ResourceReservations(disk_bytes=HUGE, pids=HUGE)
    spec = a_service(reservations=asked)
    running = (a_share("db", 3, asked),)
    names, _ = placed_by(place, [a_placement_node(1, running=running)], a_group(spec, slots=5))
    assert names == ["n1"] * 5


def test_the_largest_amounts_do_not_wrap_around(place: Place) -> None:
    """Sums beyond 64 bits neither make room out of nothing nor raise."""
    running = (a_share("db", 400, ResourceReservations(memory_bytes=HUGE)),)
    nodes = [a_placement_node(1, running=running), a_placement_node(2)]
    asking = a_service(reservations=ResourceReservations(memory_bytes=HUGE))
    assert placed_by(place, nodes, a_group(asking))[0] == []
    assert placed_by(place, nodes, a_group(a_service(reservations=reserving(0, 1))))[0] == ["n2"]
    largest = a_placement_node(3, capacity=NodeCapacity(HUGE, HUGE, HUGE, HUGE))
    assert placed_by(place, [largest], a_group(a_service("db"), slots=2))[0] == ["n3"] * 2


CONSTRAINTS = [
    ("node.labels.disk", "ssd", {"n1"}, {"n2", "n3"}),
    ("node.labels.com.example.rack", "r1", {"n2"}, {"n1", "n3"}),
    ("node.labels.missing", "x", set(), {"n1", "n2", "n3"}),
    ("node.hostname", "n3", {"n3"}, {"n1", "n2"}),
    ("node.id", node_id(2), {"n2"}, {"n1", "n3"}),
    ("node.role", "worker", {"n1", "n2", "n3"}, set()),
    ("node.platform.os", "linux", {"n1", "n2", "n3"}, set()),
    ("node.platform.arch", "arm64", {"n3"}, {"n1", "n2"}),
    ("engine.labels.storage", "x", set(), set()),
    ("node.labels", "x", set(), set()),
    ("nonsense", "x", set(), set()),
]


@pytest.mark.parametrize(
    ("key", "value", "equal", "not_equal"), CONSTRAINTS, ids=[case[0] for case in CONSTRAINTS]
)
def test_constraints_are_kept(
    place: Place, key: str, value: str, equal: set[str], not_equal: set[str]
) -> None:
    """A constraint leaves just the right nodes; one about an unknown attribute leaves none."""
    nodes = [
        a_placement_node(1, labels={"disk": "ssd"}),
        a_placement_node(2, labels={"disk": "hdd", "com.example.rack": "r1"}),
        a_placement_node(3, platform=Platform(architecture="arm64", variant="v8")),
    ]
    for op, expected in ((ConstraintOp.EQUAL, equal), (ConstraintOp.NOT_EQUAL, not_equal)):
        rule = Placement((PlacementConstraint(key, op, value),), replicas_per_node_max=1)
        names, _ = placed_by(place, nodes, a_group(a_service(placement=rule), slots=3))
        assert set(names) == expected


@pytest.mark.parametrize(
    ("allowed", "image", "expected"),
    [
        ((), "", {"n1", "n2"}),
        (("linux/amd64",), "", {"n1"}),
        (("linux/arm64",), "", {"n2"}),
        (("linux/arm64/v8",), "", {"n2"}),
        (("linux/arm64/v7",), "", set()),
        (("linux/amd64", "linux/arm64"), "", {"n1", "n2"}),
        (("linux/amd64", "linux/arm64"), "linux/arm64", {"n2"}),
        (("linux/amd64",), "linux/arm64", set()),
        ((), "windows/amd64", set()),
    ],
    ids=str,
)
def test_platforms_are_kept(
    place: Place, allowed: tuple[str, ...], image: str, expected: set[str]
) -> None:
    """A node must be one of the allowed platforms, and the one that the image is asked for in."""
    nodes = [
        a_placement_node(1),
        a_placement_node(2, platform=Platform(architecture="arm64", variant="v8")),
    ]
    spec = a_service(placement=Placement(platforms=allowed, replicas_per_node_max=1))
    options = replace(spec.task.container.image, platform=image)
    container = replace(spec.task.container, image=options)
    spec = replace(spec, task=replace(spec.task, container=container))
    assert set(placed_by(place, nodes, a_group(spec, slots=2))[0]) == expected


def test_taints_and_pins_and_readiness_are_kept(place: Place) -> None:
    """Each keeps a node out, with its own reason."""
    nodes = [
        a_placement_node(1, taints=(Taint("gpu"),)),
        a_placement_node(2, accepts_new=False),
        a_placement_node(3),
    ]
    names, result = placed_by(place, nodes, a_group(pinned_to=node_id(2)))
    assert names == []
    assert {(count.reason, count.nodes) for count in result.unplaced[0].refusals} == {
        (RefusalReason.PINNED_ELSEWHERE, 2),
        (RefusalReason.NOT_READY, 1),
    }
    rule = Placement(replicas_per_node_max=1)
    names, result = placed_by(place, nodes, a_group(a_service(placement=rule), slots=2))
    assert names == ["n3"]
    assert {count.reason for count in result.unplaced[0].refusals} == {
        RefusalReason.TAINT,
        RefusalReason.NOT_READY,
        RefusalReason.REPLICAS_PER_NODE,
    }


def test_replicas_are_spread_over_the_values_of_an_attribute(place: Place) -> None:
    """The zone with the fewest replicas comes first, then the rack within it; packing last."""
    zones = {1: ("a", "x"), 2: ("a", "x"), 3: ("a", "y"), 4: ("b", "z")}
    nodes = [
        a_placement_node(number, labels={"zone": zone, "rack": rack})
        for number, (zone, rack) in zones.items()
    ]
    rule = Placement(spread_over=("node.labels.zone", "node.labels.rack"))
    names, _ = placed_by(place, nodes, a_group(a_service(placement=rule), slots=6))
    by_zone = [zones[int(name[1:])][0] for name in names]
    assert by_zone == ["a", "b"] * 3
    racks = [zones[int(name[1:])][1] for name in names if zones[int(name[1:])][0] == "a"]
    assert racks == ["x", "y", "x"]


def test_nodes_without_the_label_are_one_value_to_spread_over(place: Place) -> None:
    """A missing label is a value like any other, and what runs already is counted."""
    nodes = [
        a_placement_node(1, labels={"zone": "a"}, running=(a_share(),)),
        a_placement_node(2),
        a_placement_node(3),
    ]
    rule = Placement(spread_over=("node.labels.zone",))
    group = a_group(a_service(placement=rule), slots=(2, 3), replicas_wanted=5)
    assert placed_by(place, nodes, group)[0] == ["n2", "n1"]


UNKNOWN = {
    RefusalReason.GPU: [with_service(reservations=ResourceReservations(gpu=GpuRequest()))],
    RefusalReason.DEVICE: [
        with_service(reservations=ResourceReservations(devices=(request,)))
        for request in (
            DeviceRequest(count=1, capabilities=("tpu",)),
            DeviceRequest(count=-1, capabilities=("gpu",)),
            DeviceRequest(device_ids=("0",), capabilities=("gpu",)),
        )
    ],
    RefusalReason.GENERIC: [
        with_service(reservations=ResourceReservations(generic=(GenericResource("ssd", 1),)))
    ],
    RefusalReason.AFFINITY: [
        a_service(
            dray=ServiceExtensions(
                affinities=(Affinity(AffinityTarget.SERVICE, "db", required=True),)
            )
        ),
        with_service(network_mode=NetworkMode.SERVICE, network_mode_target="db"),
        with_service(network_mode=NetworkMode.CONTAINER, network_mode_target="x"),
    ],
    RefusalReason.PREFERENCE: [a_service(placement=Placement(spread_over=("engine.labels.zone",)))],
}


@pytest.mark.parametrize(
    ("reason", "spec"),
    [(reason, spec) for reason, specs in UNKNOWN.items() for spec in specs],
    ids=[f"{reason.name}-{i}" for reason, specs in UNKNOWN.items() for i in range(len(specs))],
)
def test_what_no_node_has_is_refused(
    place: Place, reason: RefusalReason, spec: ServiceSpec
) -> None:
    """Nothing that was asked for is dropped: it is kept, or refused everywhere with its reason."""
    nodes = [a_placement_node(1), a_placement_node(2)]
    names, result = placed_by(place, nodes, a_group(spec))
    assert names == []
    assert [(count.reason, count.nodes) for count in result.unplaced[0].refusals] == [(reason, 2)]


def test_reasons_come_most_frequent_first(place: Place) -> None:
    """Of a mixed refusal people read the commonest reason first, and every node counts once."""
    nodes = [
        a_placement_node(1, cpus=1, taints=(Taint("gpu"),)),
        a_placement_node(2, cpus=1),
        a_placement_node(3, cpus=1, memory_gib=0),
        a_placement_node(4, accepts_new=False),
    ]
    group = a_group(a_service(reservations=reserving(cpus=2, memory_gib=1)))
    _, result = placed_by(place, nodes, group)
    assert [(count.reason, count.nodes) for count in result.unplaced[0].refusals] == [
        (RefusalReason.CPU, 2),
        (RefusalReason.NOT_READY, 1),
        (RefusalReason.TAINT, 1),
    ]


def test_the_cluster_is_not_changed(place: Place) -> None:
    """Placing leaves every column of the view as it was, so that a result can be thrown away."""
    view = cluster_view([a_placement_node(1, running=(a_share(),)), a_placement_node(2)])
    before = cluster_view(view.nodes)
    place(view, (a_group(slots=3), a_group(a_service("db"), slots=2)))
    assert view.nodes == before.nodes
    assert view.replicas == before.replicas
    columns = [(view.capacity, before.capacity), (view.free, before.free)]
    assert all(np.array_equal(left, right) for left, right in columns)
    assert np.array_equal(view.accepts_new, before.accepts_new)
