"""How is one Compose tree laid over another?

Mappings merge key by key, lists are joined, scalars are replaced; the tables below hold the
specification's exceptions. `unify` then drops what a later item of a list replaces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from dray.compose.short import BadShort, parse_volume
from dray.compose.tree import Keys, Map, Mark, Problems, Seq, set_marks
from dray.compose.yaml_scalars import scalar_text

__all__ = ["merge", "merge_entry", "merge_service", "reset", "unify", "unify_service"]

_Rule: TypeAlias = Callable[[Any, Any, Keys, Problems], Any]


def merge(base: Map, over: Map, problems: Problems) -> Map:
    """Return `base` with another whole file laid over it; both are used up."""
    return _merge_mappings(base, over, (), problems)


def merge_service(base: Map, over: Map, name: str, problems: Problems) -> Map:
    """Return a service with another laid over it (`extends`); both are used up."""
    return _merge_mappings(base, over, ("services", name), problems)


def merge_entry(base: Any, over: Any, section: str, name: str, problems: Problems) -> Any:
    """Return an entry of a section with another of the same name laid over it."""
    if not isinstance(base, Map) or not isinstance(over, Map):
        return base if over is None else over
    return _merge_mappings(base, over, (section, name), problems)


def _merge_mappings(base: Map, over: Map, path: Keys, problems: Problems) -> Map:
    for key, value in over.items():
        if key not in base:
            base.take(key, over)
            continue
        inner = (*path, key)
        rule = _rule_at(inner)
        old = base[key]
        if rule is not None:
            merged = rule(_Side(base, key), _Side(over, key), inner, problems)
        elif value is None:
            continue
        elif isinstance(old, Map) and isinstance(value, Map):
            _merge_mappings(old, value, inner, problems)
            continue
        elif isinstance(old, Seq) and isinstance(value, Seq):
            old.extend(value)
            old.marks.extend(value.marks)
            continue
        elif isinstance(old, Map | Seq):
            expected = "mapping" if isinstance(old, Map) else "list"
            message = f"cannot override a {expected} with something else"
            problems.add(over.mark_of(key), inner, message)
            continue
        else:
            merged = value
        base.put(key, merged, over.mark_of(key), over.key_marks.get(key))
    return base


class _Side:
    """One of two values that meet, with its place."""

    __slots__ = ("mark", "value")

    def __init__(self, holder: Map, key: str) -> None:
        self.value = holder[key]
        self.mark: Mark | None = holder.mark_of(key)


def _replace(_base: _Side, over: _Side, _path: Keys, _problems: Problems) -> Any:
    return over.value


def _join(base: _Side, over: _Side, _path: Keys, _problems: Problems) -> Any:
    first, second = _as_list(base), _as_list(over)
    first.extend(second)
    first.marks.extend(second.marks)
    return first


def _join_new(base: _Side, over: _Side, _path: Keys, _problems: Problems) -> Any:
    first = _as_list(base)
    for index, item in enumerate(second := _as_list(over)):
        if item not in first:
            first.add(item, second.marks[index])
    return first


def _as_list(side: _Side) -> Seq:
    """Return `KEY=value` items for a mapping, one item for a text, a list as it is."""
    value = side.value
    if isinstance(value, Seq):
        return value
    result = Seq(side.mark)
    if isinstance(value, Map):
        for key in sorted(value):
            inner, mark = value[key], value.mark_of(key)
            if inner is None:
                result.add(key, mark)
            else:
                for each in inner if isinstance(inner, Seq) else [inner]:
                    result.add(f"{key}={scalar_text(each)}", mark)
    elif isinstance(value, str):
        result.add(value, side.mark)
    return result


def _as_map(side: _Side, default: dict[str, Any] | None) -> Map:
    """Return a mapping for a list of names, each with the default value."""
    value = side.value
    if isinstance(value, Map):
        return value
    result = Map(side.mark)
    if isinstance(value, Seq):
        for index, name in enumerate(value):
            mark = value.mark_of(index)
            result.put(str(name), set_marks(default, mark), mark, mark)
    return result


def _by_name(default: dict[str, Any] | None) -> _Rule:
    def merge_by_name(base: _Side, over: _Side, path: Keys, problems: Problems) -> Any:
        return _merge_mappings(_as_map(base, default), _as_map(over, default), path, problems)

    return merge_by_name


def _merge_build(base: _Side, over: _Side, path: Keys, problems: Problems) -> Any:
    def long(side: _Side) -> Map:
        if isinstance(side.value, str):
            result = Map(side.mark)
            result.put("context", side.value, side.mark, side.mark)
            return result
        return side.value if isinstance(side.value, Map) else Map(side.mark)

    return _merge_mappings(long(base), long(over), path, problems)


def _merge_logging(base: _Side, over: _Side, path: Keys, problems: Problems) -> Any:
    old, new = base.value, over.value
    if not isinstance(old, Map) or not isinstance(new, Map):
        return old if new is None else new
    if "driver" in old and "driver" in new and old["driver"] != new["driver"]:
        return new
    return _merge_mappings(old, new, path, problems)


def _merge_pools(base: _Side, over: _Side, path: Keys, problems: Problems) -> Any:
    """Return the later address pools, each laid over the earlier one of its subnet.

    Earlier pools of other subnets are dropped, as the official tool does.
    """
    if not isinstance(base.value, Seq) or not isinstance(over.value, Seq):
        return over.value
    earlier = {pool.get("subnet"): pool for pool in base.value if isinstance(pool, Map)}
    result = Seq(over.value.mark)
    for index, pool in enumerate(over.value):
        old = earlier.get(pool.get("subnet")) if isinstance(pool, Map) else None
        merged = pool if old is None else _merge_mappings(old, pool, (*path, index), problems)
        result.add(merged, over.value.marks[index])
    return result if over.value else base.value


_STARTED: Final = {"condition": "service_started", "required": True}
_SERVICE_RULES: Final[dict[tuple[str, ...], _Rule]] = {
    ("annotations",): _join,
    ("build",): _merge_build,
    ("build", "additional_contexts"): _join,
    ("build", "args"): _join,
    ("build", "extra_hosts"): _join_new,
    ("build", "labels"): _join,
    ("command",): _replace,
    ("depends_on",): _by_name(_STARTED),
    ("deploy", "labels"): _join,
    ("dns",): _join,
    ("dns_opt",): _join,
    ("dns_search",): _join,
    ("entrypoint",): _replace,
    ("env_file",): _join,
    ("environment",): _join,
    ("extra_hosts",): _join_new,
    ("healthcheck", "test"): _replace,
    ("label_file",): _join,
    ("labels",): _join,
    ("logging",): _merge_logging,
    ("models",): _by_name(None),
    ("networks",): _by_name(None),
    ("sysctls",): _join,
    ("tmpfs",): _join,
}
_RULES: Final[dict[tuple[str, ...], _Rule]] = {
    ("networks", "ipam", "config"): _merge_pools,
    ("networks", "labels"): _join,
    ("volumes", "labels"): _join,
}


def _rule_at(path: Keys) -> _Rule | None:
    if len(path) < 3:
        return None
    if path[0] == "services":
        if len(path) == 4 and path[2] == "ulimits":
            return _replace
        return _SERVICE_RULES.get(tuple(map(str, path[2:])))
    return _RULES.get((str(path[0]), *map(str, path[2:])))


def reset(tree: Any, paths: list[Keys]) -> None:
    """Forget what a tree says at paths that a later file tagged `!reset` or `!override`."""
    for path in paths:
        holder = tree
        for part in path[:-1]:
            holder = holder.get(part) if isinstance(holder, Map) and isinstance(part, str) else None
        if isinstance(holder, Map) and isinstance(path[-1], str):
            holder.drop(path[-1])


# ---- lists whose items replace one another -------------------------------------------------------


def _by_key(item: Any) -> object:
    return item.partition("=")[0] if isinstance(item, str) else None


def _by_target(item: Any) -> object:
    if isinstance(item, Map):
        return item.get("target")
    try:
        return parse_volume(item)["target"] if isinstance(item, str) else None
    except BadShort:
        return None


def _by_device_target(item: Any) -> object:
    if isinstance(item, Map):
        return item.get("target")
    parts = item.split(":") if isinstance(item, str) else []
    return (parts[1] if len(parts) > 1 else parts[0]) if parts else None


def _by_mount(folder: str) -> Callable[[Any], object]:
    def key(item: Any) -> object:
        if isinstance(item, str):
            return f"{folder}/{item}"
        if isinstance(item, Map):
            return item["target"] if "target" in item else f"{folder}/{item.get('source')}"
        return None

    return key


def _by_port(item: Any) -> object:
    if not isinstance(item, Map):
        return str(item)
    published = item.get("published")
    return (
        item.get("host_ip", "0.0.0.0"),  # noqa: S104 - compared, not bound
        None if published is None else str(published),
        str(item.get("target")),
        item.get("protocol", "tcp"),
    )


def _by_path(item: Any) -> object:
    return item.get("path") if isinstance(item, Map) else item


def _by_text(item: Any) -> object:
    return scalar_text(item) if not isinstance(item, Map | Seq) else None


_SERVICE_LISTS: Final[dict[tuple[str, ...], Callable[[Any], object]]] = {
    ("annotations",): _by_key,
    ("build", "additional_contexts"): _by_key,
    ("build", "args"): _by_key,
    ("build", "labels"): _by_key,
    ("build", "tags"): _by_key,
    ("cap_add",): _by_key,
    ("cap_drop",): _by_key,
    ("configs",): _by_mount(""),
    ("deploy", "labels"): _by_key,
    ("devices",): _by_device_target,
    ("dns",): _by_key,
    ("dns_opt",): _by_key,
    ("dns_search",): _by_key,
    ("env_file",): _by_path,
    ("environment",): _by_key,
    ("expose",): _by_text,
    ("labels",): _by_key,
    ("links",): _by_key,
    ("ports",): _by_port,
    ("profiles",): _by_key,
    ("secrets",): _by_mount("/run/secrets"),
    ("sysctls",): _by_key,
    ("tmpfs",): _by_key,
    ("volumes",): _by_target,
}
_NETWORK_OF_SERVICE_LISTS: Final = ("aliases", "link_local_ips")
_NETWORK_LISTS: Final = (("labels",), ("ipam", "options"))


def unify(tree: Map) -> None:
    """Let later items of a list replace earlier ones that stand for the same thing."""
    services = tree.get("services")
    for service in services.values() if isinstance(services, Map) else ():
        if isinstance(service, Map):
            unify_service(service)
    networks = tree.get("networks")
    for network in networks.values() if isinstance(networks, Map) else ():
        for path in _NETWORK_LISTS:
            _unify_at(network, path, _by_key)


def unify_service(service: Map) -> None:
    """Do the same in one service."""
    for path, key in _SERVICE_LISTS.items():
        if path[0] in service:
            _unify_at(service, path, key)
    networks = service.get("networks")
    for network in networks.values() if isinstance(networks, Map) else ():
        for name in _NETWORK_OF_SERVICE_LISTS:
            _unify_at(network, (name,), _by_key)


def _unify_at(holder: Any, path: tuple[str, ...], key: Callable[[Any], object]) -> None:
    for part in path:
        holder = holder.get(part) if isinstance(holder, Map) else None
    if not isinstance(holder, Seq) or len(holder) < 2:
        return
    places: dict[object, int] = {}
    items: list[Any] = []
    marks: list[Mark | None] = []
    for index, item in enumerate(holder):
        name = key(item)
        if isinstance(name, Map | Seq):
            name = None  # no name: the structural check refuses it
        if name is not None and name in places:
            items[places[name]] = item
            marks[places[name]] = holder.marks[index]
            continue
        if name is not None:
            places[name] = len(items)
        items.append(item)
        marks.append(holder.marks[index])
    holder[:] = items
    holder.marks = marks
