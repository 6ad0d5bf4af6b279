"""Which services does a new project change, and why?

Compares two `ProjectSpec`s. A change of what makes a task replaces its containers; anything else is
changed in place. Reasons are named in Compose's words: `services.web.image`.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dray.model import EnvVar, FileMount, MountKind, ProjectSpec, ServiceSpec
from dray.units import format_bytes, format_cpus, format_duration

__all__ = ["Change", "Effect", "ProjectDiff", "ServiceDiff", "diff_projects"]

_SHOWN_LENGTH_MAX: Final = 80  # characters of a value in a change


class Effect(enum.Enum):
    """What a change means for a service."""

    CREATED = 1
    REMOVED = 2
    REPLACED = 3
    """Its containers are replaced."""
    UPDATED = 4
    """Changed in place: no container is touched."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs.

    Attributes:
        path: Which key, in Compose's words: "services.web.deploy.replicas".
        before: Its value before, for people; empty: nothing was said. Never a secret.
        after: Its value after.
    """

    path: str
    before: str
    after: str

    def __str__(self) -> str:
        """Return the change as one line."""
        return f"{self.path}: {self.before or 'not set'} → {self.after or 'not set'}"


@dataclass(frozen=True, slots=True)
class ServiceDiff:
    """What happens to one service, and the changes that are why, those that replace first."""

    service: str
    effect: Effect
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class ProjectDiff:
    """What happens to a project.

    Attributes:
        services: Services that change, sorted by name.
        changes: Changes beside the services: networks, volumes, configs, secrets, the project.
    """

    services: tuple[ServiceDiff, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return not self.services and not self.changes


# Model fields whose Compose key is another one: by path within a service, longest first.
_ITEM_WORDS: Final = {
    "gateway_priority": "gw_priority",
    "kind": "type",
    "published_end": "published",
}
_WORDS: Final = {
    "task.container.image.reference": "image",
    "task.container.image": "",
    "task.container.security.pid_mode": "pid",
    "task.container.security.ipc_mode": "ipc",
    "task.container.security.uts_mode": "uts",
    "task.container.security.cgroup_mode": "cgroup",
    "task.container.security": "",
    "task.container.stop_grace_s": "stop_grace_period",
    "task.container.image.pull_refresh_after_s": "pull_refresh_after",
    "task.container.limits.cpu_millis": "deploy.resources.limits.cpus",
    "task.container.limits.memory_bytes": "deploy.resources.limits.memory",
    "task.container.limits.pids": "deploy.resources.limits.pids",
    "task.container.limits.memory_swap_bytes": "memswap_limit",
    "task.container.limits.memory_swappiness": "mem_swappiness",
    "task.container.limits.cpu_period_us": "cpu_period",
    "task.container.limits.cpu_quota_us": "cpu_quota",
    "task.container.limits.cpu_rt_period_us": "cpu_rt_period",
    "task.container.limits.cpu_rt_runtime_us": "cpu_rt_runtime",
    "task.container.limits.shm_size_bytes": "shm_size",
    "task.container.limits.blkio": "blkio_config",
    "task.container.limits": "",
    "task.container.mounts": "volumes",
    "task.container.healthcheck.kind": "healthcheck.test",
    "task.container.healthcheck.command": "healthcheck.test",
    "task.container.healthcheck.interval_s": "healthcheck.interval",
    "task.container.healthcheck.timeout_s": "healthcheck.timeout",
    "task.container.healthcheck.start_period_s": "healthcheck.start_period",
    "task.container.healthcheck.start_interval_s": "healthcheck.start_interval",
    "task.container": "",
    "task.reservations.cpu_millis": "deploy.resources.reservations.cpus",
    "task.reservations.memory_bytes": "deploy.resources.reservations.memory",
    "task.reservations.disk_bytes": "x-dray.disk",
    "task.reservations.pids": "deploy.resources.limits.pids",
    "task.reservations.gpu": "x-dray.gpu",
    "task.reservations.generic": "deploy.resources.reservations.generic_resources",
    "task.reservations.devices": "deploy.resources.reservations.devices",
    "task.restart.condition": "deploy.restart_policy.condition",
    "task.restart.delay_s": "deploy.restart_policy.delay",
    "task.restart.attempts_max": "deploy.restart_policy.max_attempts",
    "task.restart.window_s": "deploy.restart_policy.window",
    "task.network_mode_target": "network_mode",
    "task.force": "x-dray restart",
    "task": "",
    "mode.kind": "deploy.mode",
    "mode.replicas": "deploy.replicas",
    "mode.parallel_max": "deploy.mode",
    "placement.spread_over": "deploy.placement.preferences",
    "placement.replicas_per_node_max": "deploy.placement.max_replicas_per_node",
    "placement.platforms": "platform",
    "placement": "deploy.placement",
    "update.delay_s": "deploy.update_config.delay",
    "update.monitor_s": "deploy.update_config.monitor",
    "update.failure_ratio_max": "deploy.update_config.max_failure_ratio",
    "update": "deploy.update_config",
    "rollback.delay_s": "deploy.rollback_config.delay",
    "rollback.monitor_s": "deploy.rollback_config.monitor",
    "rollback.failure_ratio_max": "deploy.rollback_config.max_failure_ratio",
    "rollback": "deploy.rollback_config",
    "endpoint_mode": "deploy.endpoint_mode",
    "labels": "deploy.labels",
    "dray.affinities": "x-dray.affinity",
    "dray.schedule_timezone": "x-dray.schedule.timezone",
    "dray": "x-dray",
}


def diff_projects(before: ProjectSpec | None, after: ProjectSpec) -> ProjectDiff:
    """Return what changes from one project to another; None: there is none yet.

    A service whose configs or secrets change in content is replaced, too: containers mount what was
    there when they started. So is one whose volumes are made differently.
    """
    known = {service.name: service for service in before.services} if before else {}
    wanted = {service.name: service for service in after.services}
    by_entry = _by_entry(before, after) if before is not None else {}
    services: list[ServiceDiff] = []
    for name in sorted({*known, *wanted}):
        old, new = known.get(name), wanted.get(name)
        if old is None:
            services.append(ServiceDiff(name, Effect.CREATED))
        elif new is None:
            services.append(ServiceDiff(name, Effect.REMOVED))
        else:
            found = _service_diff(old, new, _used_changes(by_entry, new))
            services += [found] if found is not None else []
    changes = _own_changes(before, after) if before is not None else []
    changes += [change for listed in by_entry.values() for change in listed]
    return ProjectDiff(tuple(services), tuple(changes))


def _service_diff(old: ServiceSpec, new: ServiceSpec, used: list[Change]) -> ServiceDiff | None:
    prefix = f"services.{new.name}"
    replacing, updating = list(used), list[Change]()
    for field, change in _changes(old, new, ""):
        shown = dataclasses.replace(change, path=f"{prefix}.{change.path}".rstrip("."))
        (replacing if field == "task" or field.startswith("task.") else updating).append(shown)
    if replacing:
        return ServiceDiff(new.name, Effect.REPLACED, _unique([*replacing, *updating]))
    if updating:
        return ServiceDiff(new.name, Effect.UPDATED, _unique(updating))
    return None


def _unique(changes: list[Change]) -> tuple[Change, ...]:
    """Return changes by path, each path once: two fields can stand for one key."""
    by_path: dict[str, Change] = {}
    for change in changes:
        by_path.setdefault(change.path, change)
    return tuple(by_path.values())


def _used_changes(by_entry: dict[str, list[Change]], service: ServiceSpec) -> list[Change]:
    """Return changes of what a service's containers mount."""
    container = service.task.container
    volumes = {m.source for m in container.mounts if m.kind is MountKind.VOLUME}
    used = [
        *(f"configs.{name}" for name in sorted(_sources(container.configs))),
        *(f"secrets.{name}" for name in sorted(_sources(container.secrets))),
        *(f"volumes.{name}" for name in sorted(volumes)),
    ]
    return [change for entry in used for change in by_entry.get(entry, ())]


def _sources(files: tuple[FileMount, ...]) -> set[str]:
    return {file.source for file in files}


def _own_changes(before: ProjectSpec, after: ProjectSpec) -> list[Change]:
    """Return the changes of what `x-dray` says of the project."""
    return [
        Change(f"x-dray.{name}", _shown(old), _shown(new))
        for name in ("policy", "gang", "labels")
        if (old := getattr(before, name)) != (new := getattr(after, name))
    ]


def _by_entry(before: ProjectSpec, after: ProjectSpec) -> dict[str, list[Change]]:
    """Return the changes of networks, volumes, configs and secrets, by section and key."""
    found: dict[str, list[Change]] = {}
    for section in ("networks", "volumes", "configs", "secrets"):
        for key, change in _entry_changes(
            section, getattr(before, section), getattr(after, section)
        ):
            found.setdefault(f"{section}.{key}", []).append(change)
    return found


def _entry_changes(
    section: str, before: Sequence[Any], after: Sequence[Any]
) -> Iterator[tuple[str, Change]]:
    """Yield key and change of every entry of a top-level section that differs."""
    old = {entry.key: entry for entry in before}
    new = {entry.key: entry for entry in after}
    for key in sorted({*old, *new}):
        path = f"{section}.{key}"
        if key not in new:
            yield key, Change(path, "there", "removed")
        elif key not in old:
            yield key, Change(path, "", "there")
        else:
            for _, change in _changes(old[key], new[key], ""):
                told = dataclasses.replace(change, path=f"{path}.{change.path}")
                yield key, _hidden(told) if change.path == "content" else told


def _hidden(change: Change) -> Change:
    """Return a change of content without it: it may be a secret."""
    return dataclasses.replace(change, before="old content", after="new content")


def _changes(old: Any, new: Any, field: str) -> Iterator[tuple[str, Change]]:
    """Yield the model field and the change of every value that differs below two values."""
    if old == new:
        return
    if dataclasses.is_dataclass(old) and type(old) is type(new):
        for each in dataclasses.fields(old):
            below = f"{field}.{each.name}".lstrip(".")
            yield from _changes(getattr(old, each.name), getattr(new, each.name), below)
        return
    path = _in_words(field)
    pairs_old, pairs_new = _pairs(old), _pairs(new)
    if pairs_old is None or pairs_new is None:
        yield field, Change(path, _shown_field(field, old), _shown_field(field, new))
        return
    for key in sorted({*pairs_old, *pairs_new}):
        for change in _item_changes(pairs_old.get(key), pairs_new.get(key), f"{path}.{key}"):
            yield field, change


def _item_changes(old: Any, new: Any, path: str) -> Iterator[Change]:
    """Return entries by name, of maps of text and lists of named values; None for others."""
    if old == new:
        return
    is_pair = isinstance(old, EnvVar) and isinstance(new, EnvVar)
    if is_pair or not dataclasses.is_dataclass(old) or type(old) is not type(new):
        yield Change(path, _shown(old), _shown(new))
        return
    for name, change in _changes(old, new, ""):
        word = _ITEM_WORDS.get(name, change.path)
        yield dataclasses.replace(change, path=f"{path}.{word}")


def _in_words(field: str) -> str:
    """Return Compose's path for a model field: the longest known beginning is replaced."""
    steps = field.split(".")
    for length in range(len(steps), 0, -1):
        word = _WORDS.get(".".join(steps[:length]))
        if word is not None:
            return ".".join(each for each in (word, *steps[length:]) if each)
    return field


def _pairs(value: Any) -> dict[str, Any] | None:
    """Return entries by name, of maps of text and lists of named values; None: it is neither."""
    if not isinstance(value, tuple):
        return None
    found: dict[str, Any] = {}
    for item in value:
        name = next(
            (
                str(getattr(item, each))
                for each in ("network", "service", "target", "name", "kind")
                if hasattr(item, each)
            ),
            None,
        )
        if name is None and isinstance(item, tuple) and len(item) == 2:
            name, item = item
        if name is None or name in found:
            return None
        found[str(name)] = item
    return found


def _shown_field(field: str, value: Any) -> str:
    """Return a quantity in the unit that Compose has for it, by the end of the field's name."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return _shown(value)
    if field.endswith("cpu_millis"):
        return format_cpus(int(value))
    if field.endswith("_bytes"):
        return format_bytes(int(value))
    return format_duration(value) if field.endswith("_s") else _shown(value)


def _shown(value: Any) -> str:
    """Return a value for people."""
    match value:
        case EnvVar():
            return "" if value.value is None else value.value
        case None:
            return ""
        case enum.Enum():
            return value.name.lower().replace("_", "-")
        case bool():
            return "true" if value else "false"
        case tuple():
            text = " ".join(_shown(item) for item in value)
        case _ if dataclasses.is_dataclass(value):
            fields = (getattr(value, each.name) for each in dataclasses.fields(value))
            text = " ".join(shown for field in fields if (shown := _shown(field)))
        case _:
            text = str(value)
    return text if len(text) <= _SHOWN_LENGTH_MAX else text[: _SHOWN_LENGTH_MAX - 1] + "…"
