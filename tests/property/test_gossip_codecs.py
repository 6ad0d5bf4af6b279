"""Do gossip's codecs give back what they were given, and nothing but an error for junk?"""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dray.model import (
    Endpoint,
    EndpointPort,
    Epoch,
    FactKey,
    FactVersion,
    Health,
    MemberState,
    PortProtocol,
    PublishedPort,
    PublishMode,
    ReachKind,
    ServiceFacts,
    ServiceKey,
    ServiceRevision,
    SlotKey,
)
from dray.names import NodeId, TaskId, id_text
from node.gossip.core import DATAGRAM_BYTES_MAX, Address
from node.gossip.datagrams import decode, decode_streamed, encode, encode_piece, encode_rumour
from node.gossip.members import SPREAD_STATES, Rumour
from node.gossip.messages import (
    BUCKETS,
    PIECE_BYTES_MAX,
    PIECES_MAX,
    Ack,
    Behind,
    Datagram,
    FactPiece,
    FactRange,
    Gossip,
    MemberEntry,
    Message,
    Nack,
    NotMe,
    Ping,
    PingRequest,
    Pull,
    PullAnswer,
    Sender,
    SyncBuckets,
    SyncFacts,
    SyncMembers,
    Verify,
)
from node.gossip.packing import (
    FACT_NAME_BYTES_MAX,
    FACT_VALUE_BYTES_MAX,
    pack_service,
    service_fact_name,
    service_of_fact,
    unpack_service,
)
from node.gossip.wire import Malformed, Reader, WireError, Writer

KEY = ServiceKey("shop", "web")

ids = st.binary(min_size=16, max_size=16).map(id_text)
nodes = ids.map(NodeId)
short = st.text(max_size=12)
u32 = st.integers(0, 2**32 - 1)
u63 = st.integers(0, 2**63 - 1)
u64 = st.integers(0, 2**64 - 1)
lives = st.integers(1, 2**63 - 1)
ip4 = st.ip_addresses(v=4).map(str)
ip6 = st.ip_addresses(v=6).map(str)
addresses = st.builds(Address, st.one_of(ip4, ip6), st.integers(1, 65_535))

ports = st.integers(0, 65_535)
endpoints = st.builds(
    Endpoint,
    slot=st.builds(SlotKey, st.just(KEY.project), st.just(KEY.service), u32),
    task_id=ids.map(TaskId),
    epoch=st.builds(Epoch, u32, u63),
    address=st.one_of(st.just(""), ip4),
    address6=st.one_of(st.just(""), ip6),
    health=st.sampled_from(Health),
    draining=st.booleans(),
    ports=st.lists(
        st.builds(EndpointPort, ports, st.sampled_from(("tcp", "udp", "sctp")), short),
        max_size=2,
    ).map(tuple),
    networks=st.lists(short, max_size=2).map(tuple),
    aliases=st.lists(st.tuples(short, short), max_size=2).map(tuple),
)

published = st.builds(
    PublishedPort,
    ports,
    ports,
    ports,
    st.sampled_from(PortProtocol),
    st.sampled_from(PublishMode),
    short,
    short,
    short,
)
services = st.builds(
    ServiceFacts,
    u63.map(ServiceRevision),
    st.one_of(st.just(""), ip4, ip6),
    st.lists(published, max_size=3).map(tuple),
    st.booleans(),
    st.lists(endpoints, max_size=20).map(tuple),
    st.sets(st.tuples(short, ip4), max_size=3).map(lambda found: tuple(sorted(found))),
)

rumours = st.one_of(
    st.builds(
        Rumour,
        nodes,
        lives,
        u32,
        st.just(MemberState.ALIVE),
        st.text("ab-", max_size=63),
        addresses,
    ),
    st.builds(Rumour, nodes, lives, u32, st.just(MemberState.LEFT)),
    st.builds(
        Rumour,
        nodes,
        lives,
        u32,
        st.sampled_from(SPREAD_STATES[1:-1]),
        accuser=st.one_of(st.none(), nodes),
        reach=st.one_of(st.none(), st.sampled_from(ReachKind)),
    ),
)
keys = st.builds(FactKey, nodes, st.text("a:/b", max_size=FACT_NAME_BYTES_MAX))
versions = st.builds(FactVersion, lives, u64)
pieces = st.one_of(
    st.builds(FactPiece, keys, versions, st.just(0), st.just(1), st.none()),
    st.integers(1, PIECES_MAX).flatmap(
        lambda count: st.builds(
            FactPiece,
            keys,
            versions,
            st.integers(0, count - 1),
            st.just(count),
            st.binary(max_size=PIECE_BYTES_MAX),
        )
    ),
)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Ping, u32, st.one_of(st.none(), nodes)),
    st.builds(Ack, u32, st.one_of(st.none(), nodes), u64, u32),
    st.builds(PingRequest, u32, nodes, addresses),
    st.builds(Nack, u32),
    st.builds(NotMe, u32),
    st.builds(Verify, nodes, lives, u32),
    st.just(Gossip()),
    st.just(Behind()),
    st.lists(u64, min_size=BUCKETS, max_size=BUCKETS).map(tuple).map(SyncBuckets),
    st.builds(
        SyncMembers,
        st.integers(0, BUCKETS - 1),
        st.one_of(st.none(), nodes),
        st.one_of(st.none(), nodes),
        st.lists(st.builds(MemberEntry, nodes, lives, u32, u64), max_size=20).map(tuple),
        st.booleans(),
    ),
    st.builds(
        SyncFacts,
        st.lists(
            st.builds(
                FactRange,
                nodes,
                lives,
                u64,
                u64,
                st.lists(st.tuples(u64, u64), max_size=12).map(tuple),
            ),
            max_size=2,
        ).map(tuple),
        st.booleans(),
    ),
)
senders = st.builds(Sender, nodes, lives, u32, st.text("ab-", max_size=63), addresses)


def order(endpoint: Endpoint) -> Any:
    """Return what endpoints are sorted by."""
    return (endpoint.slot, endpoint.task_id, repr(endpoint))


def ordered(facts: ServiceFacts) -> ServiceFacts:
    """Return the same with its endpoints in one order."""
    return dataclasses.replace(facts, endpoints=tuple(sorted(facts.endpoints, key=order)))


@given(services)
def test_services_round_trip(facts: ServiceFacts) -> None:
    """What is said of a service comes back; the order of endpoints does not change the bytes."""
    packed = pack_service(facts)
    assert isinstance(packed, bytes)
    turned = dataclasses.replace(facts, endpoints=facts.endpoints[::-1])
    assert pack_service(turned) == packed
    unpacked = unpack_service(KEY, packed)
    assert isinstance(unpacked, ServiceFacts)
    assert ordered(unpacked) == ordered(facts)


@given(st.binary(max_size=200))
def test_services_from_junk(data: bytes) -> None:
    """Any bytes give a `Malformed`, or facts that pack to the same bytes; nothing is raised."""
    unpacked = unpack_service(KEY, data)
    if not isinstance(unpacked, Malformed):
        assert pack_service(unpacked) == data


@given(services, st.data())
def test_services_from_damaged_bytes(facts: ServiceFacts, data: st.DataObject) -> None:
    """A flipped bit or a cut end never raises, and never gives two meanings to one fact."""
    packed = pack_service(facts)
    assert isinstance(packed, bytes)
    damaged = bytearray(packed[: data.draw(st.integers(0, len(packed)))])
    if damaged:
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    unpacked = unpack_service(KEY, bytes(damaged))
    if not isinstance(unpacked, Malformed):
        assert pack_service(unpacked) == bytes(damaged)


@given(short, short)
def test_fact_names_round_trip(project: str, service: str) -> None:
    """A service's fact is recognised as that service's, unless a name holds a slash or nothing."""
    key = ServiceKey(project, service)
    found = service_of_fact(service_fact_name(key))
    if project and service and "/" not in project + service:
        assert found == key
    else:
        assert found is None


@given(st.binary(min_size=8, max_size=8), senders, u64, messages, st.lists(rumours, max_size=4))
def test_datagrams_round_trip(
    tag: bytes, sender: Sender, digest: int, message: Message, news: list[Rumour]
) -> None:
    """Any message with any rumours comes back, in order."""
    room = DATAGRAM_BYTES_MAX - len(encode(tag, sender, digest, message))
    items = [encode_rumour(rumour) for rumour in news]
    while sum(map(len, items)) > room:
        items.pop()
        news.pop()
    data = encode(tag, sender, digest, message, items)
    assert decode(data) == Datagram(tag, sender, digest, message, tuple(news))


@given(senders, pieces)
def test_a_piece_fits_beside_any_sender(sender: Sender, piece: FactPiece) -> None:
    """The largest piece of a fact fits a datagram of the longest sender, and comes back."""
    data = encode(bytes(8), sender, 0, Gossip(), [encode_piece(piece)])
    datagram = decode(data)
    assert isinstance(datagram, Datagram)
    assert datagram.items == (piece,)


@given(st.binary(max_size=DATAGRAM_BYTES_MAX + 10))
def test_datagrams_from_junk(data: bytes) -> None:
    """Any bytes give a datagram or a `Malformed`; never an exception."""
    assert isinstance(decode(data), Datagram | Malformed)


@given(senders, messages, st.lists(st.one_of(rumours, pieces), max_size=2), st.data())
def test_datagrams_from_damaged_bytes(
    sender: Sender, message: Message, news: list[Rumour | FactPiece], data: st.DataObject
) -> None:
    """A datagram cut anywhere, with a byte changed, never raises."""
    encoded = encode(bytes(8), sender, 1, message)
    for item in news:
        packed = encode_rumour(item) if isinstance(item, Rumour) else encode_piece(item)
        encoded += packed if len(encoded) + len(packed) <= DATAGRAM_BYTES_MAX else b""
    damaged = bytearray(encoded[: data.draw(st.integers(1, len(encoded)))])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(decode(bytes(damaged)), Datagram | Malformed)


entries = st.lists(st.builds(MemberEntry, nodes, lives, u32, u64), max_size=60).map(tuple)
streamed: st.SearchStrategy[Message] = st.one_of(
    st.builds(Pull, st.one_of(st.none(), nodes), entries),
    st.builds(PullAnswer, st.one_of(st.none(), nodes)),
)


@given(senders, streamed, st.lists(st.one_of(rumours, pieces), max_size=6))
def test_streamed_messages_round_trip(
    sender: Sender, message: Message, news: list[Rumour | FactPiece]
) -> None:
    """What travels on streams comes back, beyond a datagram's size, and is none in a datagram."""
    items = [encode_rumour(i) if isinstance(i, Rumour) else encode_piece(i) for i in news]
    data = encode(bytes(8), sender, 3, message, items)
    assert decode_streamed(data) == Datagram(bytes(8), sender, 3, message, tuple(news))
    assert isinstance(decode(data), Malformed)


@given(st.binary(max_size=3_000))
def test_streamed_messages_from_junk(data: bytes) -> None:
    """Any bytes give a message or a `Malformed`; never an exception."""
    assert isinstance(decode_streamed(data), Datagram | Malformed)


@given(u64)
def test_numbers_have_one_form(value: int) -> None:
    """A number comes back from its shortest form, and a padded form is refused."""
    writer = Writer()
    writer.uvarint(value)
    data = writer.take()
    assert Reader(data).uvarint(2**64 - 1) == value
    padded = data[:-1] + bytes([data[-1] | 0x80]) + b"\x00"
    try:
        Reader(padded).uvarint(2**64 - 1)
    except WireError:
        return
    raise AssertionError("two forms of one number")


@given(st.one_of(ip4, ip6))
def test_addresses_have_one_form(host: str) -> None:
    """An address comes back as the text that it was, in 5 or 17 bytes."""
    writer = Writer()
    writer.address(host)
    assert len(writer) == 1 + len(ipaddress.ip_address(host).packed)
    assert Reader(writer.take()).address() == host


def test_a_full_node_fits_its_facts() -> None:
    """All 508 tasks of a node, in one service, with usual names, fit one fact's limit."""
    endpoints = tuple(
        Endpoint(
            SlotKey("shop", "web", slot),
            TaskId(id_text(slot.to_bytes(16, "little"))),
            Epoch(1, 2**40),
            address=f"10.192.{slot // 256}.{slot % 256}",
            health=Health.HEALTHY,
            ports=(EndpointPort(8080, "tcp", "http"),),
            networks=("shop_default",),
            aliases=(("shop_default", "web"),),
        )
        for slot in range(508)
    )
    packed = pack_service(ServiceFacts(ServiceRevision(1), "10.224.0.1", endpoints=endpoints))
    assert isinstance(packed, bytes)
    assert len(packed) <= FACT_VALUE_BYTES_MAX
