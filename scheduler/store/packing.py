"""How does a node's assignment become the bytes that are stored, and back?

An own form instead of protobuf, because there is one such value for every node and two million
tasks in the largest cluster: names are there once, numbers and ids are columns that one call of the
standard library reads. A task takes 30 bytes and about 2 µs either way, against 70 bytes and 15 µs.

Form 1, little-endian:

    u8 form · cluster id · node id · u32 generation · u64 create revision · u16 services
    then for each service, sorted:
        u16 length · project · u16 length · service · u16 tasks · u16 variants
        u64 service revision · u32 generation · u64 create revision · u8 stop    for each variant
        u32 slot                                                                 for each task
        task id                                                                  for each task
        u16 variant                                     for each task, if there are several variants

Form 2, when some of the tasks have devices, is followed by
    u16 tasks
        u32 number of the task, from 0 · u8 devices · u16 length · id of a device       for each

Ids are in their text form (26 bytes of ASCII): ten bytes more than their bits, and no work. What
tasks run is not here: it is stored once, by service revision. The store's mod revision of the key
is the assignment's.
"""

from __future__ import annotations

import functools
import re
import struct
import sys
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Final

from dray.errors import DrayError, ErrorCode
from dray.model import (
    Assignment,
    Epoch,
    ServiceKey,
    ServiceRevision,
    SlotKey,
    StoreRevision,
    TaskAssignment,
)
from dray.names import ID_LENGTH, ClusterId, NodeId, TaskId

__all__ = ["TASKS_MAX", "DamagedValue", "pack_assignment", "unpack_assignment"]

TASKS_MAX: Final = 65_535  # tasks of one service on one node; a node has 508 addresses
_FORM: Final = 1
_FORM_WITH_DEVICES: Final = 2
_FORMS: Final = (bytes([_FORM]), bytes([_FORM_WITH_DEVICES]))
_HEAD: Final = struct.Struct(f"<B{ID_LENGTH}s{ID_LENGTH}sIQH")
_LENGTH: Final = struct.Struct("<H")
_COUNTS: Final = struct.Struct("<HH")
_VARIANT: Final = struct.Struct("<QIQB")
_DEVICES: Final = struct.Struct("<IB")
_IDS = re.compile(r"(?:[a-z2-7]{25}[aeimquy4])*", re.ASCII)

_Variant = tuple[ServiceRevision, Epoch, bool]


class DamagedValue(DrayError):
    """A stored value cannot be read. Nothing was changed.

    It is never skipped: an assignment that is left out would look like one that was never made, and
    its tasks would be started again elsewhere.
    """

    code = ErrorCode.DATA_LOSS


def pack_assignment(assignment: Assignment) -> bytes:
    """Return the stored form of an assignment, without its mod revision and specs.

    Args:
        assignment: Its tasks are sorted by slot, then task id.
    """
    tasks = assignment.tasks
    groups = [
        (key, list(group)) for key, group in groupby(tasks, lambda task: task.slot.service_key)
    ]
    assert all(one[0] < other[0] for one, other in pairwise(groups)), "tasks not sorted"
    devices = b"".join(
        [_pack_devices(number, task) for number, task in enumerate(tasks) if task.gpu_ids]
    )
    head = _HEAD.pack(
        _FORM_WITH_DEVICES if devices else _FORM,
        assignment.cluster_id.encode(),
        assignment.node_id.encode(),
        assignment.epoch.generation,
        assignment.epoch.create_revision,
        len(groups),
    )
    parts = [head, *(_pack_service(key, group) for key, group in groups)]
    if devices:
        parts += [_LENGTH.pack(sum(bool(task.gpu_ids) for task in tasks)), devices]
    return b"".join(parts)


def unpack_assignment(data: bytes, mod_revision: StoreRevision) -> Assignment:
    """Return the assignment that is stored as these bytes.

    Args:
        data: The value of the key.
        mod_revision: The key's.

    Raises:
        DamagedValue: The bytes are no assignment, or one of a newer version of dray.
    """
    if data[:1] not in _FORMS:
        raise DamagedValue(
            f"an assignment of {len(data)} bytes is not in form {_FORM} or {_FORM_WITH_DEVICES}",
            hint="this version of dray reads no other; upgrade this scheduler",
        )
    try:
        _, cluster_id, node_id, generation, create_revision, services = _HEAD.unpack_from(data)
        ids = _ids(cluster_id + node_id, 2)
        at = _HEAD.size
        tasks: list[TaskAssignment] = []
        for _ in range(services):
            at, group = _unpack_service(data, at)
            tasks += group
        if data[0] == _FORM_WITH_DEVICES:
            at, devices = _unpack_devices(data, at)
            for number, gpu_ids in devices.items():
                tasks[number] = replace(tasks[number], gpu_ids=gpu_ids)
    except (struct.error, ValueError, IndexError) as error:
        raise DamagedValue(f"{len(data)} bytes that are no assignment: {error}") from error
    if at != len(data):
        raise DamagedValue(f"an assignment of {at} bytes is followed by {len(data) - at} others")
    return Assignment(
        ClusterId(ids[0]),
        NodeId(ids[1]),
        _epoch(generation, create_revision),
        mod_revision,
        tuple(tasks),
    )


def _pack_service(key: ServiceKey, tasks: list[TaskAssignment]) -> bytes:
    """Return one service's part of the bytes."""
    count = len(tasks)
    assert count <= TASKS_MAX, f"{count} tasks of {key}"
    variants: dict[_Variant, int] = {}
    columns = [
        variants.setdefault((task.service_revision, task.epoch, task.stop), len(variants))
        for task in tasks
    ]
    project, service = key.project.encode(), key.service.encode()
    parts = [
        _LENGTH.pack(len(project)),
        project,
        _LENGTH.pack(len(service)),
        service,
        _COUNTS.pack(count, len(variants)),
        *(
            _VARIANT.pack(revision, epoch.generation, epoch.create_revision, stop)
            for revision, epoch, stop in variants
        ),
        struct.pack(f"<{count}I", *[task.slot.slot for task in tasks]),
        "".join([task.task_id for task in tasks]).encode("ascii"),
    ]
    if len(variants) > 1:
        parts.append(struct.pack(f"<{count}H", *columns))
    return b"".join(parts)


def _unpack_service(data: bytes, at: int) -> tuple[int, list[TaskAssignment]]:
    """Return where one service's part ends, and its tasks."""
    at, project = _text(data, at)
    at, service = _text(data, at)
    count, n_variants = _COUNTS.unpack_from(data, at)
    at += _COUNTS.size
    variants = []
    for _ in range(n_variants):
        revision, generation, create_revision, stop = _VARIANT.unpack_from(data, at)
        variants.append((ServiceRevision(revision), _epoch(generation, create_revision), stop != 0))
        at += _VARIANT.size
    slots = struct.unpack_from(f"<{count}I", data, at)
    at += 4 * count
    ids = _ids(data[at : at + ID_LENGTH * count], count)
    at += ID_LENGTH * count
    if n_variants == 1:
        of_tasks = variants * count
    else:
        of_tasks = [variants[number] for number in struct.unpack_from(f"<{count}H", data, at)]
        at += 2 * count
    return at, [
        TaskAssignment(TaskId(task_id), SlotKey(project, service, slot), *variant)
        for task_id, slot, variant in zip(ids, slots, of_tasks, strict=True)
    ]


def _pack_devices(number: int, task: TaskAssignment) -> bytes:
    """Return which devices a task has."""
    parts = [_DEVICES.pack(number, len(task.gpu_ids))]
    for device_id in task.gpu_ids:
        text = device_id.encode()
        parts += [_LENGTH.pack(len(text)), text]
    return b"".join(parts)


def _unpack_devices(data: bytes, at: int) -> tuple[int, dict[int, tuple[str, ...]]]:
    """Return where the devices end, and which task has which, by its number."""
    (count,) = _LENGTH.unpack_from(data, at)
    at += _LENGTH.size
    found: dict[int, tuple[str, ...]] = {}
    for _ in range(count):
        number, n_devices = _DEVICES.unpack_from(data, at)
        at += _DEVICES.size
        devices = []
        for _ in range(n_devices):
            at, device_id = _text(data, at)
            devices.append(device_id)
        found[number] = tuple(devices)
    return at, found


def _text(data: bytes, at: int) -> tuple[int, str]:
    """Return where a name ends, and the name: one object, however often it is read."""
    (length,) = _LENGTH.unpack_from(data, at)
    at += _LENGTH.size
    if at + length > len(data):
        raise ValueError("a name is cut off")
    return at + length, sys.intern(data[at : at + length].decode())


def _ids(raw: bytes, count: int) -> list[str]:
    text = raw.decode("ascii")
    if len(text) != ID_LENGTH * count or _IDS.fullmatch(text) is None:
        raise ValueError("an id is malformed")
    return [text[start : start + ID_LENGTH] for start in range(0, len(text), ID_LENGTH)]


@functools.lru_cache(maxsize=1_024)
def _epoch(generation: int, create_revision: int) -> Epoch:
    """Return a term: one object for all tasks that were placed in it."""
    return Epoch(generation, create_revision)
