"""What does the node's name server answer to a name, and why? The text behind `dray dns`."""

from __future__ import annotations

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from dray.errors import InvalidRequest
from dray.model import FactView, ServiceKey
from dray.views import DnsAnswer, DnsEndpoint, DnsQuery
from node.dns.names import Labels, text_of
from node.dns.resolver import Answer, Forward, resolve
from node.dns.serve import DnsServer
from node.dns.upstream import question_of
from node.dns.wire import TCP_BYTES_MAX, Query, RCode, parse_query
from node.dns.zone import NODE_ASKER, Asker, Considered, Found

__all__ = ["explain"]


async def explain(query: DnsQuery, server: DnsServer) -> DnsAnswer:
    """Return what a server answers to a query, and why. Called on the server's loop.

    Raises:
        InvalidRequest: The name, the type, the project or the service cannot be.
    """
    asked = _parse(query)
    asker = _asker(query, server)
    found = server.zone.find(asked.labels, asker)
    answer = resolve(asked, server.zone, asker, server.rng, TCP_BYTES_MAX)
    if isinstance(answer, Forward):
        return await _forwarded(asked, server)
    return _told(asked, found, answer, server.zone.view)


def _parse(query: DnsQuery) -> Query:
    """Return the query in the form that the server gets."""
    rtype = (query.type or "A").upper()
    try:
        name = dns.name.from_text(query.name)
        data = dns.message.make_query(name, rtype).to_wire()
    except (dns.exception.DNSException, ValueError, UnicodeError) as error:
        raise InvalidRequest(
            f"{query.name!r} {rtype} cannot be asked: {error}",
            hint="write a name such as web.shop.dray.internal, and a type such as A or SRV",
        ) from error
    parsed = parse_query(data)
    assert isinstance(parsed, Query), "dnspython writes well-formed queries"
    return parsed


def _asker(query: DnsQuery, server: DnsServer) -> Asker:
    """Return on whose behalf a query asks."""
    if not query.project:
        return NODE_ASKER
    if not query.service:
        if not server.zone.has_project(query.project):
            raise InvalidRequest(
                f"no node publishes a service of the project {query.project}",
                hint="look at `dray ls`, or ask for the full name without a project",
            )
        return Asker(query.project)
    networks = server.zone.networks_of(ServiceKey(query.project, query.service))
    if networks is None:
        raise InvalidRequest(
            f"no node publishes the service {query.project}/{query.service}",
            hint="ask for its project alone, or look at `dray ps`",
        )
    return Asker(query.project, networks)


def _told(asked: Query, found: Found, answer: Answer, view: FactView | None) -> DnsAnswer:
    message = dns.message.from_wire(answer.variants[0])
    endpoints = [endpoint for each in found.considered for endpoint in _endpoints(each, view)]
    name = _shown(found.name or asked.labels)
    source = "node" if found.is_node else "endpoints"
    if any(each.vip for each in found.considered):
        source = "the service's own address"
    elif not found.considered and not found.is_node:
        source = "zone"
    return DnsAnswer(
        name=name,
        code=RCode(int(message.rcode())).name,
        records=_records(message, name),
        endpoints=tuple(endpoints),
        source=source,
        is_last_resort=found.is_last_resort,
    )


def _endpoints(considered: Considered, view: FactView | None) -> list[DnsEndpoint]:
    found: list[DnsEndpoint] = []
    for judged in considered.selection.judged:
        node_id = judged.view.node_id
        member = view.member(node_id) if view is not None else None
        name = member.name if member is not None else ""
        is_used = judged.is_used
        found.append(DnsEndpoint(judged.view.endpoint, node_id, name, is_used, judged.reason))
    return found


async def _forwarded(asked: Query, server: DnsServer) -> DnsAnswer:
    name = _shown(asked.labels)
    if server.forwarder is None:
        return DnsAnswer(name, RCode.SERVFAIL.name, source="upstream")
    kept, was_known = await server.forwarder.look_up(question_of(asked))
    if kept is None:
        return DnsAnswer(name, RCode.SERVFAIL.name, source="upstream: no server answered")
    message = dns.message.from_wire(kept.data)
    return DnsAnswer(
        name=name,
        code=dns.rcode.to_text(message.rcode()),
        records=_records(message),
        source="cache" if was_known else f"upstream {kept.source}",
    )


def _records(message: dns.message.Message, name: str = "") -> tuple[str, ...]:
    """Return the answer's records as text; those of the name asked for under its full name."""
    return tuple(
        f"{name or rrset.name.to_text()} {rrset.ttl} IN "
        f"{dns.rdatatype.to_text(rrset.rdtype)} {record.to_text()}"
        for rrset in message.answer
        for record in rrset
    )


def _shown(labels: Labels) -> str:
    """Return a name for people, what cannot be printed escaped as in zone files."""
    if all(label.isascii() and label.isprintable() and "." not in label for label in labels):
        return text_of(labels)
    return dns.name.Name([label.encode("latin-1") for label in labels] + [b""]).to_text()
