"""What does the contract suite need of an engine, real or fake, beside the port itself?"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import secrets
import tarfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import docker.errors

from dray.model import ContainerSpec, ImageOptions, SlotKey
from dray.names import ClusterId, TaskId, id_text
from node.runtime.base import (
    Container,
    ContainerIdentity,
    ContainerNetwork,
    ContainerRequest,
    Created,
    LogStream,
    Refusal,
    Runtime,
    Started,
)
from node.runtime.docker import DockerRuntime
from node.runtime.fake import FakeRuntime
from node.runtime.fake_engine import FakeEngine, FakeProgram
from tests.lab import BUSYBOX, Host
from tests.lab.registry import Registry

IMAGE = BUSYBOX.reference
OUT, ERR = LogStream.STDOUT, LogStream.STDERR


@dataclass(frozen=True, slots=True)
class Program:
    """A command, and what the fake has to know of it."""

    command: tuple[str, ...]
    fake: FakeProgram


ENDS = Program(("true",), FakeProgram(exit_code=0))
FAILS = Program(("false",), FakeProgram(exit_code=1))
# PID 1 heeds only the signals that it handles.
SLEEPS = Program(("sleep", "1000"), FakeProgram(ignores=frozenset({"SIGTERM"})))
OBEYS = Program(
    (
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done",
    ),
    FakeProgram(signal_exit_code=5, output=((OUT, b"ready"),)),
)
PRINTS = Program(
    ("sh", "-c", "for n in 1 2 3 4 5; do echo line $n; done; exit 3"),
    FakeProgram(exit_code=3, output=tuple((OUT, b"line %d" % n) for n in range(1, 6))),
)
SPLITS = Program(
    ("sh", "-c", "echo to out; echo to err >&2; exit 4"),
    FakeProgram(exit_code=4, output=((OUT, b"to out"), (ERR, b"to err"))),
)
LINGERS = Program(
    ("sh", "-c", "echo first; sleep 0.4; exit 0"),
    FakeProgram(exit_code=0, runs_s=0.4, output=((OUT, b"first"),)),
)
ABSENT = Program(("/absent",), FakeProgram(refusal=Refusal.COMMAND_NOT_FOUND))
UNFIT = Program(("/etc/passwd",), FakeProgram(refusal=Refusal.COMMAND_NOT_EXECUTABLE))
COPIES = Program(("cat",), FakeProgram(exit_code=0, copies_input=True))
# An engine older than 23 sets the size a moment after the start.
SHOWS_SIZE = Program(
    ("sh", "-c", "until busybox stty size 2>/dev/null | grep .; do :; done"),
    FakeProgram(exit_code=0, runs_s=0.0, shows_size=True),
)
PROGRAMS = (
    ENDS, FAILS, SLEEPS, OBEYS, PRINTS, SPLITS, LINGERS, ABSENT, UNFIT, COPIES, SHOWS_SIZE,
)  # fmt: skip


class Rig(ABC):
    """An engine for one test, with a cluster of its own on it."""

    def __init__(self) -> None:
        self.cluster_id = ClusterId(id_text(secrets.token_bytes(16)))
        self._numbers = itertools.count(1)
        self._mark = secrets.token_hex(4)

    def name(self) -> str:
        """Return a name for a container or volume that no other test uses."""
        return f"dray-contract-{self._mark}-{next(self._numbers)}"

    def request(
        self,
        program: Program = SLEEPS,
        *,
        name: str = "",
        attempt: int = 1,
        network: ContainerNetwork | None = None,
        files: tuple[tuple[str, str], ...] = (),
        image: ImageOptions | None = None,
        **fields: Any,
    ) -> ContainerRequest:
        """Return a request for a container that runs a program."""
        own_name = name or self.name()
        identity = ContainerIdentity(
            self.cluster_id, TaskId(id_text(b"t" * 16)), attempt, SlotKey("shop", "web", 3)
        )
        spec = ContainerSpec(image or ImageOptions(IMAGE), command=program.command, **fields)
        attached = network or ContainerNetwork()
        return ContainerRequest(own_name, identity, spec, attached, files=files)

    @contextlib.asynccontextmanager
    async def runtime(self) -> AsyncIterator[Runtime]:
        """Yield an adapter to the engine, closed at the end."""
        runtime = self.connect()
        try:
            yield runtime
        finally:
            await runtime.close()

    @abstractmethod
    def connect(self) -> Runtime:
        """Return a new adapter to the engine."""

    @abstractmethod
    async def offer_image(self) -> str:
        """Return the name of an image that can be pulled and is not on the node."""

    @abstractmethod
    async def go_away(self) -> None:
        """Make the engine unreachable; containers run on."""

    @abstractmethod
    async def come_back(self) -> None:
        """Make it reachable again."""


class FakeRig(Rig):
    """A fake engine."""

    def __init__(self) -> None:
        super().__init__()
        seconds = itertools.count(1_700_000_000)
        self.engine = FakeEngine(
            lambda: float(next(seconds)),
            images=[IMAGE],
            programs={program.command: program.fake for program in PROGRAMS},
        )

    def connect(self) -> Runtime:
        """Return a new adapter to the engine."""
        return FakeRuntime(self.engine)

    async def offer_image(self) -> str:
        """Return the name of an image that can be pulled and is not on the node."""
        reference = f"registry.test/{self.name()}:1"
        self.engine.registry[reference] = self.engine.platform
        return reference

    async def go_away(self) -> None:
        """Make the engine unreachable; containers run on."""
        self.engine.go_away()

    async def come_back(self) -> None:
        """Make it reachable again."""
        self.engine.come_back()


class DockerRig(Rig):
    """The Docker Engine of a lab host."""

    def __init__(self, host: Host, registry: Registry) -> None:
        super().__init__()
        self.host = host
        self._registry = registry

    def connect(self) -> Runtime:
        """Return a new adapter to the engine."""
        return DockerRuntime(self.host.docker_socket)

    async def offer_image(self) -> str:
        """Return the name of an image that can be pulled and is not on the node."""
        return await asyncio.to_thread(self._offer_image)

    def _offer_image(self) -> str:
        client, name = self.host.docker, f"{self.name()}:1"
        built, _ = client.images.build(fileobj=_image_context(), custom_context=True, tag=name)
        reference = self._registry.push(client, name)
        for tag in (reference, name):
            client.images.remove(tag)
        assert built.id not in {image.id for image in client.images.list(all=True)}
        return reference

    async def go_away(self) -> None:
        """Make the engine unreachable; containers run on."""
        await asyncio.to_thread(self.host.kill_engine)

    async def come_back(self) -> None:
        """Make it reachable again."""
        await asyncio.to_thread(self.host.start_engine)

    def clean(self) -> None:
        """Remove what the test made on the host."""
        self.host.start_engine()
        client = self.host.docker
        for container in client.containers.list(all=True, ignore_removed=True):
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True, v=True)
        for volume in client.volumes.list():
            volume.remove(force=True)
        for image in client.images.list():
            for tag in image.tags:
                if self._mark in tag:
                    client.images.remove(tag)


def _image_context() -> io.BytesIO:
    """Return what an image with a layer of its own is built from."""
    buffer = io.BytesIO()
    files = {
        "Dockerfile": f"FROM {IMAGE}\nCOPY layer /layer\n".encode(),
        "layer": secrets.token_bytes(300_000),
    }
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    buffer.seek(0)
    return buffer


@contextlib.contextmanager
def docker_rig(host: Host, registry: Registry) -> Iterator[DockerRig]:
    """Yield a rig on a lab host and clean up after it."""
    rig = DockerRig(host, registry)
    try:
        yield rig
    finally:
        rig.clean()


async def created(runtime: Runtime, request: ContainerRequest) -> str:
    """Make a container; return its id."""
    made = await runtime.create(request)
    assert isinstance(made, Created), made
    return made.container_id


async def running(runtime: Runtime, request: ContainerRequest) -> str:
    """Make and start a container; return its id."""
    container_id = await created(runtime, request)
    done = await runtime.start(container_id)
    assert isinstance(done, Started), done
    return container_id


async def ended(runtime: Runtime, request: ContainerRequest) -> Container:
    """Run a container to its end; return it."""
    found = await runtime.wait(await running(runtime, request))
    assert found is not None
    return found
