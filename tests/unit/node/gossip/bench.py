"""How is a core driven by hand, without a network? A bench with a clock and its newest timers."""

from __future__ import annotations

import random
from collections.abc import Callable

from dray.model import Member, MemberState, ReachKind
from dray.names import ClusterId, NodeId, id_text
from node.gossip.core import (
    Address,
    ArmTimer,
    DatagramReceived,
    Effect,
    PublishFact,
    ReachProbed,
    SendDatagram,
    TimerFired,
    TimerKey,
)
from node.gossip.datagrams import decode, encode, encode_rumour
from node.gossip.identity import Identity
from node.gossip.members import Rumour
from node.gossip.messages import (
    Datagram,
    Gossip,
    Message,
    Ping,
    Sender,
    cluster_tag,
)
from node.gossip.parameters import Parameters
from node.gossip.swim import SwimCore
from tests.contract.facts.builders import node_id

CLUSTER = ClusterId(id_text(bytes(16)))
# Probes are rare, so that a test decides what happens meanwhile.
PARAMETERS = Parameters(probe_period_s=30.0, tombstone_keep_s=20.0, gone_keep_s=30.0)
ME = Sender(node_id("me"), 10, 0, "me", Address("127.0.0.1", 1))


def sender(name: str, port: int = 2, *, life: int = 1, incarnation: int = 0) -> Sender:
    """Return another node."""
    return Sender(node_id(name), life, incarnation, name, Address("127.0.0.1", port))


def datagram(by: Sender, message: Message, *items: bytes, digest: int = 0) -> DatagramReceived:
    """Return the event of a datagram from another node."""
    data = encode(cluster_tag(CLUSTER), by, digest, message, items)
    return DatagramReceived(by.address, data)


class Bench:
    """A started core, its clock, and its newest timers."""

    def __init__(self, parameters: Parameters = PARAMETERS) -> None:
        identity = Identity(CLUSTER, ME.node_id, ME.name, ME.address, ME.life)
        self.core = SwimCore(identity, parameters, random.Random(1))
        self.now_s = 100.0
        self.timers: dict[TimerKey, ArmTimer] = {}
        self.told: list[Effect] = []
        self._take(self.core.start(self.now_s))

    def _take(self, effects: list[Effect]) -> list[tuple[Address, Datagram]]:
        sent = []
        for effect in effects:
            if isinstance(effect, ArmTimer):
                self.timers[effect.key] = effect
            elif isinstance(effect, SendDatagram):
                decoded = decode(effect.data)
                assert isinstance(decoded, Datagram)
                sent.append((effect.to, decoded))
            else:
                self.told.append(effect)
        return sent

    def hear(
        self, by: Sender, message: Message, *items: bytes, digest: int | None = None
    ) -> list[tuple[Address, Datagram]]:
        """Give the core a datagram; return what it sends. The digest agrees unless given."""
        event = datagram(by, message, *items, digest=digest or 0)
        return self._take(self.core.handle(event, self.now_s))

    def fire(
        self, kind: str, about: NodeId | str = "", *, late_s: float = 0.0
    ) -> list[tuple[Address, Datagram]]:
        """Let time pass until a timer is due (and `late_s` more), and fire it."""
        timer = self.timers.pop(TimerKey(kind, about))
        self.now_s = max(self.now_s, timer.at_s) + late_s
        return self._take(
            self.core.handle(TimerFired(timer.key, timer.generation, late_s), self.now_s)
        )

    def reach(self, name: str, kind: ReachKind, data: bytes = b"") -> None:
        """Let a member's kernel answer."""
        event = ReachProbed(node_id(name), kind, data)
        self._take(self.core.handle(event, self.now_s))

    def until(self, kind: str, about: NodeId | str, is_done: Callable[[], bool]) -> None:
        """Fire a timer as often as it is armed, until a condition holds."""
        for _ in range(50):
            if is_done():
                return
            self.fire(kind, about)
        raise AssertionError("it never held")

    def publish(self, name: str, value: bytes | None) -> None:
        """Publish a fact of its own."""
        self._take(self.core.handle(PublishFact(name, value), self.now_s))

    def member(self, name: str) -> Member:
        """Return what it knows of a member."""
        found = self.core.view().member(node_id(name))
        assert found is not None
        return found

    def state(self, name: str) -> MemberState:
        """Return what it holds a member to be."""
        return self.member(name).state


def rumour(by: Sender, state: MemberState, *, incarnation: int | None = None) -> bytes:
    """Return a rumour about a node, at its incarnation unless given."""
    at = by.incarnation if incarnation is None else incarnation
    is_alive = state is MemberState.ALIVE
    return encode_rumour(
        Rumour(
            by.node_id,
            by.life,
            at,
            state,
            by.name if is_alive else "",
            by.address if is_alive else None,
        )
    )


A, B, C = sender("a", 2), sender("b", 3), sender("c", 4)


def probe_of(bench: Bench) -> Ping:
    """Let the core probe somebody; return the ping."""
    (_, sent), *_ = bench.fire("probe")
    assert isinstance(sent.message, Ping)
    return sent.message


def suspected(bench: Bench) -> None:
    """Bring the core to suspect a."""
    bench.hear(A, Gossip())
    probe_of(bench)
    bench.fire("ask", A.node_id)
    bench.fire("verdict", A.node_id)
    assert bench.state("a") is MemberState.SUSPECT


def buried(bench: Bench, name: str = "a") -> int:
    """Let the time of a suspect pass; return how often it was pinged before the verdict."""
    pings = 0
    while bench.state(name) is MemberState.SUSPECT:
        sent = bench.fire("suspicion", node_id(name))
        pings += sum(isinstance(d.message, Ping) for _, d in sent)
        assert pings <= 20
    return pings
