"""What is in the store now? A copy in memory, kept up to date by one watch.

`run` lists everything below dray's root and then follows it. Whoever needs the state takes a
`Snapshot`, which costs nothing while nothing has changed. Leader and API read the same copy.

- A lost connection is the store's own business: the copy stays, and catches up without a gap.
- `Compacted` (or a store restored from a backup): everything is listed again. The old copy is
  served until the new one is whole.
- Somebody who saw a reply with a revision below the copy's tells `saw_revision`: the store is an
  older one, and the copy is thrown away at once.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Final

from dray.clock import Clock
from dray.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from dray.log import Logger
from dray.model import Assignment, StoreRevision
from dray.retry import Backoff
from scheduler.store.base import Change, Changes, Compacted, Store
from scheduler.store.keys import ROOT, Kind, ParsedKey
from scheduler.store.snapshot import Snapshot
from scheduler.store.view import Decoded, View, decode_change

__all__ = ["NO_CLUSTER_HINT", "Mirror"]

NO_CLUSTER_HINT: Final = "make it with `dray init --etcd URL`, once, on any machine that reaches it"
_PAUSE: Final = Backoff(first_s=0.1, max_s=1.0)  # between listings that failed; etcd may be away
EXPECTED_MAX: Final = 10_000  # assignments that were told of and have not come back
_TURN_S: Final = 0.005  # decoding lets other tasks run after so long: 2,000,000 tasks take seconds


class Mirror:
    """The store's content in memory. Made once; `run` is a loop of the supervisor."""

    def __init__(self, store: Store, *, clock: Clock, rng: random.Random, log: Logger) -> None:
        """Describe a mirror; it is empty until `run` has listed the store.

        Args:
            store: The store.
            clock: Measures how long decoding takes, and waits.
            rng: Draws the jitter of pauses.
            log: Gets a line for every listing.
        """
        self._store = store
        self._clock = clock
        self._rng = rng
        self._log = log
        self._view = View()
        self._revision = StoreRevision(0)
        self._changed = asyncio.Event()
        self._is_older = asyncio.Event()
        self._expected: dict[str, tuple[bytes, Assignment]] = {}

    @property
    def revision(self) -> StoreRevision:
        """The store revision of the copy; 0: nothing was listed yet, or it was thrown away."""
        return self._revision

    @property
    def snapshot(self) -> Snapshot:
        """Everything that is stored, as of `revision`.

        Raises:
            Unavailable: Nothing was listed yet; etcd was not reached since the start.
        """
        if not self._revision:
            raise Unavailable(
                "this scheduler has not read the store yet", hint="is etcd reachable?"
            )
        return self._view.snapshot(self._revision)

    async def wait_changed(self, after: StoreRevision) -> Snapshot:
        """Wait until the copy is at another revision than `after`, and return it.

        It may be a lower one: the store was restored from a backup.
        """
        while self._revision == after or not self._revision:
            await self._changed.wait()
        return self.snapshot

    async def wait_revision(self, revision: StoreRevision) -> None:
        """Wait until the copy holds what was committed at `revision`, for who wrote it to read it.

        The caller bounds the time.
        """
        while self._revision < revision:
            await self._changed.wait()

    def expect(self, key: str, value: bytes, assignment: Assignment) -> None:
        """Tell what is about to be written, so that it need not be read when it comes back.

        Args:
            key: The key.
            value: The bytes; other ones are read as always.
            assignment: What they say, whatever its mod revision.
        """
        if len(self._expected) >= EXPECTED_MAX:
            self._expected.clear()
        self._expected[key] = (value, assignment)

    def saw_revision(self, revision: StoreRevision, before: StoreRevision) -> None:
        """Tell that a reply of the store named this revision.

        One below the copy's, as it was before the call, means that the store is an older one,
        restored from a backup: the copy is thrown away and everything is listed again. What others
        wrote during the call may be in the copy before the reply is.

        Args:
            revision: The reply's.
            before: The copy's when the call began.
        """
        if revision < min(before, self._revision) and not self._is_older.is_set():
            self._log.error(
                "store went back",
                revision=revision,
                reason=f"{before} was seen before",
                hint="etcd was restored from a backup",
            )
            self._become(View(), StoreRevision(0))
            self._is_older.set()

    async def run(self) -> None:
        """List and follow the store until cancelled.

        Raises:
            FailedPrecondition: The store holds no cluster: `dray init` was never run.
            DamagedValue: A value cannot be read. The copy stays as it was.
        """
        failures = 0
        while True:
            try:
                revision = await self._list()
                failures = 0
                await self._follow(revision)
            except Compacted as error:
                self._log.warning("store is listed again", error=str(error))
            except (Unavailable, DeadlineExceeded) as error:
                failures += 1
                if failures == 1:
                    self._log.warning("store cannot be listed", error=str(error))
                await self._clock.sleep(_PAUSE.delay_s(failures, self._rng))

    async def _list(self) -> StoreRevision:
        """Replace the copy by what the store holds now."""
        start_s = self._clock.monotonic_s()
        self._is_older.clear()
        listing = await self._store.list(ROOT)
        changes = tuple(Change(item.key, item) for item in listing.items)
        view = View()
        view.apply(await self._decode(changes))
        if not view.has_cluster:
            raise FailedPrecondition("there is no cluster in this etcd", hint=NO_CLUSTER_HINT)
        self._become(view, listing.revision)
        self._log.info(
            "store listed",
            revision=listing.revision,
            count=len(listing.items),
            duration_ms=round((self._clock.monotonic_s() - start_s) * 1000, 1),
        )
        return listing.revision

    async def _follow(self, revision: StoreRevision) -> None:
        """Fold every change in, until the watch ends or the store turns out to be an older one."""
        following = asyncio.create_task(self._fold_all(revision), name="store watch")
        older = asyncio.create_task(self._is_older.wait(), name="store went back")
        try:
            await asyncio.wait({following, older}, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
        finally:
            following.cancel()
            older.cancel()
            await asyncio.wait({following, older})

    async def _fold_all(self, revision: StoreRevision) -> None:
        async with self._store.watch(ROOT, after=revision) as watch:
            async for changes in watch:
                await self._fold(changes)
        raise Unavailable("the store was closed")

    async def _fold(self, changes: Changes) -> None:
        """Take in the changes of one revision, all at once."""
        decoded = await self._decode(changes.changes)
        if not self._is_older.is_set():
            self._view.apply(decoded)
            self._become(self._view, changes.revision)

    async def _decode(self, changes: tuple[Change, ...]) -> list[Decoded]:
        """Read values, letting others run in between."""
        found: list[Decoded] = []
        turn_at_s = self._clock.monotonic_s() + _TURN_S
        for change in changes:
            decoded = self._known(change) or decode_change(change)
            if decoded is not None:
                found.append(decoded)
            if self._clock.monotonic_s() >= turn_at_s:
                await self._clock.sleep(0)
                turn_at_s = self._clock.monotonic_s() + _TURN_S
        return found

    def _known(self, change: Change) -> Decoded | None:
        """Return what a change says if that was told before it was written."""
        value, assignment = self._expected.pop(change.key, (b"", None))
        if assignment is None or change.item is None or change.item.value != value:
            return None
        key = ParsedKey(Kind.ASSIGNMENT, (assignment.node_id,))
        found = replace(assignment, mod_revision=change.item.mod_revision)
        return Decoded(key, change.key, change.item, found)

    def _become(self, view: View, revision: StoreRevision) -> None:
        self._view = view
        self._revision = revision
        event, self._changed = self._changed, asyncio.Event()
        event.set()
