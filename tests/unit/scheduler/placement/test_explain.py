"""Does a refusal say what is in the way, in the words of the Compose file?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from dray.model import (
    Affinity,
    AffinityTarget,
    ConstraintOp,
    DeviceRequest,
    GenericResource,
    Gpu,
    GpuRequest,
    NodeCapacity,
    Placement,
    PlacementConstraint,
    PublishedPort,
    PublishMode,
    ResourceReservations,
    ServiceExtensions,
    ServiceSpec,
    Taint,
)
from scheduler.placement import (
    PlacementNode,
    RefusalReason,
    Shortage,
    TaskGroup,
    Unplaced,
    cluster_view,
    place,
)
from tests.builders import GIB, a_group, a_placement_node, a_service, a_share, node_id, reserving


def refused(nodes: list[PlacementNode], group: TaskGroup) -> Unplaced:
    """Return the one refusal."""
    return place(cluster_view(nodes), [group]).unplaced[0]


def test_the_nearest_node_and_the_change_that_fits() -> None:
    """Of nodes that lack something the one that lacks least is named, with what would fit."""
    nodes = [a_placement_node(1, cpus=1), a_placement_node(2, cpus=3, memory_gib=1)]
    group = a_group(a_service(reservations=reserving(cpus=3.5, memory_gib=1)))
    found = refused(nodes, group)
    assert found.advice == (
        "web was refused by all 2 nodes: CPU (2). n2 comes closest: it has 3 of 3.5 CPUs free; "
        'deploy.resources.reservations.cpus: "3" would fit'
    )
    assert found.nearest is not None
    assert found.nearest.node_id == node_id(2)
    assert found.nearest.shortages == (Shortage(RefusalReason.CPU, 3500, 3000),)
    asked = replace(group, spec=a_service(reservations=reserving(cpus=3, memory_gib=1)))
    assert len(place(cluster_view(nodes), [asked]).placed) == 1


NOTHING_LEFT = "comes closest: it has 0 of 1 CPUs free; only a node that has more would fit"
CASES = {
    "memory": (
        a_service(reservations=reserving(memory_gib=9)),
        "has 8GiB of 9GiB memory free; deploy.resources.reservations.memory: 8GiB would fit",
    ),
    "disk": (
        a_service(reservations=ResourceReservations(disk_bytes=2 * GIB)),
        "has 1GiB of 2GiB disk free; x-dray.disk: 1GiB would fit",
    ),
    "pids": (
        a_service(reservations=ResourceReservations(pids=200)),
        "has 100 of 200 pids free; deploy.resources.limits.pids: 100 would fit",
    ),
    "gpus": (
        a_service(reservations=ResourceReservations(gpu=GpuRequest(2))),
        "has 1 of 2 GPUs free for it; x-dray.gpu.count: 1 would fit",
    ),
    "generic": (
        a_service(reservations=ResourceReservations(generic=(GenericResource("ssd", 3),))),
        "generic_resources: ssd 2 would fit",
    ),
    "no such resource": (
        a_service(reservations=ResourceReservations(generic=(GenericResource("fpga", 1),))),
        "has 0 of 1 fpga free; only a node that has more would fit",
    ),
    "constraint": (
        a_service(
            placement=Placement(
                (PlacementConstraint("node.labels.disk", ConstraintOp.EQUAL, "nvme"),)
            )
        ),
        "node.labels.disk == nvme does not hold (nodes have ssd); node.labels.disk == ssd would",
    ),
    "constraint on a label that the node lacks": (
        a_service(
            placement=Placement(
                (PlacementConstraint("node.labels.rack", ConstraintOp.EQUAL, "r1"),)
            )
        ),
        "(nodes have no such label); dray node label n1 rack=r1 would make it hold",
    ),
    "constraint that forbids": (
        a_service(
            placement=Placement(
                (PlacementConstraint("node.labels.disk", ConstraintOp.NOT_EQUAL, "ssd"),)
            )
        ),
        "node.labels.disk != ssd does not hold (nodes have ssd); without it the service would fit",
    ),
    "platform": (a_service(placement=Placement(platforms=("linux/arm64",))), "it is linux/amd64"),
    "affinity": (
        a_service(
            dray=ServiceExtensions(
                affinities=(Affinity(AffinityTarget.SERVICE, "db", required=True),)
            )
        ),
        "x-dray.affinity",
    ),
    "preference": (
        a_service(placement=Placement(spread_over=("engine.labels.x",))),
        "deploy.placement.preferences",
    ),
    "device": (
        a_service(
            reservations=ResourceReservations(devices=(DeviceRequest(capabilities=("tpu",)),))
        ),
        "deploy.resources.reservations.devices",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_reason_has_its_words(name: str) -> None:
    """The advice names the key of the file that is in the way, and what would change it."""
    spec, words = CASES[name]
    capacity = NodeCapacity(
        4000,
        8 * GIB,
        disk_bytes=GIB,
        pids=100,
        gpus=(Gpu("a", "T4"),),
        generic=(GenericResource("ssd", 2),),
    )
    node = a_placement_node(1, capacity=capacity, labels={"disk": "ssd"})
    found = refused([node], a_group(spec))
    assert found.advice.startswith("web was refused by the only node: ")
    assert words in found.advice


def test_reasons_that_hang_on_the_node() -> None:
    """Taints, ports, limits of replicas, pins, addresses and readiness are explained too."""
    port = PublishedPort(80, 80, mode=PublishMode.HOST)
    on_port = a_service(ports=(port,))
    limited = a_service(placement=Placement(replicas_per_node_max=1))
    running = replace(a_share(), spec=on_port)
    cases: list[tuple[PlacementNode, ServiceSpec, str]] = [
        (a_placement_node(1, taints=(Taint("gpu", "yes"),)), a_service(), "[gpu=yes] would bear"),
        (a_placement_node(1, running=(running,)), on_port, "(ports in mode: host: 80)"),
        (a_placement_node(1, running=(a_share(),)), limited, "max_replicas_per_node: 2 would fit"),
        (a_placement_node(1, accepts_new=False), a_service(), "takes no new tasks"),
        (
            a_placement_node(1, capacity=NodeCapacity(1, 1, tasks_max=0)),
            a_service(),
            "no address left",
        ),
        (
            a_placement_node(1, running=(a_share("db", 1, reserving(cpus=4)),)),
            a_service(reservations=reserving(cpus=1)),
            NOTHING_LEFT,
        ),
    ]
    for node, spec, words in cases:
        assert words in refused([node], a_group(spec)).advice
    pinned = a_group(pinned_to=node_id(9))
    assert "no copy of the volume's data" in refused([a_placement_node(1)], pinned).advice


def test_a_gang_that_is_given_up_is_explained() -> None:
    """The group that found no room says what it lacked; the others that the project is whole."""
    groups = [
        replace(a_group(a_service("a", reservations=reserving(cpus=2))), gang="shop"),
        replace(a_group(a_service("b", reservations=reserving(cpus=8))), gang="shop"),
    ]
    first, second = place(cluster_view([a_placement_node(1)]), groups).unplaced
    assert "x-dray.gang" in first.advice
    assert "4 of 8 CPUs" in second.advice


def test_an_empty_cluster_is_said_to_be_empty() -> None:
    """Without nodes there is a next step all the same."""
    assert "dray node run" in refused([], a_group()).advice
