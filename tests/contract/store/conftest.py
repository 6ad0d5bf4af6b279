"""Which stores does every test of the suite run against?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.store.rig import EtcdRig, MemoryRig, Rig
from tests.lab.etcd import EtcdCluster


@pytest.fixture(params=["memory", "etcd"], scope="package")
def real_etcd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EtcdCluster | None]:
    """Keep one server for the whole suite; nothing for the memory."""
    if request.param == "memory":
        yield None
        return
    with EtcdCluster(1, tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


@pytest.fixture
def rig(real_etcd: EtcdCluster | None) -> Rig:
    """Return a store of each kind."""
    return MemoryRig() if real_etcd is None else EtcdRig(real_etcd)
