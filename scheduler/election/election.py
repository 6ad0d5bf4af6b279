"""How does a scheduler take part in the election? The driver of `machine` over store and mirror.

`run(lead)` campaigns for as long as it is not cancelled, and calls `lead(term)` for every term that
is won; the call is cancelled when the term ends, and the next term waits for its end. When `run` is
cancelled the term ends first, then the lease is given back, so that another one leads at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

from dray.addresses import HostPort
from dray.clock import Clock
from dray.errors import DrayError
from dray.log import Logger
from dray.model import NO_EPOCH, Epoch, StoreRevision
from dray.names import NodeId, SchedulerId
from scheduler.election.machine import (
    Campaign,
    Complain,
    DeathProved,
    Effect,
    ElectionMachine,
    EndTerm,
    EpochMet,
    Event,
    Grant,
    LeaseEnded,
    LeaseGranted,
    LeaseRenewed,
    NotGranted,
    NotRenewed,
    NotWon,
    Parameters,
    Remember,
    Renew,
    Revoke,
    Revoked,
    Role,
    StartTerm,
    Stopping,
    StoreSeen,
    TermEnded,
    Tick,
    Won,
)
from scheduler.election.memory import EpochMemory
from scheduler.store.base import (
    Committed,
    Compare,
    CompareField,
    Conflict,
    LeaseId,
    LeaseLost,
    Put,
    Store,
    Txn,
)
from scheduler.store.codec import encode
from scheduler.store.keys import CLUSTER, LEADER, scheduler_key
from scheduler.store.mirror import Mirror
from scheduler.store.records import LeaderRecord, SchedulerRecord

__all__ = ["Candidate", "Election", "Lead", "LeaderTerm"]

EVENTS_MAX: Final = 1_000  # not yet handled; news of others beyond it is dropped, and comes again
POSITION_EVERY_S: Final = 30.0  # how far the store was seen goes to the disk so often
GIVE_BACK_S: Final = 1.5  # for giving the lease back at the end; it ends by itself otherwise
RESTORE_HINT: Final = (
    "if etcd was restored from a backup, run `dray init --restored --etcd URL` once; else name the "
    "right etcd"
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who campaigns.

    Attributes:
        scheduler_id: Its id, kept over restarts.
        address: Where nodes, users and other schedulers reach it.
        version: Its version of dray.
        node_id: Node id of its host; None: it runs on a machine that is no node.
    """

    scheduler_id: SchedulerId
    address: HostPort
    version: str
    node_id: NodeId | None = None


@dataclass(frozen=True, slots=True)
class LeaderTerm:
    """A term that this scheduler leads.

    Attributes:
        epoch: The term.
        fence: What every transaction of the leader compares.
        since_unix_s: When it was elected.
        valid_until_s: Returns until when, at least, nobody else can lead (monotonic).
    """

    epoch: Epoch
    fence: Compare
    since_unix_s: float
    valid_until_s: Callable[[], float]


Lead: TypeAlias = Callable[[LeaderTerm], Awaitable[None]]


class Election:
    """One scheduler's part in the election. Made once; `run` may be called again after it ended."""

    def __init__(
        self,
        candidate: Candidate,
        *,
        store: Store,
        mirror: Mirror,
        memory: EpochMemory,
        ttl_s: int,
        clock: Clock,
        log: Logger,
    ) -> None:
        """Describe a candidate; nothing is asked of the store before `run`.

        Args:
            candidate: Who campaigns.
            store: A client of its own, with limits in time well below the lease's.
            mirror: The store's content.
            memory: Keeps the highest epoch over restarts.
            ttl_s: How long the lease lasts without renewal.
            clock: Its clocks; the monotonic one is the event loop's.
            log: Gets a line for every change.
        """
        self._candidate = candidate
        self._store = store
        self._mirror = mirror
        self._memory = memory
        self._clock = clock
        self._log = log
        self._parameters = Parameters(candidate.scheduler_id, ttl_s)
        self._machine = self._new_machine()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._leading: asyncio.Task[None] | None = None
        self._complaint = ""

    @property
    def is_leading(self) -> bool:
        """Whether a term is led now."""
        return self._machine.role is Role.LEADING

    @property
    def complaint(self) -> str:
        """Why this scheduler may not lead, for the operator; empty: it may."""
        return self._complaint

    def prove_death(self, create_revision: StoreRevision, reason: str) -> None:
        """Tell that the leader whose key has this create revision is dead, and the proof."""
        self._offer(DeathProved(create_revision, reason))

    def meet(self, epoch: Epoch) -> None:
        """Tell that somebody has seen a leader of this epoch."""
        self._offer(EpochMet(epoch))

    def _offer(self, event: Event) -> None:
        if self._events.qsize() < EVENTS_MAX:
            self._events.put_nowait(event)

    async def run(self, lead: Lead) -> None:
        """Campaign, and lead when elected, until cancelled.

        Args:
            lead: What a leader does; cancelled when the term ends.

        Raises:
            Exception: What `lead` raised. The lease was given back.
        """
        self._machine = self._new_machine()
        self._events = asyncio.Queue()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch(), name="election watches")
                group.create_task(self._note_position(), name="election remembers")
                await self._drive(group, lead)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            await self._give_back()

    def _new_machine(self) -> ElectionMachine:
        memory = self._memory
        return ElectionMachine(self._parameters, highest=memory.highest, position=memory.position)

    async def _drive(self, group: asyncio.TaskGroup, lead: Lead) -> None:
        event: Event = Tick()
        while True:
            for effect in self._machine.handle(event, self._clock.monotonic_s()):
                await self._carry_out(effect, group, lead)
            event = await self._next_event()

    async def _next_event(self) -> Event:
        """Wait for an event, or for the time that the machine named."""
        wake_at_s = self._machine.wake_at_s
        timeout_s = None if wake_at_s is None else max(0.0, wake_at_s - self._clock.monotonic_s())
        try:
            async with asyncio.timeout(timeout_s):
                return await self._events.get()
        except TimeoutError:
            return Tick()

    async def _carry_out(self, effect: Effect, group: asyncio.TaskGroup, lead: Lead) -> None:
        match effect:
            case Grant(ttl_s):
                group.create_task(self._grant(ttl_s), name="grant lease")
            case Renew(lease):
                group.create_task(self._renew(lease), name="renew lease")
            case Campaign(lease, generation):
                group.create_task(self._campaign(lease, generation), name="campaign")
            case Revoke(lease, reason):
                group.create_task(self._revoke(lease, reason), name="revoke lease")
            case StartTerm(epoch):
                self._log.info("leading", epoch=_shown(epoch))
                self._leading = group.create_task(self._lead(lead, epoch), name="lead")
            case EndTerm(reason):
                self._log.warning("leading no longer", reason=reason)
                if self._leading is not None:
                    self._leading.cancel()
            case Remember(epoch):
                await self._remember(epoch)
            case Complain(message):
                self._complain(message)
            case _:
                assert_never(effect)

    async def _lead(self, lead: Lead, epoch: Epoch) -> None:
        """Do what a leader does, and tell when it has ended."""
        machine = self._machine
        term = LeaderTerm(
            epoch,
            Compare(LEADER, CompareField.CREATE_REVISION, StoreRevision(epoch.create_revision)),
            self._clock.unix_s(),
            lambda: machine.valid_until_s,
        )
        try:
            await lead(term)
            assert machine.role is Role.ENDING, "the work of a leader ended by itself"
        finally:
            if machine.role is Role.ENDING:  # else it failed, and everything ends with it
                self._events.put_nowait(TermEnded())

    def _complain(self, message: str) -> None:
        self._complaint = message
        if message:
            self._log.error("this scheduler may not lead", reason=message, hint=RESTORE_HINT)
        else:
            self._log.info("this scheduler may lead again")

    async def _watch(self) -> None:
        """Tell the machine what the mirror holds, whenever that changes."""
        revision = StoreRevision(0)
        while True:
            snapshot = await self._mirror.wait_changed(revision)
            revision = snapshot.revision
            self._events.put_nowait(
                StoreSeen(snapshot.leader, snapshot.cluster.generation, revision)
            )

    async def _note_position(self) -> None:
        """Keep, now and then, how far the store was seen."""
        while True:
            await self._clock.sleep(POSITION_EVERY_S)
            await self._remember()

    async def _remember(self, epoch: Epoch = NO_EPOCH) -> None:
        """Keep what was met; a disk that refuses is no reason to stop leading."""
        try:
            await self._memory.remember(epoch, self._machine.position)
        except DrayError as error:
            self._log.error("not remembered", error=str(error), error_code=error.code.name)

    # --- operations on the store; each ends with an event ---

    async def _grant(self, ttl_s: int) -> None:
        """Get a lease, and announce this scheduler on it."""
        sent_at_s = self._clock.monotonic_s()
        try:
            lease = await self._store.grant_lease(ttl_s)
            await self._announce(lease)
        except DrayError as error:
            self._log.warning("no lease granted", error=str(error), error_code=error.code.name)
            self._events.put_nowait(NotGranted())
        else:
            self._events.put_nowait(LeaseGranted(lease, float(ttl_s), sent_at_s))

    async def _announce(self, lease: LeaseId) -> None:
        me = self._candidate
        record = SchedulerRecord(
            me.scheduler_id, str(me.address), me.version, me.node_id, self._clock.unix_s()
        )
        put = Put(scheduler_key(me.scheduler_id), encode(record), lease)
        await self._store.commit(Txn((), (put,)))

    async def _renew(self, lease: LeaseId) -> None:
        sent_at_s = self._clock.monotonic_s()
        try:
            ttl_s = await self._store.renew_lease(lease)
        except LeaseLost:
            self._events.put_nowait(LeaseEnded(lease))
        except DrayError as error:
            self._log.warning("lease not renewed", error=str(error), error_code=error.code.name)
            self._events.put_nowait(NotRenewed())
        else:
            self._events.put_nowait(LeaseRenewed(lease, ttl_s, sent_at_s))

    async def _campaign(self, lease: LeaseId, generation: int) -> None:
        """Create the leader key, if there is none and the cluster is what the mirror shows."""
        event: Event = NotWon(StoreRevision(0))
        before = self._mirror.revision
        try:
            outcome = await self._store.commit(self._claim(lease, generation))
        except LeaseLost:
            self._events.put_nowait(LeaseEnded(lease))
        except DrayError as error:
            self._log.warning("campaign failed", error=str(error), error_code=error.code.name)
        else:
            match outcome:
                case Committed(revision):
                    event = Won(lease, generation, revision)
                case Conflict(revision):
                    event = NotWon(revision)
            self._mirror.saw_revision(outcome.revision, before)
        self._events.put_nowait(event)

    def _claim(self, lease: LeaseId, generation: int) -> Txn:
        """Return the transaction that makes this scheduler the leader."""
        snapshot = self._mirror.snapshot
        me = self._candidate
        record = LeaderRecord(
            me.scheduler_id,
            snapshot.cluster.cluster_id,
            generation,
            str(me.address),
            me.node_id,
            me.version,
            self._clock.unix_s(),
            lease,
        )
        compares = (
            Compare(LEADER, CompareField.CREATE_REVISION, StoreRevision(0)),
            Compare(CLUSTER, CompareField.MOD_REVISION, snapshot.mod_revisions[CLUSTER]),
        )
        return Txn(compares, (Put(LEADER, encode(record), lease),))

    async def _revoke(self, lease: LeaseId, reason: str) -> None:
        self._log.warning("leader's lease is revoked", reason=reason)
        try:
            await self._store.revoke_lease(lease)
        except DrayError as error:
            self._log.warning("lease not revoked", error=str(error), error_code=error.code.name)
        self._events.put_nowait(Revoked())

    async def _give_back(self) -> None:
        """End the lease, and with it the leader key and the announcement, within a bounded time."""
        now_s = self._clock.monotonic_s()
        effects = self._machine.handle(Stopping(), now_s)
        effects += self._machine.handle(TermEnded(), now_s)
        for effect in effects:
            if isinstance(effect, Revoke):
                try:
                    async with asyncio.timeout(GIVE_BACK_S):
                        await self._store.revoke_lease(effect.lease)
                except (DrayError, TimeoutError) as error:
                    self._log.warning("lease not given back", error=str(error))
        self._leading = None
        await self._remember()


def _shown(epoch: Epoch) -> str:
    return f"{epoch.generation}/{epoch.create_revision}"
