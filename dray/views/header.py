"""Who answered, and from when? The first field of every reply."""

from __future__ import annotations

from dataclasses import dataclass

from dray.model import StoreRevision
from dray.names import ClusterId, SchedulerId

__all__ = ["NO_HEADER", "ResponseHeader"]

_NO_REVISION = StoreRevision(0)


@dataclass(frozen=True, slots=True)
class ResponseHeader:
    """Who answered, and from when.

    Attributes:
        cluster_id: The cluster that answered.
        generation: How often it was restored from a backup, from 1. Store revisions of different
            generations do not compare.
        store_revision: Revision as of which the reply holds.
        scheduler_id: The scheduler that answered.
        is_observed: Observed state came from a leader. False: none could be asked, and everything
            observed in the reply is *unknown*, not "not running".
        warnings: Things to tell the user that are no errors, one sentence each; at most 100.
    """

    cluster_id: ClusterId | None = None
    generation: int = 0
    store_revision: StoreRevision = _NO_REVISION
    scheduler_id: SchedulerId | None = None
    is_observed: bool = False
    warnings: tuple[str, ...] = ()


NO_HEADER = ResponseHeader()
"""Of a reply that is still being made; whoever sends it puts the real one in its place."""
