"""Do seals keep strangers, other clusters, old keys and repetitions out?"""

from __future__ import annotations

import itertools

import pytest

from dray.errors import InvalidRequest
from dray.model import GossipKey
from dray.names import ClusterId, id_text
from node.gossip.core import DATAGRAM_BYTES_MAX, Address
from node.gossip.datagrams import HEADER_BYTES, encode
from node.gossip.messages import Ping, Sender, cluster_tag
from node.gossip.sealing import KEYS_MAX, SEAL_BYTES, WINDOW, Opened, Sealer
from node.gossip.wire import Malformed
from tests.contract.facts.builders import node_id

CLUSTER = ClusterId(id_text(bytes(16)))
OTHER = ClusterId(id_text(bytes(15) + b"\x01"))
OLD = GossipKey(1, bytes(range(32)), primary=True)
NEW = GossipKey(2, bytes(32), primary=True)
BESIDE = GossipKey(2, bytes(32))
SALT = b"salt"


def plain(
    sequence: int = 1, *, name: str = "a", life: int = 7, cluster: ClusterId = CLUSTER
) -> bytes:
    """Return a datagram as the core makes it."""
    sender = Sender(node_id(name), life, 0, name, Address("127.0.0.1", 1))
    return encode(cluster_tag(cluster), sender, 5, Ping(sequence, None))


def opened(sealer: Sealer, sealed: bytes) -> bytes | str:
    """Return what a message holds, or why it was dropped."""
    found = sealer.open(sealed)
    return found.reason if isinstance(found, Malformed) else found.plain


def test_what_is_sealed_opens() -> None:
    """A message comes back whole, costs 30 bytes, and shows nothing but its header."""
    sealed = Sealer(CLUSTER, [OLD]).seal(plain(), SALT)
    assert opened(Sealer(CLUSTER, [OLD]), sealed) == plain()
    assert len(sealed) == len(plain()) + SEAL_BYTES
    assert sealed[1:HEADER_BYTES] == plain()[1:HEADER_BYTES]
    assert plain()[HEADER_BYTES:] not in sealed
    assert DATAGRAM_BYTES_MAX + SEAL_BYTES + 48 <= 1_240, "with IPv6 and UDP headers"


def test_every_bit_counts() -> None:
    """One flipped bit anywhere, or a cut end, and nothing opens."""
    sealed = Sealer(CLUSTER, [OLD]).seal(plain(), SALT)
    receiver = Sealer(CLUSTER, [OLD])
    for at, bit in itertools.product(range(len(sealed)), (1, 128)):
        damaged = bytearray(sealed)
        damaged[at] ^= bit
        assert isinstance(receiver.open(bytes(damaged)), Malformed)
    for size in range(len(sealed)):
        assert isinstance(receiver.open(sealed[:size]), Malformed)
    assert opened(receiver, sealed) == plain(), "nothing of that took its number"


def test_strangers_are_kept_out() -> None:
    """Another key under the same id, an id that is not there, no seal, another cluster."""
    receiver = Sealer(CLUSTER, [OLD])
    wrong = Sealer(CLUSTER, [GossipKey(1, bytes(32), primary=True)])
    assert opened(receiver, wrong.seal(plain(), SALT)) == "its seal is broken"
    unknown = Sealer(CLUSTER, [NEW]).seal(plain(), SALT)
    assert opened(receiver, unknown) == "sealed with key 2, which is not in the keyring"
    assert opened(receiver, plain()) == "not sealed"
    foreign = Sealer(OTHER, [OLD])
    assert opened(receiver, foreign.seal(plain(cluster=OTHER), SALT)) == "of another cluster"
    lying = foreign.seal(plain(), SALT)
    assert opened(receiver, lying) == "its seal is broken", "the cluster's id is authenticated"


def test_another_sender_cannot_be_claimed() -> None:
    """The header is authenticated: a message of one node does not pass for another's."""
    sealed = Sealer(CLUSTER, [OLD]).seal(plain(), SALT)
    claimed = sealed[:1] + plain(name="b")[1:HEADER_BYTES] + sealed[HEADER_BYTES:]
    assert opened(Sealer(CLUSTER, [OLD]), claimed) == "its seal is broken"


def test_repetitions_are_dropped() -> None:
    """Each message opens once, in any order within the window; one that is too old never."""
    sender, receiver = Sealer(CLUSTER, [OLD]), Sealer(CLUSTER, [OLD])
    sent = [sender.seal(plain(number), SALT) for number in range(WINDOW + 10)]
    order = [5, 3, 900, 4, 901, 0, WINDOW - 1]
    for number in order:
        assert opened(receiver, sent[number]) == plain(number)
    for number in order:
        assert opened(receiver, sent[number]) == "it was received before"
    assert opened(receiver, sent[WINDOW + 9]) == plain(WINDOW + 9)
    assert opened(receiver, sent[9]) == "it was received before", "beyond the window"
    assert opened(receiver, sent[10]) == plain(10), "just within it"


def test_an_older_life_is_a_repetition() -> None:
    """Once a new life of a sender was heard, nothing that was sealed in an older one opens."""
    receiver = Sealer(CLUSTER, [OLD])
    first, second = Sealer(CLUSTER, [OLD]), Sealer(CLUSTER, [OLD])
    late = first.seal(plain(life=7), SALT)
    assert opened(receiver, second.seal(plain(life=8), SALT)) == plain(life=8)
    assert opened(receiver, late) == "it was received before"


def test_keys_rotate_without_a_pause() -> None:
    """Beside, first, alone: in every step of a rotation each node opens what each other sends."""
    a, b = Sealer(CLUSTER, [OLD]), Sealer(CLUSTER, [OLD])
    steps = ([OLD, BESIDE], [GossipKey(1, OLD.material), NEW], [NEW])
    for ring in steps:
        for changing, other in ((a, b), (b, a)):
            changing.set_keyring(ring)
            assert opened(other, changing.seal(plain(name="x"), SALT)) == plain(name="x")
            assert opened(changing, other.seal(plain(name="y"), SALT)) == plain(name="y")
    stale = Sealer(CLUSTER, [OLD])
    assert opened(a, stale.seal(plain(name="z"), SALT)) == (
        "sealed with key 1, which is not in the keyring"
    )


def test_who_was_away_is_answered_with_its_own_key() -> None:
    """A node that does not know the new key yet is understood, and understands the answers."""
    away, there = Sealer(CLUSTER, [OLD]), Sealer(CLUSTER, [NEW, GossipKey(1, OLD.material)])
    asked = there.open(away.seal(plain(name="x"), SALT))
    assert isinstance(asked, Opened)
    assert asked.primary == 1
    assert opened(away, there.seal(plain(name="y"), SALT, asked.primary)) == plain(name="y")
    assert opened(away, there.seal(plain(name="y"), SALT)).endswith("not in the keyring")  # type: ignore[arg-type]
    away.set_keyring([NEW, GossipKey(1, OLD.material)])
    asked = there.open(away.seal(plain(name="x"), SALT))
    assert isinstance(asked, Opened)
    assert asked.primary == 2
    there.set_keyring([NEW])
    answer = there.seal(plain(name="y"), SALT, 1)
    assert opened(away, answer) == plain(name="y"), "a key that is gone is not used again"


@pytest.mark.parametrize(
    "ring",
    [
        [],
        [BESIDE],
        [OLD, NEW],
        [OLD, GossipKey(1, bytes(32))],
        [GossipKey(1, bytes(16), primary=True)],
        [GossipKey(256, bytes(32), primary=True)],
        [OLD, *(GossipKey(2 + n, bytes(32)) for n in range(KEYS_MAX))],
    ],
    ids=["empty", "no primary", "two primaries", "one id twice", "short", "id", "too many"],
)
def test_a_malformed_keyring_is_refused(ring: list[GossipKey]) -> None:
    """It is refused by what is wrong with it, and the earlier one stays."""
    sealer = Sealer(CLUSTER, [OLD])
    with pytest.raises(InvalidRequest, match="key"):
        sealer.set_keyring(ring)
    assert opened(Sealer(CLUSTER, [OLD]), sealer.seal(plain(), SALT)) == plain()
