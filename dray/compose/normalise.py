"""What does a merged tree mean without saying it: networks, names, implied dependencies?"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any, Final

from dray.compose.tree import Map, Seq, set_marks

__all__ = ["normalise", "project_name_of"]

_NAMESPACES: Final = ("network_mode", "ipc", "pid", "uts", "cgroup")
_SERVICE_PREFIX: Final = "service:"
_NAMED_SECTIONS: Final = ("networks", "volumes", "configs", "secrets")


def project_name_of(text: str) -> str:
    """Return the proper project name that is nearest to a text; empty if nothing is left."""
    return "".join(re.findall(r"[a-z0-9_-]", text.lower(), re.ASCII)).lstrip("_-")


def normalise(tree: Map, project_name: str, environment: Mapping[str, str]) -> None:
    """Fill in what the specification implies, in place; the tree is structurally sound.

    Args:
        tree: The merged files, with long syntaxes.
        project_name: The project's name, the prefix of its resources' names.
        environment: Values for variables that are only named.
    """
    services = tree.get("services") or {}
    joined = [_join_default_network(service) for service in services.values()]
    if any(joined):
        networks = tree.get("networks")
        if networks is None:
            networks = Map(None)
            tree.put("networks", networks, None)
        networks.setdefault("default", None)
    for service in services.values():
        _normalise_service(service, environment)
    for section in _NAMED_SECTIONS:
        resources = tree.get(section) or Map(None)
        for key, resource in list(resources.items()):
            if resource is None:
                resource = resources[key] = Map(resources.mark_of(key))
            if resource.get("name") is None:
                is_external = resource.get("external") in (True, "true", "True", "1", "t", "T")
                resource["name"] = key if is_external else f"{project_name}_{key}"


def _join_default_network(service: Map) -> bool:
    """Attach a service to the default network unless it says otherwise; return whether it is."""
    if "provider" in service or "network_mode" in service:
        return False
    networks = service.get("networks")
    if not networks:
        mark = service.mark_of("networks") if "networks" in service else service.mark
        service.put("networks", set_marks({"default": None}, mark), mark)
        return True
    return "default" in networks


def _normalise_service(service: Map, environment: Mapping[str, str]) -> None:
    if service.get("pull_policy") == "if_not_present":
        service["pull_policy"] = "missing"
    build = service.get("build")
    if build is not None:
        build.setdefault("context", ".")
        if build.get("dockerfile") is None and build.get("dockerfile_inline") is None:
            build["dockerfile"] = "Dockerfile"
        _fill_variables(build, "args", environment, keep_unset=False)
    _fill_variables(service, "environment", environment, keep_unset=True)
    _imply_dependencies(service)
    for volume in service.get("volumes") or ():
        if isinstance(volume, Map) and isinstance(volume.get("target"), str):
            volume["target"] = posixpath.normpath(volume["target"] or ".")
    image = service.get("image")
    for hook in service.get("pre_start") or ():
        if image:
            hook.setdefault("image", image)


def _fill_variables(
    holder: Map, key: str, environment: Mapping[str, str], *, keep_unset: bool
) -> None:
    """Give variables that are only named their value from the environment."""
    values = holder.get(key)
    if isinstance(values, Map):
        for name in [name for name, value in values.items() if value is None]:
            if name in environment:
                values[name] = environment[name]
            elif not keep_unset:
                values.drop(name)
    elif isinstance(values, Seq):
        kept = Seq(values.mark)
        for index, item in enumerate(values):
            if "=" not in item:
                if item in environment:
                    item = f"{item}={environment[item]}"
                elif not keep_unset:
                    continue
            kept.add(item, values.marks[index])
        holder[key] = kept


def _imply_dependencies(service: Map) -> None:
    depends = service.get("depends_on")
    implied = Map(None) if depends is None else depends

    def depend(name: str, key: str, restart: bool) -> None:
        if name not in implied:
            mark = service.mark_of(key)
            value: dict[str, Any] = {"condition": "service_started", "required": True}
            implied.put(name, set_marks(value | {"restart": restart}, mark), mark, mark)

    for link in service.get("links") or ():
        parts = link.split(":")
        depend(parts[0] if len(parts) == 2 else link, "links", True)
    for key in _NAMESPACES:
        value = service.get(key)
        if isinstance(value, str) and value.startswith(_SERVICE_PREFIX):
            depend(value.removeprefix(_SERVICE_PREFIX), key, True)
    for source in service.get("volumes_from") or ():
        if not source.startswith("container:"):
            depend(source.split(":")[0], "volumes_from", False)
    if implied and depends is None:
        service.put("depends_on", implied, None)
