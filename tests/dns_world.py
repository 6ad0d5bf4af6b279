"""A small cluster as the name server of node "a" sees it, for its tests and benchmarks."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable

import dns.message

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
from node.dns.names import labels_of
from node.dns.resolver import Answer, resolve
from node.dns.wire import TCP_BYTES_MAX, Query, parse_query
from node.dns.zone import NODE_ASKER, Asker, Zone, ZoneConfig
from node.gossip.facts import FactStore, View
from node.gossip.packing import pack_service, service_fact_name

__all__ = [
    "HOME",
    "RANGES",
    "WEB",
    "World",
    "an_asker",
    "an_endpoint",
    "node_id",
    "query_bytes",
    "texts",
]

RANGES = ("10.192.0.0/11", "10.224.0.0/16", "fd00:d7a7::/48")
HOME = "a"
WEB = ServiceKey("shop", "web")


def node_id(name: str) -> NodeId:
    """Return the id that stands for a node's name."""
    return NodeId(id_text(hashlib.sha256(name.encode()).digest()[:16]))


def an_asker(project: str = "shop", *networks: str) -> Asker:
    """Return a client of a project, on its default network unless others are named."""
    return Asker(project, frozenset(networks or (f"{project}_default",)))


def an_endpoint(
    slot: int,
    address: str,
    *,
    service: ServiceKey = WEB,
    networks: tuple[str, ...] = ("shop_default",),
    aliases: tuple[tuple[str, str], ...] = (),
    ports: tuple[EndpointPort, ...] = (),
    health: Health = Health.HEALTHY,
    address6: str = "",
    draining: bool = False,
    task: int = 0,
) -> Endpoint:
    """Return a running task of a slot."""
    return Endpoint(
        SlotKey(service.project, service.service, slot),
        TaskId(id_text((task or slot).to_bytes(16, "big"))),
        Epoch(1, 40),
        address=address,
        address6=address6,
        health=health,
        draining=draining,
        ports=ports,
        networks=networks,
        aliases=aliases,
    )


class World:
    """Members and facts that tests change, and the zone that follows them."""

    def __init__(self, *nodes: str) -> None:
        self.store = FactStore()
        self.zone = Zone(ZoneConfig(node_id(HOME), RANGES))
        self._version = 0
        for number, name in enumerate(nodes or (HOME, "b", "c"), start=1):
            self.set_member(name, MemberState.ALIVE, address=f"192.0.2.{number}")

    def set_member(self, name: str, state: MemberState, *, address: str = "192.0.2.99") -> None:
        """Set what a member is held to be; it keeps its address once it has one."""
        known = self.store.member(node_id(name))
        kept = known.address if known is not None else address
        self.store.put_member(Member(node_id(name), name, kept, 7401, 1, 0, state))

    def publish(self, node: str, service: ServiceKey, *endpoints: Endpoint, vip: str = "") -> None:
        """Let a node publish a service anew."""
        value = pack_service(ServiceFacts(ServiceRevision(1), vip, endpoints=endpoints))
        assert isinstance(value, bytes), value
        self.merge(node, service, value)

    def withdraw(self, node: str, service: ServiceKey) -> None:
        """Let a node withdraw what it published of a service."""
        self.merge(node, service, None)

    def web(self, *slots: int, node: str = "b", vip: str = "") -> None:
        """Let a node publish healthy slots of shop/web at 10.192.0.SLOT."""
        found = (an_endpoint(slot, f"10.192.0.{slot}") for slot in slots)
        self.publish(node, WEB, *found, vip=vip)

    def view(self) -> View:
        """Return the view of now."""
        return self.store.view()

    def ask(
        self,
        name: str,
        rtype: str = "A",
        asker: Asker = NODE_ASKER,
        *,
        size_bytes_max: int = TCP_BYTES_MAX,
        payload: int | None = None,
    ) -> dns.message.Message:
        """Return the zone's answer to a query, as dnspython reads it."""
        self.zone.update(self.view())
        query = parse_query(query_bytes(name, rtype, payload=payload))
        assert isinstance(query, Query)
        answer = resolve(query, self.zone, asker, random.Random(1), size_bytes_max)
        assert isinstance(answer, Answer), f"{name} is not the zone's"
        return dns.message.from_wire(answer.variants[0])

    def addresses(self, name: str, asker: Asker = NODE_ASKER, rtype: str = "A") -> list[str]:
        """Return the addresses at a name, sorted; none for a name that is not the zone's."""
        self.zone.update(self.view())
        if not self.zone.find(labels_of(name), asker).is_ours:
            return []
        return sorted(texts(self.ask(name, rtype, asker)))

    def merge(self, node: str, service: ServiceKey, value: bytes | None) -> None:
        """Let a node publish packed facts of a service, or withdraw them."""
        self._version += 1
        key = FactKey(node_id(node), service_fact_name(service))
        self.store.merge(Fact(key, FactVersion(1, self._version), value), 0.0)


def texts(message: dns.message.Message) -> Iterable[str]:
    """Return the answer's records in presentation form, without names and TTLs."""
    return [item.to_text() for rrset in message.answer for item in rrset]


def query_bytes(
    name: str, rtype: str = "A", *, ident: int = 4711, payload: int | None = None
) -> bytes:
    """Return a query as dnspython writes it; with `payload`: with EDNS."""
    query = dns.message.make_query(
        name, rtype, use_edns=0 if payload is not None else -1, payload=payload or 0
    )
    query.id = ident
    return query.to_wire()
