"""What does the node tell its peers about the services that it runs? Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from dray.model import (
    AttemptState,
    Endpoint,
    EndpointPort,
    NetworkMode,
    ProjectParts,
    PublishMode,
    ServiceFacts,
    ServiceKey,
    TaskAssignment,
    TaskSpecEntry,
)
from node.agent.assign import Share
from node.agent.tasks import TaskState
from node.dns.zone import Asker

__all__ = ["askers", "endpoint_of", "service_facts"]

_EXPOSED: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?")
_PORTS_MAX: Final = 64  # ports of one endpoint that are published
_SERVED: Final = (AttemptState.RUNNING, AttemptState.STOPPING)


def service_facts(
    share: Share, states: Iterable[TaskState], node_address: str
) -> Mapping[ServiceKey, ServiceFacts]:
    """Return what the node publishes, by service: all services that it has a task of.

    Args:
        share: What the node should run.
        states: Its tasks.
        node_address: Where containers on the machine's own stack are reached.
    """
    by_id = {state.task_id: state for state in states}
    entries: dict[ServiceKey, TaskSpecEntry] = {}
    endpoints: defaultdict[ServiceKey, list[Endpoint]] = defaultdict(list)
    for task in share.assignment.tasks:
        entry = share.entry(task)
        newest = entries.get(entry.service)
        if newest is None or newest.service_revision < entry.service_revision:
            entries[entry.service] = entry
        state = by_id.get(task.task_id)
        if state is not None and state.state in _SERVED and state.container_id:
            parts = share.parts(task.slot.project)
            endpoints[entry.service].append(endpoint_of(task, entry, parts, state, node_address))
    return {
        service: ServiceFacts(
            entry.service_revision,
            vip=_vip(share.parts(service.project), service.service),
            published=tuple(port for port in entry.ports if port.mode is PublishMode.INGRESS),
            affinity=entry.client_ip_affinity,
            endpoints=tuple(sorted(endpoints[service], key=lambda each: (each.slot, each.task_id))),
            static=_static(entry, share.parts(service.project)),
        )
        for service, entry in entries.items()
    }


def askers(share: Share, states: Iterable[TaskState]) -> Mapping[str, Asker]:
    """Return who asks the name server from which address, before it is published.

    Args:
        share: What the node should run.
        states: Its tasks.
    """
    found: dict[str, Asker] = {}
    for state in states:
        task = share.tasks.get(state.task_id)
        if task is None or not state.address or state.is_ended:
            continue
        template = share.entry(task).template
        names = {network.key: network.name for network in share.parts(task.slot.project).networks}
        asker = Asker(
            task.slot.project,
            frozenset(names.get(each.network, each.network) for each in template.networks),
            tuple(
                sorted(
                    (link.alias, ServiceKey(task.slot.project, link.service))
                    for link in template.links
                )
            ),
        )
        for address in filter(None, (state.address, state.address6)):
            found[address] = asker
    return found


def _static(entry: TaskSpecEntry, parts: ProjectParts) -> tuple[tuple[str, str], ...]:
    names = {network.key: network.name for network in parts.networks}
    found = {
        (names.get(each.network, each.network), each.ipv4_address)
        for each in entry.template.networks
        if each.ipv4_address
    }
    return tuple(sorted(found))


def _vip(parts: ProjectParts, service: str) -> str:
    return next((each.vip for each in parts.service_addresses if each.service == service), "")


def endpoint_of(
    task: TaskAssignment,
    entry: TaskSpecEntry,
    parts: ProjectParts,
    state: TaskState,
    node_address: str,
) -> Endpoint:
    """Return a running task as others reach it; one that is being ended drains."""
    template = entry.template
    names = {network.key: network.name for network in parts.networks}
    attached = [(names.get(each.network, each.network), each) for each in template.networks]
    own = [template.container_name] if template.container_name else []
    aliases = {(network, alias) for network, each in attached for alias in (*each.aliases, *own)}
    is_host = template.network_mode is NetworkMode.HOST
    return Endpoint(
        task.slot,
        task.task_id,
        task.epoch,
        address=node_address if is_host else state.address,
        address6=state.address6,
        health=state.health,
        draining=state.state is AttemptState.STOPPING,
        ports=_ports(entry),
        networks=tuple(sorted({network for network, _ in attached})),
        aliases=tuple(sorted(aliases)),
    )


def _ports(entry: TaskSpecEntry) -> tuple[EndpointPort, ...]:
    """Return the ports that a task listens on, as far as the file says: published and exposed."""
    ports: dict[tuple[int, str], EndpointPort] = {}
    for port in entry.ports:
        protocol = port.protocol.name.lower()
        known = ports.get((port.target, protocol))
        if known is None or (port.name and not known.name):
            ports[(port.target, protocol)] = EndpointPort(port.target, protocol, port.name)
    for text in entry.template.expose:
        found = _EXPOSED.fullmatch(text)
        if found is None:
            continue
        first, last, protocol = int(found[1]), int(found[2] or found[1]), found[3] or "tcp"
        for number in range(first, min(last, first + _PORTS_MAX) + 1):
            ports.setdefault((number, protocol), EndpointPort(number, protocol))
    return tuple(ports[key] for key in sorted(ports)[:_PORTS_MAX])
