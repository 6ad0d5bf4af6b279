"""How do gossip cores run in a world? The adapter, and a cluster of them."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Callable, Hashable
from typing import TypeAlias

from dray.model import FactView, ReachKind
from dray.names import ClusterId, NodeId, id_text
from node.gossip.core import (
    Address,
    AnswerStream,
    ArmTimer,
    Core,
    DatagramReceived,
    Effect,
    Event,
    EvidenceChanged,
    FactRefused,
    Join,
    MemberChanged,
    OpenStream,
    ProbeReach,
    ReachProbed,
    SendDatagram,
    StreamReceived,
    TimerFired,
    TimerKey,
    ViewChanged,
)
from node.gossip.identity import Identity
from node.gossip.parameters import Parameters
from node.gossip.swim import SwimCore
from tests.simulation.world import Action, Arm, Connect, Note, Outcome, Reply, Send, World

__all__ = ["CLUSTER_ID", "PORT", "GossipCluster", "GossipMachine", "MakeCore", "node_id_of"]

PORT = 7946
EFFECTS_KEPT = 10_000
CLUSTER_ID = ClusterId(id_text(bytes(range(16))))

REACHES = {
    Outcome.ANSWERED: ReachKind.ANSWERED,
    Outcome.SILENT: ReachKind.SILENT,
    Outcome.REFUSED: ReachKind.REFUSED,
    Outcome.ACCEPTED: ReachKind.ACCEPTED,
}

MakeCore: TypeAlias = Callable[[Identity, random.Random], Core]


def node_id_of(name: str) -> NodeId:
    """Return the id of the simulated node of this name: made of it, spread over all buckets."""
    return NodeId(id_text(hashlib.sha256(name.encode()).digest()[:16]))


class GossipMachine:
    """A core as a machine of a world: addresses as text, effects as actions."""

    def __init__(self, core: Core, seen: Callable[[list[Effect]], None]) -> None:
        self.core = core
        self._seen = seen
        self._streams = 0

    def start(self, now_s: float) -> list[Action]:
        """Start the core."""
        return self._actions(self.core.start(now_s))

    def receive(self, source: str, data: bytes, now_s: float) -> list[Action]:
        """Hand a datagram to the core."""
        return self.command(DatagramReceived(Address(source, PORT), data), now_s)

    def fire(self, key: Hashable, generation: int, lateness_s: float, now_s: float) -> list[Action]:
        """Hand a timer to the core."""
        assert isinstance(key, TimerKey)
        return self.command(TimerFired(key, generation, lateness_s), now_s)

    def command(self, event: Event, now_s: float) -> list[Action]:
        """Hand any event to the core."""
        return self._actions(self.core.handle(event, now_s))

    def request(self, source: str, data: bytes, now_s: float) -> list[Action]:
        """Hand what came on a stream to the core."""
        self._streams += 1
        event = StreamReceived(Address(source, PORT), -self._streams, data)
        return self.command(event, now_s)

    def connected(
        self, to: str, tag: Hashable, outcome: Outcome, data: bytes, now_s: float
    ) -> list[Action]:
        """Tell the core how a connection of its own ended."""
        if isinstance(tag, int):
            if outcome is not Outcome.ANSWERED:
                return []
            return self.command(StreamReceived(Address(to, PORT), tag, data), now_s)
        assert isinstance(tag, str)
        return self.command(ReachProbed(NodeId(tag), REACHES[outcome], data), now_s)

    def _actions(self, effects: list[Effect]) -> list[Action]:
        self._seen(effects)
        actions: list[Action] = []
        for effect in effects:
            match effect:
                case SendDatagram():
                    actions.append(Send(effect.to.host, effect.data))
                case ArmTimer():
                    actions.append(Arm(effect.key, effect.generation, effect.at_s))
                case OpenStream():
                    host, tag = effect.to.host, effect.stream_id
                    actions.append(Connect(host, effect.data, tag, effect.deadline_s))
                case ProbeReach():
                    host, target = effect.to.host, effect.target
                    actions.append(Connect(host, effect.data, target, effect.deadline_s))
                case AnswerStream():
                    actions.append(Reply(effect.data))
                case MemberChanged() | ViewChanged() | FactRefused() | EvidenceChanged():
                    actions.append(Note(effect))
        return actions


class GossipCluster:
    """Nodes of one cluster in a world, named a, b, c …; each knows the first one as its seed.

    So the first one, restarted, knows nobody: it has to be found by those who hold it dead.
    """

    def __init__(
        self,
        seed: int,
        parameters: Parameters | None = None,
        make: MakeCore | None = None,
        *,
        is_traced: bool = True,
    ) -> None:
        self.world = World(seed, is_traced=is_traced)
        self.seed = seed
        self._make = make or (lambda i, rng: SwimCore(i, parameters or Parameters(), rng))
        self.effects: deque[list[Effect]] = deque(maxlen=EFFECTS_KEPT)
        self._hosts: dict[str, str] = {}
        self._lives: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        """Every node that was ever started."""
        return sorted(self._hosts)

    def host(self, name: str) -> str:
        """Return a node's address in the world."""
        return self._hosts[name]

    def start(self, name: str, *, is_joining: bool = True) -> None:
        """Start a node for the first time, or again with a new life; it joins by the seeds."""
        if name not in self._hosts:
            self._hosts[name] = f"127.1.{len(self._hosts) // 250}.{len(self._hosts) % 250 + 1}"
        life = self._lives[name] = self._lives.get(name, 1_000) + 1
        address = Address(self._hosts[name], PORT)
        identity = Identity(CLUSTER_ID, node_id_of(name), name, address, life)
        rng = random.Random(f"{self.seed}/{name}/{life}")
        self.world.add(self._hosts[name], GossipMachine(self._make(identity, rng), self._remember))
        seeds = tuple(Address(host, PORT) for host in list(self._hosts.values())[:1])
        if is_joining:
            self.command(name, Join(seeds))

    def start_at(self, host: str) -> None:
        """Start the node at this address again."""
        self.start(next(name for name, at in self._hosts.items() if at == host))

    def command(self, name: str, event: Event) -> None:
        """Give a node an event."""
        machine = self.world.machine(self._hosts[name])
        assert isinstance(machine, GossipMachine), f"{name} does not run"
        self.world.act(self._hosts[name], lambda now_s: machine.command(event, now_s))

    def core(self, name: str) -> Core:
        """Return the core of a node that runs."""
        machine = self.world.machine(self._hosts[name])
        assert isinstance(machine, GossipMachine), f"{name} does not run"
        return machine.core

    def view(self, name: str) -> FactView:
        """Return what a node that runs knows."""
        return self.core(name).view()

    def sizes(self, name: str) -> dict[str, tuple[int, int]]:
        """Return how large the parts of a node's state are, and may become."""
        return self.core(name).sizes()

    def _remember(self, effects: list[Effect]) -> None:
        if effects:
            self.effects.append(effects)

    def running(self) -> list[str]:
        """Return the nodes that run."""
        return [name for name in self.names if self.world.is_running(self._hosts[name])]

    def life(self, name: str) -> int:
        """Return the newest life of a node."""
        return self._lives[name]
