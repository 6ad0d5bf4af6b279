"""What must be done now? `reconcile` compares what was asked with what is assigned and reported.

Guarantees, whatever the input:

- Pure: the same arguments give the same plan; new ids come from `ids`, time from `now_unix_s`.
- Unknown is not dead: nothing is created, moved, forgotten or concluded because a node or task is
  unknown.
- Level-triggered: the plan depends on state alone, never on what happened before. A partly
  committed plan is ordinary input.
- Idempotent: once a plan was carried out and its verdicts stored, the next one is empty until
  something is asked or reported, or time passes that the plan has named (`wake_at_unix_s`).
- One task a slot (`slots`): of several the one that need not be replaced is kept.
- A slot's task is replaced by a new revision when the service's rollout lets it (`scheduler.
  rollout`); one that must move before that keeps its revision.
- A job's slot that ended is never run again for the same work: its verdict is stored first, and its
  task forgotten after that.
- Data pins (`volumes`): nothing starts elsewhere on an empty copy unless that was accepted.

Services that ask for what nobody can do yet (automatic scaling, times of a job) are left alone with
a note rather than run as if they had not asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dray.model import ServiceKey, ServiceSpec
from dray.names import IdFactory
from scheduler.reconcile.actions import Action, ActionReason, Note, Plan, VerdictChange
from scheduler.reconcile.held import Held
from scheduler.reconcile.observed import Observed
from scheduler.reconcile.removed import removed_projects
from scheduler.reconcile.services import plan_service, subject_of
from scheduler.reconcile.situation import Situation
from scheduler.reconcile.slots import end_all
from scheduler.reconcile.verdicts import loose_ends, verdict_key
from scheduler.store.snapshot import Snapshot

__all__ = ["Scope", "reconcile"]


@dataclass(frozen=True, slots=True)
class Scope:
    """Which part of the cluster a plan looks at; the rest is left as it is.

    Attributes:
        held: Who holds what, of the whole cluster, as of the snapshot.
        services: The services to look at; None: all. Services of one project depend on each other,
            so they come together.
    """

    held: Mapping[ServiceKey, Mapping[int, list[Held]]]
    services: frozenset[ServiceKey] | None = None


def reconcile(
    snapshot: Snapshot,
    observed: Observed,
    now_unix_s: float,
    ids: IdFactory,
    scope: Scope | None = None,
) -> Plan:
    """Return what must be done for the cluster to become what was asked.

    Args:
        snapshot: What is stored, at one revision.
        observed: What nodes reported; what is absent is unknown.
        now_unix_s: The leader's wall clock, seconds; verdicts of other leaders name their own.
        ids: Where ids of new tasks come from.
        scope: Which part to look at; None: all of it.

    Returns:
        Stops and removals before creations and moves; within each, by slot. `notes` name what is
        left alone, and what waits for what.
    """
    held = None if scope is None else scope.held
    situation = Situation(snapshot, observed, now_unix_s, ids, held)
    asked, gone = _in_scope(situation, None if scope is None else scope.services)
    endings: list[Action] = []
    beginnings: list[Action] = []
    verdicts: list[VerdictChange] = []
    notes: list[Note] = []
    for key in asked:
        record = snapshot.services[key]
        if wish := _not_yet(record.spec):
            message = f"cannot plan {wish} yet; its tasks are left alone"
            notes.append(Note(subject_of(key), message))
            continue
        plan = plan_service(situation, key, record)
        endings += plan.ends
        beginnings += plan.begins
        verdicts += plan.verdicts
        notes += plan.notes
    for key in gone:
        for items in situation.held[key].values():
            endings += end_all(situation, items, ActionReason.SERVICE_REMOVED)
    endings.sort(key=lambda action: action.slot)
    verdicts += loose_ends(situation)
    removed = removed_projects(situation)
    verdicts += removed.verdicts
    return Plan(
        snapshot.revision,
        (*endings, *beginnings),
        _once(verdicts),
        (*notes, *removed.notes),
        tuple(removed.removals),
        situation.wake_at_unix_s,
    )


def _in_scope(
    situation: Situation, services: frozenset[ServiceKey] | None
) -> tuple[list[ServiceKey], list[ServiceKey]]:
    """Return the services to plan, and those of which only tasks are left."""
    asked, held = situation.snapshot.services, situation.held
    if services is None:
        return sorted(asked), [key for key in held if key not in asked]
    return (
        sorted(key for key in services if key in asked),
        sorted(key for key in services if key in held and key not in asked),
    )


def _not_yet(spec: ServiceSpec) -> str:
    """Return what the service asks for and this version cannot plan, in words, or ""."""
    if spec.dray.autoscale is not None:
        return "automatic scaling"
    if spec.dray.schedule:
        return "times of a job"
    return ""


def _once(changes: list[VerdictChange]) -> tuple[VerdictChange, ...]:
    """Return the changes without those of a verdict that another one changes already.

    Two services may share a volume: the first one's change counts.
    """
    found: dict[object, VerdictChange] = {}
    for change in changes:
        found.setdefault(verdict_key(change), change)
    return tuple(found.values())
