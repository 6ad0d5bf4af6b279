"""How do the short syntaxes of a tree become long ones, and which defaults are filled in?

Only what has the expected type is touched: the structural check reports the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dray.compose.short import BadShort, parse_device, parse_ports, parse_volume
from dray.compose.tree import Keys, Map, Problems, Seq, set_marks
from dray.compose.yaml_scalars import scalar_text

__all__ = ["fill_defaults", "lengthen", "lengthen_service"]

PORTS_MAX: Final = 10_000  # ports of one service, with its ranges written out
_STARTED: Final = "service_started"


def lengthen(tree: Map, problems: Problems, *, keep_unparsed: bool) -> None:
    """Turn short syntaxes into long ones, in place.

    Args:
        tree: A whole file's content.
        problems: Gathers what cannot be read.
        keep_unparsed: Leave alone what cannot be read, for files that are not interpolated.
    """
    services = tree.get("services")
    if isinstance(services, Map):
        for name, service in services.items():
            if isinstance(service, Map):
                lengthen_service(service, name, problems, keep_unparsed=keep_unparsed)
    for section in ("volumes", "networks", "secrets", "configs"):
        resources = tree.get(section)
        for name, resource in resources.items() if isinstance(resources, Map) else ():
            if isinstance(resource, Map):
                _external(resource, (section, name), problems)


def lengthen_service(service: Map, name: str, problems: Problems, *, keep_unparsed: bool) -> None:
    """Turn the short syntaxes of one service into long ones, in place."""
    path: Keys = ("services", name)
    sink = Problems() if keep_unparsed else problems
    _build(service)
    _to_list(service, "label_file", "dns")
    _names_to_map(service, "networks")
    _names_to_map(service, "models")
    _depends_on(service)
    _env_files(service)
    _gpus(service)
    for key in ("secrets", "configs"):
        _each(service, key, _file_mount, path, sink)
    _each(service, "devices", parse_device, path, sink)
    _each(service, "volumes", parse_volume, path, sink)
    _ports(service, path, sink)
    develop = service.get("develop")
    watches = develop.get("watch") if isinstance(develop, Map) else None
    for watch in watches if isinstance(watches, Seq) else ():
        if isinstance(watch, Map):
            _to_list(watch, "ignore", "include")
    if isinstance(service.get("extends"), str):
        mark = service.mark_of("extends")
        service.put("extends", set_marks({"service": service["extends"]}, mark), mark)
    dns = service.get("dns")
    if isinstance(dns, Seq):
        kept = [index for index, each in enumerate(dns) if each not in (None, "")]
        marks = [dns.marks[index] for index in kept]
        dns[:] = [dns[index] for index in kept]
        dns.marks = marks


def _build(service: Map) -> None:
    build = service.get("build")
    mark = service.mark_of("build")
    if isinstance(build, str):
        build = Map(mark)
        build.put("context", service["build"], mark, mark)
        service["build"] = build
    if not isinstance(build, Map):
        return
    for key in ("provenance", "sbom"):
        if isinstance(build.get(key), bool):
            build[key] = scalar_text(build[key])
    _each(build, "secrets", _file_mount, (), Problems())
    contexts = build.get("additional_contexts")
    if isinstance(contexts, Seq) and all(
        isinstance(each, str) and "=" in each for each in contexts
    ):
        _pairs_to_map(build, "additional_contexts")
    ssh = build.get("ssh")
    if isinstance(ssh, Seq) and all(isinstance(each, str) for each in ssh):
        _pairs_to_map(build, "ssh")


def _pairs_to_map(holder: Map, key: str) -> None:
    items: Seq = holder[key]
    result = Map(items.mark)
    for index, item in enumerate(items):
        name, separator, value = item.partition("=")
        mark = items.mark_of(index)
        result.put(name, value if separator else None, mark, mark)
    holder[key] = result


def _to_list(holder: Map, *keys: str) -> None:
    for key in keys:
        if isinstance(holder.get(key), str):
            mark = holder.mark_of(key)
            items = Seq(mark)
            items.add(holder[key], mark)
            holder[key] = items


def _names_to_map(service: Map, key: str) -> None:
    names = service.get(key)
    if isinstance(names, Seq) and all(isinstance(name, str) for name in names):
        result = Map(names.mark)
        for index, name in enumerate(names):
            result.put(name, None, names.mark_of(index), names.mark_of(index))
        service[key] = result


def _depends_on(service: Map) -> None:
    depends = service.get("depends_on")
    if isinstance(depends, Seq) and all(isinstance(name, str) for name in depends):
        result = Map(depends.mark)
        for index, name in enumerate(depends):
            mark = depends.mark_of(index)
            result.put(name, set_marks({"condition": _STARTED, "required": True}, mark), mark, mark)
        service["depends_on"] = result
    elif isinstance(depends, Map):
        for each in depends.values():
            if isinstance(each, Map):
                each.setdefault("condition", _STARTED)
                each.setdefault("required", True)


def _env_files(service: Map) -> None:
    _to_list(service, "env_file")
    files = service.get("env_file")
    if not isinstance(files, Seq):
        return
    for index, each in enumerate(files):
        if isinstance(each, str):
            files[index] = set_marks({"path": each, "required": True}, files.mark_of(index))
        elif isinstance(each, Map):
            each.setdefault("required", True)


def _gpus(service: Map) -> None:
    if service.get("gpus") == "all":
        mark = service.mark_of("gpus")
        service["gpus"] = set_marks([{"count": "all"}], mark)


def _file_mount(source: str) -> dict[str, Any]:
    return {"source": source}


def _each(
    holder: Map,
    key: str,
    parse: Callable[[str], dict[str, Any]],
    path: Keys,
    problems: Problems,
) -> None:
    """Replace the texts of a list by what they stand for."""
    items = holder.get(key)
    if not isinstance(items, Seq):
        return
    for index, item in enumerate(items):
        if isinstance(item, str):
            mark = items.mark_of(index)
            try:
                items[index] = set_marks(parse(item), mark)
            except BadShort as error:
                problems.add(mark, (*path, key, index), str(error))


def _ports(service: Map, path: Keys, problems: Problems) -> None:
    ports = service.get("ports")
    if not isinstance(ports, Seq):
        return
    result = Seq(ports.mark)
    for index, item in enumerate(ports):
        mark = ports.marks[index]
        if isinstance(item, bool) or not isinstance(item, str | int):
            result.add(item, mark)
            continue
        try:
            parsed = parse_ports(str(item))
            if len(result) + len(parsed) > PORTS_MAX:
                raise BadShort(f"the service has more than {PORTS_MAX:,} ports")
            for port in parsed:
                result.add(set_marks(port, mark or ports.mark), mark)
        except BadShort as error:
            node = (*path, "ports", len(result))  # of the list that is being made
            problems.add(ports.mark_of(index), (*path, "ports", index), str(error), node=node)
            result.add(item, mark)
    service["ports"] = result


def _external(resource: Map, path: Keys, problems: Problems) -> None:
    external = resource.get("external")
    if not isinstance(external, Map):
        return
    mark = resource.mark_of("external")
    resource.put("external", True, mark)
    name = external.get("name")
    if name is None:
        return
    if "name" in resource and resource["name"] != name:
        message = "name and external.name are not the same"
        problems.add(
            external.mark_of("name"), (*path, "external", "name"), message, "use only name"
        )
    resource.put("name", name, external.mark_of("name"), external.key_marks.get("name"))


# ---- defaults ------------------------------------------------------------------------------------


def fill_defaults(tree: Map) -> None:
    """Fill in what long syntaxes may leave out, in place; the tree is structurally sound."""
    for service in (tree.get("services") or {}).values():
        build = service.get("build")
        if build is not None and "context" not in build:
            build["context"] = "."
        for secret in service.get("secrets") or ():
            secret.setdefault("target", f"/run/secrets/{secret.get('source')}")
        for port in service.get("ports") or ():
            if isinstance(port, Map):
                port.setdefault("protocol", "tcp")
                port.setdefault("mode", "ingress")
        for volume in service.get("volumes") or ():
            bind = volume.get("bind") if isinstance(volume, Map) else None
            if bind is not None:
                bind.setdefault("create_host_path", True)
        for device in (*_reserved_devices(service), *(service.get("gpus") or ())):
            if "count" not in device and "device_ids" not in device:
                device["count"] = "all"


def _reserved_devices(service: Map) -> list[Map]:
    holder: Any = service
    for key in ("deploy", "resources", "reservations", "devices"):
        holder = holder.get(key) if isinstance(holder, Map) else None
    return holder or []
