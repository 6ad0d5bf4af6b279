"""How does the rest of the node use gossip? `Discovery` of `node.ports`, on its own thread.

Gossip must answer within a tenth of a second whatever the daemon's event loop does, so it has its
own thread and loop. What crosses over is immutable: commands go in by `call_soon_threadsafe`, views
and findings come out as whole values. Everything here is called from the daemon's loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from dray.addresses import HostPort
from dray.errors import DrayError, InternalError
from dray.log import Logger
from dray.model import (
    FactView,
    FaultKind,
    GossipKey,
    MemberState,
    ServiceFacts,
    ServiceKey,
    WitnessEvidence,
)
from dray.names import NodeId
from node.gossip import sockets
from node.gossip.core import (
    Address,
    Core,
    Effect,
    Event,
    EvidenceChanged,
    FactRefused,
    Join,
    Leave,
    MemberChanged,
    PublishFact,
    Remove,
    ViewChanged,
)
from node.gossip.driver import Driver, Traffic
from node.gossip.facts import FactStore
from node.gossip.identity import Identity
from node.gossip.packing import pack_service, service_fact_name
from node.gossip.parameters import Parameters
from node.gossip.sealing import Sealer
from node.gossip.swim import SwimCore
from node.gossip.view_file import read_addresses, write_addresses
from node.gossip.wire import Malformed

__all__ = ["GossipConfig", "GossipService"]

REFRESH_S: Final = 1.0  # ages in views and evidence are at most this old
LATENESS_KEPT: Final = 60  # refreshes whose greatest lateness is remembered: a minute
SAVE_S: Final = 10.0  # addresses of the others are written this often, when they changed
SPREAD_S: Final = 1.0  # the longest that `withdrawn` and `leave` wait
LOOK_AGAIN_S: Final = 0.05
COMMANDS_MAX: Final = 4_096  # given before gossip runs
# How long a thread of Python keeps the lock that gossip waits for: with 4 threads that burn it, a
# fifth of the default makes gossip a quarter as late (`python -m benchmarks.gossip thread`).
SWITCH_S: Final = 0.001
SEQUENCES_APART: Final = 1_000_000  # from one core's views to those of the next

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GossipConfig:
    """How gossip of one daemon's life is set up.

    Attributes:
        identity: Who the node is; its address is bound by UDP and TCP.
        parameters: The same on all nodes.
        addresses_path: Where the others' addresses survive a restart; None: they do not.
    """

    identity: Identity
    parameters: Parameters = dataclasses.field(default_factory=Parameters)
    addresses_path: Path | None = None


@dataclass(frozen=True, slots=True)
class _Findings:
    """Evidence and faults as they were at one time."""

    at_s: float = 0.0
    evidence: tuple[WitnessEvidence, ...] = ()
    faults: tuple[tuple[FaultKind, str], ...] = ()
    counted: dict[str, int] = dataclasses.field(default_factory=dict)


class GossipService:
    """One node's gossip. Make it once a life: a second one would seal with used numbers."""

    def __init__(
        self,
        config: GossipConfig,
        *,
        rng: random.Random,
        log: Logger,
        keys: Iterable[GossipKey] = (),
    ) -> None:
        """Set gossip up; `run` starts it.

        Args:
            config: Who and where.
            rng: Seeds the core's own generator.
            log: Gets a line for each member that dies or returns.
            keys: The keyring, if it is known. Without one `run` waits for `set_keyring`, but at a
                loopback address, where it does not seal.

        Raises:
            InvalidRequest: The keyring is malformed.
        """
        self._config = config
        self._rng = rng
        self._log = log
        self._sealer: Sealer | None = None
        view: FactView = FactStore().view()
        self._view = self._announced = view
        self._findings = _Findings()
        self._evidence_number = 0
        self._late_s: deque[float] = deque(maxlen=LATENESS_KEPT)
        self._published: dict[str, bytes] = {}
        self._seeds: tuple[Address, ...] = ()
        self._removed: tuple[NodeId, ...] = ()
        self._changed = asyncio.Event()
        self._is_told = False
        self._has_keys = asyncio.Event()
        self._home: asyncio.AbstractEventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._driver: Driver | None = None
        self._core: Core | None = None
        self._stop: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._runs = 0
        self.traffic = Traffic()
        keyring = tuple(keys)
        if keyring:
            self.set_keyring(keyring)

    # ---- Discovery: reading

    def view(self) -> FactView:
        """Return the newest view; times of contact in it are at most a second old."""
        return self._view

    async def wait_view(self, after_sequence: int) -> FactView:
        """Return a view with a higher sequence, once facts or states of members have changed."""
        while self._announced.sequence <= after_sequence:
            await self._changed.wait()
        return self._announced

    def evidence(self) -> tuple[WitnessEvidence, ...]:
        """Return what this node's own probes found, with the ages of now."""
        findings = self._findings
        older_s = max(0.0, time.monotonic() - findings.at_s)
        return tuple(
            dataclasses.replace(
                one,
                since_s=one.since_s + older_s,
                last_contact_s=None if one.last_contact_s is None else one.last_contact_s + older_s,
            )
            for one in findings.evidence
        )

    async def wait_evidence(self, after: int) -> int:
        """Return the number of the newest change of `evidence`, once it is above `after`."""
        while self._evidence_number <= after:
            await self._changed.wait()
        return self._evidence_number

    def faults(self) -> tuple[tuple[FaultKind, str], ...]:
        """Return what gossip finds wrong with this node, at most a second old."""
        return self._findings.faults

    def counted(self) -> dict[str, int]:
        """Return what was counted since gossip last started, by name; for metrics."""
        return self._findings.counted

    def lateness_s(self) -> float:
        """Return how late gossip's loop ran at worst in the last minute."""
        return max(self.latenesses_s(), default=0.0)

    def latenesses_s(self) -> tuple[float, ...]:
        """Return how late it ran at worst in each second of the last minute, oldest first."""
        return tuple(self._late_s.copy())

    def states(self) -> Mapping[MemberState, int]:
        """Return how many members, this node included, are held to be in each state."""
        return Counter(member.state for member in self._view.members())

    # ---- Discovery: commands

    def publish_service(self, service: ServiceKey, facts: ServiceFacts | None) -> None:
        """Publish what this node runs of a service; None: nothing any more.

        What cannot be packed (too many endpoints) is logged, and the earlier value stands.
        """
        name = service_fact_name(service)
        value = None if facts is None else pack_service(facts)
        if isinstance(value, Malformed):
            self._log.error("service not published", service=name, reason=value.reason)
            return
        self.publish(name, value)

    def publish(self, name: str, value: bytes | None) -> None:
        """Publish another fact of this node; None withdraws it."""
        if value is None:
            self._published.pop(name, None)
        else:
            assert len(self._published) < COMMANDS_MAX, "a node publishes few facts"
            self._published[name] = value
        self._command(PublishFact(name, value))

    def set_keyring(self, keys: Iterable[GossipKey]) -> None:
        """Seal with the primary one of these keys from now on, and open with all of them.

        Raises:
            InvalidRequest: The keyring is malformed; the earlier one stays.
        """
        keyring = tuple(keys)
        if self._sealer is None:
            self._sealer = Sealer(self._config.identity.cluster_id, keyring)
        elif self._loop is None:
            self._sealer.set_keyring(keyring)
        else:
            Sealer(self._config.identity.cluster_id, keyring)  # checks it, in this thread
            self._loop.call_soon_threadsafe(self._sealer.set_keyring, keyring)
        self._has_keys.set()

    def join(self, seeds: Iterable[HostPort]) -> None:
        """Join gossip by these members' addresses; repeated until one answers."""
        self._seeds = tuple(Address(seed.host, seed.port) for seed in seeds)
        self._command(Join(self._seeds))

    def remove(self, node_ids: Iterable[NodeId]) -> None:
        """Forget nodes that an operator removed for good; no life of them comes back."""
        node_ids = tuple(node_ids)
        self._removed = (*self._removed, *node_ids)[-COMMANDS_MAX:]
        self._command(Remove(node_ids))

    async def withdrawn(self, service: ServiceKey) -> None:
        """Return when what was published of a service has had time to spread, in at most 1 s."""
        await self._spread(service_fact_name(service))

    async def leave(self) -> None:
        """Tell the peers that this node leaves, wait until they were told, and stop."""
        if self._loop is None:
            return
        self._command(Leave())
        await self._spread("")
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    # ---- running

    async def run(self) -> None:
        """Gossip until `leave`, or until cancelled (then without a word to anybody).

        Raises:
            DrayError: The address cannot be bound; retryable.
            InternalError: A bug in the gossip thread; a new run starts from what was published.
        """
        self._home = asyncio.get_running_loop()
        if not sockets.is_loopback(self._config.identity.address.host):
            await self._has_keys.wait()
        self._failure = None
        stop = self._stop = asyncio.Event()
        pool = ThreadPoolExecutor(1, "gossip")
        ended = self._home.run_in_executor(pool, self._main, stop)
        pool.shutdown(wait=False)  # it takes no more work; its thread goes with this one
        try:
            await asyncio.shield(ended)
        finally:
            while not ended.done():  # also when it had not yet begun
                if self._loop is not None:
                    self._loop.call_soon_threadsafe(stop.set)
                await asyncio.wait([ended], timeout=LOOK_AGAIN_S)

    def _main(self, stop: asyncio.Event) -> None:
        """Run the thread: a loop of its own."""
        sockets.raise_priority(is_alone=False)
        sys.setswitchinterval(SWITCH_S)  # for the whole process
        asyncio.run(self._drive(stop))

    async def _drive(self, stop: asyncio.Event) -> None:
        config = self._config
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_bug)
        seeds = await asyncio.to_thread(self._saved_addresses)
        self._runs += 1
        rng = random.Random(self._rng.random())
        first = self._runs * SEQUENCES_APART + self._announced.sequence
        self._core = SwimCore(config.identity, config.parameters, rng, first)
        bound = sockets.bind(config.identity.address, is_sealed=self._sealer is not None)
        try:
            self._driver = Driver(self._core, bound, self._tell, self._sealer)
        except DrayError:
            bound.close()
            raise
        self.traffic = self._driver.traffic
        self._loop = loop  # from now on commands come by themselves, after what is repeated here
        self._driver.handle(Join((*self._seeds, *seeds)))
        self._driver.handle(Remove(self._removed))
        for name, value in self._published.copy().items():
            self._driver.handle(PublishFact(name, value))
        try:
            async with asyncio.TaskGroup() as group:
                refresh = group.create_task(self._refresh())
                await stop.wait()
                refresh.cancel()
        finally:
            self._loop = None
            await self._driver.close()
            self._driver = None
        if self._failure is not None:
            raise self._failure

    async def _refresh(self) -> None:
        """Hand over what has aged, and save the others' addresses now and then."""
        saved: tuple[Address, ...] = ()
        save_at_s = 0.0
        while True:
            self._hand_over()
            self._late_s.append(self.traffic.take_late_s())
            await asyncio.sleep(REFRESH_S)
            if self._config.addresses_path is not None and time.monotonic() >= save_at_s:
                addresses = self._present_addresses()
                if addresses not in (saved, ()):
                    save_at_s = time.monotonic() + SAVE_S
                    await asyncio.to_thread(self._save, self._config.addresses_path, addresses)
                    saved = addresses

    def _present_addresses(self) -> tuple[Address, ...]:
        assert self._core is not None, "it is made before anything is refreshed"
        me = self._config.identity.node_id
        return tuple(
            Address(member.address, member.gossip_port)
            for member in self._core.view().members()
            if member.state is MemberState.ALIVE and member.node_id != me
        )

    def _saved_addresses(self) -> tuple[Address, ...]:
        path = self._config.addresses_path
        return () if path is None else read_addresses(path, self._config.identity.cluster_id)

    def _save(self, path: Path, addresses: tuple[Address, ...]) -> None:
        try:
            write_addresses(path, self._config.identity.cluster_id, addresses)
        except DrayError as error:
            self._log.warning("addresses of peers not saved", error=error.message)

    # ---- in the gossip thread

    def _tell(self, effect: Effect) -> None:
        """Take news from the core."""
        if isinstance(effect, ViewChanged | EvidenceChanged):
            self._hand_over(effect)
        elif isinstance(effect, FactRefused):
            self._log.error("fact not published", field=effect.name, reason=effect.reason)
        elif isinstance(effect, MemberChanged):
            before = effect.before.state.name if effect.before is not None else "unknown"
            self._log.info(
                "member changed",
                node=effect.after.name,
                node_id=effect.after.node_id,
                life=effect.after.life,
                reason=f"{before} -> {effect.after.state.name}",
            )

    def _hand_over(self, effect: ViewChanged | EvidenceChanged | None = None) -> None:
        """Put new values where the daemon's loop reads them, and wake who waits for them."""
        assert self._core is not None, "only a core has news"
        assert self._home is not None, "it runs, so somebody runs it"
        view: FactView = self._core.view()
        self._view = view
        if isinstance(effect, ViewChanged):
            self._announced = view
        else:
            now_s = time.monotonic()
            self._findings = _Findings(
                now_s,
                self._core.evidence(now_s),
                self._core.faults(now_s),
                {**self._core.counted(), **self.traffic.counted()},
            )
        if isinstance(effect, EvidenceChanged):
            self._evidence_number += 1
        if effect is not None and not self._is_told:
            self._is_told = True
            self._home.call_soon_threadsafe(self._wake)

    def _on_bug(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Take a callback's exception: the run ends, and the supervisor starts another."""
        error = context.get("exception")
        if self._failure is None:
            text = str(context.get("message"))
            self._failure = error if isinstance(error, BaseException) else InternalError(text)
        if self._stop is not None:
            self._stop.set()

    # ---- inside, in the daemon's loop

    def _wake(self) -> None:
        self._is_told = False
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _command(self, event: Event) -> None:
        """Give the core a command, if it runs; a start repeats what still holds."""
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._handle, event)

    def _handle(self, event: Event) -> None:
        if self._driver is not None:
            self._driver.handle(event)

    async def _spread(self, name: str) -> None:
        end_s = time.monotonic() + SPREAD_S
        while self._loop is not None and time.monotonic() < end_s:
            if not await self._asked(lambda core: core.is_spreading(name)):
                return
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _asked(self, question: Callable[[Core], T]) -> T | None:
        """Return what the core answers in its own thread; None when it stops meanwhile."""
        loop, core = self._loop, self._core
        if loop is None or core is None:
            return None

        async def ask() -> T:
            return question(core)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ask(), loop))
