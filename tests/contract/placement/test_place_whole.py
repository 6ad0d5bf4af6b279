"""Does `place` keep what is asked beyond CPU and memory? Devices, ports, rules, gangs, prices."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dray.model import (
    Affinity,
    AffinityTarget,
    GenericResource,
    Gpu,
    GpuRequest,
    NetworkMode,
    NodeCapacity,
    PackingPolicy,
    Placement,
    PortProtocol,
    PublishedPort,
    PublishMode,
    ResourceReservations,
    ServiceExtensions,
    ServiceSpec,
)
from scheduler.placement import (
    NodeClass,
    PlacementNode,
    PlacementRules,
    RefusalReason,
    RunningShare,
    TaskGroup,
    cluster_view,
    place,
)
from tests.builders import GIB, a_group, a_key, a_placement_node, a_service, a_share, reserving
from tests.contract.placement import oracle


def placed(nodes: list[PlacementNode], *groups: TaskGroup) -> dict[str, list[str]]:
    """Return the nodes' names of each service's tasks, in order of slots, after the oracle's look.

    Services without any task are absent.
    """
    result = place(cluster_view(nodes), groups)
    oracle.check(nodes, groups, result)
    names = {node.node_id: node.name for node in nodes}
    found: dict[str, list[str]] = {}
    for each in result.placed:
        found.setdefault(each.slot.service, []).append(names[each.node_id])
    return found


def refusals(nodes: list[PlacementNode], group: TaskGroup) -> dict[RefusalReason, int]:
    """Return how many nodes refused the first slots that have none, by reason."""
    result = place(cluster_view(nodes), (group,))
    oracle.check(nodes, (group,), result)
    return {count.reason: count.nodes for count in result.unplaced[0].refusals}


def gpu_node(number: int, *models: str, running: tuple[RunningShare, ...] = ()) -> PlacementNode:
    """Return a node with these GPUs, g0, g1 …."""
    gpus = tuple(Gpu(f"g{index}", model) for index, model in enumerate(models))
    return a_placement_node(
        number, capacity=NodeCapacity(64_000, 64 * GIB, gpus=gpus), running=running
    )


def with_gpu(name: str, request: GpuRequest) -> ServiceSpec:
    """Return a service that asks for GPUs."""
    return a_service(name, reservations=ResourceReservations(gpu=request))


def ruled(name: str, *rules: Affinity, replicas: int = 1) -> TaskGroup:
    """Return a group of a service with rules about others."""
    return a_group(a_service(name, dray=ServiceExtensions(affinities=rules)), replicas)


def near(name: str, **changes: object) -> Affinity:
    """Return a rule about a service."""
    return replace(Affinity(AffinityTarget.SERVICE, name), **changes)  # type: ignore[arg-type]


# ---- devices -------------------------------------------------------------------------------------


def test_whole_gpus_are_given_out_once() -> None:
    """Two devices take two tasks; the third is refused, and each device is named once."""
    nodes = [gpu_node(1, "T4", "T4")]
    group = a_group(with_gpu("web", GpuRequest()), 3)
    result = place(cluster_view(nodes), (group,))
    oracle.check(nodes, (group,), result)
    assert [each.gpu_ids for each in result.placed] == [("g0",), ("g1",)]
    assert refusals(nodes, group) == {RefusalReason.GPU: 1}


def test_shares_fill_one_gpu_before_the_next() -> None:
    """Shares of 0.4 go two to a device, and the device that was begun is filled first."""
    group = a_group(with_gpu("web", GpuRequest(1, 400)), 3)
    result = place(cluster_view([gpu_node(1, "T4", "T4")]), (group,))
    assert [each.gpu_ids for each in result.placed] == [("g0",), ("g0",), ("g1",)]


def test_a_model_that_is_asked_for_is_given() -> None:
    """Only devices of the model count, also on nodes with several models."""
    nodes = [gpu_node(1, "T4"), gpu_node(2, "T4", "A100")]
    group = a_group(with_gpu("web", GpuRequest(models=("A100",))), 2)
    result = place(cluster_view(nodes), (group,))
    oracle.check(nodes, (group,), result)
    assert [each.gpu_ids for each in result.placed] == [("g1",)]


def test_devices_that_run_tasks_are_taken() -> None:
    """What is said of running tasks' devices counts; what is not said is packed tightly."""
    half = ResourceReservations(gpu=GpuRequest(1, 500))
    told = RunningShare(a_key("db"), 2, half, gpu_ids=(("g0",), ("g1",)))
    group = a_group(with_gpu("web", GpuRequest()))
    assert refusals([gpu_node(1, "T4", "T4", running=(told,))], group) == {RefusalReason.GPU: 1}
    untold = replace(told, gpu_ids=())
    result = place(cluster_view([gpu_node(1, "T4", "T4", running=(untold,))]), (group,))
    assert [each.gpu_ids for each in result.placed] == [("g1",)]


def test_tasks_without_gpus_keep_off_the_nodes_that_have_them() -> None:
    """While GPU tasks are about, CPU tasks fill the nodes without GPUs first."""
    nodes = [gpu_node(1, "T4", "T4"), a_placement_node(2, cpus=64, memory_gib=64)]
    hungry = replace(
        with_gpu("train", GpuRequest()).task.reservations, cpu_millis=32_000, memory_bytes=GIB
    )
    groups = (
        a_group(a_service("train", reservations=hungry), 2),
        a_group(a_service(reservations=reserving(cpus=16, memory_gib=1)), 1),
    )
    assert placed(nodes, *groups) == {"train": ["n1", "n1"], "web": ["n2"]}


def test_generic_resources_are_counted() -> None:
    """Two slots for disks take two tasks; a node without any takes none."""
    slots = (GenericResource("ssd", 2),)
    nodes = [
        a_placement_node(1, capacity=NodeCapacity(4000, GIB, generic=slots)),
        a_placement_node(2),
    ]
    asked = ResourceReservations(generic=(GenericResource("ssd", 1),))
    group = a_group(a_service(reservations=asked), 3)
    assert placed(nodes, group) == {"web": ["n1", "n1"]}
    assert refusals(nodes, group) == {RefusalReason.GENERIC: 2}


# ---- ports ---------------------------------------------------------------------------------------


def with_port(name: str, **changes: object) -> TaskGroup:
    """Return a group that takes a port of its node."""
    port = PublishedPort(80, 8080, mode=PublishMode.HOST)
    return a_group(a_service(name, ports=(replace(port, **changes),)), 3)  # type: ignore[arg-type]


def test_a_host_port_is_taken_once_a_node() -> None:
    """Within a group and between groups; other protocols, addresses and ports do not clash."""
    nodes = [a_placement_node(1), a_placement_node(2)]
    first = with_port("a")
    assert placed(nodes, first) == {"a": ["n1", "n2"]}
    assert refusals(nodes, first) == {RefusalReason.PORT: 2}
    assert "b" not in placed(nodes, first, with_port("b", host_ip="10.0.0.1"))
    apart = [
        with_port("b", published=81),
        with_port("b", protocol=PortProtocol.UDP),
        with_port("b", mode=PublishMode.INGRESS),
    ]
    assert all(len(placed(nodes, first, other)["b"]) >= 2 for other in apart)
    addresses = with_port("b", host_ip="10.0.0.1"), with_port("c", host_ip="10.0.0.2")
    assert {name: len(rows) for name, rows in placed(nodes, *addresses).items()} == {"b": 2, "c": 2}


def test_a_range_of_host_ports_takes_as_many_tasks() -> None:
    """Two ports to choose from take two tasks on a node; running ones count."""
    group = with_port("a", published_end=8081)
    assert placed([a_placement_node(1)], group) == {"a": ["n1", "n1"]}
    running = replace(a_share("b"), spec=with_port("b").spec)
    assert placed([a_placement_node(1, running=(running,))], group) == {"a": ["n1"]}


# ---- rules about others --------------------------------------------------------------------------


def test_required_affinity_follows_the_other_service() -> None:
    """A task that must be near another comes after it, whatever the order of the groups."""
    nodes = [a_placement_node(1, cpus=1), a_placement_node(2)]
    big = a_group(a_service("db", reservations=reserving(cpus=2)))
    assert placed(nodes, ruled("web", near("db", required=True)), big) == {
        "db": ["n2"],
        "web": ["n2"],
    }
    assert refusals(nodes, ruled("web", near("db", required=True))) == {RefusalReason.AFFINITY: 2}


def test_a_borrowed_network_is_on_the_lenders_node() -> None:
    """`network_mode: service:db` puts a task beside db's."""
    nodes = [a_placement_node(1, cpus=1), a_placement_node(2)]
    big = a_group(a_service("db", reservations=reserving(cpus=2)))
    spec = a_service("web")
    borrower = replace(
        spec,
        task=replace(spec.task, network_mode=NetworkMode.SERVICE, network_mode_target="db"),
    )
    assert placed(nodes, big, a_group(borrower))["web"] == ["n2"]


def test_required_anti_affinity_works_both_ways() -> None:
    """Neither the one that states it nor the other one comes near; another project's name works."""
    spec = ruled("quiet", near("shop/noisy", anti=True, required=True)).spec
    running = RunningShare(a_key("quiet"), 1, spec.task.reservations, spec)
    nodes = [a_placement_node(1, running=(running,)), a_placement_node(2)]
    assert placed(nodes, a_group(a_service("noisy"), 2)) == {"noisy": ["n2", "n2"]}
    noisy = [a_placement_node(1, running=(a_share("noisy"),)), a_placement_node(2)]
    assert placed(noisy, a_group(spec)) == {"quiet": ["n2"]}


def test_one_replica_a_zone() -> None:
    """A service that keeps away from itself has one task in each domain, and no more."""
    nodes = [
        a_placement_node(number, labels={"zone": zone}) for number, zone in enumerate("aabb", 1)
    ]
    rule = near("web", anti=True, required=True, topology="zone")
    assert placed(nodes, ruled("web", rule, replicas=3)) == {"web": ["n1", "n3"]}
    assert refusals(nodes, ruled("web", rule, replicas=3)) == {RefusalReason.AFFINITY: 4}


def test_replicas_that_must_be_together_are() -> None:
    """The first task decides the zone, the others follow it."""
    nodes = [
        a_placement_node(number, cpus=2, labels={"zone": zone})
        for number, zone in enumerate("aabb", 1)
    ]
    rule = near("web", required=True, topology="zone")
    group = replace(
        ruled("web", rule, replicas=4),
        spec=replace(
            a_service(reservations=reserving(cpus=1), dray=ServiceExtensions(affinities=(rule,)))
        ),
    )
    assert set(placed(nodes, group)["web"]) in ({"n1", "n2"}, {"n3", "n4"})


@pytest.mark.parametrize("anti", [False, True])
def test_preferences_choose_among_nodes_that_will_do(anti: bool) -> None:
    """A preferred rule decides where it can, by weight, and refuses nothing."""
    nodes = [
        a_placement_node(1, labels={"disk": "hdd"}, running=(a_share("db"),)),
        a_placement_node(2, labels={"disk": "ssd"}),
    ]
    weak = near("db", anti=anti, weight=10)
    strong = Affinity(AffinityTarget.NODE_LABEL, "disk", "ssd", anti=anti, weight=90)
    assert placed(nodes, ruled("web", weak)) == {"web": ["n2" if anti else "n1"]}
    assert placed(nodes, ruled("web", weak, strong)) == {"web": ["n1" if anti else "n2"]}
    assert placed(nodes[:1], ruled("web", near("db", anti=True))) == {"web": ["n1"]}


def test_labels_of_services_are_looked_at() -> None:
    """A rule can be about all services with a label."""
    loud = replace(a_service("db"), labels=(("tier", "loud"),))
    running = RunningShare(a_key("db"), 1, loud.task.reservations, loud)
    nodes = [a_placement_node(1, running=(running,)), a_placement_node(2)]
    rule = Affinity(AffinityTarget.SERVICE_LABEL, "tier", "loud", anti=True, required=True)
    assert placed(nodes, ruled("web", rule)) == {"web": ["n2"]}


PLACES_APART = (("a", "x"), ("b", "x"), ("b", "y"), ("a", "y"))


# ---- apart, prices, classes, gangs, turns --------------------------------------------------------


@pytest.mark.parametrize("policy", [PackingPolicy.BINPACK, PackingPolicy.SPREAD])
@pytest.mark.parametrize("replicas", [2, 3, 4, 5, 10])
def test_no_zone_holds_more_than_half(policy: PackingPolicy, replicas: int) -> None:
    """With room elsewhere a node, and a zone, gets half of the replicas, rounded up."""
    nodes = [
        a_placement_node(number, cpus=64, labels={"zone": zone})
        for number, zone in enumerate("aaabbc", 1)
    ]
    spec = a_service(reservations=reserving(cpus=1), dray=ServiceExtensions(policy=policy))
    names = placed(nodes, a_group(spec, replicas))["web"]
    zones = ["aaabbc"[int(name[1:]) - 1] for name in names]
    half = (replicas + 1) // 2
    assert max(zones.count(zone) for zone in zones) <= half
    assert max(names.count(name) for name in names) <= half


def test_apart_gives_way_to_room() -> None:
    """Where the other zone is full, the replicas share one: first over its nodes, then on one."""
    nodes = [
        a_placement_node(1, labels={"zone": "a"}),
        a_placement_node(2, labels={"zone": "a"}),
        a_placement_node(3, labels={"zone": "b"}, accepts_new=False),
    ]
    names = placed(nodes, a_group(slots=4))["web"]
    assert sorted(names) == ["n1", "n1", "n2", "n2"]


def test_cheaper_nodes_fill_first() -> None:
    """Nodes with a price come by price; those without, or with nonsense, as the dearest."""
    prices = {1: {}, 2: {"price": "0.9"}, 3: {"price": "0.1"}, 4: {"price": "cheap"}}
    nodes = [a_placement_node(number, cpus=1, labels=each) for number, each in prices.items()]
    group = a_group(a_service(reservations=reserving(cpus=1)), 4)
    names = placed(nodes, replace(group, replicas_wanted=1))["web"]
    assert names == ["n3", "n1", "n2", "n4"]


def test_classes_of_nodes_reserve_and_overcommit() -> None:
    """A class takes the system's reserve off and gives out a multiple of the rest."""
    rules = PlacementRules(
        classes=(NodeClass("batch", reserving(cpus=1, memory_gib=1), cpu_percent=200),)
    )
    nodes = [a_placement_node(1, cpus=4, memory_gib=3, labels={"class": "batch"})]
    spec = a_service(reservations=reserving(cpus=1))
    result = place(cluster_view(nodes, rules), [a_group(spec, 7)])
    assert len(result.placed) == 6
    heavy = a_service(reservations=reserving(memory_gib=1))
    assert len(place(cluster_view(nodes, rules), [a_group(heavy, 3)]).placed) == 2


def test_a_gang_is_placed_whole_or_not_at_all() -> None:
    """When one group finds no room, none is placed, and others get the room."""
    nodes = [a_placement_node(1, cpus=4)]
    first = replace(a_group(a_service("a", reservations=reserving(cpus=3))), gang="shop")
    second = replace(a_group(a_service("b", reservations=reserving(cpus=2))), gang="shop")
    other = a_group(a_service("c", reservations=reserving(cpus=4)))
    assert placed(nodes, first, second, other) == {"c": ["n1"]}
    result = place(cluster_view(nodes), [first, second])
    reasons = [[count.reason for count in each.refusals] for each in result.unplaced]
    assert reasons == [[RefusalReason.GANG], [RefusalReason.GANG]]
    assert placed(nodes, second) == {"b": ["n1"]}


def test_turns_are_by_priority_then_by_size() -> None:
    """A higher priority comes first; of equals the one that takes most of a node."""
    nodes = [a_placement_node(1, cpus=4)]
    small = a_group(a_service("small", reservations=reserving(cpus=1)))
    large = a_group(a_service("large", reservations=reserving(cpus=4)))
    urgent = a_group(
        a_service("urgent", reservations=reserving(cpus=1), dray=ServiceExtensions(priority=1))
    )
    assert placed(nodes, small, large) == {"large": ["n1"]}
    assert placed(nodes, small, large, urgent) == {"urgent": ["n1"], "small": ["n1"]}


def test_spreading_over_racks_within_full_zones() -> None:
    """Zones that may hold only half cut across racks: what can be even is."""
    nodes = [
        a_placement_node(number, labels={"zone": zone, "rack": rack})
        for number, (zone, rack) in enumerate(PLACES_APART, 1)
    ]
    spec = a_service(placement=Placement(spread_over=("node.labels.rack",)))
    names = placed(nodes, a_group(spec, 6))["web"]
    assert len(names) == 6
