"""Can a project be accepted at all? What any client's request must fulfil, whoever wrote it.

The Compose loader has checked most of it already, and says more about it (file and line). Here it
is checked again, because other programs speak the API as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from dray.addresses import static_address_problem
from dray.convert.wire import CONTENT_BYTES_MAX
from dray.errors import AlreadyExists, InvalidRequest, ResourceExhausted
from dray.model import (
    MountKind,
    PortProtocol,
    ProjectSpec,
    PublishedPort,
    PublishMode,
    ServiceKey,
    ServiceSpec,
)
from dray.names import check_label, check_service_name, dns_label
from scheduler.store.snapshot import Snapshot

__all__ = ["CHOSEN_PORTS", "REPLICAS_MAX", "check_project", "with_ports"]

REPLICAS_MAX: Final = 100_000  # of one service: above any cluster that the tests have seen
CHOSEN_PORTS: Final = range(30_000, 32_768)  # below Linux's ephemeral ports, as in Docker Swarm
_Port = tuple[int, PortProtocol]


def check_project(spec: ProjectSpec) -> None:
    """Refuse a project that contradicts itself.

    Raises:
        InvalidRequest: With the path of the field in `context["field"]`.
    """
    check_label(spec.name, "project")
    _check_unique("services", (service.name for service in spec.services))
    _check_labels(spec)
    for section in ("networks", "volumes", "configs", "secrets"):
        _check_unique(section, (entry.key for entry in getattr(spec, section)))
    for service in spec.services:
        _check_service(spec, service)
        _check_static(spec, service)
    for section, entries in (("configs", spec.configs), ("secrets", spec.secrets)):
        for entry in entries:
            if len(entry.content) > CONTENT_BYTES_MAX:
                raise _wrong(
                    f"{section}.{entry.key}.content",
                    f"has {len(entry.content)} bytes, {CONTENT_BYTES_MAX} are the most",
                )


def _check_labels(spec: ProjectSpec) -> None:
    """Refuse two services whose names would be one in DNS."""
    labels: dict[str, str] = {}
    for service in spec.services:
        label = dns_label(check_service_name(service.name))
        if (other := labels.setdefault(label, service.name)) != service.name:
            raise _wrong(
                f"services.{service.name}", f"would have the same DNS name as {other!r}: {label}"
            )


def _check_service(spec: ProjectSpec, service: ServiceSpec) -> None:
    field = f"services.{service.name}"
    if not 0 <= service.mode.replicas <= REPLICAS_MAX:
        raise _wrong(
            f"{field}.deploy.replicas", f"{service.mode.replicas} is not from 0 to {REPLICAS_MAX}"
        )
    container = service.task.container
    if not container.image.reference:
        raise _wrong(f"{field}.image", "is empty")
    mounted = (m.source for m in container.mounts if m.kind is MountKind.VOLUME and m.source)
    used = {
        "networks": (each.network for each in service.task.networks),
        "volumes": mounted,
        "configs": (each.source for each in container.configs),
        "secrets": (each.source for each in container.secrets),
    }
    for section, names in used.items():
        known = {entry.key for entry in getattr(spec, section)}
        for name in names:
            if name not in known:
                raise _wrong(f"{field}.{section}", f"{name!r} is not among the project's {section}")


def _check_static(spec: ProjectSpec, service: ServiceSpec) -> None:
    """Refuse addresses that the network's subnets do not allow."""
    pools = {
        network.key: [(pool.subnet, pool.gateway) for pool in network.ipam_pools]
        for network in spec.networks
    }
    for attachment in service.task.networks:
        if told := attachment.ipv4_address:
            problem = static_address_problem(told, pools[attachment.network])
            if problem:
                place = f"services.{service.name}.networks.{attachment.network}.ipv4_address"
                raise _wrong(place, f"is no address for it: {problem}")


def _check_unique(section: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise _wrong(section, "has an entry without a name")
        if name in seen:
            raise _wrong(f"{section}.{name}", "is there twice")
        seen.add(name)


def _wrong(field: str, text: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {text}", context={"field": field})


def with_ports(
    snapshot: Snapshot, project: str, services: Iterable[ServiceSpec]
) -> list[ServiceSpec]:
    """Return services whose ports on all nodes are chosen where the file leaves them open.

    A service keeps the ports that were chosen for it before.

    Args:
        snapshot: The store as it is.
        project: Whose services they are.
        services: All of the project's services as they are to be.

    Raises:
        AlreadyExists: A port belongs to another service, or one of a single node to one of all.
        ResourceExhausted: No port is left in the range.
    """
    asked = list(services)
    names = {service.name for service in asked}
    others = {
        f"{key.project}/{key.service}": record.spec
        for key, record in snapshot.services.items()
        if key.project != project or key.service not in names
    }
    _check_host_ports(others, project, asked)
    taken: dict[_Port, str] = {}
    for owner, spec in others.items():
        _take(taken, owner, spec.ports)
    for service in asked:
        fixed = [port for port in service.ports if not _is_open(port)]
        _take(taken, f"{project}/{service.name}", fixed)
    return [
        _chosen(snapshot, ServiceKey(project, service.name), service, taken) for service in asked
    ]


def _is_open(port: PublishedPort) -> bool:
    """Return whether dray chooses the port, of all or of a range. With `mode: host` Docker does."""
    return port.mode is PublishMode.INGRESS and (not port.published or bool(port.published_end))


def _take(taken: dict[_Port, str], owner: str, ports: Iterable[PublishedPort]) -> None:
    for port in ports:
        if port.mode is not PublishMode.INGRESS or not port.published:
            continue
        other = taken.setdefault((port.published, port.protocol), owner)
        if other != owner:
            shown = f"{port.published}/{port.protocol.name.lower()}"
            raise AlreadyExists(
                f"port {shown} of {owner} is published by {other} already",
                hint="publish another port, or use `mode: host`",
                context={"field": f"services.{owner.partition('/')[2]}.ports"},
            )


def _check_host_ports(
    others: Mapping[str, ServiceSpec], project: str, asked: list[ServiceSpec]
) -> None:
    """Refuse a port of single nodes that is published on all of them, and the reverse.

    Raises:
        AlreadyExists: No node could give both.
    """
    everyone = {**others, **{f"{project}/{service.name}": service for service in asked}}
    held: dict[tuple[PublishMode, _Port], str] = {
        (port.mode, (port.published, port.protocol)): owner
        for owner, spec in everyone.items()
        for port in spec.ports
        if port.published and not port.published_end
    }
    for service in asked:
        for port in service.ports:
            is_host = port.mode is PublishMode.HOST
            mode = PublishMode.INGRESS if is_host else PublishMode.HOST
            other = held.get((mode, (port.published, port.protocol)))
            if other is not None and not _is_open(port):
                shown = f"{port.published}/{port.protocol.name.lower()}"
                where = "on nodes (`mode: host`)" if not is_host else "on every node"
                raise AlreadyExists(
                    f"port {shown} of {project}/{service.name} is published {where} by {other}",
                    hint="publish another port",
                    context={"field": f"services.{service.name}.ports"},
                )


def _chosen(
    snapshot: Snapshot, key: ServiceKey, service: ServiceSpec, taken: dict[_Port, str]
) -> ServiceSpec:
    if not any(map(_is_open, service.ports)):
        return service
    old = snapshot.services.get(key)
    kept = list(old.spec.ports) if old else []
    owner = f"{key.project}/{key.service}"
    ports = []
    for port in service.ports:
        if not _is_open(port):
            ports.append(port)
            continue
        number = next(_candidates(port, kept, taken), 0)
        if not number:
            raise ResourceExhausted(
                f"no port is left to publish port {port.target} of {owner}",
                hint="name a port that is free",
            )
        taken[number, port.protocol] = owner
        ports.append(dataclasses.replace(port, published=number, published_end=0))
    return dataclasses.replace(service, ports=tuple(ports))


def _candidates(
    port: PublishedPort, kept: list[PublishedPort], taken: dict[_Port, str]
) -> Iterator[int]:
    """Yield free ports for one that was left open: first the one that it had."""
    numbers = range(port.published, port.published_end + 1) if port.published_end else CHOSEN_PORTS
    for old in kept:
        is_same = (old.target, old.protocol, old.mode) == (port.target, port.protocol, port.mode)
        if is_same and old.published in numbers and (old.published, old.protocol) not in taken:
            yield old.published
    for number in numbers:
        if (number, port.protocol) not in taken:
            yield number
