"""How does a canonical config become a project, with nothing dropped in silence?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dray.compose import xdray
from dray.compose.place import CanonicalView, Place, Sheet
from dray.compose.project.checks import check_project
from dray.compose.project.container import default_image
from dray.compose.project.files import config, secret, volume
from dray.compose.project.networks import network
from dray.compose.project.projected import Projected
from dray.compose.project.service import service_spec
from dray.compose.treatment import (
    AVAILABLE,
    Executor,
    Finding,
    Treatment,
    findings,
    row_of,
    unknown,
)
from dray.compose.types import Build, Position, Problem
from dray.errors import DrayError
from dray.model import ProjectSpec
from dray.names import check_label, dns_label

__all__ = ["FINDINGS_MAX", "to_project"]

FINDINGS_MAX: Final = 1000  # findings of one kind that are listed
_NAMELESS: Final = "project"
_LAST: Final = Position("\U0010ffff", 0, 0)


def to_project(
    canonical: CanonicalView,
    *,
    available: frozenset[Executor] = AVAILABLE,
    allow_ignored: bool = False,
) -> Projected:
    """Return what the cluster is asked for, and everything that was not simply taken.

    Never raises for what a config says. Deterministic; the order of keys does not matter.

    Args:
        canonical: The normalised project.
        available: The executors that there are.
        allow_ignored: Go without the keys that cannot be carried out: the project is made as if
            the file did not have them, and they are listed as ignored.
    """
    # What nobody knows below x-dray is said by its own reader, and better.
    found = [
        each
        for each in findings(canonical.config, available)
        if not (each.is_unknown and xdray.KEY in each.path)
    ]
    refused = [each for each in found if each.is_refused]
    dropped = [each for each in refused if allow_ignored and not each.row.is_vital]
    sheet = Sheet(canonical, frozenset(each.path for each in dropped))
    project, builds = _project(Place(sheet, dict(canonical.config)))
    refused += _unread(sheet, refused)
    meaningless = [each for each in found if not each.is_refused]
    kept = [
        each for each in refused if each.path not in sheet.dropped and not _is_told(sheet, each)
    ]
    return Projected(
        project=project,
        builds=builds,
        refusals=_problems(sheet, (each for each in kept if not each.row.is_vital)),
        faults=_sorted(
            (*sheet.faults, *_problems(sheet, (each for each in kept if each.row.is_vital)))
        ),
        ignored=_sorted((*_problems(sheet, meaningless), *_left_out(sheet, dropped))),
        problems=_sorted(sheet.problems),
    )


def _left_out(sheet: Sheet, found: list[Finding]) -> list[Problem]:
    return [sheet.finding(each.path, each.ignored_message) for each in found]


def _is_told(sheet: Sheet, found: Finding) -> bool:
    """Return whether it was said already, and better, that nobody knows this key."""
    return found.is_unknown and sheet.is_noted(found.path)


def _problems(sheet: Sheet, found: Iterable[Finding]) -> tuple[Problem, ...]:
    return _sorted(sheet.finding(each.path, each.message, each.hint) for each in found)


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return problems by position and path, each once; beyond a limit only how many."""
    unique = dict.fromkeys(problems)
    found = sorted(unique, key=lambda each: (each.position or _LAST, each.path, each.message))
    if len(found) <= FINDINGS_MAX:
        return tuple(found)
    rest = Problem(None, "", f"and {len(found) - FINDINGS_MAX} more", "mend these first")
    return (*found[:FINDINGS_MAX], rest)


def _unread(sheet: Sheet, refused: list[Finding]) -> list[Finding]:
    """Return honoured keys that nothing has read: they would be dropped in silence."""
    above = {each.path for each in refused}
    left: list[Finding] = []
    for path in sheet.unread(sheet.view.config):
        row = row_of(path)
        is_refused = any(path[:length] in above for length in range(1, len(path) + 1))
        if not is_refused and (row is None or row.treatment is Treatment.HONOURED):
            left.append(unknown(path))
    return left


def _project(root: Place) -> tuple[ProjectSpec, tuple[Build, ...]]:
    name = _name(root.at("name"))
    root.at("include").mark()
    told = root.at("name").text() or name
    extensions = xdray.project_extensions(root.at(xdray.KEY))
    services = root.at("services").entries()
    project = ProjectSpec(
        name=name,
        services=tuple(service_spec(place, told) for _, place in services),
        networks=tuple(network(*each, told) for each in root.at("networks").entries()),
        volumes=tuple(volume(*each, told) for each in root.at("volumes").entries()),
        configs=tuple(config(*each, told) for each in root.at("configs").entries()),
        secrets=tuple(secret(*each, told) for each in root.at("secrets").entries()),
        policy=extensions.policy,
        gang=extensions.gang,
        labels=extensions.labels,
    )
    check_project(root, project)
    builds = (_build(service, told) for _, service in services)
    return project, tuple(build for build in builds if build is not None)


def _name(place: Place) -> str:
    """Return the project's name; one that is no DNS label is a fault, and mapped to one."""
    told = place.text()
    try:
        return check_label(told, "project")
    except DrayError as error:
        place.fault(error.message, error.hint)
        return dns_label(told) or _NAMELESS


def _build(service: Place, project: str) -> Build | None:
    place = service.at("build")
    if not place.is_given:
        return None
    place.mark()
    name = service.name
    image = service.at("image").text() or default_image(project, name)
    options = place.value if isinstance(place.value, dict) else {"context": place.text()}
    return Build(name, image, options)
