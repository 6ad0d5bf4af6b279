"""What may the scheduler expect of its store, whatever is behind it?

`Store` is the port; `memory.py` and `etcd.py` are its two adapters, held to one contract suite
(`tests/contract/store`). The guarantees are etcd's (version 3 API), written down so that nobody
relies on more:

- One total order. Every commit that changes something gets the next revision; readers never see a
  revision in part.
- Compare-and-set. A `Txn` applies whole or not at all, after all of its compares held at one
  revision.
- Nothing is lost or doubled by a watch: after `Changes` of revision r every later change arrives
  once, in order, or the watch ends with `Compacted`. A lost connection is repaired inside the
  adapter and is not an end.
- A write is never repeated by the adapter unless it was provably not carried out, or does no more
  harm when it is carried out twice: `revoke_lease`, `compact`, `grant_lease` (one too many ends by
  itself), and a `Txn` that says so of itself (`applies_once`). Else it raises `AmbiguousWrite`.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, NewType, Protocol, TypeAlias

from dray.errors import DrayError, ErrorCode
from dray.model import StoreRevision

__all__ = [
    "KEY_BYTES_MAX",
    "TXN_BYTES_MAX",
    "TXN_KEYS_MAX",
    "Change",
    "Changes",
    "Committed",
    "Compacted",
    "Compare",
    "CompareField",
    "Conflict",
    "Delete",
    "Item",
    "LeaseId",
    "LeaseLost",
    "Listing",
    "Operation",
    "Put",
    "Reading",
    "Store",
    "StoreMember",
    "StoreStatus",
    "Txn",
]

LeaseId = NewType("LeaseId", int)

TXN_KEYS_MAX: Final = 127  # etcd takes 128 operations and 128 compares; one compare is the fence
TXN_BYTES_MAX: Final = 1_048_576  # etcd takes 1.5 MiB a request
KEY_BYTES_MAX: Final = 1_024  # ours are below 200


@dataclass(frozen=True, slots=True)
class Item:
    """A key and its value at some revision.

    Attributes:
        key: The key, "/dray/v1/…".
        value: Its bytes.
        create_revision: Revision at which the key came into being.
        mod_revision: Revision of its last write.
        lease: The lease it goes away with; 0: none.
    """

    key: str
    value: bytes
    create_revision: StoreRevision
    mod_revision: StoreRevision
    lease: LeaseId = LeaseId(0)


@dataclass(frozen=True, slots=True)
class Reading:
    """The answer to a read of one key: the item or None, and the store's revision then."""

    item: Item | None
    revision: StoreRevision


@dataclass(frozen=True, slots=True)
class Listing:
    """All items below a prefix, sorted by key, and the revision at which all of them were read."""

    items: tuple[Item, ...]
    revision: StoreRevision


class CompareField(enum.Enum):
    """What a compare looks at. The revision of a key that does not exist is 0."""

    CREATE_REVISION = 1
    MOD_REVISION = 2


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition of a transaction: `field` of `key` equals `revision`.

    The leader's fence is `Compare(leader_key, CREATE_REVISION, token)`; "create if absent" is
    `CREATE_REVISION` 0.
    """

    key: str
    field: CompareField
    revision: StoreRevision


@dataclass(frozen=True, slots=True)
class Put:
    """Write a value; with a lease, the key goes away when the lease ends."""

    key: str
    value: bytes
    lease: LeaseId = LeaseId(0)


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove one key; a key that does not exist is not an error."""

    key: str


Operation: TypeAlias = Put | Delete


@dataclass(frozen=True, slots=True)
class Txn:
    """Writes that apply whole, or not at all when a compare does not hold.

    Attributes:
        compares: At most `TXN_KEYS_MAX` and one (the fence).
        operations: At most `TXN_KEYS_MAX`, no key twice, at most `TXN_BYTES_MAX` in all.
        applies_once: Once it was applied one of its compares does not hold any more, so that it may
            be sent again when its answer was lost. A `Conflict` may then be its own doing: whoever
            sets this can tell, by what is there, or need not.
    """

    compares: tuple[Compare, ...]
    operations: tuple[Operation, ...]
    applies_once: bool = False

    def __post_init__(self) -> None:
        """Refuse what etcd would refuse: a caller that gets here has a bug in its batching."""
        assert len(self.compares) <= TXN_KEYS_MAX + 1, f"{len(self.compares)} compares"
        assert len(self.operations) <= TXN_KEYS_MAX, f"{len(self.operations)} operations"
        keys = {operation.key for operation in self.operations}
        assert len(keys) == len(self.operations), "a key is written twice in one transaction"
        assert all(len(key.encode()) <= KEY_BYTES_MAX for key in keys), "a key is too long"
        assert self.size_bytes <= TXN_BYTES_MAX, f"{self.size_bytes} bytes"

    @property
    def size_bytes(self) -> int:
        """Bytes of all keys and values that are written."""
        return sum(
            len(operation.key.encode())
            + (len(operation.value) if isinstance(operation, Put) else 0)
            for operation in self.operations
        )


@dataclass(frozen=True, slots=True)
class Committed:
    """The transaction was applied at `revision`.

    Without operations, the revision at which it was compared.
    """

    revision: StoreRevision


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing was changed: a compare did not hold.

    Attributes:
        revision: Revision of the store at the comparison.
        current: The compared keys as they were then, those that exist, sorted by key.
    """

    revision: StoreRevision
    current: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One key's change: the new item, or None when the key was deleted (or its lease ended)."""

    key: str
    item: Item | None


@dataclass(frozen=True, slots=True)
class Changes:
    """All changes below a prefix that one revision made, in the order of the transaction."""

    revision: StoreRevision
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class StoreMember:
    """One server of the store.

    Attributes:
        address: Where it was asked.
        healthy: Whether it answered.
        is_leader: Whether it leads the store.
        version: Its version; empty when it did not answer.
        size_bytes: Size of its database file.
        size_in_use_bytes: Of that, what a defragmentation would keep.
        alarms: Its alarms, "NOSPACE" …
        problem: Why it did not answer; empty when it did.
    """

    address: str
    healthy: bool
    is_leader: bool = False
    version: str = ""
    size_bytes: int = 0
    size_in_use_bytes: int = 0
    alarms: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """Health and size of the store.

    Every server as it answered, and the newest revision any of them named.
    """

    members: tuple[StoreMember, ...]
    revision: StoreRevision


class Compacted(DrayError):
    """The history that a watch or read needs is gone.

    List again, then watch from the listing's revision.
    """

    code = ErrorCode.OUT_OF_RANGE


class LeaseLost(DrayError):
    """The lease does not exist: it expired or was revoked, and its keys are gone."""

    code = ErrorCode.NOT_FOUND


class Store(Protocol):
    """The scheduler's store.

    Every method may raise `Unavailable` or `DeadlineExceeded`; state is then unchanged.

    Writes (`commit`, `grant_lease`, `revoke_lease`, `compact`) raise `AmbiguousWrite` when they
    were sent and the answer was lost. `ResourceExhausted` says that the store is full. A method is
    bounded in time by the adapter's deadline; a silent server is given up for the next one.
    """

    async def get(self, key: str) -> Reading:
        """Return one key as it is now (linearizable)."""
        ...

    async def list(self, prefix: str) -> Listing:
        """Return all keys that start with `prefix`, read in pages at one revision.

        Raises:
            Compacted: The revision was compacted away between two pages; call again.
        """
        ...

    async def commit(self, txn: Txn) -> Committed | Conflict:
        """Apply `txn` if all of its compares hold, else change nothing.

        Raises:
            AmbiguousWrite: It was sent, and whether it was applied is not known. Read, then decide.
            LeaseLost: A `Put` names a lease that does not exist. Nothing was changed.
        """
        ...

    def watch(
        self, prefix: str, *, after: StoreRevision
    ) -> AbstractAsyncContextManager[AsyncIterator[Changes]]:
        """Follow all changes below `prefix` that come after a revision.

        Args:
            prefix: Keys that start with it.
            after: Changes of this and earlier revisions are not delivered; `Listing.revision` fits
                exactly.

        Returns:
            A context that owns the watch; its iterator yields `Changes` in revision order, each
            once, and waits when there are none. Giving up a wait loses nothing. It is for one
            reader. Leaving the context ends the watch; after `close` the iterator stops.

        Raises:
            Compacted: From the iterator: changes after `after` are no longer kept, or the store is
                older than `after` (restored from a backup). Nothing was skipped silently.
        """
        ...

    async def grant_lease(self, ttl_s: int) -> LeaseId:
        """Make a lease that ends not before `ttl_s` seconds (>= 1) after its last renewal.

        The store may choose a longer time (etcd: 2 s at least, and longer after a change of its
        leader); `renew_lease` returns it.
        """
        ...

    async def renew_lease(self, lease: LeaseId) -> float:
        """Renew a lease and return its time to live in seconds.

        Counted by the caller from *before* the call. A call that failed may have renewed it.

        Raises:
            LeaseLost: It does not exist any more.
        """
        ...

    async def revoke_lease(self, lease: LeaseId) -> None:
        """End a lease now and delete its keys. One that does not exist is not an error."""
        ...

    async def compact(self, revision: StoreRevision) -> None:
        """Forget the changes up to `revision`; current values stay.

        A watch after `revision` or a later one can still be opened, an earlier one cannot; watches
        that are open and keep up are not disturbed. A revision already compacted is not an error.

        Raises:
            InvalidRequest: The store has not reached `revision`. Nothing was changed.
        """
        ...

    async def status(self) -> StoreStatus:
        """Ask every server how it is; one that does not answer is reported, not raised."""
        ...

    async def close(self) -> None:
        """End all watches and connections; later calls raise `Unavailable`.

        Calling it twice is harmless.
        """
        ...
