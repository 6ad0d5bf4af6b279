"""How does a Compose file become a project? `load` reads, checks and normalises it.

This is the smallest useful version: one file, and the keys in the tables below. Every other key is
refused with its position, so that nothing is dropped in silence; so are variables, merge keys and
env files.
"""

from __future__ import annotations

import posixpath
from typing import Final

from dray.compose.config import project_config
from dray.compose.document import Document, Node, parse_document
from dray.compose.reading import Entry, Reader, Reading
from dray.compose.types import (
    COMPOSE_BYTES_MAX,
    PROBLEMS_MAX,
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
    StringMap,
    TaskTemplate,
    string_map,
)
from dray.names import check_label, check_service_name, dns_label
from dray.units import parse_bytes, parse_cpus, parse_duration

__all__ = ["load"]

_REPLICAS_DIGITS_MAX: Final = 7  # 10,000 nodes with 508 tasks each are 5 million
_SHOWN_MAX: Final = 40  # characters of a wrong value that a message repeats


def load(request: LoadRequest, files: FileSystem) -> Loaded | Rejected:
    """Read Compose files and return the project, or every problem that was found.

    Never raises for what a file says. Time and memory are bounded by `COMPOSE_BYTES_MAX`, for what
    aliases stand for too.

    Args:
        request: What to load, and how.
        files: Where files are read.
    """
    if len(request.files) != 1:
        problem = Problem(None, "", f"{len(request.files)} files were named", "name exactly one")
        return Rejected((problem,))
    if request.env_files:
        hint = "leave them out"
        return Rejected((Problem(None, request.env_files[0], "env files are not read yet", hint),))
    parsed = _parsed_file(request.files[0], files)
    if isinstance(parsed, Problem):
        return Rejected((parsed,))
    reading = Reading(request.interpolate, request.allow_ignored)
    for problem in parsed.problems:
        reading.refuse(problem.position, problem.path, problem.message, problem.hint)
    project = _ProjectReader(request, files, reading).project(parsed.root)
    if reading.problems or project is None:
        return _rejected(reading)
    ignored = tuple(sorted(reading.ignored, key=_place))
    return Loaded(project, project_config(project, request.interpolate), ignored)


def _parsed_file(path: str, files: FileSystem) -> Document | Problem:
    try:
        content = files.read(path, COMPOSE_BYTES_MAX)
    except DrayError as error:
        return Problem(None, path, error.message, error.hint)
    if content is None:
        return Problem(None, path, "there is no such file", "name it with -f")
    if len(content) > COMPOSE_BYTES_MAX:
        return Problem(None, path, f"is larger than {COMPOSE_BYTES_MAX} bytes")
    return parse_document(path, content)


def _rejected(reading: Reading) -> Rejected:
    problems = sorted(reading.problems, key=_place)
    if reading.problems_unlisted:
        message = f"{reading.problems_unlisted} problems more than the {PROBLEMS_MAX} above"
        problems.append(Problem(None, "", message))
    return Rejected(tuple(problems))


def _place(problem: Problem) -> tuple[Position, str, str]:
    return (problem.position or Position("", 0, 0), problem.path, problem.message)


class _ProjectReader:
    """Reads one project out of one file."""

    def __init__(self, request: LoadRequest, files: FileSystem, reading: Reading) -> None:
        self._request = request
        self._files = files
        self._reading = reading
        self._environment = dict(request.environment)
        folder = request.project_directory or posixpath.dirname(request.files[0])
        self._folder = folder.rstrip("/")

    def project(self, root: Node) -> ProjectSpec | None:
        """Return the project; None, or one in part, after noting what is wrong."""
        reading = self._reading
        problems_before = len(reading.problems)
        top = reading.read_keys(
            root, "", {"name": _named, "services": lambda r, n, p: r.mapping(n, p)}
        )
        name = self._project_name(root.position, top.get("name"))
        entries = top.get("services")
        if not isinstance(entries, dict) or not entries:
            if len(reading.problems) == problems_before:
                hint = "add one under `services:`"
                reading.refuse(root.position, "services", "there is no service", hint)
            return None
        services = [self._service(key, entries[key]) for key in sorted(entries)]
        self._check_dns_names(entries)
        return ProjectSpec(name, tuple(each for each in services if each is not None))

    def _project_name(self, top: Position, written: object) -> str:
        position, name = top, dns_label(posixpath.basename(self._folder))
        if isinstance(written, tuple):
            position, name = written
        if self._request.project_name is not None:
            name = self._request.project_name
        try:
            check_label(name, "project")
        except DrayError as error:
            self._reading.refuse(position, "name", error.message, error.hint)
        return name

    def _check_dns_names(self, entries: dict[str, Entry]) -> None:
        by_label: dict[str, str] = {}
        for name, entry in entries.items():
            other = by_label.setdefault(dns_label(name), name)
            if other != name:
                message = f"has the same DNS name as service {other!r}: {dns_label(name)!r}"
                self._reading.refuse(entry.position, entry.path, message, "rename one of them")

    def _service(self, name: str, entry: Entry) -> ServiceSpec | None:
        reading = self._reading
        try:
            check_service_name(name)
        except DrayError as error:
            reading.refuse(entry.position, entry.path, error.message, error.hint)
        problems_before = len(reading.problems)
        readers = {**_SERVICE_READERS, "environment": self._environment_of}
        values = reading.read_keys(entry.node, entry.path, readers)
        image = values.pop("image", None)
        if image is None:
            is_noted = any(
                problem.path in (entry.path, f"{entry.path}.image")
                for problem in reading.problems[problems_before:]
            )
            if not is_noted:
                hint = "name one with `image:`"
                reading.refuse(entry.position, entry.path, "has no image", hint)
            return None
        deploy = values.pop("deploy", {})
        assert isinstance(deploy, dict)
        container = ContainerSpec(
            ImageOptions(str(image)),
            **{_FIELDS.get(key, key): value for key, value in values.items()},  # type: ignore[arg-type]
        )
        reservations = deploy.get("resources", ResourceReservations())
        mode = ServiceMode(replicas=deploy.get("replicas", 1))
        labels = deploy.get("labels", ())
        return ServiceSpec(name, TaskTemplate(container, reservations), mode, labels=labels)

    def _environment_of(self, reading: Reading, node: Node, path: str) -> tuple[EnvVar, ...]:
        """Return the variables; one without a value has the caller's, or is taken away."""
        variables = []
        for name, value in sorted(reading.pairs(node, path).items()):
            if value is None and name not in self._environment and self._has_env_file():
                message = f"the value of {name} may be in .env, which is not read yet"
                reading.refuse(node.position, path, message, "write the value here")
            variables.append(EnvVar(name, self._environment.get(name) if value is None else value))
        return tuple(variables)

    def _has_env_file(self) -> bool:
        may_be = self._request.env_files is None
        return may_be and self._files.exists(f"{self._folder}/.env")


def _named(reading: Reading, node: Node, path: str) -> tuple[Position, str] | None:
    text = reading.text(node, path)
    return None if text is None else (node.position, text)


def _image(reading: Reading, node: Node, path: str) -> str | None:
    text = reading.text(node, path)
    if text is not None and (not text or text != "".join(text.split())):
        reading.refuse(node.position, path, f"{text[:_SHOWN_MAX]!r} is not the name of an image")
        return None
    return text


def _labels(reading: Reading, node: Node, path: str) -> StringMap:
    pairs = reading.pairs(node, path).items()
    return string_map({key: value or "" for key, value in pairs})


def _replicas(reading: Reading, node: Node, path: str) -> int | None:
    text = reading.text(node, path)
    if text is None:
        return None
    if text.isascii() and text.isdecimal() and len(text) <= _REPLICAS_DIGITS_MAX:
        return int(text)
    reading.refuse(node.position, path, f"{text[:_SHOWN_MAX]!r} is not a number of replicas")
    return None


def _resources(reading: Reading, node: Node, path: str) -> ResourceReservations:
    outer = reading.read_keys(node, path, {"reservations": _reservations})
    found = outer.get("reservations", ResourceReservations())
    assert isinstance(found, ResourceReservations)
    return found


def _reservations(reading: Reading, node: Node, path: str) -> ResourceReservations:
    readers: dict[str, Reader] = {
        "cpus": lambda r, n, p: r.parsed(n, p, parse_cpus),
        "memory": lambda r, n, p: r.parsed(n, p, parse_bytes),
    }
    amounts = reading.read_keys(node, path, readers)
    cpu_millis, memory_bytes = amounts.get("cpus", 0), amounts.get("memory", 0)
    assert isinstance(cpu_millis, int)
    assert isinstance(memory_bytes, int)
    return ResourceReservations(cpu_millis=cpu_millis, memory_bytes=memory_bytes)


def _deploy(reading: Reading, node: Node, path: str) -> dict[str, object]:
    readers: dict[str, Reader] = {
        "labels": _labels,
        "replicas": _replicas,
        "resources": _resources,
    }
    return reading.read_keys(node, path, readers)


_SERVICE_READERS: Final[dict[str, Reader]] = {
    "command": Reading.command,
    "deploy": _deploy,
    "entrypoint": Reading.command,
    "hostname": Reading.text,
    "image": _image,
    "labels": _labels,
    "stop_grace_period": lambda r, n, p: r.parsed(n, p, parse_duration),
    "stop_signal": Reading.text,
    "user": Reading.text,
    "working_dir": Reading.text,
}

_FIELDS: Final = {"stop_grace_period": "stop_grace_s"}
