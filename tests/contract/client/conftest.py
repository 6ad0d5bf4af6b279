"""Which stores does the users' API run against?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dray.addresses import parse_host_port
from scheduler.store.base import Store
from scheduler.store.etcd import EtcdStore
from tests.contract.client.rig import memory_stores
from tests.lab.etcd import EtcdCluster


@pytest.fixture(params=["memory", "etcd"], scope="module")
def _etcd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EtcdCluster | None]:
    """Keep one server for the module; nothing for the memory."""
    if request.param == "memory":
        yield None
        return
    with EtcdCluster(1, tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


@pytest.fixture
def new_store(_etcd: EtcdCluster | None) -> Callable[[], Store]:
    """Make clients of one store, of each kind."""
    if _etcd is None:
        return memory_stores()
    addresses = [parse_host_port(endpoint) for endpoint in _etcd.endpoints]
    return lambda: EtcdStore(addresses, None)
