"""Which parts of the lab do tests get as pytest fixtures? A plugin: list it in `pytest_plugins`.

- `lab_factory` (function): `lab_factory(hosts, ...)` makes a lab that goes when the test ends.
- `lab` (one lab a module): three hosts, mended after each test: power, engines, no cuts.
- `host` (function): host 1 of `lab`.
- `etcd1`, `etcd3` (one cluster a module): one or three members on loopback, mended after each test.
- `registry` (one a module): open, on the switch of `lab`.

A module's lab is nobody's leftover, whatever a test does to it; but containers that a test leaves
on its hosts are. A machine that cannot hold a lab fails the test and says why: nothing is skipped.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from tests import guard, machine
from tests.lab.etcd import EtcdCluster
from tests.lab.host import Host
from tests.lab.images import ALL, Image
from tests.lab.lab import Lab
from tests.lab.registry import Registry

LAB_HOSTS = 3


class LabFactory(Protocol):
    """Makes labs for one test."""

    def __call__(
        self,
        hosts: int,
        *,
        images: tuple[Image, ...] = ALL,
        engine: Mapping[str, object] | None = None,
        forward_drop: bool = True,
    ) -> Lab:
        """Return a new lab with so many hosts; see `Lab.up`."""
        ...


@pytest.fixture
def lab_factory() -> Iterator[LabFactory]:
    """Make labs that are taken down when the test ends, if it has not done so."""
    with contextlib.ExitStack() as labs:

        def make(
            hosts: int,
            *,
            images: tuple[Image, ...] = ALL,
            engine: Mapping[str, object] | None = None,
            forward_drop: bool = True,
        ) -> Lab:
            lab = Lab.up(hosts, images=images, engine=engine, forward_drop=forward_drop)
            return labs.enter_context(lab)

        yield make


def _pid(thing: machine.Thing) -> int:
    """Return the id of a process that the guard has found, 0 for other things."""
    return int(thing.identity.partition(":")[0]) if thing.kind == "process" else 0


@contextlib.contextmanager
def kept_lab(config: pytest.Config, hosts: int, *, forward_drop: bool = True) -> Iterator[Lab]:
    """Keep a lab over several tests: for fixtures of a wider scope.

    The guard leaves alone what belongs to the lab itself, and watches for containers on its hosts.
    """
    watch = config.stash[guard.GUARD_KEY]
    with Lab.up(hosts, forward_drop=forward_drop) as lab:
        sockets = {str(host.docker_socket) for host in lab.hosts}

        def is_lab(thing: machine.Thing) -> bool:
            return _pid(thing) in lab.own_processes()

        watch.sockets |= sockets
        watch.exempt.append(is_lab)
        try:
            yield lab
        finally:
            watch.sockets -= sockets
            watch.exempt.remove(is_lab)


@contextlib.contextmanager
def kept_etcd(config: pytest.Config, size: int, directory: Path) -> Iterator[EtcdCluster]:
    """Keep an etcd cluster over several tests: for fixtures of a wider scope."""
    watch = config.stash[guard.GUARD_KEY]
    with EtcdCluster(size, directory) as cluster:

        def is_etcd(thing: machine.Thing) -> bool:
            return _pid(thing) in cluster.own_processes()

        watch.exempt.append(is_etcd)
        try:
            yield cluster
        finally:
            watch.exempt.remove(is_etcd)


@pytest.fixture(scope="module")
def _module_lab(pytestconfig: pytest.Config) -> Iterator[Lab]:
    """Keep one lab for a module's tests."""
    with kept_lab(pytestconfig, LAB_HOSTS) as lab:
        yield lab


@pytest.fixture
def lab(_module_lab: Lab) -> Iterator[Lab]:
    """Lend the module's lab: every host has power and an engine, and nothing is cut."""
    yield _module_lab
    _module_lab.mend()


@pytest.fixture
def host(lab: Lab) -> Host:
    """Return the first host of the module's lab."""
    return lab.host(1)


@pytest.fixture(scope="module")
def _module_etcd1(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EtcdCluster]:
    """Keep one etcd of one member for a module's tests."""
    with kept_etcd(pytestconfig, 1, tmp_path_factory.mktemp("etcd1")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def _module_etcd3(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EtcdCluster]:
    """Keep one etcd of three members for a module's tests."""
    with kept_etcd(pytestconfig, 3, tmp_path_factory.mktemp("etcd3")) as cluster:
        yield cluster


@pytest.fixture
def etcd1(_module_etcd1: EtcdCluster) -> Iterator[EtcdCluster]:
    """Lend the module's etcd of one member, running and healthy; keys stay from test to test."""
    yield _module_etcd1
    _module_etcd1.mend()


@pytest.fixture
def etcd3(_module_etcd3: EtcdCluster) -> Iterator[EtcdCluster]:
    """Lend the module's etcd of three members, running and healthy; keys stay."""
    yield _module_etcd3
    _module_etcd3.mend()


@pytest.fixture(scope="module")
def _module_registry(
    _module_lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    """Keep one registry for a module's tests."""
    with Registry(tmp_path_factory.mktemp("registry"), lab=_module_lab) as running:
        yield running


@pytest.fixture
def registry(_module_registry: Registry) -> Registry:
    """Return an open registry that every host of `lab` reaches and trusts."""
    return _module_registry
