"""What does one service need? Its slots, by its kind: replicated, global, or a job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from dray.model import (
    JOB_KINDS,
    TERMINAL_ATTEMPT_STATES,
    AttemptReport,
    AttemptState,
    Health,
    ServiceKey,
    ServiceModeKind,
    ServiceRecord,
    ServiceRevision,
    SlotKey,
    UpdateOrder,
)
from dray.names import NodeId
from dray.views import RolloutState
from scheduler.nodes.subnets import subnet_number
from scheduler.reconcile.actions import (
    Action,
    ActionReason,
    Note,
    VerdictChange,
    VerdictDrop,
    VerdictPut,
)
from scheduler.reconcile.budget import held_back
from scheduler.reconcile.depends import unmet_dependency
from scheduler.reconcile.held import Held
from scheduler.reconcile.situation import Situation
from scheduler.reconcile.slots import Slot, WellSlots, end_all, first_task, plan_slot
from scheduler.reconcile.suits import suits
from scheduler.reconcile.volumes import Pinning, pinning_of
from scheduler.rollout import GOING, SlotView, advance, target_of
from scheduler.store.records import JobVerdict, RolloutVerdict

__all__ = ["ServicePlan", "plan_service", "subject_of"]

_GLOBAL_KINDS: Final = frozenset({ServiceModeKind.GLOBAL, ServiceModeKind.GLOBAL_JOB})
_NEVER_RAN: Final = 125  # Docker's own exit code for a container that could not be started


@dataclass(slots=True)
class ServicePlan:
    """What follows for one service."""

    ends: list[Action] = field(default_factory=list)
    begins: list[Action] = field(default_factory=list)
    verdicts: list[VerdictChange] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def add(self, ends: list[Action], begins: list[Action]) -> None:
        """Add what follows for one slot."""
        self.ends += ends
        self.begins += begins


def subject_of(key: ServiceKey) -> str:
    """Return a service's name as people write it."""
    return f"{key.project}/{key.service}"


def plan_service(situation: Situation, key: ServiceKey, record: ServiceRecord) -> ServicePlan:
    """Return what follows for a service that is asked for.

    Args:
        situation: What the plan is made from.
        key: The service.
        record: Its newest revision.
    """
    held = situation.held.get(key, {})
    plan = ServicePlan()
    waits = unmet_dependency(situation, record)
    if waits:
        plan.notes.append(Note(subject_of(key), waits))
    is_global = record.spec.mode.kind in _GLOBAL_KINDS
    if is_global:
        homes = _homes(situation, record, held)
        pinning = Pinning()
        wanted: dict[int, NodeId | None] = dict(homes)
    else:
        pinning = pinning_of(
            situation, key, record.spec, [item for items in held.values() for item in items]
        )
        wanted = dict.fromkeys(range(1, record.spec.mode.replicas + 1), pinning.node_id)
    plan.verdicts += pinning.verdicts
    plan.notes += pinning.notes
    base = Slot(
        SlotKey(key.project, key.service, 0),
        record.revision,
        order=record.spec.update.order,
        is_singleton=record.spec.dray.singleton,
        spec=record.spec,
        pins=pinning.pins,
        waits_for_node=True,
        may_begin=not waits and not pinning.is_torn,
    )
    if record.spec.mode.kind in JOB_KINDS:
        _plan_job(situation, record, base, wanted, plan, is_open=pinning.is_open)
    else:
        _plan_running(situation, record, base, wanted, plan, is_open=pinning.is_open)
    for number, items in held.items():
        if number not in wanted:
            reason = _unwanted(situation, items) if is_global else ActionReason.SCALED_DOWN
            is_singleton = base.is_singleton
            plan.ends += end_all(situation, items, reason, is_singleton=is_singleton)
    return plan


# ---- services that run until they are told to stop


def _plan_running(
    situation: Situation,
    record: ServiceRecord,
    base: Slot,
    wanted: dict[int, NodeId | None],
    plan: ServicePlan,
    *,
    is_open: bool,
) -> None:
    key = base.key.service_key
    held = situation.held.get(key, {})
    stored = situation.snapshot.rollouts.get(key)
    target = target_of(record, stored)
    views = _views(situation, key, target, wanted, stored)
    can_go_back = stored is not None and bool(situation.record_of(key, stored.from_revision))
    step = advance(record, stored, views, situation.now_unix_s, can_go_back=can_go_back)
    _note_rollout(plan, key, step.verdict, stored)
    if step.wake_at_unix_s is not None:
        situation.wake_at(step.wake_at_unix_s)
    is_back = step.verdict is not None and step.verdict.state is RolloutState.ROLLING_BACK
    base = replace(
        base,
        order=record.spec.rollback.order if is_back else base.order,
        replaces_for=ActionReason.ROLLED_BACK if is_back else ActionReason.NEW_REVISION,
    )
    stay = held_back(situation, record.spec.dray.unavailable_max, wanted, held)
    if stay:
        message = f"{len(stay)} of its tasks wait to leave nodes that are drained (unavailable_max)"
        plan.notes.append(Note(subject_of(key), message))
    well = WellSlots(situation, record.spec, step.target)
    first = min(wanted, default=0)
    for number, node_id in sorted(wanted.items()):
        items = held.get(number, [])
        if well.needs_nothing(items, node_id):
            continue
        slot_key = SlotKey(key.project, key.service, number)
        may_begin = base.may_begin and (not is_open or number == first)
        if not items:
            if may_begin:
                plan.begins.append(first_task(situation, slot_key, step.target, node_id, base.pins))
            continue
        is_waiting = number in step.waiting
        slot = Slot(
            slot_key,
            _own(situation, key, views[number], step.target) if is_waiting else step.target,
            spec=base.spec,
            may_replace=not is_waiting,
            order=base.order,
            is_singleton=base.is_singleton,
            pinned_to=node_id,
            pins=base.pins if not is_open or number == first else (),
            waits_for_node=base.waits_for_node,
            may_begin=may_begin,
            may_leave=number not in stay,
            replaces_for=base.replaces_for,
        )
        plan.add(*plan_slot(situation, slot, items))


def _views(
    situation: Situation,
    key: ServiceKey,
    target: ServiceRevision,
    wanted: Iterable[int],
    stored: RolloutVerdict | None,
) -> dict[int, SlotView]:
    """Return what a rollout sees of the slots; nothing while there is none, and none is due."""
    held = situation.held.get(key, {})
    is_going = stored is not None and stored.state in GOING
    if not is_going and all(
        item.task.service_revision == target for items in held.values() for item in items
    ):
        return {}
    return {number: _view(situation, key, target, held.get(number, [])) for number in wanted}


def _note_rollout(
    plan: ServicePlan,
    key: ServiceKey,
    verdict: RolloutVerdict | None,
    stored: RolloutVerdict | None,
) -> None:
    if verdict is None and stored is not None:
        plan.verdicts.append(VerdictDrop(stored, "nothing is left of it"))
    elif verdict is not None and verdict != stored:
        plan.verdicts.append(VerdictPut(verdict, verdict.state.name.lower().replace("_", " ")))
    if verdict is not None and verdict.state is RolloutState.PAUSED:
        plan.notes.append(Note(subject_of(key), f"its update has stopped: {verdict.message}"))


def _view(
    situation: Situation, key: ServiceKey, target: ServiceRevision, items: list[Held]
) -> SlotView:
    """Return what a rollout sees of a slot."""
    live = [item for item in items if not item.task.stop]
    new, old = [], []
    for item in live:
        if not situation.same_work(key, item.task.service_revision, target):
            if not situation.has_reported_end(item):
                old.append(item.task.service_revision)
        elif not situation.is_given_up(item):
            new.append(item)
    attempts = [situation.attempt(item) for item in new]
    failed = [attempt for attempt in attempts if attempt is not None and _has_failed(attempt)]
    return SlotView(
        max(old, default=None),
        bool(new),
        any(situation.serves(item) for item in new),
        bool(failed),
        next((attempt.reason for attempt in failed if attempt.reason), ""),
    )


def _has_failed(attempt: AttemptReport) -> bool:
    """Return whether a new task has failed since it was made, whatever its node does about it."""
    has_ended = attempt.state in TERMINAL_ATTEMPT_STATES or attempt.attempt > 1
    return has_ended or attempt.health is Health.UNHEALTHY


def _own(
    situation: Situation, key: ServiceKey, view: SlotView, target: ServiceRevision
) -> ServiceRevision:
    """Return what a slot's next task runs that must not be updated yet: what the last one ran."""
    is_kept = view.old is not None and situation.record_of(key, view.old) is not None
    return view.old if is_kept and view.old is not None else target


# ---- jobs


def _plan_job(
    situation: Situation,
    record: ServiceRecord,
    base: Slot,
    wanted: dict[int, NodeId | None],
    plan: ServicePlan,
    *,
    is_open: bool,
) -> None:
    key = base.key.service_key
    held = situation.held.get(key, {})
    allowed = record.spec.mode.parallel_max or len(wanted)
    under_way = sum(_is_under_way(situation, held.get(number, [])) for number in wanted)
    has_first = False
    for number, node_id in sorted(wanted.items()):
        slot_key, items = replace(base.key, slot=number), held.get(number, [])
        verdict = situation.snapshot.job_verdicts.get(slot_key)
        if verdict and situation.same_work(key, verdict.service_revision, record.revision):
            plan.ends += end_all(situation, items, ActionReason.JOB_DONE)
            continue
        ended = _job_end(situation, record, slot_key, items)
        if ended is not None:
            plan.verdicts.append(VerdictPut(ended, ActionReason.JOB_DONE.value))
            continue
        is_going = _is_under_way(situation, items)
        may_begin = base.may_begin and (is_going or under_way < allowed)
        may_begin &= not (is_open and has_first)
        slot = replace(
            base,
            key=slot_key,
            pinned_to=node_id,
            order=UpdateOrder.STOP_FIRST,
            may_begin=may_begin,
        )
        ends, begins = plan_slot(situation, slot, items)
        plan.add(ends, begins)
        has_first |= bool(begins)
        under_way += bool(begins) and not is_going
    for slot_key, verdict in situation.snapshot.job_verdicts.items():
        if slot_key.service_key == key and slot_key.slot not in wanted:
            plan.verdicts.append(VerdictDrop(verdict, "slot no longer wanted"))


def _is_under_way(situation: Situation, items: list[Held]) -> bool:
    return any(not item.task.stop and not situation.has_reported_end(item) for item in items)


def _job_end(
    situation: Situation, record: ServiceRecord, slot: SlotKey, items: list[Held]
) -> JobVerdict | None:
    """Return how a slot of a job ended, for good, if that was reported; a success comes first."""
    ends = []
    for item in items:
        attempt = situation.attempt(item)
        is_current = situation.same_work(
            slot.service_key, item.task.service_revision, record.revision
        )
        if attempt is None or not is_current or not situation.has_reported_end(item):
            continue
        if attempt.state is AttemptState.COMPLETED:
            ends.append(0)
        elif attempt.state is not AttemptState.STOPPED:
            ends.append(attempt.exit_code or _NEVER_RAN)
    return JobVerdict(slot, record.revision, min(ends, key=abs)) if ends else None


# ---- one task a node


def _homes(
    situation: Situation, record: ServiceRecord, held: Mapping[int, list[Held]]
) -> dict[int, NodeId]:
    """Return which slot is which node's: the number of the node's subnet, from 1."""
    homes = {}
    range_cidr = situation.snapshot.cluster.range_cidr
    for node_id in sorted(situation.snapshot.nodes):
        node = situation.snapshot.nodes[node_id]
        number = subnet_number(range_cidr, node.subnet) + 1
        has_task = any(
            item.node_id == node_id and not item.task.stop for item in held.get(number, [])
        )
        if _is_home(situation, record, node_id, has_task=has_task):
            homes[number] = node_id
    return homes


def _is_home(
    situation: Situation, record: ServiceRecord, node_id: NodeId, *, has_task: bool
) -> bool:
    """Return whether a node should have its task: what is unknown neither begins nor ends one."""
    if situation.is_down(node_id) or situation.is_drained(node_id):
        return False
    seen = situation.node(node_id)
    if seen is None or seen.info is None:
        return has_task
    node = situation.snapshot.nodes[node_id]
    if not suits(record.spec, node, seen.info, has_task=has_task):
        return False
    return has_task or situation.accepts_new(node_id)


def _unwanted(situation: Situation, items: list[Held]) -> ActionReason:
    """Return why a slot of a service with a task a node is not wanted."""
    node_id = items[0].node_id
    if not situation.is_registered(node_id):
        return ActionReason.NODE_REMOVED
    if situation.is_down(node_id):
        return ActionReason.NODE_DOWN
    if situation.is_drained(node_id):
        return ActionReason.NODE_DRAINED
    return ActionReason.NODE_UNSUITABLE
