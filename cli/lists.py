"""What do `ls`, `ps`, `node ls`, `events` and their like show? Views of lists, pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.texts import age, instant, plain_capacity, reserved_texts, word
from cli.views import Table

if TYPE_CHECKING:
    from dray.model import Event, ServiceRecord
    from dray.views import GossipMember, Node, Project, SlotStateCount, Task

__all__ = ["EventsView", "HistoryView", "MembersView", "NodesView", "ProjectsView", "TasksView"]


def _counts(slots: Sequence[SlotStateCount]) -> str:
    return ", ".join(f"{each.count} {word(each.state)}" for each in slots) or "nothing"


@dataclass(frozen=True, slots=True)
class ProjectsView:
    """Projects at a glance; `now_s` is the wall clock."""

    projects: Sequence[Project]
    now_s: float

    def table(self) -> Table:
        """Return one row a project."""
        rows = tuple(
            (
                each.name,
                str(each.services),
                "being removed" if each.is_removing else _counts(each.slots),
                age(each.updated_unix_s, self.now_s),
            )
            for each in self.projects
        )
        return Table(("PROJECT", "SERVICES", "SLOTS", "CHANGED"), rows)

    def plain(self) -> object:
        """Return one object a project."""
        return [
            {
                "name": each.name,
                "services": each.services,
                "slots": {word(count.state): count.count for count in each.slots},
                "is_removing": each.is_removing,
                "created": instant(each.created_unix_s),
                "updated": instant(each.updated_unix_s),
                "revision": each.revision,
            }
            for each in self.projects
        ]


@dataclass(frozen=True, slots=True)
class TasksView:
    """Slots and their tasks; `now_s` is the wall clock."""

    tasks: Sequence[Task]
    now_s: float

    def table(self) -> Table:
        """Return one row a slot."""
        return Table(
            ("SLOT", "STATE", "NODE", "IMAGE", "ADDRESS", "SINCE", "REASON"),
            tuple(self._row(task) for task in self.tasks),
        )

    def _row(self, task: Task) -> tuple[str, ...]:
        slot, observed = task.slot, task.observed
        state = word(task.state)
        if observed is not None and observed.health.name in ("STARTING", "UNHEALTHY"):
            state = f"{state} ({word(observed.health)})"
        return (
            f"{slot.project}/{slot.service}.{slot.slot}",
            state,
            task.node_name,
            task.image,
            observed.address if observed else "",
            age(observed.since_unix_s, self.now_s) if observed else "",
            task.reason,
        )

    def plain(self) -> object:
        """Return one object a slot; its names are kept from version to version."""
        return [self._plain(task) for task in self.tasks]

    def _plain(self, task: Task) -> dict[str, object]:
        observed = task.observed
        return {
            "project": task.slot.project,
            "service": task.slot.service,
            "slot": task.slot.slot,
            "task_id": task.task_id or "",
            "node": task.node_name,
            "state": word(task.state),
            "health": word(observed.health) if observed else "",
            "image": task.image,
            "address": observed.address if observed else "",
            "since": instant(observed.since_unix_s) if observed else "",
            "exit_code": observed.exit_code if observed else None,
            "attempt": observed.attempt if observed else None,
            "reason": task.reason,
        }


@dataclass(frozen=True, slots=True)
class NodesView:
    """Nodes of the cluster."""

    nodes: Sequence[Node]

    def table(self) -> Table:
        """Return one row a node."""
        return Table(
            (
                *("NODE", "CONDITION", "AVAILABILITY", "ADDRESS", "TASKS"),
                *("CPU RESERVED", "MEMORY RESERVED", "FAULTS"),
            ),
            tuple(self._row(node) for node in self.nodes),
        )

    def _row(self, node: Node) -> tuple[str, ...]:
        info = node.info
        return (
            node.record.name,
            word(node.condition),
            word(node.record.availability),
            info.advertise_address if info else "",
            str(node.tasks),
            *reserved_texts(node.reserved, info.capacity if info else None),
            ", ".join(word(fault.kind) for fault in node.faults),
        )

    def plain(self) -> object:
        """Return one object a node; its names are kept from version to version."""
        return [self._plain(node) for node in self.nodes]

    def _plain(self, node: Node) -> dict[str, object]:
        info, usage = node.info, node.usage
        used = None
        if usage is not None:
            used = {
                "cpu_millis": usage.cpu_millis,
                "memory_bytes": usage.memory_bytes,
                "disk_bytes": usage.disk_bytes,
                "pids": usage.pids,
            }
        return {
            "id": node.record.node_id,
            "name": node.record.name,
            "address": info.advertise_address if info else "",
            "condition": word(node.condition),
            "faults": [word(fault.kind) for fault in node.faults],
            "availability": word(node.record.availability),
            "labels": dict(node.record.labels),
            "capacity": plain_capacity(info.capacity if info else None),
            "reserved": plain_capacity(node.reserved),
            "used": used,
            "version": info.version if info else "",
        }


@dataclass(frozen=True, slots=True)
class MembersView:
    """What one node's gossip holds of all members."""

    members: Sequence[GossipMember]

    def table(self) -> Table:
        """Return one row a member."""
        return Table(
            ("MEMBER", "STATE", "SEEN", "HEARD", "CONTACT", "RTT", "LIFE", "INC", "FLAPS"),
            tuple(
                (
                    each.name or each.node_id,
                    word(each.state),
                    word(each.seen),
                    word(each.heard),
                    "" if each.last_contact_s is None else f"{each.last_contact_s:.1f} s",
                    "" if each.rtt_s is None else f"{each.rtt_s * 1000:.1f} ms",
                    str(each.life),
                    str(each.incarnation),
                    str(each.flaps),
                )
                for each in self.members
            ),
        )

    def plain(self) -> object:
        """Return one object a member."""
        return [
            {
                "id": each.node_id,
                "name": each.name,
                "address": str(each.address or ""),
                "life": each.life,
                "incarnation": each.incarnation,
                "state": word(each.state),
                "seen": word(each.seen),
                "heard": word(each.heard),
                "heard_from": each.heard_from or "",
                "last_contact_s": each.last_contact_s,
                "rtt_s": each.rtt_s,
                "flaps": each.flaps,
                "since_s": each.since_s,
            }
            for each in self.members
        ]


@dataclass(frozen=True, slots=True)
class EventsView:
    """What happened, oldest first; `now_s` is the wall clock."""

    events: Sequence[Event]
    now_s: float

    def table(self) -> Table:
        """Return one row an event."""
        return Table(
            ("AGE", "LEVEL", "SUBJECT", "WHAT"),
            tuple(
                (
                    age(each.unix_s, self.now_s),
                    word(each.level),
                    each.subject,
                    each.message,
                )
                for each in self.events
            ),
        )

    def plain(self) -> object:
        """Return one object an event."""
        return [
            {
                "sequence": each.sequence,
                "time": instant(each.unix_s),
                "kind": word(each.kind),
                "level": word(each.level),
                "subject": each.subject,
                "message": each.message,
                "reason": each.reason,
                "fields": dict(each.fields),
            }
            for each in self.events
        ]


@dataclass(frozen=True, slots=True)
class HistoryView:
    """The kept revisions of a service, newest first; `now_s` is the wall clock."""

    revisions: Sequence[ServiceRecord]
    now_s: float

    def table(self) -> Table:
        """Return one row a revision."""
        return Table(
            ("REVISION", "AGE", "IMAGE", "REPLICAS", "NOTE"),
            tuple(
                (
                    str(each.revision),
                    age(each.created_unix_s, self.now_s),
                    each.spec.task.container.image.reference,
                    str(each.spec.mode.replicas),
                    f"reverted to {each.reverted_from}" if each.reverted_from else "",
                )
                for each in self.revisions
            ),
        )

    def plain(self) -> object:
        """Return one object a revision."""
        return [
            {
                "project": each.project,
                "service": each.spec.name,
                "revision": int(each.revision),
                "created": instant(each.created_unix_s),
                "image": each.spec.task.container.image.reference,
                "mode": word(each.spec.mode.kind),
                "replicas": each.spec.mode.replicas,
                "reverted_from": each.reverted_from,
                "vip": each.vip,
            }
            for each in self.revisions
        ]
