"""What do the tests of the runtime on a real engine share? A host of the lab, lent test by test."""

from __future__ import annotations

from collections.abc import Iterator

import docker.types
import pytest

from tests.contract.runtime.rig import DockerRig, docker_rig
from tests.lab import Host
from tests.lab.fixtures import kept_lab
from tests.lab.registry import Registry

NETWORK = "dray-test-net"


@pytest.fixture(scope="module")
def engine_host(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Host, Registry]]:
    """Keep one lab host and an open registry for the module."""
    folder = tmp_path_factory.mktemp("registry")
    with kept_lab(pytestconfig, 1) as lab, Registry(folder, lab=lab) as registry:
        yield lab.host(1), registry


@pytest.fixture
def rig(engine_host: tuple[Host, Registry]) -> Iterator[DockerRig]:
    """Lend the host's engine; what a test makes on it is removed after it."""
    with docker_rig(*engine_host) as lent:
        yield lent


@pytest.fixture
def network(rig: DockerRig) -> Iterator[str]:
    """Lend a bridge network with a subnet of its own."""
    pool = docker.types.IPAMPool(subnet="10.201.7.0/24", gateway="10.201.7.1")
    ipam = docker.types.IPAMConfig(pool_configs=[pool])
    made = rig.host.docker.networks.create(NETWORK, driver="bridge", ipam=ipam)
    yield NETWORK
    rig.clean()
    made.remove()
