"""What do hostile datagrams and messages do to a sealed core? A fuzzer, by seed.

Real traffic of a small world is cut, flipped, padded, repeated, sealed with another key, for
another cluster, or is nothing but noise: none of it may open. What an *insider* sends, sealed with
the cluster's key around damaged contents, opens, and may be believed; it must raise nothing, grow
nothing beyond its limit and take little memory at any moment.
"""

from __future__ import annotations

import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Final

from dray.model import GossipKey, MemberState
from dray.names import ClusterId, id_text
from node.gossip.core import (
    DATAGRAM_BYTES_MAX,
    STREAM_MESSAGE_BYTES_MAX,
    Address,
    AnswerStream,
    DatagramReceived,
    Effect,
    OpenStream,
    SendDatagram,
    StreamReceived,
)
from node.gossip.identity import Identity
from node.gossip.parameters import Parameters
from node.gossip.sealing import SALT_BYTES, Opened, Sealer
from node.gossip.swim import SwimCore
from tests.simulation.gossip_cluster import CLUSTER_ID, PORT, GossipCluster, node_id_of
from tests.simulation.test_seeds import publication
from tests.simulation.world import LinkQuality

__all__ = ["ALLOCATED_MAX_BYTES", "fuzz"]

KEY: Final = GossipKey(1, bytes(range(32)), primary=True)
OTHER_KEY: Final = GossipKey(1, bytes(32), primary=True)
OTHER_CLUSTER: Final = ClusterId(id_text(bytes(15) + b"\x01"))
SOURCE: Final = Address("127.0.0.9", PORT)
NOISE_BYTES_MAX: Final = 65_507  # the largest payload of UDP
# A message of a stream has at most 1 MiB; decoding it may cost several times that for a moment.
ALLOCATED_MAX_BYTES: Final = 32 * 2**20
WORLD_S: Final = 12.0


class _Inputs:
    """Draws inputs: (kind, sealed bytes, whether it is a stream's)."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._plain = _traffic()
        self._good = Sealer(CLUSTER_ID, [KEY])
        self._wrong = Sealer(CLUSTER_ID, [OTHER_KEY])
        self._foreign = Sealer(OTHER_CLUSTER, [KEY])
        self._sent = [self._seal(self._good, plain) for plain in self._plain]
        self._kinds: dict[str, Callable[[], bytes]] = {
            "random": self._random,
            "truncated": lambda: self._cut(self._fresh()),
            "bit-flipped": lambda: self._flip(self._fresh()),
            "oversized": lambda: self._fresh() + self._noise(NOISE_BYTES_MAX - 2_000),
            "replayed": lambda: rng.choice(self._sent),
            "wrong key": lambda: self._seal(self._wrong, rng.choice(self._plain)),
            "wrong cluster": lambda: self._seal(self._foreign, rng.choice(self._plain)),
            "insider": self._insider,
        }

    def seen(self) -> list[bytes]:
        """Return what the receiver has taken before it all begins."""
        return self._sent

    def draw(self) -> tuple[str, bytes, bool]:
        """Return the next input."""
        kind = self._rng.choice(list(self._kinds))
        return kind, self._kinds[kind](), self._rng.random() < 0.3

    def _seal(self, sealer: Sealer, plain: bytes) -> bytes:
        return sealer.seal(plain, self._rng.randbytes(SALT_BYTES))

    def _fresh(self) -> bytes:
        return self._seal(self._good, self._rng.choice(self._plain))

    def _noise(self, bytes_max: int) -> bytes:
        return self._rng.randbytes(self._rng.randrange(1, bytes_max))

    def _random(self) -> bytes:
        noise = self._noise(self._rng.choice((100, 1_300, NOISE_BYTES_MAX)))
        begin = self._rng.choice(self._sent)[: self._rng.randrange(60)]
        return begin + noise

    def _cut(self, data: bytes) -> bytes:
        return data[: self._rng.randrange(len(data))]

    def _flip(self, data: bytes) -> bytes:
        damaged = bytearray(data)
        for _ in range(self._rng.randrange(1, 4)):
            damaged[self._rng.randrange(len(damaged))] ^= 1 << self._rng.randrange(8)
        # Two flips of one bit make the message whole again: it would rightly open.
        return bytes(damaged) if bytes(damaged) != data else data[:-1]

    def _insider(self) -> bytes:
        rng = self._rng
        plain = bytearray(rng.choice(self._plain))
        header = bytes(plain[:33])
        how = rng.randrange(4)
        if how == 0:
            del plain[rng.randrange(33, len(plain)) :]
        elif how == 1:
            for _ in range(rng.randrange(1, 5)):
                plain[rng.randrange(33, len(plain))] = rng.randrange(256)
        elif how == 2:
            plain += rng.randbytes(rng.randrange(1, 70_000))
        else:  # endless items: the same rumours and pieces over and over
            plain += bytes(plain[rng.randrange(33, len(plain)) :]) * rng.randrange(1, 4_000)
        return self._seal(self._good, header + bytes(plain[33:STREAM_MESSAGE_BYTES_MAX]))


def _traffic() -> list[bytes]:
    """Return everything that a small world with bad links says, messages of streams included."""
    cluster = GossipCluster(7)
    cluster.world.recorded = []
    names = "abcdef"
    for name in names:
        cluster.start(name)
    for number, name in enumerate(names):
        cluster.command(name, publication(name, "web", number + 1))
    cluster.world.quality = LinkQuality(0.2, 0.1, 0.0, 0.05)
    cluster.world.run_for(WORLD_S)
    streams = [
        effect.data
        for effects in cluster.effects
        for effect in effects
        if isinstance(effect, OpenStream | AnswerStream)
    ]
    return sorted({*cluster.world.recorded, *streams})


def fuzz(count: int, seed: int = 1) -> dict[str, object]:
    """Give a core so many hostile inputs; return what came of them.

    An exception that escapes from the core, or a limit that does not hold, ends the run.
    """
    rng = random.Random(seed)
    inputs, receiver = _Inputs(rng), Sealer(CLUSTER_ID, [KEY])
    for sealed in inputs.seen():
        receiver.open(sealed)
    identity = Identity(CLUSTER_ID, node_id_of("x"), "x", Address("127.0.0.8", PORT), 5)
    core = SwimCore(identity, Parameters(), rng)
    core.start(0.0)
    opened, given = Counter[str](), Counter[str]()
    peak_bytes, now_s, begin_s = 0, 1.0, time.process_time()
    tracemalloc.start()
    try:
        for number in range(count):
            kind, sealed, is_stream = inputs.draw()
            now_s += rng.random() * 0.01
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            found = receiver.open(sealed)
            given[kind] += 1
            if isinstance(found, Opened):
                opened[kind] += 1
                _check(core.handle(_event(found.plain, number, is_stream=is_stream), now_s), core)
            _, peak = tracemalloc.get_traced_memory()
            peak_bytes = max(peak_bytes, peak - before)
    finally:
        tracemalloc.stop()
    assert set(opened) <= {"insider"}, f"opened what should not: {opened}"
    assert peak_bytes <= ALLOCATED_MAX_BYTES, f"{peak_bytes} bytes for one input"
    me = core.view().member(identity.node_id)
    assert me is not None
    assert me.state is MemberState.ALIVE
    return {
        "inputs": dict(sorted(given.items())),
        "opened": dict(opened),
        "allocated_kib_max": round(peak_bytes / 1_024),
        "junk": core.counted()["junk"],
        "cpu_seconds": round(time.process_time() - begin_s, 1),
    }


def _event(plain: bytes, number: int, *, is_stream: bool) -> DatagramReceived | StreamReceived:
    return (
        StreamReceived(SOURCE, -number - 1, plain) if is_stream else DatagramReceived(SOURCE, plain)
    )


def _check(effects: list[Effect], core: SwimCore) -> None:
    """Fail when an answer is too large, or a part of the state is beyond its limit."""
    for effect in effects:
        if isinstance(effect, SendDatagram):
            assert len(effect.data) <= DATAGRAM_BYTES_MAX
        elif isinstance(effect, AnswerStream):
            assert len(effect.data) <= STREAM_MESSAGE_BYTES_MAX
    for part, (size, size_max) in core.sizes().items():
        assert size <= size_max, f"{size} {part}, {size_max} are the most"
