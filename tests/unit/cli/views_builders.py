"""Replies of a cluster, as short as tests of views need them."""

from __future__ import annotations

from dray.model import (
    AttemptReport,
    AttemptState,
    Availability,
    Fault,
    FaultKind,
    Health,
    NodeCapacity,
    NodeCondition,
    NodeInfo,
    NodeRecord,
    NodeUsage,
    Platform,
    TaskUsage,
)
from dray.views import Node, Rollout, RolloutState, Service, SlotState, SlotStateCount, Task
from tests.builders import CLUSTER_ID, GIB, a_record, a_service, a_slot, node_id, task_id

__all__ = ["NOW_S", "a_node_view", "a_service_view", "a_task_view"]

NOW_S = 1_700_000_000.0


def a_task_view(
    number: int = 1, *, state: SlotState = SlotState.RUNNING, cpu_millis: int | None = None
) -> Task:
    """Return a slot of `shop/web` with a task that has run for a minute."""
    observed = AttemptReport(
        task_id(number),
        2,
        AttemptState.RUNNING,
        Health.UNHEALTHY if state is SlotState.UNHEALTHY else Health.HEALTHY,
        address="10.192.0.9",
        since_unix_s=NOW_S - 60,
    )
    usage = None if cpu_millis is None else TaskUsage(task_id(number), cpu_millis, GIB)
    return Task(
        a_slot(number),
        state,
        task_id(number),
        node_id(1),
        "n1",
        image="nginx",
        observed=observed,
        usage=usage,
    )


def a_node_view(
    number: int = 1, *, condition: NodeCondition = NodeCondition.READY, is_full: bool = False
) -> Node:
    """Return a node of four CPUs that uses half of them."""
    record = NodeRecord(
        node_id(number), CLUSTER_ID, f"n{number}", "10.192.0.0/23", labels=(("zone", "a"),)
    )
    info = NodeInfo(
        node_id(number),
        f"n{number}",
        1,
        "boot",
        "0.1.0",
        f"192.0.2.{number}",
        7401,
        Platform(),
        "20.10",
        NodeCapacity(4000, 8 * GIB),
    )
    faults = (Fault(FaultKind.DISK_FULL, NOW_S, "full"),) if is_full else ()
    assert record.availability is Availability.ACTIVE
    return Node(
        record,
        condition,
        faults=faults,
        info=info,
        usage=NodeUsage(2000, 4 * GIB),
        reserved=NodeCapacity(1500, GIB),
        tasks=3,
    )


def a_service_view(
    name: str = "web",
    *,
    revision: int = 1,
    is_converged: bool = False,
    state: SlotState = SlotState.STARTING,
    rollout: RolloutState | None = None,
    problems: tuple[str, ...] = (),
) -> Service:
    """Return a service with one slot, perhaps with a rollout to its revision."""
    return Service(
        a_record(a_service(name), revision=revision),
        (SlotStateCount(state, 1),),
        1,
        is_converged,
        None if rollout is None else Rollout(rollout, revision - 1, revision),
        problems,
    )
