"""What do the Docker Engine's answers say, in the port's words?

The engine's JSON goes no further than this module. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from dray.model import Health, string_map
from node.runtime.base import (
    Container,
    ContainerState,
    ContainerUsage,
    EngineInfo,
    RuntimeEvent,
    RuntimeEventKind,
    Volume,
)
from node.runtime.spec import identity_from_labels

__all__ = [
    "EVENT_ACTIONS",
    "Answer",
    "container_from_inspect",
    "engine_info",
    "event_from_json",
    "health_from_list",
    "unix_ns_from_text",
    "usage_from_stats",
    "volume_from_list",
]

Answer: TypeAlias = Mapping[str, Any]
"""A JSON object as the engine sent it."""

EVENT_ACTIONS: Final[Mapping[str, RuntimeEventKind]] = {
    "create": RuntimeEventKind.CREATED,
    "start": RuntimeEventKind.STARTED,
    "die": RuntimeEventKind.DIED,
    "oom": RuntimeEventKind.OOM,
    "health_status": RuntimeEventKind.HEALTH,
    "destroy": RuntimeEventKind.REMOVED,
}

_STATES: Final[Mapping[str, ContainerState]] = {
    "created": ContainerState.CREATED,
    "running": ContainerState.RUNNING,
    "restarting": ContainerState.RUNNING,
    "paused": ContainerState.PAUSED,
    "exited": ContainerState.EXITED,
    "removing": ContainerState.EXITED,
    "dead": ContainerState.EXITED,
}
_HEALTH: Final[Mapping[str, Health]] = {
    "starting": Health.STARTING,
    "healthy": Health.HEALTHY,
    "unhealthy": Health.UNHEALTHY,
}
_HEALTH_IN_STATUS: Final = re.compile(r"\((?:health: )?(starting|healthy|unhealthy)\)")
_ARCHITECTURES: Final[Mapping[str, str]] = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i386": "386",
    "i686": "386",
}
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_NANOSECONDS: Final = 1_000_000_000
_NEVER: Final = "0001-01-01"  # Go's zero time


def container_from_inspect(data: Answer) -> Container:
    """Return a container from the answer of `GET /containers/{id}/json`."""
    state = data["State"]
    doing = _STATES[state["Status"]]
    started_unix_s = _unix_s(state.get("StartedAt", ""))
    if doing is ContainerState.EXITED and not started_unix_s:
        # On its way out without ever having run: its exit code of 0 is nobody's.
        doing = ContainerState.CREATED
    is_alive = doing in (ContainerState.RUNNING, ContainerState.PAUSED)
    return Container(
        container_id=data["Id"],
        name=str(data["Name"]).removeprefix("/"),
        identity=identity_from_labels(data["Config"].get("Labels") or {}),
        state=doing,
        health=_HEALTH.get((state.get("Health") or {}).get("Status", ""), Health.NONE),
        exit_code=state["ExitCode"] if doing is ContainerState.EXITED else None,
        oom_killed=bool(state.get("OOMKilled")),
        error=state.get("Error", ""),
        pid=state.get("Pid", 0) if is_alive else 0,
        started_unix_s=started_unix_s,
        finished_unix_s=_unix_s(state.get("FinishedAt", "")),
        image_digest=data.get("Image", ""),
        ipv4_address=_address(data),
    )


def health_from_list(entry: Answer) -> Health:
    """Return what the check of a container says, from an entry of `GET /containers/json`.

    There it is only the end of a sentence for people: "Up 2 hours (healthy)".
    """
    found = _HEALTH_IN_STATUS.search(str(entry.get("Status", "")))
    return Health.NONE if found is None else _HEALTH[found[1]]


def _address(data: Answer) -> str:
    networks = (data.get("NetworkSettings") or {}).get("Networks") or {}
    for _, endpoint in sorted(networks.items()):
        if endpoint and endpoint.get("IPAddress"):
            return str(endpoint["IPAddress"])
    return ""


def unix_ns_from_text(text: str) -> int | None:
    """Return nanoseconds since 1970 of a time in RFC 3339's form, or None if it is none.

    The standard library keeps microseconds only, which would not tell two log lines apart.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    whole, fraction, zone = found.groups()
    moment = datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone))
    seconds = round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    return seconds * _NANOSECONDS + int((fraction or "0").ljust(9, "0"))


def _unix_s(text: str) -> float:
    unix_ns = None if text.startswith(_NEVER) else unix_ns_from_text(text)
    return 0.0 if unix_ns is None else unix_ns / _NANOSECONDS


def event_from_json(data: Answer) -> RuntimeEvent | None:
    """Return an event of the engine in the port's words; None when it is not one of those."""
    kind = EVENT_ACTIONS.get(str(data.get("Action", "")).partition(":")[0])
    if kind is None or data.get("Type") != "container":
        return None
    return RuntimeEvent(
        kind=kind,
        container_id=data["Actor"]["ID"],
        identity=identity_from_labels(data["Actor"].get("Attributes") or {}),
        unix_s=data.get("timeNano", 0) / _NANOSECONDS,
    )


def usage_from_stats(container_id: str, data: Answer) -> ContainerUsage | None:
    """Return what a container uses; None when it does not run."""
    if str(data.get("read", _NEVER)).startswith(_NEVER):
        return None
    networks = (data.get("networks") or {}).values()
    memory = data.get("memory_stats") or {}
    details = memory.get("stats") or {}
    # cgroup v1 counts pages of sub-groups under total_; v2 has one name.
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    blocks = (data.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []

    def block_bytes(operation: str) -> int:
        return sum(b["value"] for b in blocks if str(b["op"]).lower() == operation)

    return ContainerUsage(
        container_id=container_id,
        cpu_total_ns=data["cpu_stats"]["cpu_usage"]["total_usage"],
        memory_bytes=max(memory.get("usage", 0) - cache, 0),
        pids=(data.get("pids_stats") or {}).get("current", 0),
        network_rx_bytes=sum(network["rx_bytes"] for network in networks),
        network_tx_bytes=sum(network["tx_bytes"] for network in networks),
        block_read_bytes=block_bytes("read"),
        block_write_bytes=block_bytes("write"),
    )


def volume_from_list(data: Answer) -> Volume:
    """Return the volume that one entry of the list of volumes shows."""
    return Volume(
        data["Name"],
        data["Driver"],
        string_map(data.get("Labels") or {}),
        _unix_s(data.get("CreatedAt") or ""),
    )


def engine_info(data: Answer) -> EngineInfo:
    """Return what the engine says of itself from the answer of `GET /info`."""
    machine = str(data["Architecture"])
    return EngineInfo(
        version=data["ServerVersion"],
        os=data["OSType"],
        architecture=_ARCHITECTURES.get(machine, machine),
        data_root=data["DockerRootDir"],
        live_restore=bool(data["LiveRestoreEnabled"]),
        cgroup_version=int(data.get("CgroupVersion") or 1),
    )
