"""How is what a node keeps on its disk written down? Bytes of values, and values of bytes.

JSON, with a format number; values of the model inside it as protobuf in base 64, so that they
follow the wire's rules for older and newer versions. An unknown format is refused, never guessed.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from dray.addresses import HostPort
from dray.convert.codec import from_bytes, to_bytes
from dray.errors import DrayError, FailedPrecondition
from dray.model import (
    Assignment,
    AttemptState,
    ClusterRecord,
    Epoch,
    GossipKey,
    Health,
    NodeRecord,
    ProjectParts,
    SlotKey,
)
from dray.names import ClusterId, NodeId, TaskId
from node.agent.assign import Share
from node.agent.identity import Identity, NodeConfig
from node.agent.tasks import StopCause, TaskState
from node.ports import NetworkConfig, NetworkPeer

__all__ = [
    "Identity",
    "NodeConfig",
    "TaskFile",
    "pack_config",
    "pack_identity",
    "pack_network",
    "pack_share",
    "pack_task",
    "pack_tasks",
    "unpack_config",
    "unpack_identity",
    "unpack_network",
    "unpack_share",
    "unpack_tasks",
]

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class TaskFile:
    """What the node knows of its tasks.

    Attributes:
        states: All of them.
        orphans: Those that the cluster lost by a restore.
        boot_id: The kernel's boot id when it was written: another one now means a reboot since.
    """

    states: tuple[TaskState, ...] = ()
    orphans: tuple[TaskId, ...] = ()
    boot_id: str = ""


def pack_identity(identity: Identity) -> bytes:
    """Return an identity as bytes."""
    epoch = identity.epoch
    return _dump(
        node_id=identity.node_id,
        life=identity.life,
        cluster_id=identity.cluster_id,
        epoch=None if epoch is None else [epoch.generation, epoch.create_revision],
    )


def unpack_identity(data: bytes) -> Identity:
    """Return the identity that the bytes say.

    Raises:
        FailedPrecondition: They say none, or that of a newer version.
    """
    fields = _load(data, "the node's identity")
    try:
        epoch = fields["epoch"]
        cluster_id = fields["cluster_id"]
        return Identity(
            NodeId(str(fields["node_id"])),
            int(fields["life"]),
            None if cluster_id is None else ClusterId(str(cluster_id)),
            None if epoch is None else Epoch(int(epoch[0]), int(epoch[1])),
        )
    except _MALFORMED as error:
        raise _broken("the node's identity", error) from error


def pack_config(config: NodeConfig) -> bytes:
    """Return a configuration as bytes; they hold the keys of gossip."""
    return _dump(
        cluster=_text(to_bytes(config.cluster)),
        record=_text(to_bytes(config.record)),
        keyring=[_text(to_bytes(key)) for key in config.keyring],
        gossip_seeds=[[at.host, at.port] for at in config.gossip_seeds],
        schedulers=[[at.host, at.port] for at in config.schedulers],
        removed_nodes=list(config.removed_nodes),
    )


def unpack_config(data: bytes) -> NodeConfig:
    """Return the configuration that the bytes say.

    Raises:
        FailedPrecondition: They say none, or that of a newer version.
    """
    what = "the node's configuration"
    fields = _load(data, what)
    try:
        return NodeConfig(
            from_bytes(_bytes(fields["cluster"]), ClusterRecord),
            from_bytes(_bytes(fields["record"]), NodeRecord),
            tuple(from_bytes(_bytes(key), GossipKey) for key in fields["keyring"]),
            tuple(HostPort(str(host), int(port)) for host, port in fields["gossip_seeds"]),
            tuple(HostPort(str(host), int(port)) for host, port in fields["schedulers"]),
            tuple(NodeId(str(node_id)) for node_id in fields["removed_nodes"]),
        )
    except _MALFORMED as error:
        raise _broken(what, error) from error


def pack_network(config: NetworkConfig) -> bytes:
    """Return the network's configuration as bytes."""
    return _dump(**dataclasses.asdict(config))


def unpack_network(data: bytes) -> NetworkConfig:
    """Return the network's configuration that the bytes say.

    Raises:
        FailedPrecondition: They say none, or that of a newer version.
    """
    what = "the network's configuration"
    fields = _load(data, what)
    try:
        del fields["format"]
        peers = tuple(NetworkPeer(**peer) for peer in fields.pop("peers"))
        return NetworkConfig(**fields, peers=peers)
    except _MALFORMED as error:
        raise _broken(what, error) from error


def pack_share(share: Share) -> bytes:
    """Return the node's share as bytes."""
    return _dump(
        assignment=_text(to_bytes(share.assignment)),
        projects=[_text(to_bytes(parts)) for parts in share.projects.values()],
    )


def unpack_share(data: bytes) -> Share:
    """Return the share that the bytes say.

    Raises:
        FailedPrecondition: They say none, or that of a newer version.
    """
    what = "the node's assignment"
    fields = _load(data, what)
    try:
        parts = [from_bytes(_bytes(text), ProjectParts) for text in fields["projects"]]
        return Share(
            from_bytes(_bytes(fields["assignment"]), Assignment),
            {each.project: each for each in parts},
        )
    except _MALFORMED as error:
        raise _broken(what, error) from error


def pack_task(state: TaskState) -> str:
    """Return what is known of one task, as a part of `pack_tasks`."""
    return json.dumps(_task_fields(state), separators=_SEPARATORS)


def pack_tasks(packed: Iterable[str], orphans: Iterable[TaskId], boot_id: str) -> bytes:
    """Return what is known of the tasks as bytes.

    Args:
        packed: Each task as `pack_task` returned it: few of them change between two writes.
        orphans: Which of them are orphans.
        boot_id: The kernel's boot id.
    """
    rest = _dump(orphans=sorted(orphans), boot_id=boot_id).decode()
    return f'{rest[:-1]},"states":[{",".join(packed)}]}}'.encode()


def unpack_tasks(data: bytes) -> TaskFile:
    """Return what is known of the tasks.

    Raises:
        FailedPrecondition: The bytes do not say it, or those of a newer version.
    """
    what = "the node's tasks"
    fields = _load(data, what)
    try:
        return TaskFile(
            tuple(_task_state(each) for each in fields["states"]),
            tuple(TaskId(str(task_id)) for task_id in fields["orphans"]),
            str(fields["boot_id"]),
        )
    except _MALFORMED as error:
        raise _broken(what, error) from error


_SAME: Final = (
    "is_wanted", "attempt", "container_id", "address", "address6", "exit_code", "reason",
    "since_unix_s", "started_unix_s", "image_digest", "failures", "next_attempt_unix_s",
)  # fmt: skip
"""Fields of a task that JSON knows; times on the monotonic clock are of no use to another boot."""


def _task_fields(state: TaskState) -> dict[str, Any]:
    slot, cause = state.slot, state.stop_cause
    return {
        **{name: getattr(state, name) for name in _SAME},
        "task_id": state.task_id,
        "slot": [slot.project, slot.service, slot.slot],
        "state": state.state.name,
        "stop_cause": None if cause is None else cause.name,
        "health": state.health.name,
        "ends_unix_s": list(state.ends_unix_s),
        "is_timed": state.deadline_at_s is not None,
    }


def _task_state(fields: Mapping[str, Any]) -> TaskState:
    project, service, number = fields["slot"]
    cause = fields["stop_cause"]
    base = TaskState(
        TaskId(str(fields["task_id"])),
        SlotKey(str(project), str(service), int(number)),
        state=AttemptState[fields["state"]],
        stop_cause=None if cause is None else StopCause[cause],
        health=Health[fields["health"]],
        ends_unix_s=tuple(float(at) for at in fields["ends_unix_s"]),
        deadline_at_s=0.0 if fields["is_timed"] else None,
    )
    return replace(base, **{name: fields[name] for name in _SAME})


_SEPARATORS: Final = (",", ":")
_MALFORMED: Final = (KeyError, ValueError, TypeError, IndexError, binascii.Error, DrayError)


def _dump(**fields: Any) -> bytes:
    return json.dumps({"format": FORMAT, **fields}, separators=_SEPARATORS).encode()


def _load(data: bytes, what: str) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except ValueError as error:
        raise _broken(what, error) from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise FailedPrecondition(
            f"{what} on the disk is of another format than {FORMAT}",
            hint="run the version of dray that wrote it, or a later one",
        )
    return fields


def _broken(what: str, error: Exception) -> FailedPrecondition:
    return FailedPrecondition(
        f"{what} on the disk cannot be read: {error}",
        hint="restore the node's data folder, or remove it to join as a new node",
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: Any) -> bytes:
    return base64.b64decode(text, validate=True)
