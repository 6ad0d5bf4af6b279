"""How does a Compose file become a project? `load` reads, checks and normalises it.

This is the smallest useful version: one file, and the keys in the tables below. Every other key is
refused with its position, so that nothing is dropped in silence.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Callable, Mapping
from typing import TypeAlias

import yaml

from dray.compose.types import (
    COMPOSE_BYTES_MAX,
    FileSystem,
    Loaded,
    LoadRequest,
    Position,
    Problem,
    Rejected,
)
from dray.errors import DrayError
from dray.model import (
    ContainerSpec,
    EnvVar,
    ImageOptions,
    ProjectSpec,
    ResourceReservations,
    ServiceMode,
    ServiceSpec,
    TaskTemplate,
    string_map,
)
from dray.names import check_label, check_service_name, dns_label
from dray.units import format_bytes, format_cpus, parse_bytes, parse_cpus, parse_duration

__all__ = ["load"]

_Value: TypeAlias = "str | int | float | bool | list[_Value] | dict[str, _Value] | None"
_Reader: TypeAlias = Callable[["_File", yaml.Node, str], object]


class _File:
    """One parsed file: turns nodes into values and gathers problems with their positions."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[Problem] = []

    def position(self, node: yaml.Node) -> Position:
        return Position(self.path, node.start_mark.line + 1, node.start_mark.column + 1)

    def refuse(self, node: yaml.Node, path: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.position(node), path, message, hint))

    def mapping(self, node: yaml.Node, path: str) -> dict[str, yaml.Node]:
        """Return a mapping's values by key; an empty one after recording what is wrong with it."""
        if not isinstance(node, yaml.MappingNode):
            self.refuse(node, path, "must be a mapping")
            return {}
        result: dict[str, yaml.Node] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else ""
            if not key:
                self.refuse(key_node, path, "a key must be text")
            elif key in result:
                self.refuse(key_node, f"{path}.{key}".lstrip("."), "is there twice")
            else:
                result[key] = value_node
        return result

    def read_keys(
        self, node: yaml.Node, path: str, readers: Mapping[str, _Reader]
    ) -> dict[str, object]:
        """Return the known keys of a mapping as their readers turn them; refuse all others."""
        values: dict[str, object] = {}
        for key, value_node in self.mapping(node, path).items():
            full = f"{path}.{key}".lstrip(".")
            reader = readers.get(key)
            if reader is None:
                self.refuse(value_node, full, "is not supported yet", "remove it from the file")
                continue
            try:
                values[key] = reader(self, value_node, full)
            except DrayError as error:
                self.refuse(value_node, full, error.message, error.hint)
        return values


def load(request: LoadRequest, files: FileSystem) -> Loaded | Rejected:
    """Read Compose files and return the project, or every problem that was found.

    Never raises for what a file says. Time and memory are bounded by `COMPOSE_BYTES_MAX`.

    Args:
        request: What to load, and how.
        files: Where files are read.
    """
    if len(request.files) != 1:
        problem = Problem(None, "", f"{len(request.files)} files were named", "name exactly one")
        return Rejected((problem,))
    path = request.files[0]
    try:
        content = files.read(path, COMPOSE_BYTES_MAX)
    except DrayError as error:
        return Rejected((Problem(None, path, error.message, error.hint),))
    if content is None:
        return Rejected((Problem(None, path, "there is no such file", "name it with -f"),))
    if len(content) > COMPOSE_BYTES_MAX:
        return Rejected((Problem(None, path, f"is larger than {COMPOSE_BYTES_MAX} bytes"),))
    root = _parse(path, content)
    if isinstance(root, Problem):
        return Rejected((root,))
    file = _File(path)
    project = _read_project(file, root, request)
    if file.problems or project is None:
        return Rejected(tuple(sorted(file.problems, key=str)))
    return Loaded(project, _config(project))


def _parse(path: str, content: bytes) -> yaml.Node | Problem:
    try:
        root = yaml.compose(content.decode("utf-8"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        return Problem(Position(path, 1, 1), "", f"is not UTF-8 at byte {error.start}")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = Position(path, mark.line + 1, mark.column + 1) if mark else Position(path, 1, 1)
        return Problem(place, "", f"is not YAML: {getattr(error, 'problem', None) or error}")
    if root is None:
        return Problem(Position(path, 1, 1), "", "is empty", "a Compose file has `services:`")
    return root


def _read_project(file: _File, root: yaml.Node, request: LoadRequest) -> ProjectSpec | None:
    top = file.read_keys(root, "", {"name": _text, "services": lambda f, n, p: f.mapping(n, p)})
    name = request.project_name or top.get("name") or _name_of_folder(request)
    try:
        check_label(str(name), "project")
    except DrayError as error:
        file.refuse(root, "name", error.message, error.hint)
    nodes = top.get("services")
    if not isinstance(nodes, dict) or not nodes:
        file.refuse(root, "services", "there is no service", "add one under `services:`")
        return None
    services = [_read_service(file, str(key), node) for key, node in sorted(nodes.items())]
    return ProjectSpec(str(name), tuple(each for each in services if each is not None))


def _name_of_folder(request: LoadRequest) -> str:
    folder = request.project_directory or posixpath.dirname(request.files[0])
    return dns_label(posixpath.basename(folder.rstrip("/")))


def _read_service(file: _File, name: str, node: yaml.Node) -> ServiceSpec | None:
    path = f"services.{name}"
    try:
        check_service_name(name)
    except DrayError as error:
        file.refuse(node, path, error.message, error.hint)
    values = file.read_keys(node, path, _SERVICE_READERS)
    if not values.get("image"):
        file.refuse(node, path, "has no image", "name one with `image:`")
        return None
    deploy = values.pop("deploy", {})
    assert isinstance(deploy, dict)
    container = ContainerSpec(
        ImageOptions(str(values.pop("image"))),
        **{_FIELDS.get(key, key): value for key, value in values.items()},  # type: ignore[arg-type]
    )
    reservations = deploy.get("resources", ResourceReservations())
    mode = ServiceMode(replicas=deploy.get("replicas", 1))
    labels = deploy.get("labels", ())
    return ServiceSpec(name, TaskTemplate(container, reservations), mode, labels=labels)


def _text(file: _File, node: yaml.Node, path: str) -> str:
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    file.refuse(node, path, "must be text")
    return ""


def _command(file: _File, node: yaml.Node, path: str) -> tuple[str, ...]:
    if isinstance(node, yaml.ScalarNode):
        return tuple(shlex.split(node.value))
    if isinstance(node, yaml.SequenceNode):
        return tuple(_text(file, item, f"{path}[{i}]") for i, item in enumerate(node.value))
    file.refuse(node, path, "must be text or a list")
    return ()


def _pairs(file: _File, node: yaml.Node, path: str) -> dict[str, str]:
    """Return `KEY: value` or `- KEY=value` entries."""
    if isinstance(node, yaml.SequenceNode):
        texts = [_text(file, item, f"{path}[{i}]") for i, item in enumerate(node.value)]
        return {key: value for key, _, value in (text.partition("=") for text in texts)}
    entries = file.mapping(node, path).items()
    return {key: _text(file, value, f"{path}.{key}") for key, value in entries}


def _environment(file: _File, node: yaml.Node, path: str) -> tuple[EnvVar, ...]:
    return tuple(EnvVar(key, value) for key, value in sorted(_pairs(file, node, path).items()))


def _replicas(file: _File, node: yaml.Node, path: str) -> int:
    text = _text(file, node, path)
    if text.isdecimal() and len(text) <= 7:
        return int(text)
    file.refuse(node, path, f"{text!r} is not a number of replicas")
    return 1


def _reservations(file: _File, node: yaml.Node, path: str) -> ResourceReservations:
    readers: dict[str, _Reader] = {
        "cpus": lambda f, n, p: parse_cpus(_text(f, n, p)),
        "memory": lambda f, n, p: parse_bytes(_text(f, n, p)),
    }
    outer = file.read_keys(node, path, {"reservations": lambda f, n, p: f.read_keys(n, p, readers)})
    inner = outer.get("reservations", {})
    assert isinstance(inner, dict)
    return ResourceReservations(
        cpu_millis=inner.get("cpus", 0), memory_bytes=inner.get("memory", 0)
    )


def _deploy(file: _File, node: yaml.Node, path: str) -> dict[str, object]:
    readers: dict[str, _Reader] = {
        "labels": lambda f, n, p: string_map(_pairs(f, n, p)),
        "replicas": _replicas,
        "resources": _reservations,
    }
    return file.read_keys(node, path, readers)


_SERVICE_READERS: dict[str, _Reader] = {
    "command": _command,
    "deploy": _deploy,
    "entrypoint": _command,
    "environment": _environment,
    "hostname": _text,
    "image": _text,
    "labels": lambda f, n, p: string_map(_pairs(f, n, p)),
    "stop_grace_period": lambda f, n, p: parse_duration(_text(f, n, p)),
    "stop_signal": _text,
    "user": _text,
    "working_dir": _text,
}

_FIELDS = {"stop_grace_period": "stop_grace_s"}


def _config(project: ProjectSpec) -> dict[str, object]:
    services = {service.name: _service_config(service) for service in project.services}
    return {"name": project.name, "services": services}


def _service_config(service: ServiceSpec) -> dict[str, _Value]:
    """Return one service as the official tool shows it, without what was not said."""
    container = service.task.container
    reservations = service.task.reservations
    amounts: dict[str, _Value] = {}
    if reservations.cpu_millis:
        amounts["cpus"] = format_cpus(reservations.cpu_millis)
    if reservations.memory_bytes:
        amounts["memory"] = format_bytes(reservations.memory_bytes)
    deploy: dict[str, _Value] = {"replicas": service.mode.replicas}
    if amounts:
        deploy["resources"] = {"reservations": amounts}
    shown: dict[str, _Value] = {
        "command": list(container.command) if container.command is not None else None,
        "deploy": deploy,
        "entrypoint": list(container.entrypoint) if container.entrypoint is not None else None,
        "environment": {variable.name: variable.value for variable in container.environment},
        "image": container.image.reference,
        "labels": dict(container.labels),
    }
    return {key: value for key, value in shown.items() if value or value == 0}
