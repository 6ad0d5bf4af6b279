"""Which addresses do files name for services (`ipv4_address`), and whose are they?

An address is one service's in the whole cluster, as its own address (VIP) is, and is claimed by the
same kind of key: two that ask for one at a time collide in the store.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from dray.errors import AlreadyExists, InvalidRequest
from dray.model import ServiceKey, ServiceModeKind, ServiceRecord, ServiceSpec
from scheduler.store.snapshot import Snapshot

__all__ = ["check_static", "claims", "static_addresses"]

_GLOBAL_KINDS = frozenset({ServiceModeKind.GLOBAL, ServiceModeKind.GLOBAL_JOB})


def static_addresses(spec: ServiceSpec) -> frozenset[str]:
    """Return the addresses that the file names for a service."""
    return frozenset(each.ipv4_address for each in spec.task.networks if each.ipv4_address)


def check_static(snapshot: Snapshot, spec: ServiceSpec) -> None:
    """Refuse addresses that cannot lead to this service, whoever else has them.

    Raises:
        InvalidRequest: It may run more than one task, or an address is of the cluster's own.
    """
    cluster = snapshot.cluster
    for each in spec.task.networks:
        if not each.ipv4_address:
            continue
        field = f"services.{spec.name}.networks.{each.network}.ipv4_address"
        if spec.mode.replicas > 1 or spec.mode.kind in _GLOBAL_KINDS:
            raise InvalidRequest(
                f"{field}: {each.ipv4_address} is one address, and {spec.name} is to run several "
                "tasks",
                hint="remove it, or run one replica",
                context={"field": field},
            )
        for range_cidr in (cluster.range_cidr, cluster.vip_range_cidr):
            if ipaddress.ip_address(each.ipv4_address) in ipaddress.ip_network(range_cidr):
                raise InvalidRequest(
                    f"{field}: {each.ipv4_address} is of the cluster's own range {range_cidr}",
                    hint="give the network a subnet outside the cluster's ranges",
                    context={"field": field},
                )


def claims(
    snapshot: Snapshot, project: str, changed: Mapping[ServiceKey, ServiceRecord | None]
) -> dict[str, ServiceKey | None]:
    """Return who gets which address with a change of a project; None: nobody has it any more.

    Args:
        snapshot: The store as it is.
        project: The project.
        changed: Its services that change, as they are to be; None: it is removed.

    Raises:
        AlreadyExists: Another service has one of the addresses.
    """
    found: dict[str, ServiceKey | None] = {}
    for key in changed:
        if (old := snapshot.services.get(key)) is not None:
            found |= dict.fromkeys(static_addresses(old.spec))
    freed = set(found)
    for key, record in changed.items():
        for address in sorted(static_addresses(record.spec)) if record is not None else ():
            holder = found.get(address)
            if holder is None and address not in freed:
                holder = snapshot.vips.get(address)
            if holder not in (None, key):
                assert holder is not None, "somebody has it"
                raise AlreadyExists(
                    f"the address {address} of {project}/{key.service} is that of "
                    f"{holder.project}/{holder.service} already",
                    hint="name another ipv4_address",
                    context={"field": f"services.{key.service}.networks"},
                )
            found[address] = key
    return {
        address: owner
        for address, owner in found.items()
        if owner is None or snapshot.vips.get(address) != owner
    }
