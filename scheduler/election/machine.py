"""What should a scheduler do about the leadership now? A pure machine over one lease and one key.

Every scheduler holds one lease, from its start to its end; its announcement lives on it, and when
it leads, the leader key. The rules:

1. Who holds a lease and sees no leader key tries to create it. The store lets one win. The term's
   epoch is (generation of the cluster, create revision of the key).
2. A lease is renewed every third of its time. The holder counts from before it *sent* the renewal,
   and stops leading by itself before the store can have given the lease up.
3. The term ends when the key is gone or another's, when the lease may have ended, when a higher
   epoch was met, or when the generation has changed. What a deposed leader still writes is fenced:
   every transaction compares the create revision of the leader key.
4. With proof of the leader's death its lease is revoked, so that the key goes at once. Proof is:
   its address refused connections, the members have declared its host down, or it is an earlier
   life of this very process. A wrong proof costs an election, never a second writer.
5. Who has met a higher epoch than it would lead with, or has seen a later revision of the store,
   does not lead: the store was restored from a backup, and the operator has to say so by raising
   the generation. Pairs of generation and revision are compared, so that this is one comparison.

`handle(event, now_s)` returns effects; `wake_at_s` says when to come back without an event. The
machine asks for one store operation of each kind at a time and expects its outcome as an event. It
depends on what it was last told, not on the order of messages: anything may be repeated or late.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

from dray.model import NO_EPOCH, Epoch, StoreRevision
from dray.names import SchedulerId
from scheduler.store.base import LeaseId
from scheduler.store.snapshot import Leader

__all__ = [
    "Campaign",
    "Complain",
    "DeathProved",
    "Effect",
    "ElectionMachine",
    "EndTerm",
    "EpochMet",
    "Event",
    "Grant",
    "LeaseEnded",
    "LeaseGranted",
    "LeaseRenewed",
    "NotGranted",
    "NotRenewed",
    "NotWon",
    "Parameters",
    "Remember",
    "Renew",
    "Revoke",
    "Revoked",
    "Role",
    "StartTerm",
    "Stopping",
    "StoreSeen",
    "TermEnded",
    "Tick",
    "Won",
]

RETRY_S: Final = 0.5  # after an operation on the store failed; the store client has its own retries
RENEWALS_PER_TTL: Final = 3  # two may fail before the lease is in danger
MARGIN_S: Final = 0.2  # a leader stops so long before its lease may end, for what is on its way


class Role(enum.Enum):
    """What a scheduler is."""

    FOLLOWING = 1
    LEADING = 2
    ENDING = 3
    """The term is over, and what was done in it has not ended yet."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Who campaigns, and how long its lease lasts without renewal, seconds."""

    scheduler_id: SchedulerId
    ttl_s: int


# --- events ---


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class StoreSeen:
    """What the mirror holds: who leads, the cluster's generation, and the store's revision."""

    leader: Leader | None
    generation: int
    revision: StoreRevision


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    """There is a lease; it lasts `ttl_s` from `sent_at_s`, when it was asked for."""

    lease: LeaseId
    ttl_s: float
    sent_at_s: float


@dataclass(frozen=True, slots=True)
class NotGranted:
    """No lease was made."""


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """The lease lasts `ttl_s` from `sent_at_s`, when the renewal was sent."""

    lease: LeaseId
    ttl_s: float
    sent_at_s: float


@dataclass(frozen=True, slots=True)
class NotRenewed:
    """A renewal failed; it may have been carried out."""


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """The store does not know the lease any more."""

    lease: LeaseId


@dataclass(frozen=True, slots=True)
class Won:
    """The leader key was created, at this revision."""

    lease: LeaseId
    generation: int
    create_revision: StoreRevision


@dataclass(frozen=True, slots=True)
class NotWon:
    """The leader key was not created, or that is not known; the mirror will tell.

    Attributes:
        revision: Revision of the store at the comparison; 0: it was not compared.
    """

    revision: StoreRevision


@dataclass(frozen=True, slots=True)
class DeathProved:
    """The leader whose key has this create revision is dead; `reason` says how that is known."""

    create_revision: StoreRevision
    reason: str


@dataclass(frozen=True, slots=True)
class Revoked:
    """A revocation was tried; the mirror will tell whether the key is gone."""


@dataclass(frozen=True, slots=True)
class EpochMet:
    """Somebody has seen a leader of this epoch."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class TermEnded:
    """All that was done in the term has ended."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """The scheduler stops."""


Event: TypeAlias = (
    Tick
    | StoreSeen
    | LeaseGranted
    | NotGranted
    | LeaseRenewed
    | NotRenewed
    | LeaseEnded
    | Won
    | NotWon
    | DeathProved
    | Revoked
    | EpochMet
    | TermEnded
    | Stopping
)


# --- effects ---


@dataclass(frozen=True, slots=True)
class Grant:
    """Ask for a lease; answer `LeaseGranted` or `NotGranted`."""

    ttl_s: int


@dataclass(frozen=True, slots=True)
class Renew:
    """Renew the lease; answer `LeaseRenewed`, `NotRenewed` or `LeaseEnded`."""

    lease: LeaseId


@dataclass(frozen=True, slots=True)
class Campaign:
    """Create the leader key if there is none; answer `Won` or `NotWon`."""

    lease: LeaseId
    generation: int


@dataclass(frozen=True, slots=True)
class Revoke:
    """End a lease and with it its keys; answer `Revoked`."""

    lease: LeaseId
    reason: str


@dataclass(frozen=True, slots=True)
class StartTerm:
    """Lead. The lease is good until `ElectionMachine.valid_until_s`."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class EndTerm:
    """Stop leading; answer `TermEnded` when nothing of it runs any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class Remember:
    """Keep the highest epoch that was met, over restarts."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Complain:
    """Tell the operator why this scheduler does not lead; empty: the trouble is over."""

    message: str


Effect: TypeAlias = Grant | Renew | Campaign | Revoke | StartTerm | EndTerm | Remember | Complain


@dataclass(frozen=True, slots=True)
class _Lease:
    """The lease: its id, until when it is certain, when it was last renewed."""

    lease: LeaseId
    valid_until_s: float
    renew_at_s: float


class ElectionMachine:
    """One scheduler's part in the election. See the top of this file."""

    def __init__(
        self, parameters: Parameters, *, highest: Epoch = NO_EPOCH, position: Epoch = NO_EPOCH
    ) -> None:
        """Start as a follower without a lease.

        Args:
            parameters: Who campaigns.
            highest: The highest epoch met before this start.
            position: Generation and revision of the store that were seen before this start.
        """
        self._parameters = parameters
        self._highest = highest
        self._position = position
        self._role = Role.FOLLOWING
        self._epoch = NO_EPOCH
        self._lease: _Lease | None = None
        self._seen: StoreSeen | None = None
        self._dead: dict[StoreRevision, str] = {}
        self._campaign_after = StoreRevision(0)
        self._busy: set[type[Effect]] = set()
        self._retry_at_s = 0.0
        self._revoke_at_s = 0.0
        self._is_stopping = False
        self._complaint = ""

    @property
    def role(self) -> Role:
        """What this scheduler is."""
        return self._role

    @property
    def epoch(self) -> Epoch:
        """The term that is led or was led last; `NO_EPOCH`: none yet."""
        return self._epoch

    @property
    def position(self) -> Epoch:
        """The furthest generation and revision of the store that were seen."""
        return self._position

    @property
    def valid_until_s(self) -> float:
        """Until when, at least, the store keeps this scheduler's lease; 0: it holds none."""
        return 0.0 if self._lease is None else self._lease.valid_until_s

    @property
    def wake_at_s(self) -> float | None:
        """When to come back with a `Tick` if nothing happens; None: not at all."""
        times: list[float] = []
        if self._lease is None:
            if Grant not in self._busy and not self._is_stopping:
                times.append(self._retry_at_s)
        else:
            is_leading = self._role is Role.LEADING
            times.append(self._lease.valid_until_s - (MARGIN_S if is_leading else 0.0))
            if Renew not in self._busy:
                times.append(self._lease.renew_at_s)
            if self._may_campaign() and Campaign not in self._busy:
                times.append(self._retry_at_s)
        if Revoke not in self._busy and self._lease_to_revoke() is not None:
            times.append(self._revoke_at_s)
        return min(times, default=None)

    def handle(self, event: Event, now_s: float) -> list[Effect]:
        """Take in what happened, and return what to do now, in order.

        Args:
            event: What happened.
            now_s: Monotonic time; never less than before.
        """
        effects: list[Effect] = []
        self._take(event, now_s, effects)
        self._check_term(now_s, effects)
        self._check_lease(now_s, effects)
        self._check_key(now_s, effects)
        return effects

    def _take(self, event: Event, now_s: float, effects: list[Effect]) -> None:
        match event:
            case Tick():
                pass
            case StoreSeen():
                self._seen = event
                self._position = max(self._position, Epoch(event.generation, event.revision))
                if event.leader is not None:
                    self._meet(_epoch_of(event.leader), effects)
            case LeaseGranted() | LeaseRenewed():
                self._hold(event)
            case NotGranted():
                self._busy.discard(Grant)
                self._retry_at_s = now_s + RETRY_S
            case NotRenewed():
                self._busy.discard(Renew)
                if self._lease is not None:
                    lease = self._lease
                    self._lease = _Lease(lease.lease, lease.valid_until_s, now_s + RETRY_S)
            case LeaseEnded():
                self._busy.discard(Renew)
                if self._lease is not None and self._lease.lease == event.lease:
                    self._lease = None
            case Won():
                self._busy.discard(Campaign)
                self._win(event.lease, Epoch(event.generation, event.create_revision), effects)
            case NotWon():
                self._busy.discard(Campaign)
                self._campaign_after = max(self._campaign_after, event.revision)
                self._retry_at_s = now_s + RETRY_S
            case DeathProved():
                self._dead = {event.create_revision: event.reason}
            case Revoked():
                self._busy.discard(Revoke)
                self._revoke_at_s = now_s + RETRY_S
            case EpochMet():
                self._meet(event.epoch, effects)
            case TermEnded():
                if self._role is Role.ENDING:
                    self._role = Role.FOLLOWING
            case Stopping():
                self._is_stopping = True
            case _:
                assert_never(event)

    def _meet(self, epoch: Epoch, effects: list[Effect]) -> None:
        if epoch > self._highest:
            self._highest = epoch
            effects.append(Remember(epoch))

    def _hold(self, event: LeaseGranted | LeaseRenewed) -> None:
        """Note until when the lease is certain. A late answer never shortens that."""
        self._busy.discard(Grant if isinstance(event, LeaseGranted) else Renew)
        until_s = event.sent_at_s + event.ttl_s
        held = self._lease
        if isinstance(event, LeaseRenewed):
            if held is None or held.lease != event.lease:
                return
            until_s = max(until_s, held.valid_until_s)
        self._lease = _Lease(event.lease, until_s, event.sent_at_s + event.ttl_s / RENEWALS_PER_TTL)

    def _win(self, lease: LeaseId, epoch: Epoch, effects: list[Effect]) -> None:
        """Begin a term, unless the lease that it was won with is gone or the scheduler stops."""
        if self._role is not Role.FOLLOWING or self._is_stopping:
            return
        if self._lease is None or self._lease.lease != lease:
            return
        self._role = Role.LEADING
        self._epoch = epoch
        self._meet(epoch, effects)
        effects.append(StartTerm(epoch))

    def _check_term(self, now_s: float, effects: list[Effect]) -> None:
        """End the term if there is a reason."""
        if self._role is not Role.LEADING:
            return
        reason = self._reason_to_end(now_s)
        if reason:
            self._role = Role.ENDING
            effects.append(EndTerm(reason))

    def _reason_to_end(self, now_s: float) -> str:
        if self._is_stopping:
            return "the scheduler stops"
        if self._lease is None:
            return "the lease has ended"
        if now_s >= self._lease.valid_until_s - MARGIN_S:
            return "the lease could not be renewed"
        if self._highest > self._epoch:
            return "a higher epoch was met"
        seen = self._seen
        if seen is not None and Epoch(seen.generation, seen.revision) < self._position:
            return "the store went back"
        if seen is None or seen.revision < self._epoch.create_revision:
            return ""
        if seen.generation != self._epoch.generation:
            return "the generation has changed"
        if seen.leader is None or seen.leader.create_revision != self._epoch.create_revision:
            return "the leader key is gone"
        return ""

    def _check_lease(self, now_s: float, effects: list[Effect]) -> None:
        """Keep one lease: ask for it, renew it, drop it when it may have ended."""
        if self._lease is not None and now_s >= self._lease.valid_until_s:
            self._lease = None
        if self._is_stopping:
            if self._role is Role.FOLLOWING and self._lease is not None:
                self._ask(Revoke(self._lease.lease, "the scheduler stops"), effects)
                self._lease = None
        elif self._lease is None:
            if now_s >= self._retry_at_s:
                self._ask(Grant(self._parameters.ttl_s), effects)
        elif now_s >= self._lease.renew_at_s:
            self._ask(Renew(self._lease.lease), effects)

    def _check_key(self, now_s: float, effects: list[Effect]) -> None:
        """Campaign for the leader key, or bring it down if its holder is dead."""
        seen, lease = self._seen, self._lease
        if seen is None or self._role is not Role.FOLLOWING or self._is_stopping:
            return
        if seen.leader is not None:
            if lease is not None and self._is_unnoticed_win(seen.leader):
                self._win(lease.lease, _epoch_of(seen.leader), effects)
            elif (revoke := self._lease_to_revoke()) is not None and now_s >= self._revoke_at_s:
                self._ask(revoke, effects)
                if lease is not None and revoke.lease == lease.lease:
                    self._lease = None
            return
        self._dead.clear()
        complaint = self._why_not(seen)
        if complaint != self._complaint:
            self._complaint = complaint
            effects.append(Complain(complaint))
        if self._may_campaign() and lease is not None and now_s >= self._retry_at_s:
            self._ask(Campaign(lease.lease, seen.generation), effects)

    def _is_unnoticed_win(self, leader: Leader) -> bool:
        """Return whether the key is ours although nobody told us: the answer was lost.

        One that is below an epoch that was met meanwhile is no victory any more.
        """
        is_ours = self._lease is not None and leader.record.lease == self._lease.lease
        epoch = _epoch_of(leader)
        return is_ours and epoch > self._epoch and epoch >= self._highest

    def _lease_to_revoke(self) -> Revoke | None:
        """Return the leader's lease with the proof that it is dead, or None."""
        leader = None if self._seen is None else self._seen.leader
        if leader is None or self._role is not Role.FOLLOWING or self._is_stopping:
            return None
        reason = self._dead.get(leader.create_revision, "")
        if leader.record.scheduler_id == self._parameters.scheduler_id:
            if Campaign in self._busy or self._is_unnoticed_win(leader):
                return None
            reason = "it is an earlier term or life of this scheduler"
        return Revoke(LeaseId(leader.record.lease), reason) if reason else None

    def _may_campaign(self) -> bool:
        seen = self._seen
        return (
            seen is not None
            and seen.leader is None
            and self._role is Role.FOLLOWING
            and not self._is_stopping
            and seen.revision >= self._campaign_after
            and not self._why_not(seen)
        )

    def _why_not(self, seen: StoreSeen) -> str:
        """Return why this scheduler may not lead with the store as it is, or "".

        The epoch that it would lead with is above (generation, revision of the store).
        """
        met = max(self._highest, self._position)
        if met <= Epoch(seen.generation, seen.revision):
            return ""
        return (
            f"generation {met.generation}, revision {met.create_revision} was seen before, and "
            f"this store is at generation {seen.generation}, revision {seen.revision}: it was "
            "restored from a backup, or is another one"
        )

    def _ask(self, effect: Effect, effects: list[Effect]) -> None:
        """Ask for an operation on the store, unless one of its kind is on its way."""
        if type(effect) not in self._busy:
            self._busy.add(type(effect))
            effects.append(effect)


def _epoch_of(leader: Leader) -> Epoch:
    return Epoch(leader.record.generation, leader.create_revision)
