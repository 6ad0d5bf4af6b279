"""Which services of a project contradict themselves or each other?

Compose files that are valid one by one and that no cluster can carry out: two services on one port,
one name for several containers, an address outside its network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from dray.addresses import static_address_problem
from dray.compose import xdray
from dray.compose.place import Place
from dray.model import (
    AffinityTarget,
    EndpointMode,
    NetworkMode,
    ProjectSpec,
    PublishedPort,
    PublishMode,
    ServiceModeKind,
    ServiceSpec,
    UpdateOrder,
)
from dray.names import dns_label

__all__ = ["check_project"]

_GLOBAL: Final = (ServiceModeKind.GLOBAL, ServiceModeKind.GLOBAL_JOB)
_NAME_SUBNET: Final = "write `ipam: {{config: [{{subnet: 10.5.0.0/24}}]}}` under networks.{0}"


def check_project(root: Place, project: ProjectSpec) -> None:
    """Note every contradiction within and between the services."""
    _check_names(root, project)
    _check_published(root, project)
    _check_addresses(root, project)
    names = {service.name: None for service in project.services}
    for service in project.services:
        place = root.at("services", service.name)
        _check_copies(place, service)
        _check_stack(place, service)
        _check_amounts(place, service)
        _check_affinities(place, service, names)


def _several(service: ServiceSpec) -> str:
    """Return how many tasks may run at once, when that is more than one."""
    if service.mode.kind in _GLOBAL:
        return "one task a node"
    return f"{service.mode.replicas} replicas" if service.mode.replicas > 1 else ""


def _check_names(root: Place, project: ProjectSpec) -> None:
    labels: dict[str, str] = {}
    containers: dict[str, str] = {}
    for service in project.services:
        place = root.at("services", service.name)
        other = labels.setdefault(dns_label(service.name), service.name)
        if other != service.name:
            place.fault(f"has the same name in DNS as {other}", "rename one of them")
        name = service.task.container_name
        other = containers.setdefault(name, service.name)
        if name and other != service.name:
            place.at("container_name").fault(f"{name!r} is also that of {other}")


# ---- ports ---------------------------------------------------------------------------------------


def _port_places(root: Place, service: ServiceSpec) -> Iterator[tuple[Place, PublishedPort]]:
    place = root.at("services", service.name, "ports")
    items = place.items()
    is_whole = len(items) == len(service.ports)
    for index, port in enumerate(service.ports):
        yield (items[index] if is_whole else place), port


def _check_published(root: Place, project: ProjectSpec) -> None:
    taken: dict[tuple[int, str], dict[str, str]] = {}
    for service in project.services:
        for place, port in _port_places(root, service):
            _check_port(place, port, service)
            if not port.published or port.published_end:
                continue
            key = (port.published, port.protocol.name.lower())
            others = taken.setdefault(key, {})
            clash = _clash(others, port.host_ip)
            if clash is not None:
                owner = "twice by this service" if clash == service.name else f"also by {clash}"
                place.fault(f"port {key[0]}/{key[1]} is published {owner}", "publish another port")
            others.setdefault(_listened(port.host_ip), service.name)


def _listened(host: str) -> str:
    """Return the address that a port listens on; empty: all of them."""
    return "" if host in ("0.0.0.0", "::") else host  # noqa: S104


def _clash(others: dict[str, str], host: str) -> str | None:
    """Return who has a port already on an address; those who have it are known by address."""
    if not _listened(host):
        return next(iter(others.values()), None)
    return others.get(_listened(host), others.get(""))


def _check_port(place: Place, port: PublishedPort, service: ServiceSpec) -> None:
    if service.task.network_mode is not NetworkMode.CLUSTER:
        mode = service.task.network_mode.name.lower()
        place.fault(f"nothing is published with network_mode: {mode}", "remove one of them")
    elif port.mode is PublishMode.INGRESS:
        if service.endpoint_mode is EndpointMode.DNSRR:
            place.fault("endpoint_mode: dnsrr has no address to publish", "write mode: host")
    elif (
        service.mode.replicas > 1
        and service.placement.replicas_per_node_max != 1
        and port.published
        and not port.published_end
    ):
        place.fault(
            f"port {port.published} is there once a node, and {service.mode.replicas} replicas"
            " may meet on one",
            "write deploy.placement.max_replicas_per_node: 1, or mode: ingress",
        )


# ---- addresses -----------------------------------------------------------------------------------


def _check_addresses(root: Place, project: ProjectSpec) -> None:
    subnets = {
        network.key: _pools(root.at("networks", network.key)) for network in project.networks
    }
    taken: dict[str, str] = {}
    for service in project.services:
        for attachment in service.task.networks:
            place = root.at("services", service.name, "networks", attachment.network)
            told = attachment.ipv4_address
            if not told:
                continue
            place = place.at("ipv4_address")
            several = _several(service)
            if several:
                place.fault(f"one address, and {several}", "remove it, or run one replica")
            pools = subnets.get(attachment.network, [])
            problem = static_address_problem(told, pools)
            if problem:
                place.fault(problem, "" if pools else _NAME_SUBNET.format(attachment.network))
            other = taken.setdefault(told, service.name)
            if other != service.name:
                place.fault(f"{told} is also that of {other}")


def _pools(place: Place) -> list[tuple[str, str]]:
    """Return subnet and gateway of each pool of a network."""
    found: list[tuple[str, str]] = []
    for item in place.at("ipam", "config").items():
        told = item.at("subnet")
        if not told.is_given:
            continue
        try:
            ipaddress.ip_network(told.text())
        except ValueError:
            told.fault(f"{told.value!r} is not a subnet", "write it as 10.5.0.0/24")
        else:
            found.append((told.text(), item.at("gateway").text()))
    return found


# ---- one service ---------------------------------------------------------------------------------


def _check_copies(place: Place, service: ServiceSpec) -> None:
    several = _several(service)
    if several and service.task.container_name:
        place.at("container_name").fault(
            f"one name, and {several}", "remove it: tasks are named 1.web, 2.web …"
        )
    if service.dray.singleton and service.update.order is UpdateOrder.START_FIRST:
        place.at(xdray.KEY, "singleton").problem(
            "a singleton is stopped first, and deploy.update_config.order is start-first",
            "write order: stop-first",
        )
    if several and any(attachment.mac_address for attachment in service.task.networks):
        place.fault(f"one mac_address, and {several}", "remove it, or run one replica")


def _check_stack(place: Place, service: ServiceSpec) -> None:
    mode = service.task.network_mode
    if mode is not NetworkMode.CLUSTER and service.task.networks:
        place.at("networks").fault(
            f"the service has network_mode: {mode.name.lower()}", "remove one of them"
        )


def _check_amounts(place: Place, service: ServiceSpec) -> None:
    limits, reserved = service.task.container.limits, service.task.reservations
    told = place.at("deploy", "resources", "reservations")
    if limits.cpu_millis is not None and reserved.cpu_millis > limits.cpu_millis:
        told.at("cpus").fault("more is reserved than the limit allows", "raise limits.cpus")
    memory = limits.memory_bytes
    if memory is not None and memory >= 0 and reserved.memory_bytes > memory:
        told.at("memory").fault("more is reserved than the limit allows", "raise limits.memory")


def _check_affinities(place: Place, service: ServiceSpec, names: dict[str, None]) -> None:
    for affinity in service.dray.affinities:
        if place.sheet.is_full:
            return
        is_here = affinity.target is AffinityTarget.SERVICE and "/" not in affinity.key
        if is_here and affinity.key not in names:
            word = "anti_affinity" if affinity.anti else "affinity"
            place.at(xdray.KEY, word).problem(
                f"there is no service {affinity.key!r}", xdray.suggestion(affinity.key, names)
            )
