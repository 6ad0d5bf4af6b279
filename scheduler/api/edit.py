"""How does a change of one project become one transaction, and what would the store hold then?

A `ProjectEdit` gathers the services, addresses and contents that a call writes and removes. All
writes of a project compare the revision of its one record, which each of them writes as well: they
follow one another, whichever scheduler makes them. Addresses are create-if-absent keys. The newest
revision of a service is under its own key; it goes to the older ones when another one follows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

from dray.convert.wire import SERVICE_SPEC_BYTES_MAX
from dray.errors import (
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    ResourceExhausted,
    RevisionConflict,
)
from dray.model import (
    EndpointMode,
    NetworkMode,
    PortProtocol,
    PublishMode,
    ServiceKey,
    ServiceModeKind,
    ServiceRecord,
    ServiceRevision,
    ServiceSpec,
    StoreRevision,
)
from dray.names import RequestId
from dray.views import ServiceChange
from scheduler.api.static_addresses import check_static, claims, static_addresses
from scheduler.store.base import TXN_KEYS_MAX, Compare, CompareField, Delete, Operation, Put
from scheduler.store.codec import encode
from scheduler.store.keys import (
    PORTS,
    Kind,
    content_key,
    prefix_of,
    project_key,
    revision_key,
    service_key,
    vip_key,
)
from scheduler.store.records import ProjectRecord, RevisionCounter
from scheduler.store.snapshot import Snapshot

__all__ = ["COUNTERS_MAX", "Call", "Draft", "ProjectEdit", "conflict", "free_vip", "with_vip"]

COUNTERS_MAX: Final = 1_000  # services that a project ever had and whose numbers are remembered
_OPERATIONS_MAX: Final = TXN_KEYS_MAX - 1  # one is the answer's
_BYTES_MAX: Final = 983_040  # of a transaction's 1 MiB; the rest is the answer's
_VIP_KINDS: Final = frozenset({ServiceModeKind.REPLICATED, ServiceModeKind.GLOBAL})


@dataclass(frozen=True, slots=True)
class Call:
    """What every write is made with.

    Attributes:
        request_id: The call.
        now_unix_s: When it was accepted.
        if_revision: Revision that the object must still have; 0: it must not exist; None: any.
        in_use: Returns the revisions of a service that its tasks run: those are kept, however old.
            None: nobody knows, and no old revision is dropped.
    """

    request_id: RequestId
    now_unix_s: float
    if_revision: int | None = None
    in_use: Callable[[ServiceKey], Collection[int]] | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A write that is ready to be committed.

    Attributes:
        compares: What must still hold.
        operations: What is written; empty: nothing changes.
        after: The store as it would be.
        changes: What happens to services.
        revision: Revision of the object when nothing is written; else its new one is that of the
            commit.
        warnings: For the user.
        is_complete: Nothing is left to do; else the same write is to be drafted again from the
            store as it is then.
    """

    compares: tuple[Compare, ...]
    operations: tuple[Operation, ...]
    after: Snapshot
    changes: tuple[ServiceChange, ...] = ()
    revision: int = 0
    warnings: tuple[str, ...] = ()
    is_complete: bool = True


class ProjectEdit:
    """A change of one project that is being put together.

    Attributes:
        snapshot: The store as it is.
        project: Name of the project.
        call: The call.
        record: The project as it is; None: it does not exist.
        revision: Its revision; 0: it does not exist.
        services: Its services as they are, by name.
    """

    def __init__(self, snapshot: Snapshot, project: str, call: Call) -> None:
        """Begin.

        Raises:
            RevisionConflict: The project has another revision than `call.if_revision`.
        """
        self.snapshot = snapshot
        self.project = project
        self.call = call
        self.record = snapshot.projects.get(project)
        self.revision = snapshot.mod_revisions.get(project_key(project), 0)
        self.services = {
            key.service: record
            for key, record in snapshot.services.items()
            if key.project == project
        }
        self._numbers = {each.service: each.service_revision for each in self._counters()}
        self._services: dict[ServiceKey, ServiceRecord | None] = {}
        self._vips: dict[str, ServiceKey | None] = {}
        self._more: list[Operation] = []
        self._has_new_ports = False
        if call.if_revision is not None and call.if_revision != self.revision:
            raise conflict(f"project {project}", call.if_revision, self.revision)

    def existing(self) -> ProjectRecord:
        """Return the project, which must exist.

        Raises:
            NotFound: It does not.
            FailedPrecondition: It is being removed.
        """
        if self.record is None:
            raise NotFound(f"there is no project {self.project!r}", hint="see `dray ls`")
        if self.record.is_removing:
            raise FailedPrecondition(
                f"project {self.project} is being removed", hint="wait until it is gone"
            )
        return self.record

    def service(self, name: str) -> ServiceRecord:
        """Return one service, which must exist.

        Raises:
            NotFound: It does not; the hint names those that do.
        """
        self.existing()
        record = self.snapshot.services.get(ServiceKey(self.project, name))
        if record is None:
            names = ", ".join(sorted(self.services)) or "none"
            raise NotFound(
                f"there is no service {name!r} in project {self.project}", hint=f"it has: {names}"
            )
        return record

    def put_service(self, spec: ServiceSpec, *, reverted_from: int = 0) -> ServiceRevision:
        """Give a service its next revision; return its number.

        Raises:
            InvalidRequest: It is too large, or asks for an address that it cannot have.
        """
        check_static(self.snapshot, spec)
        key = ServiceKey(self.project, spec.name)
        old = self.snapshot.services.get(key)
        last = max(self._numbers.get(spec.name, 0), old.revision if old else 0)
        number = ServiceRevision(last + 1)
        self._numbers[spec.name] = number
        record = ServiceRecord(
            self.project,
            spec,
            number,
            self.call.now_unix_s,
            self.call.request_id,
            self._vip(key, old.vip if old else "", spec),
            reverted_from,
        )
        size_bytes = len(encode(record))
        if size_bytes > SERVICE_SPEC_BYTES_MAX:
            raise InvalidRequest(
                f"services.{spec.name} has {size_bytes} bytes, {SERVICE_SPEC_BYTES_MAX} are the "
                "most",
                context={"field": f"services.{spec.name}"},
            )
        self._services[key] = record
        self._has_new_ports |= not _ports(spec) <= (_ports(old.spec) if old else set())
        return number

    def remove_service(self, name: str) -> None:
        """Let a service end; its kept revisions go when no task needs them."""
        key = ServiceKey(self.project, name)
        self._services[key] = None
        old = self.snapshot.services[key]
        if old.vip:
            self._vips[old.vip] = None
        self._vips |= dict.fromkeys(static_addresses(old.spec))

    def write(self, *operations: Operation) -> None:
        """Add writes of keys that are neither services nor addresses."""
        self._more += operations

    @property
    def room(self) -> int:
        """How many further keys one transaction can take, beside the project's own record."""
        return _OPERATIONS_MAX - 1 - len(self._operations())

    def draft(
        self,
        record: ProjectRecord,
        changes: tuple[ServiceChange, ...] = (),
        warnings: tuple[str, ...] = (),
        *,
        is_complete: bool = True,
    ) -> Draft:
        """Return the write.

        Args:
            record: The project afterwards; times, numbers and the call are put in here.
            changes: For the reply.
            warnings: For the reply.
            is_complete: Whether nothing is left to do.

        Raises:
            AlreadyExists: An address that a file names is another service's.
            ResourceExhausted: It does not fit into one transaction.
        """
        if not self._services and not self._more and record == self.record:
            same = Compare(
                project_key(self.project),
                CompareField.MOD_REVISION,
                StoreRevision(self.revision),
            )
            return Draft((same,), (), self.snapshot, changes, self.revision, warnings)
        self._vips |= claims(self.snapshot, self.project, self._services)
        written = self._stamped(record)
        put = Put(project_key(self.project), encode(written))
        operations = (put, *self._operations())
        self._check_size(operations)
        spare = _OPERATIONS_MAX - len(operations)
        outdated = chain(self._old_revisions(), self._old_contents(written))
        operations += tuple(islice(outdated, spare))
        compares = [
            Compare(put.key, CompareField.MOD_REVISION, StoreRevision(self.revision)),
            *(
                Compare(vip_key(address), CompareField.MOD_REVISION, StoreRevision(0))
                for address, owner in self._vips.items()
                # What moves within the project is there already, and only its own writes move it.
                if owner is not None and address not in self.snapshot.vips
            ),
        ]
        if self._has_new_ports:  # nobody else has published one since the snapshot
            last = self.snapshot.mod_revisions.get(PORTS, StoreRevision(0))
            compares.append(Compare(PORTS, CompareField.MOD_REVISION, last))
        return Draft(
            tuple(compares),
            operations,
            self._after(written),
            changes,
            0,
            warnings,
            is_complete,
        )

    # --- inside ---

    def _counters(self) -> tuple[RevisionCounter, ...]:
        return self.record.counters if self.record else ()

    def _stamped(self, record: ProjectRecord) -> ProjectRecord:
        counters = tuple(
            RevisionCounter(name, ServiceRevision(number))
            for name, number in sorted(self._numbers.items())
        )
        if len(counters) > COUNTERS_MAX:
            raise ResourceExhausted(
                f"project {self.project} has had {len(counters)} services, {COUNTERS_MAX} are the "
                "most",
                hint="use another project",
            )
        now_unix_s = self.call.now_unix_s
        return dataclasses.replace(
            record,
            counters=counters,
            created_unix_s=self.record.created_unix_s if self.record else now_unix_s,
            updated_unix_s=now_unix_s,
            request_id=self.call.request_id,
        )

    def _operations(self) -> list[Operation]:
        operations = list(self._more)
        if self._has_new_ports:
            operations.append(Put(PORTS, self.project.encode()))
        for key, record in self._services.items():
            old = self.snapshot.services.get(key)
            if old is not None:  # its tasks still run it, and people may want it back
                operations.append(Put(revision_key(key, old.revision), encode(old)))
            if record is None:
                operations.append(Delete(service_key(key)))
            else:
                operations.append(Put(service_key(key), encode(record)))
        for address, owner in self._vips.items():
            if owner is None:
                operations.append(Delete(vip_key(address)))
            else:
                operations.append(
                    Put(vip_key(address), f"{owner.project}/{owner.service}".encode())
                )
        return operations

    def _old_revisions(self) -> Iterator[Operation]:
        """Yield the removal of revisions that are not kept; the next write finds more.

        Those beyond the cluster's number, and all of services that are gone; but never one that a
        task runs, or that a rollout would put back.
        """
        in_use = self.call.in_use
        if in_use is None:
            return
        numbers: dict[ServiceKey, list[ServiceRevision]] = {}
        for key, number in self.snapshot.revisions:
            newest = self.snapshot.services.get(key)
            is_newest = newest is not None and newest.revision == number
            if key.project == self.project and not is_newest:
                numbers.setdefault(key, []).append(number)
        for key, kept in numbers.items():
            rollout = self.snapshot.rollouts.get(key)
            needed = {*in_use(key), *((rollout.from_revision,) if rollout else ())}
            for number in sorted(kept)[: len(kept) - self._older_kept(key)]:
                if number not in needed:
                    yield Delete(revision_key(key, number))

    def _older_kept(self, key: ServiceKey) -> int:
        """Return how many of the stored older revisions of a service stay."""
        if self._services.get(key, self.snapshot.services.get(key)) is None:
            return 0
        newest_ones = 2 if self._services.get(key) and key in self.snapshot.services else 1
        return max(0, self.snapshot.cluster.limits.revisions_max - newest_ones)

    def _old_contents(self, written: ProjectRecord) -> Iterator[Operation]:
        """Yield the removal of contents that neither the project nor what it was before needs.

        What was stored after the project's last write may be another call's, which has yet to
        refer to it.
        """
        before = self.record.contents if self.record else ()
        needed = {
            content_key(self.project, ref.kind, ref.key, ref.digest)
            for ref in (*before, *written.contents)
        }
        prefix = prefix_of(Kind.CONTENT, self.project)
        for key in self.snapshot.contents:
            is_old = self.snapshot.mod_revisions.get(key, self.revision) < self.revision
            if key.startswith(prefix) and is_old and key not in needed:
                yield Delete(key)

    def _check_size(self, operations: tuple[Operation, ...]) -> None:
        size_bytes = sum(len(each.value) for each in operations if isinstance(each, Put))
        if len(operations) > _OPERATIONS_MAX or size_bytes > _BYTES_MAX:
            raise ResourceExhausted(
                f"{len(self._services)} services of project {self.project} change at once: "
                f"{len(operations)} keys, {size_bytes} bytes; {_OPERATIONS_MAX} keys and "
                f"{_BYTES_MAX} bytes are the most of one write",
                hint="apply some of the services first: `dray up SERVICE…`",
            )

    def _after(self, written: ProjectRecord) -> Snapshot:
        services = dict(self.snapshot.services)
        revisions = dict(self.snapshot.revisions)
        for key, record in self._services.items():
            old = services.pop(key, None)
            if old is not None:
                revisions[key, old.revision] = old
            if record is not None:
                services[key] = record
        projects = {**self.snapshot.projects, self.project: written}
        return dataclasses.replace(
            self.snapshot, services=services, revisions=revisions, projects=projects
        )

    def _vip(self, key: ServiceKey, old: str, spec: ServiceSpec) -> str:
        """Return the address that the service has from now on; empty: none."""
        if not with_vip(spec):
            if old:
                self._vips[old] = None
            return ""
        if old:
            return old
        taken = {**self.snapshot.vips, **self._vips}
        address = free_vip(self.snapshot.cluster.vip_range_cidr, taken, key)
        self._vips[address] = key
        return address


def _ports(spec: ServiceSpec) -> set[tuple[int, PortProtocol]]:
    """Return the ports that a service publishes on every node."""
    return {
        (port.published, port.protocol) for port in spec.ports if port.mode is PublishMode.INGRESS
    }


def with_vip(spec: ServiceSpec) -> bool:
    """Return whether a service has an address of its own."""
    is_balanced = spec.endpoint_mode is EndpointMode.VIP and spec.mode.kind in _VIP_KINDS
    return is_balanced and spec.task.network_mode is NetworkMode.CLUSTER


def free_vip(range_cidr: str, taken: Mapping[str, object], key: ServiceKey) -> str:
    """Return an address of the range that is not taken.

    The search begins at a place that the service's name decides: a service that is removed and
    comes back gets the same address, and no other one gets it soon.

    Raises:
        ResourceExhausted: The range is full.
    """
    network = ipaddress.ip_network(range_cidr)
    count = max(1, network.num_addresses - 2)  # neither the first nor the last one
    digest = hashlib.sha256(f"{key.project}/{key.service}".encode()).digest()
    start = int.from_bytes(digest[:8], "big")
    for step in range(min(count, len(taken) + 1)):
        address = str(network[1 + (start + step) % count])
        if address not in taken:
            return address
    raise ResourceExhausted(
        f"all {count} addresses of the services' range {range_cidr} are taken",
        hint="remove a project, or use `endpoint_mode: dnsrr`",
    )


def conflict(what: str, asked: int, found: int) -> RevisionConflict:
    """Return what a caller is told whose `if_revision` is not the object's revision."""
    if asked == 0:
        text = f"{what} exists already, at revision {found}"
    elif found == 0:
        text = f"{what} does not exist, so it has no revision {asked}"
    else:
        text = f"{what} is at revision {found}, not {asked}"
    return RevisionConflict(
        text, hint="read it again, then decide again", context={"revision": str(found)}
    )
