"""Members, facts and endpoints for tests, with as little to write as possible."""

from __future__ import annotations

import hashlib

from dray.model import (
    Endpoint,
    EndpointPort,
    Epoch,
    Fact,
    FactKey,
    FactVersion,
    Health,
    Member,
    MemberState,
    ServiceFacts,
    ServiceKey,
    ServiceRevision,
    SlotKey,
)
from dray.names import NodeId, TaskId, id_text
from node.gossip.packing import pack_service, service_fact_name

__all__ = ["WEB", "endpoint", "fact", "member", "node_id", "service_fact", "task_id"]

WEB = ServiceKey("shop", "web")


def node_id(name: str) -> NodeId:
    """Return the id that stands for a name."""
    return NodeId(id_text(hashlib.sha256(name.encode()).digest()[:16]))


def task_id(number: int) -> TaskId:
    """Return the id of a numbered task."""
    return TaskId(id_text(number.to_bytes(16, "big")))


def member(
    name: str, state: MemberState = MemberState.ALIVE, *, life: int = 1, incarnation: int = 0
) -> Member:
    """Return a member of this name."""
    return Member(node_id(name), name, "127.0.0.1", 7946, life, incarnation, state)


def endpoint(slot: int, service: ServiceKey = WEB) -> Endpoint:
    """Return an endpoint of a service's slot."""
    return Endpoint(
        SlotKey(service.project, service.service, slot),
        task_id(slot),
        Epoch(1, 40),
        address=f"10.192.{slot // 250}.{slot % 250 + 1}",
        health=Health.HEALTHY,
        ports=(EndpointPort(80, "tcp", "http"),),
        networks=("shop_default",),
        aliases=(("shop_default", "www"),),
    )


def fact(node: str, name: str, value: bytes | None, *, version: int = 1, life: int = 1) -> Fact:
    """Return a fact of a node."""
    return Fact(FactKey(node_id(node), name), FactVersion(life, version), value)


def service_fact(
    node: str,
    *slots: int,
    service: ServiceKey = WEB,
    version: int = 1,
    life: int = 1,
    revision: int = 1,
    vip: str = "",
) -> Fact:
    """Return the fact by which a node publishes these slots of a service; without: withdraws."""
    endpoints = tuple(endpoint(slot, service) for slot in slots)
    value = pack_service(ServiceFacts(ServiceRevision(revision), vip, endpoints=endpoints))
    assert isinstance(value, bytes)
    name = service_fact_name(service)
    return fact(node, name, value if slots else None, version=version, life=life)
