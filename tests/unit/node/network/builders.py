"""Endpoints and services for the network's tests, with as little to write as possible."""

from __future__ import annotations

from dray.model import (
    Endpoint,
    EndpointView,
    Epoch,
    Health,
    MemberState,
    ServiceFacts,
    ServiceRevision,
    SlotKey,
)
from dray.names import NodeId, TaskId, id_text
from node.network.ruleset import Layout

LAYOUT = Layout("10.192.2.0/23", "10.192.0.0/11", "10.224.0.0/16")
VIP = "10.224.0.1"


def node_id(number: int) -> NodeId:
    """Return the id of a numbered node."""
    return NodeId(id_text(number.to_bytes(16, "big")))


def task_id(number: int) -> TaskId:
    """Return the id of a numbered task."""
    return TaskId(id_text(number.to_bytes(16, "big")))


def address(number: int) -> str:
    """Return the address of a numbered container."""
    return f"10.192.4.{number}"


def view(
    number: int,
    *,
    service: str = "web",
    state: MemberState = MemberState.ALIVE,
    health: Health = Health.NONE,
    draining: bool = False,
    networks: tuple[str, ...] = ("shop_default",),
) -> EndpointView:
    """Return the endpoint of a numbered slot, on the node of that number."""
    endpoint = Endpoint(
        SlotKey("shop", service, number),
        task_id(number),
        Epoch(1, 1),
        address(number),
        health=health,
        draining=draining,
        networks=networks,
    )
    return EndpointView(endpoint, node_id(number), state)


def facts(vip: str = VIP, *, affinity: bool = False) -> ServiceFacts:
    """Return what is known of a service as a whole."""
    return ServiceFacts(ServiceRevision(1), vip, affinity=affinity)
