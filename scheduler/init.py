"""How is a cluster made, once, and how is it told that its store came back from a backup?

`new_cluster` decides what the cluster is, and checks the ranges; `make_cluster` writes it if the
store holds none; `raise_generation` follows a restore. `run_init` is what `dray init` calls.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dray.addresses import parse_service_urls
from dray.clock import SystemClock
from dray.errors import (
    AlreadyExists,
    AmbiguousWrite,
    FailedPrecondition,
    InvalidRequest,
    RevisionConflict,
)
from dray.model import ClusterLimits, ClusterRecord, GossipKey, StoreRevision
from dray.names import ClusterId, IdFactory, RandomIds
from dray.tls import Tls, TlsFiles, read_authority
from scheduler.store.base import Committed, Compare, CompareField, Item, Put, Store, Txn
from scheduler.store.codec import decode_as, encode
from scheduler.store.etcd import EtcdStore, Login
from scheduler.store.keys import CLUSTER, KEYRING
from scheduler.store.mirror import NO_CLUSTER_HINT
from scheduler.store.records import KeyringRecord

__all__ = ["Ranges", "make_cluster", "new_cluster", "raise_generation", "run_init"]

GOSSIP_KEY_BYTES: Final = 32  # AES-256-GCM
NODE_PREFIX_LENGTHS: Final = range(20, 28)  # a /27 has 28 addresses for tasks, a /20 has 4,092
NODES_MIN: Final = 2  # a range for one node is a mistake: there would be no second one
VIP_PREFIX_LENGTH_MAX: Final = 24  # 254 services
_DEFAULTS: Final = ClusterRecord(ClusterId(""))


@dataclass(frozen=True, slots=True)
class Ranges:
    """Which addresses the cluster uses; nobody else in the network may.

    Attributes:
        range_cidr: Addresses of containers; every node gets a share.
        vip_range_cidr: Addresses of services.
        node_prefix_length: Size of a node's share.
    """

    range_cidr: str = _DEFAULTS.range_cidr
    vip_range_cidr: str = _DEFAULTS.vip_range_cidr
    node_prefix_length: int = _DEFAULTS.node_prefix_length


def new_cluster(
    ranges: Ranges, *, ids: IdFactory, random_bytes: Callable[[int], bytes], now_unix_s: float
) -> tuple[ClusterRecord, KeyringRecord]:
    """Return a new cluster and its first gossip key.

    Args:
        ranges: What was asked for.
        ids: Makes the cluster's id.
        random_bytes: Makes the key.
        now_unix_s: Wall clock.

    Raises:
        InvalidRequest: A range is malformed, too small, not for private use, or two overlap. All of
            it in one message.
    """
    problems: list[str] = []
    containers = _network(ranges.range_cidr, "range", problems)
    services = _network(ranges.vip_range_cidr, "range of services", problems)
    bits = ranges.node_prefix_length
    if bits not in NODE_PREFIX_LENGTHS:
        first, last = NODE_PREFIX_LENGTHS[0], NODE_PREFIX_LENGTHS[-1]
        problems.append(f"a node's share is a /{first} to /{last}, not a /{bits}")
    elif containers is not None and 2 ** (bits - containers.prefixlen) < NODES_MIN:
        problems.append(
            f"the range {containers} has no room for {NODES_MIN} nodes of a /{bits} each; "
            f"a /{bits - 1} would do, a /{bits - 8} leaves room to grow"
        )
    if services is not None and services.prefixlen > VIP_PREFIX_LENGTH_MAX:
        problems.append(
            f"the range of services {services} is too small: a /{VIP_PREFIX_LENGTH_MAX} or larger"
        )
    if containers is not None and services is not None and containers.overlaps(services):
        problems.append(f"the ranges {containers} and {services} overlap")
    if problems or containers is None or services is None:
        raise InvalidRequest("; ".join(problems), hint="nothing was written")
    nodes_max = min(ClusterLimits().nodes_max, 2 ** (bits - containers.prefixlen))
    cluster = ClusterRecord(
        ClusterId(ids.new()),
        range_cidr=str(containers),
        node_prefix_length=bits,
        vip_range_cidr=str(services),
        limits=ClusterLimits(nodes_max=nodes_max, tasks_per_node_max=2 ** (32 - bits) - 4),
        created_unix_s=now_unix_s,
    )
    key = GossipKey(key_id=0, material=random_bytes(GOSSIP_KEY_BYTES), primary=True)
    return cluster, KeyringRecord((key,))


async def make_cluster(store: Store, cluster: ClusterRecord, keyring: KeyringRecord) -> None:
    """Write the cluster, if the store holds none.

    Repeating the same call is harmless.

    Raises:
        AlreadyExists: The store holds a cluster. Nothing was changed.
    """
    txn = Txn(
        tuple(
            Compare(key, CompareField.CREATE_REVISION, StoreRevision(0))
            for key in (CLUSTER, KEYRING)
        ),
        (Put(CLUSTER, encode(cluster)), Put(KEYRING, encode(keyring))),
    )
    try:
        if isinstance(await store.commit(txn), Committed):
            return
    except AmbiguousWrite:
        pass  # what the store holds now tells
    item = (await store.get(CLUSTER)).item
    found = None if item is None else decode_as(item, ClusterRecord)
    if found is None:
        raise FailedPrecondition("the cluster was not written", hint="run it again")
    if found.cluster_id != cluster.cluster_id:
        raise AlreadyExists(
            f"this etcd holds the cluster {found.cluster_id} already; a cluster is made once",
            hint="start schedulers with `dray scheduler run`, or name another etcd",
        )


async def raise_generation(store: Store) -> ClusterRecord:
    """Tell the cluster that its store was restored from a backup, and return it as it is now.

    Every epoch from now on is above every one before the restore, so that nodes, which have seen
    later revisions than the store now has, follow the next leader again.

    Raises:
        FailedPrecondition: The store holds no cluster.
        RevisionConflict: Somebody changed the cluster meanwhile. Nothing was changed.
    """
    item = await _cluster_item(store)
    cluster = decode_as(item, ClusterRecord)
    raised = dataclasses.replace(cluster, generation=cluster.generation + 1)
    txn = Txn(
        (Compare(CLUSTER, CompareField.MOD_REVISION, item.mod_revision),),
        (Put(CLUSTER, encode(raised)),),
    )
    if not isinstance(await store.commit(txn), Committed):
        raise RevisionConflict("the cluster was changed meanwhile", hint="look, then run it again")
    return raised


async def _cluster_item(store: Store) -> Item:
    item = (await store.get(CLUSTER)).item
    if item is None:
        raise FailedPrecondition("there is no cluster in this etcd", hint=NO_CLUSTER_HINT)
    return item


def _network(text: str, what: str, problems: list[str]) -> ipaddress.IPv4Network | None:
    """Return a range, or None after saying what is wrong with it."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError:
        try:
            meant = ipaddress.IPv4Network(text, strict=False)
        except ValueError:
            problems.append(f"the {what} {text!r} is not an IPv4 range such as 10.192.0.0/11")
        else:
            problems.append(f"the {what} {text} is not the start of one; {meant} is")
        return None
    if not network.is_private or network.is_loopback or network.is_link_local:
        problems.append(f"the {what} {network} is not for private use (RFC 1918)")
    return network


def run_init(
    *,
    urls: str,
    files: tuple[str | None, str | None, str | None],
    login: tuple[str, str],
    insecure: bool,
    ranges: tuple[str | None, str | None, int | None],
    is_restored: bool,
) -> ClusterRecord:
    """Make a cluster, or raise its generation, and return it.

    Args:
        urls: etcd's client URLs, with commas between them.
        files: Certificate, private key and authority for etcd: none, the authority, or all.
        login: User of etcd and its password; empty: none.
        insecure: Allow plain text to etcd beyond this machine.
        ranges: What to use instead of the defaults of `Ranges`, in its order.
        is_restored: etcd was restored from a backup.

    Raises:
        InvalidRequest: The URLs, files or ranges are wrong. Nothing was sent.
        DrayError: What `make_cluster` and `raise_generation` raise, and those of the store.
    """
    addresses = parse_service_urls(urls)
    tls = _tls(files, is_tls=addresses[0].is_tls)
    given = {
        field.name: value
        for field, value in zip(dataclasses.fields(Ranges), ranges, strict=True)
        if value is not None
    }
    cluster, keyring = new_cluster(
        dataclasses.replace(Ranges(), **given),  # type: ignore[arg-type]
        ids=RandomIds(secrets.randbits),
        random_bytes=secrets.token_bytes,
        now_unix_s=SystemClock().unix_s(),
    )

    async def act() -> ClusterRecord:
        store = EtcdStore(
            [url.address for url in addresses],
            tls,
            insecure=insecure,
            login=Login(*login) if login[0] else None,
        )
        try:
            if is_restored:
                return await raise_generation(store)
            await make_cluster(store, cluster, keyring)
            return cluster
        finally:
            await store.close()

    return asyncio.run(act())


def _tls(files: tuple[str | None, str | None, str | None], *, is_tls: bool) -> Tls | None:
    cert, key, ca = (Path(name) if name else None for name in files)
    if (ca is not None) != is_tls or (cert is None) != (key is None) or (cert and not ca):
        raise InvalidRequest(
            "https URLs and etcd's TLS files go together",
            hint="with https URLs give --etcd-ca, and --etcd-cert with --etcd-key if etcd asks "
            "for a certificate; with http URLs none of them",
        )
    if ca is None:
        return None
    return read_authority(ca) if cert is None or key is None else TlsFiles(cert, key, ca).read()
