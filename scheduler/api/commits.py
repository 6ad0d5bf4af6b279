"""How does a drafted write get into the store, once, whatever is repeated or in the way?

Each call writes its answer under its `request_id` in the same transaction as its effect. So a
repeated call, on any scheduler, finds the answer; two that race cannot both succeed, and the store
may send one again whose answer does not come: etcd's leader was lost in the middle of it. A
conflict with another call means: draft again from a newer view. So does a refusal: what another
scheduler wrote a moment ago may not be in this one's view yet. When no answer came in the end it is
looked up once; if it is not there, nobody knows, and the caller is told to repeat with the same id.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from dray.clock import Clock
from dray.errors import (
    AlreadyExists,
    AmbiguousWrite,
    DrayError,
    InvalidRequest,
    RevisionConflict,
    Unavailable,
)
from dray.model import StoreRevision
from dray.names import RequestId
from scheduler.api.edit import Draft
from scheduler.api.ports import SnapshotSource
from scheduler.store.base import (
    Committed,
    Compare,
    CompareField,
    Item,
    LeaseId,
    LeaseLost,
    Put,
    Store,
    Txn,
)
from scheduler.store.codec import decode_as, encode
from scheduler.store.keys import request_key
from scheduler.store.records import RequestRecord
from scheduler.store.snapshot import Snapshot

__all__ = ["ANSWER_KEPT_S", "CommitLimits", "Commits", "Intent", "Outcome"]

ANSWER_KEPT_S: Final = 3_600  # how long an answer is found by its request id, at least
_LEASE_SHARED_S: Final = 600.0  # so long one lease serves new answers: one grant, not one a call
_ANSWER_BYTES_MAX: Final = 60_000  # of a stored answer; a longer one is stored without its changes


@dataclass(frozen=True, slots=True)
class CommitLimits:
    """How long a write may take.

    Attributes:
        attempts_max: Drafts that may be in the way of others before the call is refused.
        catch_up_s: How long to wait for the mirror to see what was in the way.
        refusal_s: How long to wait for it before something is refused. Short: in an etcd that
            others use as well it may have seen all that concerns it, and cannot know.
    """

    attempts_max: int = 10
    catch_up_s: float = 3.0
    refusal_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Intent:
    """What a call means to do once.

    Attributes:
        request_id: Its id.
        method: Name of the method.
        request_sha256: Digest of what is asked: the same id for something else is refused.
    """

    request_id: RequestId
    method: str
    request_sha256: bytes

    @classmethod
    def of(cls, request_id: RequestId, method: str, request: Message) -> Intent:
        """Return the intent of a request, whoever passes it on."""
        bare = type(request)()
        bare.CopyFrom(request)
        bare.ClearField("header")
        digest = hashlib.sha256(bare.SerializeToString(deterministic=True)).digest()
        return cls(request_id, method, digest)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a write.

    Attributes:
        draft: What was written; None: the answer of an earlier call.
        revision: Store revision of the write; of one that changed nothing, the view's.
        reply: The stored answer, when it is that of an earlier call.
    """

    draft: Draft | None
    revision: StoreRevision
    reply: bytes = b""


@dataclass(frozen=True, slots=True)
class _InTheWay:
    """Something was in the way: draft again from a view of at least this revision."""

    revision: StoreRevision


class Commits:
    """Makes the writes of one scheduler."""

    def __init__(
        self,
        store: Store,
        source: SnapshotSource,
        *,
        clock: Clock,
        limits: CommitLimits = CommitLimits(),
    ) -> None:
        """Write through `store`, draft from the views of `source`."""
        self._store = store
        self._source = source
        self._clock = clock
        self._limits = limits
        self._lease = LeaseId(0)
        self._lease_ends_s = 0.0
        self._granting = asyncio.Lock()

    async def write(
        self,
        intent: Intent,
        draft_of: Callable[[Snapshot], Draft],
        answer_of: Callable[[Draft], Message],
    ) -> Outcome:
        """Carry out an intent once.

        Args:
            intent: The call.
            draft_of: Makes the write from a view; called again when another write was first.
            answer_of: Makes the reply that is kept with it. What depends on the commit's revision
                is put in by who reads it.

        Raises:
            DrayError: It was refused: nothing was changed.
            AmbiguousWrite: Nobody knows whether it was carried out.
        """
        known: StoreRevision | None = None  # a refusal stands if its view was at least this new
        for _ in range(self._limits.attempts_max):
            snapshot = self._source.snapshot
            try:
                draft = draft_of(snapshot)
            except DrayError:
                if known is not None and snapshot.revision >= known:
                    raise
                reading = await self._store.get(request_key(intent.request_id))
                if reading.item is not None:
                    return _earlier_outcome(intent, reading.item)
                known = reading.revision
                if snapshot.revision >= known or not await self._has_seen(known):
                    raise
                continue
            outcome = await self._attempt(intent, draft, answer_of(draft))
            if not isinstance(outcome, _InTheWay):
                return outcome
            await self._catch_up(outcome.revision)
        raise RevisionConflict(
            f"{self._limits.attempts_max} other writes were first", retryable=True, hint="try again"
        )

    async def catch_up(self, revision: StoreRevision) -> None:
        """Wait until this scheduler's own view has a write, so that the next read sees it."""
        await self._catch_up(revision)

    # --- inside ---

    async def _attempt(self, intent: Intent, draft: Draft, answer: Message) -> Outcome | _InTheWay:
        record = RequestRecord(
            intent.request_id,
            intent.method,
            intent.request_sha256,
            _bounded(answer),
            self._clock.unix_s(),
        )
        key = request_key(intent.request_id)
        put = Put(key, encode(record), await self._answer_lease())
        is_new = Compare(key, CompareField.MOD_REVISION, StoreRevision(0))
        txn = Txn((is_new, *draft.compares), (put, *draft.operations), applies_once=True)
        try:
            outcome = await self._store.commit(txn)
        except LeaseLost:
            self._lease_ends_s = 0.0
            return _InTheWay(draft.after.revision)
        except AmbiguousWrite as error:
            return await self._after_loss(intent, error)
        if isinstance(outcome, Committed):
            return Outcome(draft, outcome.revision)
        for item in outcome.current:
            if item.key == key:
                return _earlier_outcome(intent, item)
        newest = max((item.mod_revision for item in outcome.current), default=StoreRevision(0))
        is_seen = newest <= draft.after.revision  # then a key that it compared is gone
        return _InTheWay(outcome.revision if is_seen else newest)

    async def _after_loss(self, intent: Intent, error: AmbiguousWrite) -> Outcome:
        """Look the answer up once; without it the write may still be on its way."""
        try:
            earlier = await self._earlier(intent)
        except DrayError:
            earlier = None
        if earlier is not None:
            return earlier
        raise AmbiguousWrite(
            f"nobody knows whether {intent.method} was carried out: {error.message}",
            hint="repeat it with the same request id",
            context={"request_id": intent.request_id},
        ) from error

    async def _earlier(self, intent: Intent) -> Outcome | None:
        """Return the outcome of the same call, if it was carried out before."""
        reading = await self._store.get(request_key(intent.request_id))
        return None if reading.item is None else _earlier_outcome(intent, reading.item)

    async def _answer_lease(self) -> LeaseId:
        """Return a lease that outlives `ANSWER_KEPT_S`; many answers share one."""
        if self._clock.monotonic_s() < self._lease_ends_s:
            return self._lease
        async with self._granting:
            if self._clock.monotonic_s() >= self._lease_ends_s:
                ttl_s = ANSWER_KEPT_S + int(_LEASE_SHARED_S) + 60
                self._lease = await self._store.grant_lease(ttl_s)
                self._lease_ends_s = self._clock.monotonic_s() + _LEASE_SHARED_S
        return self._lease

    async def _has_seen(self, revision: StoreRevision) -> bool:
        """Wait a moment for this scheduler's view to be as new; return whether it is."""
        try:
            async with asyncio.timeout(self._limits.refusal_s):
                await self._source.wait_revision(revision)
        except TimeoutError:
            return False
        return True

    async def _catch_up(self, revision: StoreRevision) -> None:
        try:
            async with asyncio.timeout(self._limits.catch_up_s):
                await self._source.wait_revision(revision)
        except TimeoutError as error:
            raise Unavailable(
                f"this scheduler's view of the store is behind revision {revision}",
                hint="try another scheduler",
            ) from error


def _earlier_outcome(intent: Intent, item: Item) -> Outcome:
    record = decode_as(item, RequestRecord)
    if record.method != intent.method:
        raise AlreadyExists(
            f"the request id {intent.request_id} was used for {record.method}",
            hint="make a new id for every intent",
        )
    if record.request_sha256 != intent.request_sha256:
        raise InvalidRequest(
            f"the request id {intent.request_id} was used for another {record.method}",
            hint="make a new id for every intent",
        )
    return Outcome(None, item.mod_revision, record.reply)


def _bounded(answer: Message) -> bytes:
    """Return a serialised answer; a very long one without the differences of each service."""
    data = answer.SerializeToString()
    if len(data) > _ANSWER_BYTES_MAX:
        for service in getattr(answer, "services", ()):
            service.ClearField("changes")
        data = answer.SerializeToString()
    return data
