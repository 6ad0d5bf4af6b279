"""Do the parts of a project fit together: references, exclusions, limits, cycles?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from dray.compose.short import is_address
from dray.compose.structure import did_you_mean
from dray.compose.tree import Keys, Map, Problems, dotted, mark_at

__all__ = ["check_entries", "check_project"]

_SERVICE_PREFIX: Final = "service:"


def check_entries(tree: Map, problems: Problems) -> None:
    """Check what can be seen in one entry alone; the tree has long syntaxes and is sound."""
    for name, volume in (tree.get("volumes") or {}).items():
        if volume is not None and volume.get("external") is True:
            for key in volume:
                if key not in ("name", "external") and not key.startswith("x-"):
                    path = ("volumes", name, key)
                    problems.add(volume.key_mark(key), path, "cannot be said of an external volume")
    for section, keys in (
        ("configs", ("file", "environment", "content")),
        ("secrets", ("file", "environment")),
    ):
        for name, entry in (tree.get(section) or {}).items():
            _check_source(entry, (section, name), keys, problems)
    for name, service in (tree.get("services") or {}).items():
        _check_service_entries(service, ("services", name), problems)


def _check_source(entry: Map, path: Keys, keys: tuple[str, ...], problems: Problems) -> None:
    given = [key for key in keys if key in entry]
    listed = f"{', '.join(keys[:-1])} or {keys[-1]}"
    if len(given) > 1:
        message = f"has both {given[0]} and {given[1]}"
        problems.add(entry.key_mark(given[1]), path, message, f"name only one of {listed}")
    elif not given and "driver" not in entry and "external" not in entry:
        if any(problems.is_lost((*path, key)) for key in (*keys, "driver", "external")):
            return
        problems.add(entry.mark, path, "has no content", f"name one of {listed}")


def _check_service_entries(service: Map, path: Keys, problems: Problems) -> None:
    for index, port in enumerate(service.get("ports") or ()):
        address = port.get("host_ip") if isinstance(port, Map) else None
        if address is not None and not is_address(address):
            where = (*path, "ports", index, "host_ip")
            problems.add(port.mark_of("host_ip"), where, f"{address!r} is not an address")
        if not isinstance(port, Map | str):
            where = (*path, "ports", index)
            problems.add(service.mark_of("ports"), where, f"{port} is not a port")
        if isinstance(port, Map) and "target" not in port:
            _lacks_target(port, (*path, "ports", index), problems)
    for index, volume in enumerate(service.get("volumes") or ()):
        if isinstance(volume, Map) and not volume.get("target"):
            _lacks_target(volume, (*path, "volumes", index), problems)
    develop = service.get("develop") or {}
    for index, watch in enumerate(develop.get("watch") or ()):
        if watch.get("path") == "":
            where = (*path, "develop", "watch", index, "path")
            problems.add(watch.mark_of("path"), where, "must not be empty")
    holder: Any = service
    for key in ("deploy", "resources", "reservations"):
        holder = (holder or {}).get(key)
    devices = [((*path, "gpus"), service.get("gpus"))]
    devices.append(
        ((*path, "deploy", "resources", "reservations", "devices"), (holder or {}).get("devices"))
    )
    for where, requests in devices:
        for index, device in enumerate(requests or ()):
            if "count" in device and "device_ids" in device:
                mark = device.key_mark("device_ids")
                problems.add(
                    mark, (*where, index), "has both count and device_ids", "name only one"
                )


def _lacks_target(entry: Map, path: Keys, problems: Problems) -> None:
    if problems.is_lost((*path, "target")):
        problems.refuse(path)
    else:
        problems.add(entry.mark, path, "lacks the key 'target'")


# ---- the whole project ---------------------------------------------------------------------------


class _Check:
    """One pass over a project in its printed shape."""

    def __init__(self, config: Map, disabled: frozenset[str], problems: Problems) -> None:
        self._config = config
        self._services: Mapping[str, Any] = config["services"]
        self._disabled = disabled
        self._problems = problems

    def refuse(self, path: Keys, message: str, hint: str = "", node: Keys | None = None) -> None:
        self._problems.add(mark_at(self._config, path), path, message, hint, node)

    def _is_lost(self, path: Keys, *keys: str) -> bool:
        """Return whether one of the keys of what is at a path was refused."""
        return any(self._problems.is_lost((*path, key)) for key in keys)

    def service(self, name: str, service: Map) -> None:
        path: Keys = ("services", name)
        is_empty = not (service.get("image") or service.get("provider") or "build" in service)
        if is_empty and not self._is_lost(path, "image", "provider", "build"):
            message = "has neither an image nor a build"
            self.refuse(path, message, "add `image:` or `build:`", (*path, "image"))
        self._build(service.get("build") or Map(None), service, (*path, "build"))
        self._references(name, service, path)
        self._amounts(service, path)
        self._mounts(service, path)
        test = (service.get("healthcheck") or {}).get("test")
        where: Keys = (*path, "healthcheck", "test")
        is_started = not test or test[0] in ("CMD", "CMD-SHELL", "NONE")
        if not is_started and self._problems.is_whole(where):
            self.refuse(where, "must start with CMD, CMD-SHELL or NONE", "or write it as one text")
        for index, watch in enumerate((service.get("develop") or {}).get("watch") or ()):
            where = (*path, "develop", "watch", index)
            is_bound = watch["action"] not in ("rebuild", "restart")
            if is_bound and not watch.get("target") and not self._is_lost(where, "target"):
                self.refuse(where, f"the action {watch['action']} needs a target")

    def _build(self, build: Map, service: Map, path: Keys) -> None:
        if build.get("dockerfile") and build.get("dockerfile_inline"):
            self.refuse((*path, "dockerfile_inline"), "cannot be combined with dockerfile")
        for key, context in (build.get("additional_contexts") or {}).items():
            if context.startswith(_SERVICE_PREFIX):
                target = context.removeprefix(_SERVICE_PREFIX)
                where = (*path, "additional_contexts", key)
                if target not in self._services:
                    self._undefined(where, "service", target, self._services)
                elif "build" not in self._services[target] and not self._is_lost(
                    ("services", target), "build"
                ):
                    self.refuse(where, f"service {target!r} is not built")
        platforms = build.get("platforms")
        platform = service.get("platform")
        is_whole = self._problems.is_whole((*path, "platforms"))
        if platforms and platform and platform not in platforms and is_whole:
            message = f"must include the service's platform {platform!r}"
            self.refuse((*path, "platforms"), message)
        self._named(build, "secrets", "secret", path)

    def _undefined(self, path: Keys, what: str, name: str, known: Iterable[str]) -> None:
        if what == "service" and name in self._disabled:
            message = f"service {name!r} is not enabled: none of its profiles is active"
            self.refuse(path, message, "activate it with --profile")
            return
        if self._problems.is_lost((f"{what}s", name)):
            self._problems.refuse(path)  # what it names was refused, and that is told
            return
        hint = did_you_mean(name, known) or (f"define it under `{what}s:`" if what else "")
        self.refuse(path, f"there is no {what} {name!r}", hint)

    def _named(self, holder: Map, key: str, what: str, path: Keys) -> None:
        known = self._config.get(key) or {}
        for index, mount in enumerate(holder.get(key) or ()):
            if mount.get("source") not in known:
                self._undefined((*path, key, index), what, mount.get("source", ""), known)

    def _references(self, name: str, service: Map, path: Keys) -> None:
        networks = service.get("networks") or {}
        mode = service.get("network_mode", "")
        if mode and networks:
            self.refuse((*path, "network_mode"), "cannot be combined with networks")
        for section, what in (("networks", "network"), ("models", "model")):
            known = self._config.get(section) or {}
            for key in service.get(section) or ():
                if key not in known:
                    self._undefined((*path, section, key), what, key, known)
        self._named(service, "configs", "config", path)
        self._named(service, "secrets", "secret", path)
        volumes = self._config.get("volumes") or {}
        for index, mount in enumerate(service.get("volumes") or ()):
            source = mount.get("source")
            if mount["type"] == "volume" and source and source not in volumes:
                self._undefined((*path, "volumes", index), "volume", source, volumes)
        for key, dependency in (service.get("depends_on") or {}).items():
            is_optional = key in self._disabled and not dependency["required"]
            if key not in self._services and not is_optional:
                others = [each for each in self._services if each != name]
                self._undefined((*path, "depends_on", key), "service", key, others)

    def _amounts(self, service: Map, path: Keys) -> None:
        deploy = service.get("deploy")
        scale = service.get("scale")
        replicas = None if deploy is None else deploy.get("replicas")
        if scale is not None and replicas is not None and scale != replicas:
            self.refuse((*path, "scale"), f"is {scale}, but deploy.replicas is {replicas}")
        for key, value in (("scale", scale), ("deploy", replicas)):
            if value is not None and value < 0:
                where = (*path, key) if key == "scale" else (*path, "deploy", "replicas")
                self.refuse(where, f"must be 0 or more, not {value}")
        copies = replicas if scale is None else scale
        if copies is not None and copies > 1 and service.get("container_name"):
            self.refuse((*path, "container_name"), f"cannot name {copies} containers alike")
        resources = {} if deploy is None else deploy["resources"]
        for key, holder, inner in (
            ("cpus", "limits", "cpus"),
            ("mem_limit", "limits", "memory"),
            ("mem_reservation", "reservations", "memory"),
            ("pids_limit", "limits", "pids"),
        ):
            if (
                service.get(key)
                and holder in resources
                and resources[holder].get(inner) != service[key]
            ):
                message = f"is not the same as deploy.resources.{holder}.{inner}"
                self.refuse((*path, key), message, "set only one of them")

    def _mounts(self, service: Map, path: Keys) -> None:
        taken: dict[str, Keys] = {}
        targets: list[tuple[Keys, str]] = [
            ((*path, "tmpfs", index), entry.partition(":")[0])
            for index, entry in enumerate(service.get("tmpfs") or ())
        ]
        targets += [
            ((*path, "volumes", index), mount.get("target", ""))
            for index, mount in enumerate(service.get("volumes") or ())
        ]
        for where, target in targets:
            if target in taken:
                other = dotted(taken[target][2:])
                self.refuse(where, f"{target} is already mounted by {other}")
            taken[target] = where

    def cycles(self) -> None:
        """Report cycles of dependencies, each once."""
        done: set[str] = set()
        for start in sorted(self._services):
            if start not in done:
                self._follow(start, done)

    def _follow(self, start: str, done: set[str]) -> None:
        trail: dict[str, Iterator[str]] = {start: self._next(start)}  # from `start` to where we are
        while trail:
            name = next(reversed(trail))
            step = next(trail[name], None)
            if step is None:
                del trail[name]
                done.add(name)
            elif step in trail:
                names = list(trail)
                cycle = [*names[names.index(step) :], step]
                shown = " -> ".join(cycle if len(cycle) < 12 else [*cycle[:10], "…", cycle[-1]])
                path = ("services", name, "depends_on", step)
                self.refuse(path, f"services depend on one another in a cycle: {shown}")
            elif step not in done:
                trail[step] = self._next(step)

    def _next(self, name: str) -> Iterator[str]:
        depends = self._services[name].get("depends_on") or {}
        return iter(sorted(each for each in depends if each in self._services))


def check_project(config: Map, disabled: frozenset[str], problems: Problems) -> None:
    """Check references between the parts of a project.

    Args:
        config: The project in its printed shape, enabled services only.
        disabled: Services that no active profile enables.
        problems: Gathers what does not fit.
    """
    check = _Check(config, disabled, problems)
    for name, service in config["services"].items():
        check.service(name, service)
    for name, secret in (config.get("secrets") or {}).items():
        path: Keys = ("secrets", name)
        sources = ("external", "file", "environment")
        if not any(secret.get(key) or problems.is_lost((*path, key)) for key in sources):
            check.refuse(path, "has no content", "name one of file or environment")
    check.cycles()
