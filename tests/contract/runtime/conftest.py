"""Which engines does every test of the suite run against?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.runtime.rig import FakeRig, Rig, docker_rig
from tests.lab import Host
from tests.lab.fixtures import kept_lab
from tests.lab.registry import Registry


@pytest.fixture(params=["fake", "docker"], scope="package")
def real_engine(
    request: pytest.FixtureRequest,
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Host, Registry] | None]:
    """Keep one lab host and a registry for the whole suite; nothing for the fake."""
    if request.param == "fake":
        yield None
        return
    folder = tmp_path_factory.mktemp("registry")
    with kept_lab(pytestconfig, 1) as lab, Registry(folder, lab=lab) as registry:
        yield lab.host(1), registry


@pytest.fixture
def rig(real_engine: tuple[Host, Registry] | None) -> Iterator[Rig]:
    """Lend an engine of each kind; what a test makes on it is removed after it."""
    if real_engine is None:
        yield FakeRig()
        return
    with docker_rig(*real_engine) as docker:
        yield docker
