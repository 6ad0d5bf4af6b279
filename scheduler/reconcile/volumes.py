"""Where must a service's tasks be because of its data? Volumes and bind mounts pin.

A named local volume or a bind mount pins its service to the node where the data was first made, by
a stored verdict. Without one the service's first task decides, and the others wait for it. While
that node is down the service waits, unless it accepts the loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from dray.model import MountKind, ServiceKey, ServiceSpec, VolumeLoss, VolumeSpec
from dray.names import NodeId
from scheduler.reconcile.actions import Note, VerdictChange, VerdictDrop, VerdictPut
from scheduler.reconcile.held import Held
from scheduler.reconcile.situation import Situation
from scheduler.store.records import VolumePin
from scheduler.store.snapshot import VolumeKey

__all__ = ["Pinning", "is_local", "pinning_of", "volume_keys"]

_SHARED_TYPES: Final = frozenset({"nfs", "nfs4", "cifs"})  # `type` of the local driver's options


@dataclass(frozen=True, slots=True)
class Pinning:
    """What a service's data says about where it runs.

    Attributes:
        node_id: The only node that will do; None: any, as yet.
        pins: Volumes that are to be pinned where the next task goes.
        is_open: There is data to be, and no node yet: one task goes first.
        is_torn: Its volumes are on different nodes: nothing can run.
        verdicts: What is to be stored or removed.
        notes: For people.
    """

    node_id: NodeId | None = None
    pins: tuple[VolumeKey, ...] = ()
    is_open: bool = False
    is_torn: bool = False
    verdicts: tuple[VerdictChange, ...] = ()
    notes: tuple[Note, ...] = ()


def volume_keys(situation: Situation, service: ServiceKey, spec: ServiceSpec) -> list[VolumeKey]:
    """Return the volumes and paths whose data pins a service, in order, each once."""
    record = situation.snapshot.projects.get(service.project)
    volumes = {each.key: each for each in record.spec.volumes} if record else {}
    found = []
    for mount in spec.task.container.mounts:
        if mount.kind is MountKind.BIND:
            found.append(VolumeKey(service.project, mount.source))
        elif mount.kind is MountKind.VOLUME and mount.source:
            volume = volumes.get(mount.source)
            if volume is None or is_local(volume):
                name = volume.name if volume else f"{service.project}_{mount.source}"
                found.append(VolumeKey(service.project, name))
    return list(dict.fromkeys(found))


def pinning_of(
    situation: Situation, service: ServiceKey, spec: ServiceSpec, items: Iterable[Held]
) -> Pinning:
    """Return where a service must run because of its data.

    Args:
        situation: What the plan is made from.
        service: The service.
        spec: What was asked for.
        items: All tasks that it has.
    """
    keys = volume_keys(situation, service, spec)
    if not keys:
        return Pinning()
    stored = situation.snapshot.volume_pins
    pins = [stored[key] for key in keys if key in stored]
    if spec.dray.volume_loss is VolumeLoss.ACCEPT:
        lost = [pin for pin in pins if _is_lost(situation, pin.node_id)]
        if lost:
            drops = tuple(VerdictDrop(pin, "its node is lost, and so is it") for pin in lost)
            return Pinning(is_open=True, is_torn=True, verdicts=drops)
    open_keys = tuple(key for key in keys if key not in stored)
    nodes = sorted({pin.node_id for pin in pins})
    if len(nodes) > 1:
        return _torn(situation, service, pins)
    made = _made(situation, pins)
    node_id = nodes[0] if nodes else _first_home(situation, items)
    if node_id is None:
        return Pinning(pins=open_keys, is_open=True)
    puts = tuple(
        VerdictPut(
            VolumePin(key.project, key.volume, node_id, situation.now_unix_s), "its task is there"
        )
        for key in open_keys
        if any(item.node_id == node_id for item in items)
    )
    notes = _waiting(situation, service, node_id)
    return Pinning(node_id, open_keys, verdicts=(*made, *puts), notes=notes)


def is_local(volume: VolumeSpec) -> bool:
    """Return whether a volume's data is on one node; an external one is its operator's matter."""
    is_shared = dict(volume.driver_opts).get("type", "") in _SHARED_TYPES
    return not volume.external and volume.driver in ("", "local") and not is_shared


def _is_lost(situation: Situation, node_id: NodeId) -> bool:
    return situation.is_down(node_id) or not situation.is_registered(node_id)


def _first_home(situation: Situation, items: Iterable[Held]) -> NodeId | None:
    """Return where the service's data must have come to be, when no verdict says so yet."""
    homes = [item for item in items if not item.task.stop and not situation.is_given_up(item)]
    return min(homes, key=lambda each: each.task.task_id).node_id if homes else None


def _made(situation: Situation, pins: list[VolumePin]) -> tuple[VerdictChange, ...]:
    """Return what is to be noted of volumes that their node has reported for the first time."""
    changes = []
    for pin in pins:
        node = situation.node(pin.node_id)
        if not pin.is_made and node is not None and pin.volume in node.volumes:
            changes.append(VerdictPut(replace(pin, is_made=True), "its node has it"))
    return tuple(changes)


def _torn(situation: Situation, service: ServiceKey, pins: list[VolumePin]) -> Pinning:
    where = ", ".join(f"{pin.volume} on {situation.node_name(pin.node_id)}" for pin in pins)
    message = f"its data is on different nodes ({where}): bring it together, it cannot run"
    note = Note(f"{service.project}/{service.service}", message)
    return Pinning(is_torn=True, notes=(note,))


def _waiting(situation: Situation, service: ServiceKey, node_id: NodeId) -> tuple[Note, ...]:
    """Return the note of a service whose data is out of reach."""
    subject = f"{service.project}/{service.service}"
    name = situation.node_name(node_id)
    if not situation.is_registered(node_id):
        message = f"its data was on node {name}, which was removed: it waits; see volume_loss"
        return (Note(subject, message),)
    if situation.is_down(node_id):
        return (Note(subject, f"its data is on node {name}, which is down: it waits for it"),)
    if situation.is_drained(node_id):
        message = f"its data is on node {name}, which is to be drained: its tasks stay there"
        return (Note(subject, message),)
    return ()
