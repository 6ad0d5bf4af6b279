"""How long has a slot been without a running task although somebody could have given it one?

Seen from outside, twice a second, in truth: what runs, who has power, who reaches whom. A slot that
is wanted and does not run is *missing*; the time counts only while a leader could act (it holds the
key, runs, reaches the store and the nodes) and a node that is well has room for the slot. When one
of that ends the slot is excused, and its time starts again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from dray.model import NodeRecord, ServiceRecord, SlotKey, TaskAssignment
from dray.names import NodeId
from scheduler.store import keys
from tests.simulation.scheduler_node import Daemon, SimNode
from tests.simulation.scheduler_process import SimScheduler

if TYPE_CHECKING:
    from tests.simulation.scheduler_world import SchedulerWorld

__all__ = ["MISSING_MAX_S", "Gaps"]

MISSING_MAX_S: Final = 30.0
"""A node that answers with its kernel alone is down after 20 s; a leader that may be cut off itself
holds back for 15 s; a singleton waits 12 s more. Then one plan, and one start."""


class Gaps:
    """Since when slots are missing."""

    def __init__(self, world: SchedulerWorld) -> None:
        """Start with nothing missing."""
        self._world = world
        self._since_s: dict[SlotKey, float] = {}
        self.longest_s = 0.0

    def look(
        self,
        wanted: Mapping[SlotKey, ServiceRecord],
        assigned: Mapping[NodeId, Iterable[TaskAssignment]],
        home_of: Mapping[SlotKey, NodeId],
    ) -> list[str]:
        """Return which slots are missing for too long.

        Args:
            wanted: Slots of services that run until they are told to stop.
            assigned: What is stored.
            home_of: Slots that only one node can run.
        """
        now_s = self._world.now_s()
        running = {run.task.slot for node in self._world.nodes.values() for run in node.running()}
        missing = [slot for slot in wanted if slot not in running]
        if not self._may_act():
            missing = []
        found: list[str] = []
        self._since_s = {
            slot: self._since_s.get(slot, now_s)
            for slot in missing
            if self.has_room(slot, wanted[slot], assigned, home_of.get(slot))
        }
        for slot, since_s in self._since_s.items():
            self.longest_s = max(self.longest_s, now_s - since_s)
            if now_s - since_s > MISSING_MAX_S:
                found.append(f"{slot} has had no task since {since_s:.1f} s, and there is room")
        return found

    def _may_act(self) -> bool:
        leaders = [each for each in self._world.schedulers if self._leads(each)]
        return bool(leaders) and all(self._is_able(each) for each in leaders)

    def _leads(self, scheduler: SimScheduler) -> bool:
        return scheduler.is_leading and scheduler.epoch == self._world.epoch()

    def _is_able(self, scheduler: SimScheduler) -> bool:
        is_well = not (scheduler.gate.is_paused or scheduler.way.is_cut)
        return is_well and all(
            self._world.passes(scheduler.name, node.name) for node in self._world.nodes.values()
        )

    def has_room(
        self,
        slot: SlotKey,
        record: ServiceRecord,
        assigned: Mapping[NodeId, Iterable[TaskAssignment]],
        home: NodeId | None,
        *,
        beside: bool = False,
    ) -> bool:
        """Return whether a node that is well could run a slot now, or has it already.

        Args:
            slot: The slot.
            record: What is asked for.
            assigned: What is stored.
            home: The only node that will do; None: any.
            beside: A task that the slot has already keeps its room.
        """
        for node in self._world.nodes.values():
            if (home is not None and node.node_id != home) or not self._is_well(node):
                continue
            tasks = list(assigned.get(node.node_id, ()))
            others = [task for task in tasks if beside or task.slot != slot]
            taken = sum(map(self._cpu_millis, others))
            if taken + record.spec.task.reservations.cpu_millis <= self._world.cpus * 1000:
                return True
        return False

    def _cpu_millis(self, task: TaskAssignment) -> int:
        key = keys.revision_key(task.slot.service_key, task.service_revision)
        item = self._world.data.item(key)
        return (
            0
            if item is None
            else self._world.decoded(item, ServiceRecord).spec.task.reservations.cpu_millis
        )

    def _is_well(self, node: SimNode) -> bool:
        item = self._world.data.item(keys.node_key(node.node_id))
        if item is None or self._world.decoded(item, NodeRecord).availability.name != "ACTIVE":
            return False
        others = [each.name for each in self._world.nodes.values() if each is not node]
        is_reached = all(self._world.passes(node.name, other) for other in others)
        return node.has_power and node.daemon is Daemon.UP and is_reached
