"""What does each write of a project come to? A request and the store as it is give a `Draft`.

Pure: whoever commits it asks again with a newer snapshot when something was in the way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from dray.compose.diff import Change, Effect, diff_projects
from dray.errors import FailedPrecondition, InvalidRequest, NotFound
from dray.model import (
    ConfigSpec,
    ContentKind,
    ContentRef,
    NetworkSpec,
    ProjectSpec,
    SecretSpec,
    ServiceModeKind,
    ServiceRecord,
    ServiceSpec,
    VolumeSpec,
)
from dray.names import check_label
from dray.views import ChangeKind, ServiceChange, SpecChange
from scheduler.api.checks import REPLICAS_MAX, check_project, with_ports
from scheduler.api.contents import without_bytes
from scheduler.api.edit import Call, Draft, ProjectEdit, conflict
from scheduler.api.static_addresses import static_addresses
from scheduler.store.records import ProjectRecord
from scheduler.store.snapshot import Snapshot

__all__ = [
    "CHANGES_MAX",
    "Wanted",
    "apply_project",
    "project_spec",
    "remove_project",
    "restart_services",
    "revert_service",
    "revisions_of",
    "scale_services",
    "spec_changes",
]

_Entry = TypeVar("_Entry", NetworkSpec, VolumeSpec, ConfigSpec, SecretSpec)
CHANGES_MAX: Final = 100  # differences told of one service
_OPERATIONS_OF_A_REMOVAL: Final = 3  # the service, its last revision, its address
_EFFECTS: Final = {
    Effect.CREATED: ChangeKind.CREATED,
    Effect.REPLACED: ChangeKind.REPLACED,
    Effect.UPDATED: ChangeKind.UPDATED,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an apply asks for.

    Attributes:
        spec: The project.
        contents: Its configs, secrets and credentials, stored already.
        remove_absent_services: Remove services that the project does not have any more.
        force_replace: Replace tasks that have not changed, too.
    """

    spec: ProjectSpec
    contents: tuple[ContentRef, ...] = ()
    remove_absent_services: bool = False
    force_replace: bool = False


def apply_project(snapshot: Snapshot, wanted: Wanted, call: Call) -> Draft:
    """Make a project what is asked for.

    Raises:
        DrayError: It is refused; the message says why.
    """
    spec = wanted.spec
    check_project(spec)
    edit = ProjectEdit(snapshot, spec.name, call)
    if edit.record is not None and edit.record.is_removing:
        edit.existing()
    before = edit.services
    asked = {service.name: service for service in _prepared(edit, wanted)}
    absent = sorted(before.keys() - asked.keys())
    kept = [] if wanted.remove_absent_services else absent
    effects = _effects(edit, wanted, asked)
    forced = _restarted(asked.values(), _replaced(asked, effects, wanted))
    changes: list[ServiceChange] = []
    for name in sorted({*before, *asked}):
        if name in asked:
            is_forced = wanted.force_replace or name in forced
            changes.append(_put(edit, asked[name], effects.get(name), is_forced))
        elif name in kept:
            changes.append(_unchanged(before[name], ChangeKind.KEPT))
        else:
            edit.remove_service(name)
            changes.append(_unchanged(before[name], ChangeKind.REMOVED))
    merged = _merged(edit.record, spec, has_kept=bool(kept))
    record = dataclasses.replace(
        edit.record or ProjectRecord(spec),
        spec=merged,
        contents=_merged_contents(edit.record, merged, wanted.contents),
    )
    return edit.draft(record, tuple(changes), _warnings(spec.name, kept))


def _prepared(edit: ProjectEdit, wanted: Wanted) -> list[ServiceSpec]:
    """Return the services as they will be stored: ports chosen, the counter of restarts kept."""
    before = edit.services
    services = with_ports(edit.snapshot, edit.project, wanted.spec.services)
    return [
        _with_force(service, before[service.name].spec.task.force)
        if service.name in before
        else service
        for service in services
    ]


def _effects(
    edit: ProjectEdit, wanted: Wanted, asked: Mapping[str, ServiceSpec]
) -> dict[str, tuple[ChangeKind, tuple[SpecChange, ...]]]:
    """Return what happens to each service that changes, and why."""
    old = None
    if edit.record is not None:
        services = [record.spec for record in edit.services.values()]
        old = _comparable(edit.record.spec, services, edit.record.contents)
    new = _comparable(without_bytes(wanted.spec), list(asked.values()), wanted.contents)
    return {
        each.service: (_EFFECTS[each.effect], spec_changes(each.changes, each.effect))
        for each in diff_projects(old, new).services
        if each.effect in _EFFECTS
    }


def _replaced(
    asked: Mapping[str, ServiceSpec],
    effects: Mapping[str, tuple[ChangeKind, tuple[SpecChange, ...]]],
    wanted: Wanted,
) -> set[str]:
    """Return the services whose tasks are replaced for their own sake."""
    if wanted.force_replace:
        return set(asked)
    return {name for name, (kind, _) in effects.items() if kind is ChangeKind.REPLACED}


def _restarted(services: Iterable[ServiceSpec], replaced: Iterable[str]) -> set[str]:
    """Return the services that are to be restarted because one that they depend on is replaced."""
    dependents: dict[str, set[str]] = {}
    for service in services:
        for dependency in service.depends_on:
            if dependency.restart:
                dependents.setdefault(dependency.service, set()).add(service.name)
    found: set[str] = set()
    due = list(replaced)
    while due:
        fresh = dependents.get(due.pop(), set()) - found
        found |= fresh
        due += fresh
    return found


def _comparable(
    spec: ProjectSpec, services: list[ServiceSpec], contents: Sequence[ContentRef]
) -> ProjectSpec:
    """Return a whole project in which the digest of a content stands for the content."""
    digests = {(ref.kind, ref.key): ref.digest for ref in contents}
    return dataclasses.replace(
        spec,
        services=tuple(sorted(services, key=lambda service: service.name)),
        configs=tuple(
            dataclasses.replace(each, content=digests.get((ContentKind.CONFIG, each.key), b""))
            for each in spec.configs
        ),
        secrets=tuple(
            dataclasses.replace(each, content=digests.get((ContentKind.SECRET, each.key), b""))
            for each in spec.secrets
        ),
    )


def _put(
    edit: ProjectEdit,
    service: ServiceSpec,
    effect: tuple[ChangeKind, tuple[SpecChange, ...]] | None,
    is_forced: bool,
) -> ServiceChange:
    """Write a service if it changes."""
    old = edit.services.get(service.name)
    if old is None:
        return ServiceChange(service.name, ChangeKind.CREATED, edit.put_service(service))
    if effect is None and not is_forced:
        return _unchanged(old, ChangeKind.UNCHANGED)
    kind, changes = effect or (ChangeKind.REPLACED, ())
    # A content or volume that changed is not in the service's own words: the counter tells nodes.
    if is_forced or (kind is ChangeKind.REPLACED and service.task == old.spec.task):
        kind = ChangeKind.REPLACED
        service = _with_force(service, old.spec.task.force + 1)
    return ServiceChange(
        service.name, kind, edit.put_service(service), old.revision, changes[:CHANGES_MAX]
    )


def _merged(record: ProjectRecord | None, spec: ProjectSpec, *, has_kept: bool) -> ProjectSpec:
    """Return the project's own part, with the old networks and so on that kept services need."""
    new = without_bytes(spec)
    if record is None or not has_kept:
        return new
    old = record.spec
    return dataclasses.replace(
        new,
        networks=_union(old.networks, new.networks),
        volumes=_union(old.volumes, new.volumes),
        configs=_union(old.configs, new.configs),
        secrets=_union(old.secrets, new.secrets),
    )


def _union(old: tuple[_Entry, ...], new: tuple[_Entry, ...]) -> tuple[_Entry, ...]:
    """Return the entries of both, those of `new` where both have a key, sorted by key."""
    named = {entry.key for entry in new}
    entries = [entry for entry in old if entry.key not in named]
    entries += new
    return tuple(sorted(entries, key=lambda entry: entry.key))


def _merged_contents(
    record: ProjectRecord | None, spec: ProjectSpec, contents: tuple[ContentRef, ...]
) -> tuple[ContentRef, ...]:
    """Return the contents of a project, with the old ones of entries that only stay."""
    named = {(ref.kind, ref.key) for ref in contents}
    stay = {
        *((ContentKind.CONFIG, each.key) for each in spec.configs),
        *((ContentKind.SECRET, each.key) for each in spec.secrets),
    } - named
    old = record.contents if record else ()
    return (*contents, *(ref for ref in old if (ref.kind, ref.key) in stay))


def _warnings(project: str, kept: list[str]) -> tuple[str, ...]:
    if not kept:
        return ()
    names = ", ".join(kept)
    return (
        f"project {project} still has services that the file does not name: {names}; they stay "
        "(remove them with --remove-orphans)",
    )


def remove_project(snapshot: Snapshot, project: str, call: Call, *, remove_volumes: bool) -> Draft:
    """Let all services of a project end; its record goes when its last task has ended.

    A project of very many services takes several transactions; `Draft.is_complete` says so.

    Raises:
        DrayError: It does not exist, or has another revision.
    """
    edit = ProjectEdit(snapshot, check_label(project, "project"), call)
    if edit.record is None:
        raise NotFound(f"there is no project {project!r}", hint="see `dray ls`")
    room = edit.room - 1
    changes = []
    for name, removed in sorted(edit.services.items()):
        room -= _OPERATIONS_OF_A_REMOVAL + len(static_addresses(removed.spec))
        if room < 0:
            break
        changes.append(_unchanged(removed, ChangeKind.REMOVED))
        edit.remove_service(name)
    record = dataclasses.replace(
        edit.record,
        is_removing=True,
        remove_volumes=remove_volumes or edit.record.remove_volumes,
    )
    return edit.draft(record, tuple(changes), is_complete=len(changes) == len(edit.services))


def scale_services(
    snapshot: Snapshot, project: str, replicas: Mapping[str, int], call: Call
) -> Draft:
    """Change the numbers of replicas.

    Raises:
        DrayError: A service does not exist or cannot be scaled, or a number is out of range.
    """
    edit = ProjectEdit(snapshot, check_label(project, "project"), call)
    record = edit.existing()
    if not replicas:
        raise InvalidRequest("no service is named", hint="write it as SERVICE=REPLICAS")
    changes = []
    for name, wanted in sorted(replicas.items()):
        old = edit.service(name)
        _check_scale(name, old.spec, wanted)
        mode = dataclasses.replace(old.spec.mode, replicas=wanted)
        if mode == old.spec.mode:
            changes.append(_unchanged(old, ChangeKind.UNCHANGED))
            continue
        number = edit.put_service(dataclasses.replace(old.spec, mode=mode))
        told = SpecChange("deploy.replicas", str(old.spec.mode.replicas), str(wanted))
        changes.append(ServiceChange(name, ChangeKind.UPDATED, number, old.revision, (told,)))
    return edit.draft(record, tuple(changes))


def _check_scale(name: str, spec: ServiceSpec, replicas: int) -> None:
    if spec.mode.kind is not ServiceModeKind.REPLICATED:
        kind = spec.mode.kind.name.lower().replace("_", "-")
        raise FailedPrecondition(
            f"service {name} is {kind}, only replicated services can be scaled",
            hint="change deploy.mode in the file",
        )
    if not 0 <= replicas <= REPLICAS_MAX:
        raise InvalidRequest(
            f"{replicas} replicas of {name}: the number must be from 0 to {REPLICAS_MAX}",
            context={"field": "replicas"},
        )


def restart_services(
    snapshot: Snapshot, project: str, services: Sequence[str], call: Call
) -> Draft:
    """Replace all tasks by new ones of the same spec; no service named: of all.

    Services that say so (`depends_on: … restart: true`) go with those that they depend on.

    Raises:
        DrayError: A service does not exist.
    """
    edit = ProjectEdit(snapshot, check_label(project, "project"), call)
    record = edit.existing()
    changes = []
    named = set(services) or set(edit.services)
    own = [each.spec for each in edit.services.values()]
    for name in sorted(named | _restarted(own, named)):
        old = edit.service(name)
        number = edit.put_service(_with_force(old.spec, old.spec.task.force + 1))
        changes.append(ServiceChange(name, ChangeKind.REPLACED, number, old.revision))
    return edit.draft(record, tuple(changes))


def revert_service(
    snapshot: Snapshot, project: str, service: str, to_revision: int | None, call: Call
) -> Draft:
    """Give a service the content of an older revision.

    Args:
        snapshot: The store as it is.
        project: The project.
        service: The service.
        to_revision: The revision; None: the one before the newest.
        call: `if_revision` is the service's revision number.

    Raises:
        DrayError: The service or the revision does not exist, or the service has another one.
    """
    edit = ProjectEdit(
        snapshot, check_label(project, "project"), dataclasses.replace(call, if_revision=None)
    )
    record = edit.existing()
    newest = edit.service(service)
    if call.if_revision is not None and call.if_revision != newest.revision:
        raise conflict(f"service {project}/{service}", call.if_revision, newest.revision)
    older = _revision(snapshot, newest, to_revision)
    # A restart on the way does not come back: the counter only grows, or nothing would be replaced.
    spec = _with_force(older.spec, newest.spec.task.force)
    (prepared,) = with_ports(snapshot, project, [spec])
    _check_references(record.spec, prepared)
    diff = diff_projects(
        dataclasses.replace(record.spec, services=(newest.spec,)),
        dataclasses.replace(record.spec, services=(prepared,)),
    )
    if diff.is_empty:
        change = _unchanged(newest, ChangeKind.UNCHANGED)
        return edit.draft(record, (change,))
    (told,) = diff.services
    number = edit.put_service(prepared, reverted_from=older.revision)
    changes = spec_changes(told.changes, told.effect)
    change = ServiceChange(
        service, _EFFECTS[told.effect], number, newest.revision, changes[:CHANGES_MAX]
    )
    return edit.draft(record, (change,))


def revisions_of(snapshot: Snapshot, newest: ServiceRecord) -> list[ServiceRecord]:
    """Return the kept revisions of a service, newest first."""
    found = [
        record
        for (key, _), record in snapshot.revisions.items()
        if (key.project, key.service) == (newest.project, newest.spec.name)
        and record.revision <= newest.revision
    ]
    if all(record.revision != newest.revision for record in found):
        found.append(newest)
    return sorted(found, key=lambda record: record.revision, reverse=True)


def project_spec(snapshot: Snapshot, project: str) -> ProjectSpec:
    """Return what was asked for a project, without contents; it must exist."""
    services = [record.spec for key, record in snapshot.services.items() if key.project == project]
    return dataclasses.replace(
        snapshot.projects[project].spec,
        services=tuple(sorted(services, key=lambda service: service.name)),
    )


def spec_changes(changes: Sequence[Change], effect: Effect) -> tuple[SpecChange, ...]:
    """Return differences as replies have them: paths within the service."""
    return tuple(
        SpecChange(_within(change.path), change.before, change.after, effect is Effect.REPLACED)
        for change in changes
    )


def _within(path: str) -> str:
    """Return a path below its service: "services.web.image" is "image"."""
    section, _, rest = path.partition(".")
    return rest.partition(".")[2] if section == "services" else path


def _revision(snapshot: Snapshot, newest: ServiceRecord, wanted: int | None) -> ServiceRecord:
    kept = revisions_of(snapshot, newest)
    numbers = ", ".join(str(record.revision) for record in reversed(kept))
    if wanted is None:
        if len(kept) < 2:
            raise FailedPrecondition(
                f"service {newest.spec.name} has only revision {newest.revision}",
                hint="there is nothing to go back to",
            )
        return kept[1]
    for record in kept:
        if record.revision == wanted:
            return record
    raise NotFound(
        f"service {newest.spec.name} has no revision {wanted}", hint=f"it has: {numbers}"
    )


def _check_references(project: ProjectSpec, service: ServiceSpec) -> None:
    """Refuse a revision that needs a network, volume, config or secret that is gone."""
    try:
        check_project(dataclasses.replace(project, services=(service,)))
    except InvalidRequest as error:
        raise FailedPrecondition(
            f"an older revision cannot come back: {error.message}",
            hint="apply a file that has it",
        ) from error


def _unchanged(record: ServiceRecord, kind: ChangeKind) -> ServiceChange:
    return ServiceChange(record.spec.name, kind, record.revision, record.revision)


def _with_force(service: ServiceSpec, force: int) -> ServiceSpec:
    if service.task.force == force:
        return service
    return dataclasses.replace(service, task=dataclasses.replace(service.task, force=force))
