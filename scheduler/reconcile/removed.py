"""What is left of projects that are being removed? Their volumes, where that was asked.

A project's record goes when none of its tasks is assigned any more. With `remove_volumes` the nodes
remove its volumes first: those that it declares itself, that are not external, and that no other
project declares under the same name. A node that is away keeps the project until it has come back,
or was removed for good.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from dray.names import NodeId
from scheduler.reconcile.actions import (
    Note,
    ProjectDrop,
    VerdictChange,
    VerdictDrop,
    VolumeRemoval,
)
from scheduler.reconcile.situation import Situation
from scheduler.store.records import ProjectRecord, VolumePin

__all__ = ["AGAIN_S", "Removed", "removed_projects"]

AGAIN_S: Final = 5.0  # a node that has not removed a volume is told again
NAMES_MAX: Final = 1_000  # of one message


@dataclass(slots=True)
class Removed:
    """What follows for the projects that are being removed."""

    verdicts: list[VerdictChange] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    removals: list[VolumeRemoval] = field(default_factory=list)


def removed_projects(situation: Situation) -> Removed:
    """Return what follows for the projects that are being removed and of which nothing runs."""
    found = Removed()
    in_use: set[str] | None = None
    for name, project in sorted(situation.snapshot.projects.items()):
        if not project.is_removing:
            continue
        if in_use is None:  # looked up once, and only when a project is removed
            in_use = {key.project for key in (*situation.held, *situation.snapshot.services)}
        if name not in in_use:
            _remove(situation, name, project, found)
    return found


def _remove(situation: Situation, name: str, project: ProjectRecord, found: Removed) -> None:
    pins = [pin for key, pin in situation.snapshot.volume_pins.items() if key.project == name]
    doomed = _doomed(situation, name, project) if project.remove_volumes else frozenset()
    left = dict(_left(situation, doomed))
    for node_id, names in sorted(left.items()):
        found.removals.append(VolumeRemoval(node_id, name, tuple(sorted(names)[:NAMES_MAX])))
    away = {pin.node_id for pin in pins if pin.volume in doomed and _is_away(situation, pin)}
    if left or away:
        where = ", ".join(sorted(situation.node_name(each) for each in {*left, *away}))
        found.notes.append(Note(name, f"is removed when its volumes are gone from {where}"))
    if left:
        situation.wake_at(situation.now_unix_s + AGAIN_S)
    elif not away and project.remove_volumes and pins:
        for pin in sorted(pins, key=lambda each: each.volume):
            found.verdicts.append(VerdictDrop(pin, "project removed with its volumes"))
    elif not away:
        found.verdicts.append(ProjectDrop(name, "project removed"))


def _doomed(situation: Situation, name: str, project: ProjectRecord) -> frozenset[str]:
    """Return the Docker volumes that go with a project, by name."""
    kept = {
        volume.name
        for other, record in situation.snapshot.projects.items()
        if other != name
        for volume in record.spec.volumes
    }
    own = {volume.name for volume in project.spec.volumes if not volume.external}
    return frozenset(own - kept)


def _left(situation: Situation, doomed: frozenset[str]) -> Iterator[tuple[NodeId, frozenset[str]]]:
    """Yield the nodes that still have some of the volumes, and which."""
    if doomed:
        for node_id, node in situation.observed.nodes.items():
            if situation.is_registered(node_id) and (names := node.volumes & doomed):
                yield node_id, names


def _is_away(situation: Situation, pin: VolumePin) -> bool:
    """Return whether nobody can say if a node still has a volume that was pinned there."""
    node = situation.node(pin.node_id)
    is_known = node is not None and node.has_all_volumes
    return situation.is_registered(pin.node_id) and not is_known
