"""How does a request become the canonical project, with the place of each part?"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dray.compose.dotenv import ENV_BYTES_MAX
from dray.compose.interpolate import BadTemplate, substitute
from dray.compose.model import Scope, load_tree
from dray.compose.normalise import normalise, project_name_of
from dray.compose.rules import check_project
from dray.compose.session import Session
from dray.compose.shape import shape
from dray.compose.tree import Keys, Map, Mark, Problems, Refused, mark_at
from dray.compose.types import FileSystem, LoadRequest, Position, Problem, Rejected

__all__ = ["Canonical", "Reading", "canonicalise", "read_project"]

_NAMELESS: Final = "project"  # what a project is called while its name is wrong


@dataclass(frozen=True, slots=True)
class Canonical:
    """A project as its files mean it.

    Attributes:
        config: The project in the shape that the official tool prints; extensions are kept.
        used_files: Every file that was read.
        contents: What configs and secrets hold, by ("configs" or "secrets", name), where a file, a
            variable or the project itself says it.
        disabled: Names of services that no active profile enables.
        environment: The variables that were used, `.env` included.
        warnings: Variables that were not set and replaced by nothing.
    """

    config: dict[str, Any]
    used_files: tuple[str, ...]
    contents: Mapping[Keys, bytes]
    disabled: tuple[str, ...]
    environment: Mapping[str, str]
    warnings: tuple[Problem, ...]

    @property
    def environments(self) -> Mapping[str, Mapping[str, str | None]]:
        """Variables that env files add to a service: none, `environment` already has them."""
        return {}

    def where(self, path: Keys) -> Position | None:
        """Return where the value at a path of `config` was written, or what it is part of.

        None if nothing of it came from a file.
        """
        mark = mark_at(self.config, path)
        return Position(*mark) if mark else None


@dataclass(frozen=True, slots=True)
class Reading:
    """What could be read of a project's files.

    Attributes:
        canonical: The project without what was refused; None if loading ended early.
        problems: What is wrong.
    """

    canonical: Canonical | None
    problems: Problems


def canonicalise(request: LoadRequest, files: FileSystem) -> Canonical | Rejected:
    """Load, merge, check and normalise the files of a project.

    Never raises for what a file says.

    Args:
        request: What to load, and how.
        files: Where files are read.
    """
    reading = read_project(request, files)
    if reading.problems or reading.canonical is None:
        return Rejected(reading.problems.sorted())
    return reading.canonical


def read_project(request: LoadRequest, files: FileSystem) -> Reading:
    """Do the same, and return what is sound of a project with problems as well.

    Args:
        request: What to load, and how.
        files: Where files are read.
    """
    session = Session(request, files)
    try:
        return Reading(_canonicalise(session), session.problems)
    except Refused:
        return Reading(None, session.problems)


def _canonicalise(session: Session) -> Canonical:
    request, problems = session.request, session.problems
    if not request.files:
        problems.add(None, "", "no file was named", "name one with -f")
        raise Refused
    folder = request.project_directory or posixpath.dirname(request.files[0])
    environment = _environment(session, folder)
    session.project_name = environment["COMPOSE_PROJECT_NAME"] = _project_name(
        session, folder, environment
    )
    tree = load_tree(session, list(request.files), Scope(folder, environment))
    if not tree and not problems:
        problems.add((request.files[0], 1, 1), "", "is empty", "a Compose file has `services:`")
    normalise(tree, session.project_name, environment)
    tree["name"] = session.project_name
    config = shape(tree, problems, keep_templates=not request.interpolate)
    problems.settle(config)
    disabled = _apply_profiles(session, config, environment)
    if request.interpolate:
        check_project(config, frozenset(disabled), problems)
        problems.settle(config)
    _share_scale(config)
    for name, service in config["services"].items():
        _read_env_files(session, name, service, environment)
        _read_label_files(session, name, service)
    problems.settle(config)
    contents = _contents(session, config)
    return Canonical(
        config,
        tuple(session.used_files),
        contents,
        tuple(sorted(disabled)),
        environment,
        tuple(_unset(name, mark) for name, mark in session.unset.items()),
    )


def _unset(name: str, mark: Mark | None) -> Problem:
    position = Position(*mark) if mark else None
    return Problem(position, name, "is not set and was replaced by nothing", "set it, or write $$")


def _environment(session: Session, folder: str) -> dict[str, str]:
    """Return the variables: those of the request, and those that env files add."""
    request = session.request
    given = dict(request.environment)
    default = posixpath.join(folder, ".env")
    if request.env_files is not None:
        paths = list(request.env_files)
    else:
        paths = [default] if session.exists(default) else []
    return session.with_env_files(given, paths, None, "env file")


def _project_name(session: Session, folder: str, environment: Mapping[str, str]) -> str:
    request, problems = session.request, session.problems
    given = request.project_name or environment.get("COMPOSE_PROJECT_NAME")
    if given:
        if project_name_of(given) != given:
            nearest = project_name_of(given)
            hint = f"{nearest!r} would do" if nearest else ""
            message = (
                f"{given[:80]!r} is not a project name: a-z, 0-9, - and _ only, "
                "and a letter or digit first"
            )
            problems.add(None, "name", message, hint)
            return nearest or _NAMELESS
        return given
    named, mark = _name_in_files(session)
    if named and request.interpolate:
        try:
            named = substitute(named, environment.get)
        except BadTemplate as error:
            problems.add(mark, ("name",), error.message, error.hint)
            return _NAMELESS
    name = project_name_of(named or posixpath.basename(folder.rstrip("/")))
    if not name:
        problems.add(mark, "name", "the project has no name", "give one with --project-name")
        return _NAMELESS
    return name


def _name_in_files(session: Session) -> tuple[str, Mark | None]:
    found, mark = "", None
    for path in session.request.files:
        for document in session.peek_documents(path, None, ""):
            name = document.root.get("name") if isinstance(document.root, Map) else None
            if isinstance(name, str) and name:
                found, mark = name, document.root.mark_of("name")
    return found, mark


def _apply_profiles(session: Session, config: Map, environment: Mapping[str, str]) -> list[str]:
    """Take services out that no active profile enables; return their names."""
    active = set(session.request.profiles)
    if not active:
        active = {each.strip() for each in environment.get("COMPOSE_PROFILES", "").split(",")}
    if "*" in active:
        return []
    services: Map = config["services"]
    disabled = [
        name
        for name, service in services.items()
        if service.get("profiles") and not active.intersection(service["profiles"])
    ]
    for name in disabled:
        services.drop(name)
    return disabled


def _share_scale(config: Map) -> None:
    for service in config["services"].values():
        if "scale" in service and "deploy" in service:
            service["deploy"]["replicas"] = service["scale"]


def _read_env_files(
    session: Session, name: str, service: Map, environment: Mapping[str, str]
) -> None:
    """Add the variables of a service's env files; what the service says itself wins."""
    files = service.get("env_file")
    if not files:
        return
    own: Map = service.get("environment") or Map(None)
    variables = {key: value for key, value in own.items() if value is not None}

    def lookup(variable: str) -> str | None:
        value = environment.get(variable)
        return own.get(variable) if value is None else value

    marks: dict[str, Mark | None] = {}
    for index, file in enumerate(files):
        path, mark = file["path"], file.mark_of("path")
        where: Keys = ("services", name, "env_file", index)
        if file.get("required") is False and not session.exists(path):
            continue
        before = dict(variables)
        session.env_file(path, variables, lookup, mark, where, file.get("format", ""))
        for key, value in variables.items():
            if before.get(key) != value or key not in before:
                marks[key] = mark
    merged = Map(own.mark)
    for key in sorted({*variables, *own}):
        if key in own:
            merged.take(key, own)
        else:
            merged.put(key, variables[key], marks.get(key))
    if merged:
        service.put("environment", merged, service.marks.get("environment"))


def _read_label_files(session: Session, name: str, service: Map) -> None:
    files = service.get("label_file")
    if not files:
        return
    labels: dict[str, str] = {}
    own: Map = service.get("labels") or Map(None)
    for index, path in enumerate(files):
        added: dict[str, str] = {}
        where: Keys = ("services", name, "label_file", index)
        session.env_file(path, added, labels.get, files.mark_of(index), where)
        labels |= added
    merged = Map(own.mark)
    for key in sorted({*labels, *own}):
        if key in own:
            merged.take(key, own)
        else:
            merged.put(key, labels[key], service.marks.get("label_file"))
    if merged:
        service.put("labels", merged, service.marks.get("labels"))


def _contents(session: Session, config: Map) -> dict[Keys, bytes]:
    """Return what configs and secrets hold, of those whose file is there and small enough."""
    contents: dict[Keys, bytes] = {}
    for section in ("configs", "secrets"):
        for name, entry in (config.get(section) or {}).items():
            if entry.get("content"):
                contents[section, name] = str(entry["content"]).encode()
            elif (section, name) in session.contents and "environment" in entry:
                contents[section, name] = session.contents[section, name]
            elif entry.get("file"):
                content = session.peek(entry["file"], ENV_BYTES_MAX)
                if content is not None:
                    contents[section, name] = content
    return contents
