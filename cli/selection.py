"""Which part of a project do named services make? They, and what they depend on; pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cli.exits import UsageError
from dray.model import ProjectSpec

__all__ = ["select"]


def select(project: ProjectSpec, names: Sequence[str]) -> ProjectSpec:
    """Return a project with only the named services and all that they depend on.

    Raises:
        UsageError: There is no service of a name.
    """
    services = {service.name: service for service in project.services}
    unknown = sorted(set(names) - services.keys())
    if unknown:
        raise UsageError(
            f"there is no service {unknown[0]!r} in project {project.name}",
            hint=f"its services: {', '.join(sorted(services)) or 'none'}",
        )
    wanted: set[str] = set()
    open_names = list(names)
    while open_names:
        name = open_names.pop()
        if name in wanted or name not in services:
            continue
        wanted.add(name)
        open_names += [each.service for each in services[name].depends_on]
    kept = tuple(service for service in project.services if service.name in wanted)
    return dataclasses.replace(project, services=kept)
