"""Is a write drafted from a view that is new enough, also when it is refused?"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from dray.api.v1.cluster_pb2 import ScaleServicesResponse
from dray.clock import ManualClock
from dray.errors import NotFound
from dray.model import StoreRevision
from dray.names import RequestId
from scheduler.api.commits import CommitLimits, Commits, Intent
from scheduler.api.edit import Draft
from scheduler.store.base import Put, Txn
from scheduler.store.memory import MemoryData, MemoryStore
from scheduler.store.snapshot import Snapshot
from tests.builders import a_snapshot

INTENT = Intent(RequestId("a" * 26), "ScaleServices", b"")


class Follower:
    """A view that is behind the store, and hears of nothing until it is waited for."""

    def __init__(self, revision: int, *, is_deaf: bool = False) -> None:
        self.snapshot = a_snapshot(revision=revision)
        self._is_deaf = is_deaf

    async def wait_changed(self, after: StoreRevision) -> Snapshot:
        """Nobody asks."""
        raise AssertionError(after)

    async def wait_revision(self, revision: StoreRevision) -> None:
        """See everything up to a revision, or nothing ever."""
        if self._is_deaf:
            await asyncio.Event().wait()
        self.snapshot = replace(self.snapshot, revision=revision)


async def a_store(writes: int) -> MemoryStore:
    """Return a store of that revision, written to by others."""
    store = MemoryStore(MemoryData(ManualClock().monotonic_s))
    for number in range(writes):
        await store.commit(Txn((), (Put("/dray/v1/x", bytes([number])),)))
    return store


@pytest.mark.parametrize(
    ("seen", "needs", "is_deaf", "drafts", "is_refused"),
    [
        pytest.param(1, 5, False, [1, 5], False, id="another scheduler wrote it a moment ago"),
        pytest.param(1, 9, False, [1, 5], True, id="it is not there in the newest view either"),
        pytest.param(5, 9, False, [5], True, id="the view is the newest"),
        pytest.param(1, 9, True, [1], True, id="others use the store: nothing more is heard"),
    ],
)
async def test_a_refusal_is_made_from_the_newest_view(
    seen: int, needs: int, is_deaf: bool, drafts: list[int], is_refused: bool
) -> None:
    """What a view lacks is no reason to refuse while the store is ahead of it."""
    store = await a_store(4)
    at = (await store.get("/dray/v1/x")).revision
    asked: list[int] = []
    offset = at - 5  # so that the table can speak of revision 5

    def draft_of(view: Snapshot) -> Draft:
        asked.append(view.revision - offset)
        if view.revision - offset < needs:
            raise NotFound("there is no project shop")
        return Draft((), (), view)

    source = Follower(seen + offset, is_deaf=is_deaf)
    limits = CommitLimits(refusal_s=0.01)
    commits = Commits(store, source, clock=ManualClock(), limits=limits)
    if is_refused:
        with pytest.raises(NotFound, match="no project shop"):
            await commits.write(INTENT, draft_of, lambda _: ScaleServicesResponse())
    else:
        await commits.write(INTENT, draft_of, lambda _: ScaleServicesResponse())
    assert asked == drafts
