"""How does a service take over another one (`extends`), from its own or another file?"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dray.compose.interpolate import interpolate_tree
from dray.compose.longform import lengthen_service
from dray.compose.merge import merge, merge_service, reset, unify_service
from dray.compose.paths import absolute, resolve_service_paths
from dray.compose.session import Session
from dray.compose.structure import did_you_mean, type_name
from dray.compose.tree import Keys, Map, Refused, Unread, clone, size_of

__all__ = ["Source", "extend_services"]

CHAIN_MAX: Final = 50  # services that extend one another in a row


@dataclass(slots=True)
class Source:
    """A file whose services extend others or are extended.

    Attributes:
        path: The file.
        folder: What its relative paths are resolved against.
        services: Its services; extended ones are replaced in place.
        resets: Paths that the file tagged `!reset` or `!override`.
        is_main: Whether the file is loaded for itself, and not only to extend its services.
        is_partial: Whether something in a file that is not was refused.
        ready: Services of a file that is not, whose short syntaxes and paths were resolved.
    """

    path: str
    folder: str
    services: Map
    resets: list[Keys]
    is_main: bool = False
    is_partial: bool = False
    ready: set[str] = field(default_factory=set)


def extend_services(session: Session, source: Source, environment: Mapping[str, str]) -> None:
    """Carry out `extends` in all services of a file, in place.

    Raises:
        Refused: A file cannot be read, or services extend one another in a cycle.
    """
    extension = _Extension(session, environment)
    for name in list(source.services):
        extension.extended(source, name, ())


class _Extension:
    """Extends the services of one file; other files are read once."""

    def __init__(self, session: Session, environment: Mapping[str, str]) -> None:
        self._session = session
        self._environment = environment
        self._sources: dict[str, Source] = {}

    def extended(self, source: Source, name: str, trail: tuple[tuple[str, str], ...]) -> Map | None:
        """Return a service with what it extends; None if it is empty or no mapping."""
        service = source.services.get(name)
        if not isinstance(service, Map):
            return None
        self._prepare(source, service, name)
        extends = service.get("extends")
        reference = extends.get("service") if isinstance(extends, Map) else extends
        file = extends.get("file") if isinstance(extends, Map) else None
        if not isinstance(reference, str) or not isinstance(file, str | None):
            return service  # nothing to extend, or the structural check reports it
        base = self._base(source, service, name, reference, file, trail)
        service.drop("extends")
        if base is None:
            self._session.problems.doubt(("services", name))
            return service
        mark = service.mark_of("extends")
        self._session.spend(size_of(base), mark, ("services", name, "extends"))
        copy = clone(base)
        wrapped, services = Map(None), Map(None)
        wrapped["services"] = services
        services[name] = copy
        reset(wrapped, source.resets)
        merged = merge_service(copy, service, name, self._session.problems)
        self._settle(source, name, merged)
        merged.drop("extends")
        merged.mark = service.mark
        source.services[name] = merged
        return merged

    def _base(
        self,
        source: Source,
        service: Map,
        name: str,
        reference: str,
        file: str | None,
        trail: tuple[tuple[str, str], ...],
    ) -> Map | None:
        """Return the service that is extended, itself extended."""
        problems = self._session.problems
        mark = service.mark_of("extends")
        where: Keys = ("services", name, "extends")
        here = (source.path, name)
        if here in trail or len(trail) >= CHAIN_MAX:
            names = [each for _, each in (*trail, here)]
            message = f"services extend one another more than {CHAIN_MAX} deep"
            if here in trail:
                shown = " -> ".join(names[trail.index(here) :])
                message = f"services extend one another in a cycle: {shown}"
            problems.add(mark, where, message)
            raise Refused
        other = source
        if file is not None:
            path = absolute(file, source.folder, self._session.home)
            if path != source.path or not source.is_main:
                try:
                    other = self._source(path, service, where)
                except Unread:
                    return None
        if reference not in other.services:
            hint = did_you_mean(reference, other.services)
            if not problems.is_lost(("services", reference)):
                message = f"there is no service {reference!r} in {other.path}"
                problems.add(mark, where, message, hint)
            return None
        base = self.extended(other, reference, (*trail, here))
        extended: Keys = ("services", reference)
        is_whole = problems.is_whole(extended) and not problems.is_lost(extended)
        if other.is_partial or not is_whole:
            problems.doubt(("services", name))
        return base

    def _source(self, path: str, service: Map, where: Keys) -> Source:
        """Return a file that is read only to extend its services."""
        known = self._sources.get(path)
        if known is not None:
            return known
        session, mark = self._session, service.mark_of("extends")
        tree = Map(None)
        resets: list[Keys] = []
        is_partial = False
        for document in session.documents(path, mark, where):
            root = document.root
            if not isinstance(root, Map):
                session.problems.add((path, 1, 1), "", f"must be a mapping, not {type_name(root)}")
                raise Unread
            if session.request.interpolate:
                interpolate_tree(root, self._environment.get, session.problems, session.unset)
                is_partial |= session.problems.settle(root, is_other=True)
            reset(tree, document.resets)
            tree = merge(tree, root, session.problems)
            is_partial |= session.problems.settle(tree, is_other=True)
            resets += document.resets
        services = tree.get("services")
        if not isinstance(services, Map):
            session.problems.add(mark, where, f"{path} has no services")
            raise Unread
        source = Source(path, posixpath.dirname(path), services, resets, is_partial=is_partial)
        self._sources[path] = source
        return source

    def _prepare(self, source: Source, service: Map, name: str) -> None:
        """Make the syntaxes of a service of another file long, and its paths absolute."""
        if source.is_main or name in source.ready:
            return
        source.ready.add(name)
        problems = self._session.problems
        keep = not self._session.request.interpolate
        unify_service(service)
        lengthen_service(service, name, problems, keep_unparsed=keep)
        self._settle(source, name, service)
        unify_service(service)
        resolve_service_paths(service, name, source.folder, self._session.home, problems)
        self._settle(source, name, service)

    def _settle(self, source: Source, name: str, service: Map) -> None:
        """Take what was refused out of a service."""
        wrapped, services = Map(None), Map(None)
        wrapped["services"] = services
        services[name] = service
        is_refused = self._session.problems.settle(wrapped, is_other=not source.is_main)
        source.is_partial |= is_refused and not source.is_main
