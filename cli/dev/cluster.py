"""What makes a cluster of one machine, and in which order does it come up?"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import re
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.dev.children import Child, Children
from dray.addresses import HostPort
from dray.client import Client, ClientLimits
from dray.errors import DrayError, FailedPrecondition
from dray.model import NodeCondition
from dray.names import dns_label

__all__ = ["DevCluster", "DevSettings"]

HOST: Final = "127.0.0.1"
CONNECT_LIMIT_S: Final = 1.0
INIT_LIMIT_S: Final = 30.0
ETCD_QUOTA_BYTES: Final = 2 * 1024**3
ASKED_S: Final = 2.0  # one question to a scheduler that is starting
# -P: a folder called `cli` where the user stands is not ours.
_DRAY: Final = (sys.executable, "-P", "-m", "cli")
_LIMITS: Final = ClientLimits(call_s=ASKED_S, attempt_s=ASKED_S, unreachable_s=ASKED_S)


@dataclass(frozen=True, slots=True)
class DevSettings:
    """Where a cluster of one machine keeps its data and is reached.

    Attributes:
        data: Folder of everything that it keeps.
        docker_host: Socket of the Docker Engine, "unix:///…".
        api_port: Where its scheduler serves.
        etcd_port: Where its etcd serves; the next one is etcd's own.
        gossip_port: Gossip of its node.
        metrics_port: Metrics of its scheduler; the next one is the node's.
        node_name: Name of the machine.
    """

    data: Path
    docker_host: str
    node_name: str
    api_port: int = 7400
    etcd_port: int = 7410
    gossip_port: int = 7401
    metrics_port: int = 7402

    @property
    def etcd_url(self) -> str:
        """Where the scheduler finds etcd."""
        return f"http://{HOST}:{self.etcd_port}"

    @property
    def api(self) -> HostPort:
        """Where users find the scheduler."""
        return HostPort(HOST, self.api_port)


class DevCluster:
    """etcd, one scheduler and one node of this machine: the same programs as in any cluster."""

    def __init__(self, settings: DevSettings, say: Callable[[str], None]) -> None:
        """Start nothing yet; `say` gets a line for everything that happens."""
        self._settings = settings
        self._say = say
        self._logs = settings.data / "log"

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[Children]:
        """Bring everything up, in order; end it when the block ends.

        Containers keep running: the node daemon leaves them, and the next one adopts them.

        Raises:
            FailedPrecondition: Something is missing on this machine, or did not come up; the
                message says what and why. Nothing runs any more.
        """
        lock = await asyncio.to_thread(self._prepare)
        children = Children(self._logs, self._say, random.Random())
        try:
            for child in (self._etcd(), self._scheduler(), self._node()):
                took_s = await children.start(child)
                self._say(f"{child.name:<10} ready in {took_s:.1f} s")
                if child.name == "etcd":
                    await self._init()
            yield children
        finally:
            await children.stop()
            os.close(lock)

    def _prepare(self) -> int:
        """Look for what would fail later with a worse message; make folders and take the lock."""
        if shutil.which("etcd") is None:
            raise FailedPrecondition(
                "there is no etcd on this machine's PATH",
                hint="install it: apt install etcd-server",
            )
        socket = Path(self._settings.docker_host.removeprefix("unix://"))
        if not socket.is_socket():
            raise FailedPrecondition(
                f"no Docker Engine listens at {socket}",
                hint="start it, or name its socket with --docker-host unix:///PATH",
            )
        self._logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _lock(self._settings.data)

    async def _init(self) -> None:
        """Make the cluster, unless an earlier run has."""
        command = (*_DRAY, "init", "--if-absent", "--etcd", self._settings.etcd_url)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(INIT_LIMIT_S):
                output, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise FailedPrecondition(f"`dray init` took over {INIT_LIMIT_S:.0f} s") from None
        if process.returncode:
            raise FailedPrecondition(f"`dray init` failed: {output.decode().strip()}")

    def _etcd(self) -> Child:
        settings = self._settings
        peer = f"http://{HOST}:{settings.etcd_port + 1}"
        flags = {
            "name": "dev",
            "data-dir": settings.data / "etcd",
            "listen-client-urls": settings.etcd_url,
            "advertise-client-urls": settings.etcd_url,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"dev={peer}",
            "quota-backend-bytes": ETCD_QUOTA_BYTES,
            "log-level": "warn",
        }
        command = ("etcd", *(f"--{name}={value}" for name, value in flags.items()))
        return Child("etcd", command, _listens(settings.etcd_port))

    def _scheduler(self) -> Child:
        settings = self._settings
        command = (
            *(*_DRAY, "scheduler", "run"),
            *("--etcd", settings.etcd_url),
            *("--listen", str(settings.api), "--advertise", str(settings.api)),
            *("--metrics-listen", f"{HOST}:{settings.metrics_port}"),
            *("--data", str(settings.data / "scheduler")),
        )
        return Child("scheduler", command, self._has_leader)

    def _node(self) -> Child:
        settings = self._settings
        command = (
            *(*_DRAY, "node", "run"),
            *("--scheduler", str(settings.api), "--name", settings.node_name),
            *("--advertise", HOST, "--gossip-port", str(settings.gossip_port)),
            *("--metrics-listen", f"{HOST}:{settings.metrics_port + 1}"),
            *("--docker-host", settings.docker_host),
            *("--data", str(settings.data / "node")),
        )
        return Child("node", command, self._has_node)

    async def _has_leader(self) -> bool:
        async with Client([self._settings.api], limits=_LIMITS) as client:
            with contextlib.suppress(DrayError):
                return (await client.get_status()).leader is not None
        return False

    async def _has_node(self) -> bool:
        async with Client([self._settings.api], limits=_LIMITS) as client:
            with contextlib.suppress(DrayError):
                nodes = (await client.list_nodes()).nodes
                return any(node.condition is NodeCondition.READY for node in nodes)
        return False


def _lock(data: Path) -> int:
    """Take the folder's lock and return its file: two clusters in one would ruin each other."""
    lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise FailedPrecondition(
            f"another `dray dev` uses {data}", hint="end it, or name another folder with --data"
        ) from None
    return lock


def _listens(port: int) -> Callable[[], Awaitable[bool]]:
    async def is_ready() -> bool:
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                _, writer = await asyncio.open_connection(HOST, port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    return is_ready


def node_name(hostname: str) -> str:
    """Return a machine's host name as the name of a node, which is a DNS label."""
    return dns_label(re.sub(r"\..*", "", hostname)) or "dev"
