"""Which tasks of this node hold which addresses and ports, also after a start of the daemon?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from dray.model import ServiceKey
from dray.names import TaskId
from node.network.balance import HeldPort
from node.network.ipam import Pool, adopt, empty_pool, release
from node.network.isolation import LocalTask, hardware_address

__all__ = ["AttachedTask", "Attachments", "adopted", "pack", "released", "unpack"]

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class AttachedTask:
    """A task that is attached.

    Attributes:
        service: Its service; empty names: not known.
        filtered: How the filter knows it.
        ports: Ports of the node that it holds (host mode).
    """

    service: ServiceKey
    filtered: LocalTask
    ports: tuple[HeldPort, ...] = ()


@dataclass(frozen=True, slots=True)
class Attachments:
    """All attached tasks of this node, and who holds which address."""

    pool: Pool
    tasks: Mapping[TaskId, AttachedTask] = field(default_factory=lambda: MappingProxyType({}))


def adopted(attachments: Attachments, task_id: TaskId, address: str) -> Attachments:
    """Return the state in which a running container's task has the address that the engine says.

    A task of which nothing is remembered is on no Compose network until it is attached again.
    """
    pool = adopt(attachments.pool, task_id, address)
    remembered = attachments.tasks.get(task_id)
    is_known = remembered is not None and remembered.filtered.address == address
    if pool is attachments.pool and (is_known or pool.held.get(task_id) != address):
        return attachments
    tasks = {
        other: task
        for other, task in attachments.tasks.items()
        if task.filtered.address != address or other == task_id
    }
    known = tasks.get(task_id)
    if known is None or known.filtered.address != address:
        filtered = LocalTask(address, hardware_address(address), (), may_leave=True)
        tasks[task_id] = AttachedTask(ServiceKey("", ""), filtered)
    return Attachments(pool, tasks)


def released(attachments: Attachments, task_id: TaskId, now_unix_s: float) -> Attachments:
    """Return the state in which a task holds nothing and its address rests."""
    tasks = {other: task for other, task in attachments.tasks.items() if other != task_id}
    return replace(attachments, pool=release(attachments.pool, task_id, now_unix_s), tasks=tasks)


def pack(attachments: Attachments) -> bytes:
    """Return the state as the file has it."""
    tasks = {
        task_id: {
            "project": task.service.project,
            "service": task.service.service,
            "address": task.filtered.address,
            "mac_address": task.filtered.mac_address,
            "networks": list(task.filtered.networks),
            "may_leave": task.filtered.may_leave,
            "ports": [[p.protocol, p.host_ip, p.number, p.target] for p in task.ports],
        }
        for task_id, task in attachments.tasks.items()
    }
    pool = attachments.pool
    content = {
        "format": _FORMAT,
        "subnet": pool.subnet,
        "held": dict(pool.held),
        "resting": dict(pool.resting),
        "last": pool.last,
        "tasks": tasks,
    }
    return json.dumps(content, sort_keys=True, indent=1).encode()


def unpack(data: bytes | None, subnet: str) -> Attachments:
    """Return what a file says about a subnet.

    What cannot be read, or is of another subnet, is as good as no file: running containers are
    adopted with the addresses that the engine says they have.
    """
    empty = Attachments(empty_pool(subnet))
    try:
        content = json.loads(data or b"{}")
        if content.get("format") != _FORMAT or content["subnet"] != empty.pool.subnet:
            return empty
        pool = Pool(
            subnet=str(content["subnet"]),
            held={TaskId(str(k)): str(v) for k, v in content["held"].items()},
            resting={str(k): float(v) for k, v in content["resting"].items()},
            last=str(content["last"]),
        )
        tasks = {TaskId(str(k)): _task(v) for k, v in content["tasks"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return empty
    return Attachments(pool, tasks)


def _task(content: Mapping[str, Any]) -> AttachedTask:
    return AttachedTask(
        ServiceKey(str(content["project"]), str(content["service"])),
        LocalTask(
            str(content["address"]),
            str(content["mac_address"]),
            tuple(str(each) for each in content["networks"]),
            bool(content["may_leave"]),
        ),
        tuple(HeldPort(str(p), str(h), int(n), int(t)) for p, h, n, t in content["ports"]),
    )
