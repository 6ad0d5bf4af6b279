"""How are the store's methods carried out by etcd?

One `EtcdStore` is one client: it knows every server of the cluster and holds one connection to each
that it has used.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import grpc

from dray.addresses import HostPort
from dray.errors import InvalidRequest, PeerMisbehaved, ResourceExhausted
from dray.log import Logger, get_logger
from dray.model import StoreRevision
from dray.tls import Tls
from scheduler.store.base import (
    Committed,
    Compacted,
    Conflict,
    Item,
    LeaseId,
    LeaseLost,
    Listing,
    Reading,
    StoreMember,
    StoreStatus,
    Txn,
)
from scheduler.store.etcd.calls import (
    Effect,
    Endpoint,
    Endpoints,
    EtcdLimits,
    Login,
    Lost,
    Method,
    NotDone,
    failure_of,
)
from scheduler.store.etcd.messages import (
    item_of,
    member_of,
    range_of_prefix,
    txn_request,
)
from scheduler.store.etcd.watch import EtcdWatch
from scheduler.store.etcdpb import etcd_pb2 as pb

__all__ = ["EtcdStore"]

_RANGE: Final[Method[pb.RangeRequest, pb.RangeResponse]] = Method(
    "/etcdserverpb.KV/Range", pb.RangeResponse
)
_TXN: Final[Method[pb.TxnRequest, pb.TxnResponse]] = Method("/etcdserverpb.KV/Txn", pb.TxnResponse)
_COMPACT: Final[Method[pb.CompactionRequest, pb.CompactionResponse]] = Method(
    "/etcdserverpb.KV/Compact", pb.CompactionResponse
)
_GRANT: Final[Method[pb.LeaseGrantRequest, pb.LeaseGrantResponse]] = Method(
    "/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantResponse
)
_REVOKE: Final[Method[pb.LeaseRevokeRequest, pb.LeaseRevokeResponse]] = Method(
    "/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeResponse
)
_KEEP_ALIVE: Final[Method[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]] = Method(
    "/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse
)
_STATUS: Final[Method[pb.StatusRequest, pb.StatusResponse]] = Method(
    "/etcdserverpb.Maintenance/Status", pb.StatusResponse
)

# Pages of a list. The first page's size is a guess; later ones aim at so many bytes, and at no more
# keys than are decoded in a few milliseconds (3 us of processor each, benchmarks/store.py).
_PAGE_KEYS_FIRST: Final = 256
_PAGE_KEYS_MAX: Final = 2_000
_PAGE_BYTES: Final = 4 * 1_048_576


class EtcdStore:
    """The `Store` on an etcd cluster (3.4 or newer)."""

    def __init__(
        self,
        addresses: Sequence[HostPort],
        tls: Tls | None,
        *,
        insecure: bool = False,
        rng: random.Random | None = None,
        limits: EtcdLimits | None = None,
        log: Logger | None = None,
        login: Login | None = None,
    ) -> None:
        """Make a client; nothing is sent before the first call. Needs a running event loop.

        Args:
            addresses: Of every server; the first is preferred until it fails.
            tls: Certificates, or None for plain text.
            insecure: Allow plain text beyond this machine.
            rng: Spreads pauses between retries.
            limits: How long to wait.
            log: Told of trouble that is being mended.
            login: A user of etcd; None: it asks for none, or the certificate says who this is.
        """
        self._endpoints = Endpoints(
            addresses,
            tls,
            insecure=insecure,
            rng=rng or random.Random(),
            limits=limits or EtcdLimits(),
            log=log or get_logger("store"),
            login=login,
        )
        self._watches: set[EtcdWatch] = set()

    async def get(self, key: str) -> Reading:
        """Return one key as it is now (linearizable)."""
        answer = await self._endpoints.unary(_RANGE, pb.RangeRequest(key=key.encode()), Effect.NONE)
        item = item_of(answer.kvs[0]) if answer.kvs else None
        return Reading(item, StoreRevision(answer.header.revision))

    async def list(self, prefix: str) -> Listing:
        """Return all keys that start with `prefix`, read in pages at one revision."""
        key, range_end = range_of_prefix(prefix)
        items: list[Item] = []
        revision = 0
        page_keys = _PAGE_KEYS_FIRST
        while True:
            request = pb.RangeRequest(
                key=key, range_end=range_end, limit=page_keys, revision=revision
            )
            try:
                answer = await self._endpoints.unary(_RANGE, request, Effect.NONE)
            except ResourceExhausted:
                if page_keys == 1:
                    raise
                page_keys = max(1, page_keys // 16)
                continue
            revision = revision or answer.header.revision
            items += [item_of(kv) for kv in answer.kvs]
            if not answer.more:
                return Listing(tuple(items), StoreRevision(revision))
            assert answer.kvs, "etcd says there is more, and gives nothing"
            key = answer.kvs[-1].key + b"\0"
            key_bytes = answer.ByteSize() / len(answer.kvs)
            page_keys = max(1, min(_PAGE_KEYS_MAX, int(_PAGE_BYTES / key_bytes)))

    async def commit(self, txn: Txn) -> Committed | Conflict:
        """Apply `txn` if all of its compares hold, else change nothing."""
        effect = Effect.SAME_TWICE if txn.applies_once else Effect.ONCE
        answer = await self._endpoints.unary(_TXN, txn_request(txn), effect)
        revision = StoreRevision(answer.header.revision)
        if answer.succeeded:
            return Committed(revision)
        found = [kv for response in answer.responses for kv in response.response_range.kvs]
        return Conflict(revision, tuple(item_of(kv) for kv in found))

    @asynccontextmanager
    async def watch(self, prefix: str, *, after: StoreRevision) -> AsyncIterator[EtcdWatch]:
        """Follow all changes below `prefix` that come after a revision."""
        revision = partial(self._revision, prefix)
        watch = EtcdWatch(self._endpoints, revision, prefix, after=after)
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)
            watch.end()

    async def _revision(self, prefix: str) -> StoreRevision:
        """Return the newest revision; the key is one that the user may read."""
        request = pb.RangeRequest(key=prefix.encode(), count_only=True)
        answer = await self._endpoints.unary(_RANGE, request, Effect.NONE)
        return StoreRevision(answer.header.revision)

    async def grant_lease(self, ttl_s: int) -> LeaseId:
        """Make a lease that ends not before `ttl_s` seconds after its last renewal."""
        assert ttl_s >= 1, f"a lease of {ttl_s} s"
        request = pb.LeaseGrantRequest(ttl_s=ttl_s)
        # One too many, which nobody knows of, ends by itself.
        answer = await self._endpoints.unary(_GRANT, request, Effect.SAME_TWICE)
        if answer.error:
            raise PeerMisbehaved(f"etcd granted no lease: {answer.error}")
        return LeaseId(answer.id)

    async def renew_lease(self, lease: LeaseId) -> float:
        """Renew a lease and return its time to live in seconds."""

        async def attempt(endpoint: Endpoint, left_s: float) -> pb.LeaseKeepAliveResponse:
            timeout_s = min(left_s, self._endpoints.limits.attempt_s)
            call = endpoint.stream(_KEEP_ALIVE, timeout_s)
            try:
                await call.write(pb.LeaseKeepAliveRequest(id=lease))
                answer = await call.read()
            except asyncio.InvalidStateError as err:
                raise Lost(f"{endpoint.address}: the stream ended") from err
            finally:
                call.cancel()
            if isinstance(answer, pb.LeaseKeepAliveResponse):
                return answer
            raise Lost(f"{endpoint.address}: the stream ended without an answer")

        answer = await self._endpoints.call(attempt, what=_KEEP_ALIVE.path, effect=Effect.NONE)
        if answer.ttl_s <= 0:
            raise LeaseLost(f"lease {lease:x} has ended")
        return float(answer.ttl_s)

    async def revoke_lease(self, lease: LeaseId) -> None:
        """End a lease now and delete its keys. One that does not exist is not an error."""
        try:
            await self._endpoints.unary(_REVOKE, pb.LeaseRevokeRequest(id=lease), Effect.SAME_TWICE)
        except LeaseLost:
            return

    async def compact(self, revision: StoreRevision) -> None:
        """Forget history up to `revision`; current values stay."""
        try:
            await self._endpoints.unary(
                _COMPACT, pb.CompactionRequest(revision=revision), Effect.SAME_TWICE
            )
        except Compacted as err:
            if "future" in err.message:
                raise InvalidRequest(f"the store has not reached revision {revision}") from err

    async def status(self) -> StoreStatus:
        """Ask every server how it is; one that does not answer is reported, not raised."""
        answers = await asyncio.gather(*(self._member(each) for each in self._endpoints.all))
        return StoreStatus(
            members=tuple(member for member, _ in answers),
            revision=max(revision for _, revision in answers),
        )

    async def _member(self, endpoint: Endpoint) -> tuple[StoreMember, StoreRevision]:
        limits = self._endpoints.limits
        try:
            await endpoint.connected(limits.connect_s)
            answer = await endpoint.unary(
                _STATUS, pb.StatusRequest(), limits.attempt_s, needs_leader=False
            )
        except NotDone as err:
            return _silent(endpoint, str(err))
        except grpc.aio.AioRpcError as err:
            return _silent(endpoint, str(failure_of(err, endpoint.address)))
        return member_of(str(endpoint.address), answer), StoreRevision(answer.header.revision)

    async def close(self) -> None:
        """End all watches and connections. Calling it twice is harmless."""
        await self._endpoints.close()
        for watch in tuple(self._watches):
            watch.end()


def _silent(endpoint: Endpoint, problem: str) -> tuple[StoreMember, StoreRevision]:
    return StoreMember(str(endpoint.address), healthy=False, problem=problem), StoreRevision(0)
