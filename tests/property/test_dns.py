"""Do names, queries and answers hold whatever they are made of? dnspython is the judge."""

from __future__ import annotations

import itertools
import json
import random

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
from hypothesis import given, settings
from hypothesis import strategies as st

from dray.model import Endpoint, Health, MemberState, ServiceKey
from node.dns.cache import AnswerCache
from node.dns.feed import Mirror, members_of, service_of
from node.dns.resolver import Answer, Forward, resolve
from node.dns.upstream import (
    Question,
    Rejected,
    accept,
    answer_with,
    question_bytes,
    question_of,
)
from node.dns.wire import (
    UDP_BYTES_MIN,
    Malformed,
    Query,
    limit_bytes,
    parse_query,
    ttl_offsets,
)
from node.dns.zone import NODE_ASKER, Asker, Zone
from tests.dns_world import World, an_asker, an_endpoint, query_bytes, texts

LABELS = st.binary(min_size=1, max_size=20)
NAMES = st.lists(LABELS, max_size=8).map(lambda labels: dns.name.Name([*labels, b""]))
TYPES = st.sampled_from(["A", "AAAA", "SRV", "PTR", "SOA", "TXT", "HTTPS"])

SERVICES = [ServiceKey("shop", "web"), ServiceKey("shop", "db"), ServiceKey("blog", "web")]
ASKERS = [an_asker("shop"), an_asker("blog"), an_asker("blog", "edge"), NODE_ASKER]
NETWORKS = [("shop_default",), ("blog_default",), ("edge", "shop_default"), ("edge",)]
HEALTHS = [Health.HEALTHY, Health.UNHEALTHY, Health.STARTING]
ASKED = [
    query_bytes(name, rtype)
    for name in (
        "web.shop.dray.internal",
        "web",
        "db",
        "web.blog",
        "tasks.web.shop.dray.internal",
        "1.web.shop.dray.internal",
        "2.db",
        "www",
        "www.shop.dray.internal",
        "_http._tcp.web",
        "no.shop.dray.internal",
        "1.0.192.10.in-addr.arpa",
        "1.0.224.10.in-addr.arpa",
        "shop.dray.internal",
    )
    for rtype in ("SRV" if name.startswith("_") else "PTR" if name.endswith("arpa") else "A",)
]


@given(NAMES, TYPES, st.integers(0, 65_535), st.none() | st.integers(0, 65_535), st.booleans())
def test_queries_are_read_as_dnspython_writes_them(
    name: dns.name.Name, rtype: str, ident: int, payload: int | None, is_dnssec: bool
) -> None:
    """Every query that dnspython writes is read back with all that matters in it."""
    wanted = dns.message.make_query(name, rtype, id=ident)
    if payload is not None:
        wanted.use_edns(0, dns.flags.DO if is_dnssec else 0, payload)
    data = wanted.to_wire()
    query = parse_query(data)
    assert isinstance(query, Query)
    assert query.ident == ident
    assert query.is_recursion_desired
    assert [label.encode("latin-1") for label in query.labels] == [
        label.lower() for label in name.labels[:-1]
    ]
    assert query.rtype == dns.rdatatype.from_text(rtype)
    assert (query.edns is None) is (payload is None)
    if query.edns is not None:
        assert (query.edns.size_bytes, query.edns.is_dnssec) == (payload, is_dnssec)


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_are_read_or_told(tail: bytes, has_header: bool) -> None:
    """Whatever arrives, it is a query or malformed; what is malformed is answered by a header."""
    data = (b"\x12\x34\x01\0\0\1\0\0\0\0\0\0" + tail) if has_header else tail
    found = parse_query(data)
    if isinstance(found, Query):
        message = dns.message.from_wire(data, ignore_trailing=True, continue_on_error=True)
        assert message.question[0].rdtype == found.rtype
    elif found.answer is not None:
        assert found.answer[:2] == data[:2]
        assert dns.message.from_wire(found.answer).flags & dns.flags.QR


@given(st.binary(max_size=100))
def test_any_bytes_have_ttls_or_not(data: bytes) -> None:
    """Where the TTLs are is found without reading beyond the end, whatever the bytes."""
    found = ttl_offsets(data)
    assert found is None or all(12 <= at <= len(data) - 4 for at in found)


@st.composite
def responses(draw: st.DrawFn) -> tuple[Question, bytes]:
    """Give a question and something like an answer to it, perhaps with bytes changed."""
    name = draw(NAMES)
    rtype = draw(st.sampled_from(["A", "TXT", "MX"]))
    query = dns.message.make_query(name, rtype, id=7)
    message = dns.message.make_response(query, recursion_available=True)
    datas = {"A": "192.0.2.1", "TXT": '"text"', "MX": "10 mail.example."}
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(sorted(datas)))
        owner = draw(st.sampled_from([name, dns.name.from_text("x.example.")]))
        section = draw(st.sampled_from([message.answer, message.authority, message.additional]))
        section.append(dns.rrset.from_text(owner, draw(st.integers(0, 9)), "IN", kind, datas[kind]))
    data = bytearray(message.to_wire())
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    parsed = parse_query(query.to_wire())
    assert isinstance(parsed, Query)
    return question_of(parsed), bytes(data)


@given(responses(), st.none() | st.integers(0, 65_535))
def test_any_answer_of_an_upstream_is_taken_or_not(
    given: tuple[Question, bytes], payload: int | None
) -> None:
    """Whatever an upstream sends, it is passed over or told on as a message that fits the query."""
    question, data = given
    kept = accept(question, 7, data, "192.0.2.53")
    if isinstance(kept, Rejected):
        return
    wanted = dns.message.from_wire(question_bytes(question, 4711))
    if payload is not None:
        wanted.use_edns(0, 0, payload)
    query = parse_query(wanted.to_wire())
    assert isinstance(query, Query)
    told = answer_with(kept, query, 5, limit_bytes(query))
    assert len(told) <= limit_bytes(query)
    message = dns.message.from_wire(told)
    assert wanted.is_response(message)
    assert all(rrset.ttl <= 5 for rrset in (*message.answer, *message.authority))


@st.composite
def endpoints(draw: st.DrawFn, service: ServiceKey) -> list[Endpoint]:
    """Give endpoints of a service on one node; addresses follow from slot and service."""
    slots = draw(st.lists(st.integers(1, 4), max_size=3, unique=True))
    networks = draw(st.sampled_from(NETWORKS))
    aliases = ((networks[0], "www"),) if draw(st.booleans()) else ()
    return [
        an_endpoint(
            slot,
            f"10.192.{SERVICES.index(service)}.{slot}",
            service=service,
            networks=networks,
            aliases=aliases,
            health=draw(st.sampled_from(HEALTHS)),
            draining=draw(st.booleans()),
            task=draw(st.integers(1, 9)),
        )
        for slot in slots
    ]


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[object, ...]]:
    """Give steps that each change the cluster: a publication, a withdrawal, a member."""
    found: list[tuple[object, ...]] = []
    for _ in range(draw(st.integers(1, 6))):
        service = draw(st.sampled_from(SERVICES))
        node = draw(st.sampled_from("abc"))
        kind = draw(st.sampled_from(["publish", "publish", "withdraw", "member"]))
        vip = draw(st.sampled_from(["", "10.224.0.1"]))
        state = draw(st.sampled_from([s for s in MemberState if s is not MemberState.STALLED]))
        found.append((kind, node, service, draw(endpoints(service)), vip, state))
    return found


def carry_out(world: World, change: tuple[object, ...]) -> None:
    """Make one change."""
    kind, node, service, published, vip, state = change
    assert isinstance(node, str)
    assert isinstance(service, ServiceKey)
    assert isinstance(published, list)
    assert isinstance(vip, str)
    assert isinstance(state, MemberState)
    if kind == "publish":
        world.publish(node, service, *published, vip=vip)
    elif kind == "withdraw":
        world.withdraw(node, service)
    else:
        world.set_member(node, state)


def answer_of(zone: Zone, data: bytes, asker: Asker) -> Answer | Forward:
    """Return what a zone answers to a query over UDP."""
    query = parse_query(data)
    assert isinstance(query, Query)
    return resolve(query, zone, asker, random.Random(1), limit_bytes(query))


@settings(max_examples=15)
@given(changes())
def test_kept_answers_are_never_stale(steps: list[tuple[object, ...]]) -> None:
    """After every change an answer that is still kept is what a zone that is made anew gives."""
    world = World()
    cache = AnswerCache()
    world.zone.update(world.view())
    for step in steps:
        for asker, data in itertools.product(ASKERS, ASKED):
            if data[2:] not in cache.ready(asker):
                answer = answer_of(world.zone, data, asker)
                if isinstance(answer, Answer):
                    cache.put(asker, data[2:], answer)
        carry_out(world, step)
        cache.forget(world.zone.update(world.view()).keys)
        clean = World().zone
        clean.update(world.view())
        for asker in ASKERS:
            for kept, variants in cache.ready(asker).items():
                now = answer_of(clean, b"\0\0" + kept, asker)
                assert isinstance(now, Answer), (asker, kept)
                told = dns.message.from_wire(b"\0\0" + next(variants))
                wanted = dns.message.from_wire(b"\0\0" + now.variants[0][2:])
                assert told.rcode() == wanted.rcode(), (asker, kept)
                assert sorted(texts(told)) == sorted(texts(wanted)), (asker, kept)
                assert told.authority == wanted.authority


@settings(max_examples=15)
@given(changes())
def test_a_mirror_is_as_good_as_the_view(steps: list[tuple[object, ...]]) -> None:
    """Told of each change, as JSON, the server's process answers as if it had the view itself."""
    world = World()
    mirror = Mirror()
    far = World().zone
    view = world.view()
    world.zone.update(view)
    for step in steps:
        carry_out(world, step)
        newer = world.view()
        changed = newer.changed_since(view.sequence)
        assert changed is not None
        told = json.dumps([service_of(newer, each) for each in sorted(changed)])
        mirror.set_members(json.loads(json.dumps(members_of(newer))))
        far.take(mirror, mirror.put(json.loads(told)))
        far.refresh_nodes()
        world.zone.update(newer)
        world.zone.refresh_nodes()
        view = newer
        asked = [*ASKED, query_bytes("b.node.dray.internal")]
        for asker, data in itertools.product(ASKERS, asked):
            assert answer_of(far, data, asker) == answer_of(world.zone, data, asker)
    assert far.own_askers() == world.zone.own_askers()


@given(changes(), NAMES, TYPES, st.sampled_from(ASKERS), st.none() | st.integers(0, 65_535))
def test_every_answer_is_well_formed(
    steps: list[tuple[object, ...]],
    name: dns.name.Name,
    rtype: str,
    asker: Asker,
    payload: int | None,
) -> None:
    """Whatever the cluster and the query, dnspython reads the answer, and it fits the question."""
    world = World()
    for step in steps:
        carry_out(world, step)
    world.zone.update(world.view())
    try:
        inside = name.relativize(dns.name.root).concatenate(
            dns.name.from_text("shop.dray.internal")
        )
    except dns.name.NameTooLong:
        return
    for each in (name, inside):
        wanted = dns.message.make_query(each, rtype)
        if payload is not None:
            wanted.use_edns(0, 0, payload)
        query = parse_query(wanted.to_wire())
        assert not isinstance(query, Malformed)
        answer = resolve(query, world.zone, asker, random.Random(1), limit_bytes(query))
        if isinstance(answer, Answer):
            for variant in answer.variants:
                assert len(variant) <= max(UDP_BYTES_MIN, limit_bytes(query))
                message = dns.message.from_wire(variant)
                assert message.question == wanted.question
                assert wanted.is_response(message)
