"""Does the store work on an etcd with users and passwords, also when a log-in runs out?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from dray.addresses import parse_host_port
from dray.errors import PermissionDenied, Unavailable
from dray.model import StoreRevision
from dray.tls import Tls, read_authority
from scheduler.store.base import Committed, Put, Txn
from scheduler.store.etcd import EtcdLimits, EtcdStore, Login
from tests.certificates import Authority
from tests.lab.etcd import EtcdCluster

DEADLINE_S = 30.0


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    """Lend an etcd that lets the user `dray` work below /dray/."""
    with EtcdCluster(1, tmp_path) as cluster:
        _add_users(cluster)
        yield cluster


def _add_users(cluster: EtcdCluster) -> None:
    """Let the user `dray` work below /dray/, and nobody without a password."""
    for command in (
        "user add root:secret",
        "role add dray",
        "role grant-permission --prefix=true dray readwrite /dray/",
        "user add dray:secret",
        "user grant-role dray dray",
        "auth enable",
    ):
        cluster.etcdctl(*command.split())
    cluster.client_environment["ETCDCTL_USER"] = "root:secret"


def client(etcd: EtcdCluster, password: str = "secret") -> EtcdStore:
    """Return a client of the user `dray`."""
    address = parse_host_port(etcd.members[0].endpoint)
    return EtcdStore([address], None, login=Login("dray", password))


async def test_a_user_reads_writes_watches_and_holds_leases(etcd: EtcdCluster) -> None:
    """Everything that a scheduler does works below its prefix, and nothing else does."""
    store = client(etcd)
    try:
        async with asyncio.timeout(DEADLINE_S):
            lease = await store.grant_lease(5)
            async with store.watch("/dray/", after=StoreRevision(1)) as watch:
                outcome = await store.commit(Txn((), (Put("/dray/a", b"1", lease),)))
                assert isinstance(outcome, Committed)
                changes = await anext(watch)
                assert changes.revision == outcome.revision
            assert await store.renew_lease(lease) > 0
            assert [item.key for item in (await store.list("/dray/")).items] == ["/dray/a"]
            with pytest.raises(PermissionDenied):
                await store.get("/elsewhere")
    finally:
        await store.close()


async def test_a_log_in_that_ran_out_is_made_again(etcd: EtcdCluster) -> None:
    """The server forgets the token; calls and new watches go on as if nothing had happened."""
    store, forgotten = client(etcd), client(etcd)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await store.get("/dray/a")
            await forgotten.get("/dray/a")
            await asyncio.to_thread(etcd.kill, 0)  # tokens are in its memory only
            await asyncio.to_thread(etcd.restart, 0)
            outcome = await store.commit(Txn((), (Put("/dray/a", b"1"),)))
            assert isinstance(outcome, Committed)
            async with forgotten.watch("/dray/", after=StoreRevision(1)) as watch:
                assert [change.key for change in (await anext(watch)).changes] == ["/dray/a"]
    finally:
        await store.close()
        await forgotten.close()


async def test_a_wrong_password_is_refused_with_what_to_check(etcd: EtcdCluster) -> None:
    """Nobody tries again for ever; the message names the user and never the password."""
    store = client(etcd, "wrong-password")
    try:
        with pytest.raises(PermissionDenied, match=r"the user 'dray'.*etcd_password") as caught:
            await store.get("/dray/a")
        assert "wrong-password" not in str(caught.value) + repr(Login("dray", "wrong-password"))
    finally:
        await store.close()


@pytest.fixture
def tls_etcd(tmp_path: Path) -> Iterator[tuple[EtcdCluster, Tls, Tls]]:
    """Lend an etcd that shows a certificate and asks for none, its authority, and another one."""
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "other", "another")
    files = authority.issue("etcd")
    with EtcdCluster(
        1,
        tmp_path / "etcd",
        extra_args=[f"--cert-file={files.cert}", f"--key-file={files.key}"],
        client_scheme="https",
        client_args=[f"--cacert={authority.ca}"],
    ) as cluster:
        _add_users(cluster)
        yield cluster, read_authority(authority.ca), read_authority(stranger.ca)


async def test_an_authority_and_a_password_are_enough(
    tls_etcd: tuple[EtcdCluster, Tls, Tls],
) -> None:
    """No own certificate is shown; a server of another authority is not spoken to."""
    etcd, ours, another = tls_etcd
    address, login = parse_host_port(etcd.members[0].endpoint), Login("dray", "secret")
    store = EtcdStore([address], ours, login=login)
    stranger = EtcdStore([address], another, login=login, limits=EtcdLimits(call_s=3.0))
    try:
        async with asyncio.timeout(DEADLINE_S):
            outcome = await store.commit(Txn((), (Put("/dray/a", b"1"),)))
            assert isinstance(outcome, Committed)
            with pytest.raises(Unavailable):
                await stranger.get("/dray/a")
    finally:
        await store.close()
        await stranger.close()
