"""Is what an operator writes of classes of nodes read, refused where it must be, and kept to?"""

from __future__ import annotations

import pytest

from dray.errors import InvalidRequest
from dray.model import NodeCapacity, ResourceReservations
from dray.settings import DaemonSettings
from scheduler.node_classes import node_classes
from scheduler.placement import NodeClass, PlacementRules, cluster_view, place
from scheduler.settings import SchedulerSettings
from tests.builders import GIB, a_group, a_placement_node, a_service, reserving

REQUIRED = ("--etcd", "http://127.0.0.1:2379", "--listen", "127.0.0.1:1", "--advertise", "a:1")


def settings(*flags: str) -> SchedulerSettings:
    """Return the settings of a scheduler with these flags."""
    loaded: DaemonSettings = SchedulerSettings.load([*REQUIRED, *flags], {})
    assert isinstance(loaded, SchedulerSettings)
    return loaded


def test_rules_are_read() -> None:
    """Every rule has its place, from the flag to what placement is told."""
    text = "cpu:200% memory:120 reserve_cpus:0.5 reserve_memory:1g reserve_disk:2g reserve_pids:9"
    given = settings("--node-class", f"batch={text}", "--preempt-across-projects")
    kept = ResourceReservations(500, GIB, disk_bytes=2 * GIB, pids=9)
    assert given.placement_rules == PlacementRules(
        classes=(NodeClass("batch", kept, 200, 120),), preempts_across_projects=True
    )
    assert settings().placement_rules == PlacementRules()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cpu", "'cpu' is not RULE:VALUE"),
        ("cpu:200% cpu:300%", "cpu is there twice"),
        ("cpu:99%", "99% is not from 100%"),
        ("cpu:1001%", "1001% is not from 100%"),
        ("memory:much", "'much' is not a whole number of per cent"),
        ("disk:200%", "there is no such rule; there are cpu, memory,"),
        ("reserve_memory:1parsec", "reserve_memory: "),
        ("reserve_cpus:-1", "reserve_cpus: "),
        ("reserve_pids:5000000", "more than 4194304"),
    ],
)
def test_mistakes_are_named(text: str, told: str) -> None:
    """The class, the rule and what is allowed are told, also through the settings."""
    with pytest.raises(InvalidRequest, match="node class batch: ") as caught:
        node_classes((("batch", text),))
    assert told in str(caught.value)
    with pytest.raises(InvalidRequest, match="node class batch: "):
        settings("--node-class", f"batch={text}")


def test_a_class_gives_out_more_than_it_has() -> None:
    """Twice the CPU less the reserve: seven tasks of a core on four; other nodes give four."""
    rules = settings("--node-class", "batch=cpu:200% reserve_cpus:0.5").placement_rules
    nodes = [
        a_placement_node(1, capacity=NodeCapacity(4000, 64 * GIB), labels={"class": "batch"}),
        a_placement_node(2, capacity=NodeCapacity(4000, 64 * GIB)),
    ]
    spec = a_service(reservations=reserving(cpus=1, memory_gib=1))
    result = place(cluster_view(nodes, rules), [a_group(spec, 20)])
    counts = [sum(p.node_id == node.node_id for p in result.placed) for node in nodes]
    assert counts == [7, 4]
    assert len(result.unplaced[0].slots) == 9
