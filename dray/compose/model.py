"""How do several files, with what they include and extend, become one tree?

Files are laid over one another in order. In each, variables are replaced first, then `include` and
`extends` are carried out, then the result is checked and its short syntaxes are made long.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dray.compose.extend import Source, extend_services
from dray.compose.interpolate import interpolate_tree
from dray.compose.longform import fill_defaults, lengthen
from dray.compose.merge import merge, merge_entry, reset, unify
from dray.compose.paths import absolute, resolve_paths
from dray.compose.rules import check_entries
from dray.compose.session import Session
from dray.compose.structure import check_section, check_structure, type_name
from dray.compose.tree import Keys, Map, Mark, Refused, Seq, Unread
from dray.compose.yaml_read import Document

__all__ = ["Scope", "load_tree"]

INCLUDES_MAX: Final = 20  # files that include one another in a row
_IMPORTED: Final = ("services", "volumes", "networks", "secrets", "configs", "models")


@dataclass(frozen=True, slots=True)
class Scope:
    """What files are read against.

    Attributes:
        folder: What relative paths are resolved against.
        environment: Values of variables.
        included: Files that are being included, outermost first.
    """

    folder: str
    environment: Mapping[str, str]
    included: tuple[str, ...] = ()


@dataclass(slots=True)
class _File:
    path: str
    scope: Scope
    document: Document
    mark: Mark = field(init=False)

    def __post_init__(self) -> None:
        self.mark = (self.path, 1, 1)


def load_tree(
    session: Session, paths: list[str], scope: Scope, mark: Mark | None = None, where: Keys = ()
) -> Map:
    """Return the tree of some files, later ones over earlier ones, with absolute paths.

    Args:
        session: Where files are read and problems go.
        paths: The files.
        scope: What they are read against.
        mark: Where the files are named.
        where: The key that names them.

    Raises:
        Refused: Something is wrong.
    """
    problems = session.problems
    tree = Map(None)
    for path in paths:
        for document in session.documents(path, mark, where):
            tree = _lay_over(session, tree, _File(path, scope, document))
    fill_defaults(tree)
    check_entries(tree, problems)
    problems.settle(tree)
    resolve_paths(tree, scope.folder, session.home, problems)
    problems.settle(tree)
    _resolve_variables(session, tree, scope.environment)
    return tree


def _lay_over(session: Session, tree: Map, file: _File) -> Map:
    """Return a tree with one more document laid over it."""
    root, problems = file.document.root, session.problems
    if not isinstance(root, Map):
        message = f"must be a mapping, not {type_name(root)}"
        problems.add(getattr(root, "mark", None) or file.mark, "", message)
        raise Refused
    if tree.mark is None:
        tree.mark = root.mark
    if session.request.interpolate:
        lookup = file.scope.environment.get
        interpolate_tree(root, lookup, problems, session.unset)
        problems.settle(root)
    _include(session, root, file)
    reset(tree, file.document.resets)
    services = root.get("services")
    if "services" in root and not isinstance(services, Map):
        check_section(root, "services", problems)
    if isinstance(services, Map):
        source = Source(file.path, file.scope.folder, services, file.document.resets, is_main=True)
        extend_services(session, source, file.scope.environment)
    problems.settle(root)
    tree = merge(tree, root, problems)
    problems.settle(tree)
    unify(tree)
    check_structure(tree, problems)
    problems.settle(tree)
    tree.drop("version")
    lengthen(tree, problems, keep_unparsed=not session.request.interpolate)
    problems.settle(tree)
    unify(tree)
    return tree


# ---- include -------------------------------------------------------------------------------------


def _include(session: Session, root: Map, file: _File) -> None:
    """Load what a document includes and add its entries to the document."""
    if root.get("include") is None:
        root.drop("include")
        return
    if not check_section(root, "include", session.problems):
        _doubt_all(session)
        session.problems.settle(root)
    entries: Seq = root.get("include") or Seq(None)
    for index, entry in enumerate(entries):
        mark = entries.mark_of(index)
        where: Keys = ("include", index)
        try:
            imported = _load_included(session, entry, file, mark, where)
        except Unread:
            _doubt_all(session)
            continue
        for section in _IMPORTED:
            if isinstance(imported.get(section), Map):
                _import_section(session, imported, root, section, file)
    root.drop("include")


def _doubt_all(session: Session) -> None:
    """Note that anything may be defined in a file that cannot be included."""
    for section in _IMPORTED:
        session.problems.doubt((section,))


def _load_included(
    session: Session, entry: str | Map, file: _File, mark: Mark | None, where: Keys
) -> Map:
    scope, home = file.scope, session.home
    details = entry if isinstance(entry, Map) else Map(mark)
    paths = _texts(details.get("path") if isinstance(entry, Map) else entry)
    paths = [absolute(path, scope.folder, home) for path in paths]
    if not paths:
        if not session.problems.is_lost((*where, "path")):
            session.problems.add(mark, where, "names no file", "add `path:`")
        raise Unread
    chain = (*scope.included, file.path)
    if paths[0] in chain:
        shown = " -> ".join([*chain[chain.index(paths[0]) :], paths[0]])
        session.problems.add(mark, where, f"files include one another in a cycle: {shown}")
        raise Refused
    if len(chain) > INCLUDES_MAX:
        message = f"files include one another more than {INCLUDES_MAX} deep"
        session.problems.add(mark, where, message)
        raise Refused
    folder = posixpath.dirname(paths[0])
    if details.get("project_directory"):
        folder = absolute(details["project_directory"], scope.folder, home)
    env_files = [path for path in _texts(details.get("env_file")) if path != "/dev/null"]
    if "env_file" in details:
        env_paths = [absolute(path, scope.folder, home) for path in env_files]
    else:
        default = posixpath.join(folder, ".env")
        env_paths = [default] if session.exists(default) else []
    environment = session.with_env_files(scope.environment, env_paths, mark, where)
    return load_tree(session, paths, Scope(folder, environment, chain), mark, where)


def _texts(value: object) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]


def _import_section(session: Session, imported: Map, root: Map, section: str, file: _File) -> None:
    """Add one section of an included project; what the document itself says wins."""
    if root.get(section) is None:
        root.put(section, Map(imported.mark_of(section)), imported.mark_of(section))
    target = root[section]
    if not isinstance(target, Map):
        return
    for name in list(imported[section]):
        if name not in target:
            target.take(name, imported[section])
            continue
        reset(imported, [path for path in file.document.resets if path[:2] == (section, name)])
        merged = merge_entry(
            imported[section].get(name), target[name], section, name, session.problems
        )
        target[name] = merged


# ---- variables that are only named ---------------------------------------------------------------


def _resolve_variables(session: Session, tree: Map, environment: Mapping[str, str]) -> None:
    """Give `- NAME` entries and configs and secrets from variables their values."""
    for service in (tree.get("services") or {}).values():
        values = service.get("environment")
        if isinstance(values, Seq):
            for index, item in enumerate(values):
                if "=" not in item and item in environment:
                    values[index] = f"{item}={environment[item]}"
    for section in ("configs", "secrets"):
        for name, entry in (tree.get(section) or {}).items():
            variable = entry.get("environment")
            if isinstance(variable, str) and variable in environment:
                session.contents[section, name] = environment[variable].encode()
