"""Which table entries let exactly the allowed containers reach one of this node's tasks?

A task is on Compose networks; whoever shares one may reach it, and nobody else but nodes. Whether
it may leave the cluster depends on its networks too: one that is not `internal` is enough.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from dray.model import NetworkSpec, ProjectParts, TaskTemplate
from node.network.tables import Entries, Entry, Tables, network_name

__all__ = ["LocalTask", "hardware_address", "local_entries", "local_task"]


@dataclass(frozen=True, slots=True)
class LocalTask:
    """A container of this node, as the filter knows it.

    Attributes:
        address: Its IPv4 address.
        mac_address: Its hardware address.
        networks: Full names of the Compose networks that it is on, sorted.
        may_leave: Whether it may talk to the world outside the cluster.
    """

    address: str
    mac_address: str
    networks: tuple[str, ...]
    may_leave: bool


def hardware_address(address: str) -> str:
    """Return the hardware address that goes with an IPv4 address, in Docker's own manner."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)


def local_task(address: str, template: TaskTemplate, parts: ProjectParts) -> LocalTask:
    """Return how the filter knows a task.

    A network that the parts do not describe goes by its key, as endpoints name it, and is open.
    """
    known: Mapping[str, NetworkSpec] = {spec.key: spec for spec in parts.networks}
    specs = [known.get(attachment.network) for attachment in template.networks]
    names = {
        spec.name if spec else attachment.network
        for spec, attachment in zip(specs, template.networks, strict=True)
    }
    may_leave = not specs or any(spec is None or not spec.internal for spec in specs)
    mac = next((each.mac_address for each in template.networks if each.mac_address), "")
    return LocalTask(
        address, (mac or hardware_address(address)).lower(), tuple(sorted(names)), may_leave
    )


def local_entries(task: LocalTask, tables: Tables) -> Entries:
    """Return what a task brings into the table; in force before its container starts.

    The task is a member of its networks at once, before gossip tells of it.
    """
    address = task.address
    entries = {
        Entry("locals", address): f"goto {tables.group('to', task.networks)}",
        Entry("askers", address): f"goto {tables.group('ask', task.networks)}",
        Entry("sources", f"{address} . {task.mac_address}"): "",
        Entry("selves", f"{address} . {address}"): "",
        Entry("known", address): "",
    }
    if task.may_leave:
        entries[Entry("egress", address)] = ""
    for network in task.networks:
        entries[Entry(network_name(network), address)] = ""
    return entries
