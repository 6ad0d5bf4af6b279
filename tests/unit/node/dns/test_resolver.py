"""Is every query answered, refused or forwarded as the rules say?"""

from __future__ import annotations

import random

import dns.flags
import dns.message
import dns.rcode
import pytest

from node.dns.resolver import Answer, Forward, resolve
from node.dns.wire import (
    TCP_BYTES_MAX,
    UDP_BYTES_MAX,
    UDP_BYTES_MIN,
    Malformed,
    Query,
    limit_bytes,
    parse_query,
)
from node.dns.zone import NODE_ASKER
from tests.dns_world import World, an_asker, query_bytes, texts

SHOP = an_asker("shop")


def answered(
    data: bytes, world: World | None = None, size_bytes_max: int = TCP_BYTES_MAX
) -> Answer | Forward:
    """Return what comes of a datagram from a client of shop."""
    world = world or World()
    world.zone.update(world.view())
    query = parse_query(data)
    assert isinstance(query, Query)
    return resolve(query, world.zone, SHOP, random.Random(1), size_bytes_max)


def read(answer: Answer | Forward) -> dns.message.Message:
    """Return the first variant as dnspython reads it."""
    assert isinstance(answer, Answer)
    return dns.message.from_wire(answer.variants[0])


@pytest.mark.parametrize(
    ("name", "rtype", "code"),
    [
        ("web.shop.dray.internal", "ANY", "REFUSED"),
        ("example.com", "ANY", "REFUSED"),
        ("dray.internal", "AXFR", "REFUSED"),
        ("web.shop.dray.internal", "MX", "NOERROR"),
        ("no.shop.dray.internal", "A", "NXDOMAIN"),
        ("localhost", "A", "NOERROR"),
        ("a.localhost", "MX", "NOERROR"),
        ("some.invalid", "A", "NXDOMAIN"),
    ],
)
def test_codes(name: str, rtype: str, code: str) -> None:
    """Each query without records to send gets the code that says why."""
    world = World()
    world.web(1)
    answer = read(answered(query_bytes(name, rtype), world))
    assert dns.rcode.to_text(answer.rcode()) == code
    assert answer.flags & dns.flags.QR


def test_what_is_not_ours_is_forwarded() -> None:
    """Other names are forwarded; without leave to ask others (RD) they are refused."""
    assert isinstance(answered(query_bytes("example.com")), Forward)
    query = dns.message.make_query("example.com", "A", flags=0)
    assert read(answered(query.to_wire())).rcode() == dns.rcode.REFUSED


def test_negative_answers_say_for_how_long() -> None:
    """A name or type that is not there comes with the zone's SOA record, to be kept for 1 s."""
    for name in ("no.shop.dray.internal", "shop.dray.internal"):
        answer = read(answered(query_bytes(name)))
        (soa,) = answer.authority
        assert (str(soa.name), soa.ttl, soa[0].minimum) == ("dray.internal.", 1, 1)
        assert answer.flags & dns.flags.AA


def test_the_apex_has_a_soa() -> None:
    """The zone's own name answers its SOA record."""
    (record,) = texts(read(answered(query_bytes("dray.internal", "SOA"))))
    assert record.startswith("dray.internal. hostmaster.dray.internal. 1 ")


def test_case_is_kept() -> None:
    """The question comes back with the case of every letter, and the answer's name with it."""
    world = World()
    world.web(1)
    answer = read(answered(query_bytes("wEB.sHOp.dRAY.iNternal"), world))
    assert str(answer.question[0].name) == "wEB.sHOp.dRAY.iNternal."
    assert str(answer.answer[0].name) == "wEB.sHOp.dRAY.iNternal."
    assert answer.answer[0].ttl == 1


def test_localhost() -> None:
    """The loopback addresses never come from elsewhere."""
    assert list(texts(read(answered(query_bytes("localhost"))))) == ["127.0.0.1"]
    assert list(texts(read(answered(query_bytes("x.localhost", "AAAA"))))) == ["::1"]


def test_another_class_is_refused() -> None:
    """Only the class IN is served."""
    query = dns.message.make_query("version.bind", "TXT", "CH")
    assert read(answered(query.to_wire())).rcode() == dns.rcode.REFUSED


def test_edns() -> None:
    """EDNS is answered with EDNS; a version that is not known with BADVERS."""
    world = World()
    world.web(1)
    answer = read(answered(query_bytes("web", payload=4096), world))
    assert (answer.edns, answer.payload) == (0, UDP_BYTES_MAX)
    query = dns.message.make_query("web", "A", use_edns=1)
    assert read(answered(query.to_wire(), world)).rcode() == dns.rcode.BADVERS
    query = dns.message.make_query("web", "A", want_dnssec=True)
    assert read(answered(query.to_wire(), world)).ednsflags & dns.flags.DO


@pytest.mark.parametrize(
    ("payload", "limit"),
    [(None, 512), (100, 512), (600, 600), (1_232, 1_232), (65_535, 1_232)],
)
def test_truncation(payload: int | None, limit: int) -> None:
    """What does not fit is left out and said to be; each variant says so and keeps to the size."""
    world = World()
    world.web(*range(1, 201))
    data = query_bytes("web.shop.dray.internal", payload=payload)
    query = parse_query(data)
    assert isinstance(query, Query)
    assert limit_bytes(query) == limit
    answer = answered(data, world, limit)
    assert isinstance(answer, Answer)
    seen: set[str] = set()
    for variant in answer.variants:
        message = dns.message.from_wire(variant)
        assert len(variant) <= limit
        assert message.flags & dns.flags.TC
        seen.update(texts(message))
    assert limit >= UDP_BYTES_MIN
    assert len(seen) > len(list(texts(message)))
    whole = read(answered(data, world))
    assert len(list(texts(whole))) == 200
    assert not whole.flags & dns.flags.TC


def test_each_address_comes_first_equally() -> None:
    """The variants of an answer hold the same addresses, each of them first once."""
    world = World()
    world.web(*range(1, 11))
    for payload in (None, 1_232):
        answer = answered(query_bytes("web", payload=payload), world)
        assert isinstance(answer, Answer)
        lists = [list(texts(dns.message.from_wire(variant))) for variant in answer.variants]
        assert sorted(found[0] for found in lists) == sorted(lists[0])
        assert all(sorted(found) == sorted(lists[0]) for found in lists)


def test_one_answer_for_a_vip() -> None:
    """A service with an address of its own answers it alone, however many replicas it has."""
    world = World()
    world.web(*range(1, 11), vip="10.224.0.1")
    answer = answered(query_bytes("web"), world)
    assert isinstance(answer, Answer)
    assert len(answer.variants) == 1
    assert list(texts(read(answer))) == ["10.224.0.1"]


def test_what_is_kept_and_how_long() -> None:
    """Answers about nodes are kept for a second; those to queries with options not at all."""
    kept = answered(query_bytes("b.node.dray.internal"))
    assert isinstance(kept, Answer)
    assert (kept.is_brief, kept.is_reusable) == (True, True)
    query = dns.message.make_query(
        "web.shop.dray.internal", "A", options=[dns.edns.CookieOption(b"c" * 8, b"")]
    )
    with_cookie = answered(query.to_wire())
    assert isinstance(with_cookie, Answer)
    assert not with_cookie.is_reusable


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", None),
        (b"\0" * 11, None),
        (query_bytes("web")[:2] + b"\x81" + query_bytes("web")[3:], None),
        (query_bytes("web")[:2] + b"\x29" + query_bytes("web")[3:], "NOTIMP"),
        (query_bytes("web")[:-1], "FORMERR"),
        (query_bytes("web") + b"\0", "FORMERR"),
        (query_bytes("web", payload=512)[:-1], "FORMERR"),
        (query_bytes("web")[:5] + b"\2" + query_bytes("web")[6:], "FORMERR"),
        (query_bytes("web")[:12] + b"\xc0\x0c\0\1\0\1", "FORMERR"),
        (query_bytes("web")[:12] + b"\x41" + b"a" * 0x41 + b"\0\0\1\0\1", "FORMERR"),
        (query_bytes("web")[:12] + b"\x3f" * 300 + b"\0\0\1\0\1", "FORMERR"),
    ],
    ids=[
        "nothing",
        "cut header",
        "an answer",
        "a notify",
        "cut question",
        "more bytes",
        "cut record",
        "two questions",
        "pointer",
        "long label",
        "long name",
    ],
)
def test_malformed(data: bytes, code: str | None) -> None:
    """What is no query gets a code, or nothing when an answer could start a loop."""
    found = parse_query(data)
    assert isinstance(found, Malformed)
    assert found.reason
    if code is None:
        assert found.answer is None
    else:
        assert found.answer is not None
        message = dns.message.from_wire(found.answer)
        assert dns.rcode.to_text(message.rcode()) == code
        assert message.id == int.from_bytes(data[:2], "big")


def test_the_node_itself_has_no_short_names() -> None:
    """A name of one label from the machine itself goes upstream, whatever projects there are."""
    world = World()
    world.web(1)
    world.zone.update(world.view())
    query = parse_query(query_bytes("web"))
    assert isinstance(query, Query)
    found = resolve(query, world.zone, NODE_ASKER, random.Random(1), TCP_BYTES_MAX)
    assert isinstance(found, Forward)
