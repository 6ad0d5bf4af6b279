"""When is the store's history forgotten? By time, and when the database has grown.

etcd keeps every old value until it is told not to, and stops taking writes when its quota is full:
then no lease is granted either, and nobody can be elected. So the leader forgets what is older than
`KEEP_S`, every `EVERY_S`, and as soon as the database has grown by `GROWTH_BYTES`.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from dray.clock import Clock
from dray.errors import DrayError
from dray.log import Logger
from dray.model import StoreRevision
from scheduler.metrics import Metrics
from scheduler.store.base import Store, StoreStatus
from scheduler.store.mirror import Mirror

__all__ = ["EVERY_S", "GROWTH_BYTES", "LOOK_EVERY_S", "Compaction", "keep_small"]

LOOK_EVERY_S: Final = 10.0
EVERY_S: Final = 300.0
KEEP_S: Final = 60.0  # a watch that was away for so long can go on without a new listing
KEEP_MIN_S: Final = 10.0  # when the database has grown
GROWTH_BYTES: Final = 268_435_456


class Compaction:
    """Decides up to which revision to forget. Fed at each look."""

    def __init__(self) -> None:
        """Start without a look."""
        self._looks: deque[tuple[float, StoreRevision]] = deque()
        self._compacted_at_s: float | None = None
        self._size_bytes = 0

    def due(self, revision: StoreRevision, size_bytes: int, now_s: float) -> StoreRevision | None:
        """Return the revision to forget up to now, or None.

        Args:
            revision: The store's.
            size_bytes: Its database, of the largest server.
            now_s: Monotonic time.
        """
        if self._looks and revision < self._looks[-1][1]:
            self._looks.clear()  # an older store, restored from a backup
        self._looks.append((now_s, revision))
        if self._compacted_at_s is None:
            self._compacted_at_s, self._size_bytes = now_s, size_bytes
        has_grown = size_bytes - self._size_bytes >= GROWTH_BYTES
        if not has_grown and now_s - self._compacted_at_s < EVERY_S:
            return None
        keep_s = KEEP_MIN_S if has_grown else KEEP_S
        found: StoreRevision | None = None
        while self._looks and now_s - self._looks[0][0] >= keep_s:
            found = self._looks.popleft()[1]
        if found is not None:
            self._compacted_at_s, self._size_bytes = now_s, size_bytes
        return found


async def keep_small(
    store: Store, mirror: Mirror, *, metrics: Metrics, clock: Clock, log: Logger
) -> None:
    """Forget history, and watch the store's health, until cancelled."""
    compaction = Compaction()
    alarms: frozenset[tuple[str, str]] = frozenset()
    while True:
        status = await store.status()
        metrics.observe_store(status)
        alarms = _complain(status, alarms, log)
        size_bytes = max((member.size_bytes for member in status.members), default=0)
        revision = compaction.due(mirror.revision, size_bytes, clock.monotonic_s())
        if revision is not None:
            try:
                await store.compact(revision)
            except DrayError as error:
                log.warning("store not compacted", error=str(error), revision=revision)
            else:
                log.info("store compacted", revision=revision)
        await clock.sleep(LOOK_EVERY_S)


def _complain(
    status: StoreStatus, known: frozenset[tuple[str, str]], log: Logger
) -> frozenset[tuple[str, str]]:
    """Tell of new alarms, and return those that there are."""
    alarms = frozenset(
        (member.address, alarm) for member in status.members for alarm in member.alarms
    )
    for address, alarm in sorted(alarms - known):
        log.error(
            "etcd has an alarm",
            peer=address,
            reason=alarm,
            hint="compact, defragment, then `etcdctl alarm disarm`; nothing can be written before",
        )
    return alarms
