"""How fast are names answered, beside dnsmasq and Docker's own resolver? Prints JSON.

`python -m benchmarks.dns [--seconds N] [--repeats N] [--without-docker]`

Needs root, `dnsperf` and `dnsmasq`. The server is in one network namespace, who asks in another,
with a veth pair between them, as a container has. It holds 1,000 services of 10 endpoints, of which
one changes 50 times a second through real gossip facts while it is measured; dnsmasq holds the same
names, Docker's resolver one, both without changes. Throughput: dnsperf, 8 clients, 64 queries
outstanding; with the server's own processor time for each (0: Docker's is not told apart). Latency:
1,000 queries a second, after a rest; who asks runs in a real-time class, so that its own waiting
for a processor is not taken for the server's. All are measured in turn, `--repeats` times, and
stand still while another one is. Server and load share the machine's processors: compare, do not
extrapolate.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import psutil
import structlog

from benchmarks.told import about
from dray.addresses import HostPort
from dray.clock import SystemClock
from dray.model import FactView, ServiceFacts, ServiceKey, ServiceRevision
from node.dns.config import ServerConfig
from node.dns.service import NodeDns
from node.dns.urgency import MODEST_FOR_S
from node.dns.zone import ZoneConfig
from node.gossip.packing import pack_service
from tests.dns_world import HOME, RANGES, World, an_asker, an_endpoint, node_id
from tests.lab import BUSYBOX, Lab

PROJECTS: Final = 10
SERVICES: Final = 1_000
ENDPOINTS: Final = 10
NODES: Final = 20
CHANGES_PER_S: Final = 50
SERVER: Final = "10.201.1.1"
CLIENT: Final = "10.201.1.2"
PEER: Final = "10.201.1.3"
NETWORK: Final = "shared"
CLIENTS: Final = 8
OUTSTANDING: Final = 64
LATENCY_QUERIES_PER_S: Final = 1_000
REST_S: Final = MODEST_FOR_S + 2.0  # after a flood; the same for all
URGENT: Final = ("chrt", "--rr", "1")
START_S: Final = 30.0

Run = Callable[[Sequence[str]], str]
Figures = dict[str, float]


def names() -> list[str]:
    """Return the names that are asked for."""
    return [f"s{number}.p{number % PROJECTS}.dray.internal" for number in range(SERVICES)]


def address(service: int, slot: int) -> str:
    """Return an address of an endpoint."""
    number = service * ENDPOINTS + slot
    return f"10.193.{number // 250}.{number % 250 + 1}"


# ---- our server, run as a process of its own


class Source:
    """Gossip of the benchmark: a cluster that changes `CHANGES_PER_S` times a second."""

    def __init__(self) -> None:
        self.nodes = [HOME, *(f"n{number}" for number in range(1, NODES))]
        self.world = World(*self.nodes)
        self._changed = asyncio.Condition()
        self._rng = random.Random(1)
        self._packed: dict[tuple[int, int], bytes] = {}
        for service in range(SERVICES):
            for count in (ENDPOINTS - 1, ENDPOINTS):
                self.publish(service, count)

    def publish(self, service: int, count: int) -> None:
        """Let a node have so many endpoints of a service; packed once, as they come in gossip."""
        key = ServiceKey(f"p{service % PROJECTS}", f"s{service}")
        value = self._packed.get((service, count))
        if value is None:
            endpoints = tuple(
                an_endpoint(slot, address(service, slot), service=key, networks=(NETWORK,))
                for slot in range(1, count + 1)
            )
            packed = pack_service(ServiceFacts(ServiceRevision(1), endpoints=endpoints))
            assert isinstance(packed, bytes)
            value = self._packed[service, count] = packed
        self.world.merge(self.nodes[service % NODES], key, value)

    def view(self) -> FactView:
        """Return the newest view."""
        return self.world.view()

    async def wait_view(self, after_sequence: int) -> FactView:
        """Return a newer view, once there is one."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.view().sequence > after_sequence)
            return self.view()

    async def change(self) -> None:
        """Take an endpoint from a service, and give it back to the one before, for ever."""
        while True:
            service = self._rng.randrange(SERVICES)
            for count in (ENDPOINTS - 1, ENDPOINTS):
                async with self._changed:
                    self.publish(service, count)
                    self._changed.notify_all()
                await asyncio.sleep(1 / CHANGES_PER_S)


async def serve() -> None:
    """Run our name server until a signal comes; say when it listens."""
    source = Source()
    config = ServerConfig(
        ZoneConfig(node_id(HOME), RANGES), (HostPort(SERVER, 53),), ("10.201.1.0/24",)
    )
    log = structlog.get_logger()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    service = NodeDns(config, source, clock=SystemClock(), log=log, resolv_conf=Path("/dev/null"))
    service.set_clients({CLIENT: an_asker("p0", NETWORK)})
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(service.run()), group.create_task(source.change())]
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: [each.cancel() for each in tasks])
        while not service.addresses():
            await asyncio.sleep(0.01)
        print("ready", flush=True)


# ---- who asks


@dataclass(frozen=True, slots=True)
class Asking:
    """How queries are made: against what, from where, and for which names."""

    run: Run
    server: str
    queries: Path

    def throughput(self, seconds: int) -> Figures:
        """Return queries a second at full load, and how many were lost."""
        options = ["-c", str(CLIENTS), "-q", str(OUTSTANDING)]
        text = self._dnsperf(options, seconds)
        return {
            "queries_per_s": round(_number(r"Queries per second: +([\d.]+)", text)),
            "completed": _number(r"Queries completed: +(\d+)", text),
            "lost": _number(r"Queries lost: +(\d+)", text),
        }

    def latency(self, seconds: int) -> Figures:
        """Return percentiles of the latency at a moderate rate."""
        options = ["-c", "1", "-q", "100", "-Q", str(LATENCY_QUERIES_PER_S), "-v"]
        text = self._dnsperf(options, seconds, URGENT)
        found = [float(each) * 1e6 for each in re.findall(r"^> .* ([\d.]+)$", text, re.MULTILINE)]
        assert len(found) > seconds * LATENCY_QUERIES_PER_S / 2, text[-2_000:]
        cuts = statistics.quantiles(found, n=1_000)
        return {
            "p50_us": round(cuts[499]),
            "p99_us": round(cuts[989]),
            "p999_us": round(cuts[998]),
            "lost": _number(r"Queries lost: +(\d+)", text),
        }

    def _dnsperf(self, options: Sequence[str], seconds: int, manner: Sequence[str] = ()) -> str:
        fixed = [*manner, "dnsperf", "-s", self.server, "-d", str(self.queries), "-l", str(seconds)]
        return self.run([*fixed, *options])


def _cpu_s(process: psutil.Process | None) -> float:
    """Return the processor time that a process and its children have used."""
    if process is None:
        return 0.0
    all_times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(times.user + times.system for times in all_times)


def _number(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    assert match is not None, text[-2_000:]
    return float(match[1])


@dataclass(slots=True)
class Measured:
    """One server's figures, and its process if it is known."""

    asking: Asking
    process: psutil.Process | None = None
    fast: list[Figures] = field(default_factory=list)
    slow: list[Figures] = field(default_factory=list)
    used_s: float = 0.0

    def measure(self, seconds: int) -> None:
        """Measure once; whoever else is measured stands still meanwhile."""
        with self._awake():
            self.asking.throughput(1)  # warms up
            before_s = _cpu_s(self.process)
            self.fast.append(self.asking.throughput(seconds))
            self.used_s += _cpu_s(self.process) - before_s
            time.sleep(REST_S)
            self.slow.append(self.asking.latency(seconds))

    @contextlib.contextmanager
    def _awake(self) -> Iterator[None]:
        if self.process is not None:
            self.signal(signal.SIGCONT)
        yield
        if self.process is not None:
            self.signal(signal.SIGSTOP)

    def signal(self, number: int) -> None:
        """Send a signal to all of its processes."""
        assert self.process is not None
        for each in (self.process, *self.process.children(recursive=True)):
            each.send_signal(number)

    def figures(self) -> dict[str, object]:
        """Return medians, and each run's own."""
        return {
            **{
                key: statistics.median(each[key] for each in self.slow)
                for key in ("p50_us", "p99_us", "p999_us")
            },
            "p99_us_best": min(each["p99_us"] for each in self.slow),
            "queries_per_s": statistics.median(each["queries_per_s"] for each in self.fast),
            "queries_per_s_all": [each["queries_per_s"] for each in self.fast],
            "p99_us_all": [each["p99_us"] for each in self.slow],
            "cpu_us_per_query": round(
                self.used_s * 1e6 / sum(each["completed"] for each in self.fast), 1
            ),
            "lost": sum(each["lost"] for each in (*self.fast, *self.slow)),
        }


# ---- where


@contextlib.contextmanager
def namespaces() -> Iterator[tuple[str, str]]:
    """Give two namespaces that are joined by a pair of interfaces: server's and client's."""
    server, client = (f"dray-dns-{os.getpid()}-{what}" for what in ("s", "c"))
    ip = ["ip", "-n"]
    commands = [
        ["ip", "netns", "add", server],
        ["ip", "netns", "add", client],
        [
            "ip",
            "link",
            "add",
            "dns0",
            "netns",
            server,
            "type",
            "veth",
            "peer",
            "dns0",
            "netns",
            client,
        ],
        *([*ip, each, "link", "set", "lo", "up"] for each in (server, client)),
        *([*ip, each, "link", "set", "dns0", "up"] for each in (server, client)),
        [*ip, server, "address", "add", f"{SERVER}/24", "dev", "dns0"],
        [*ip, server, "address", "add", f"{PEER}/24", "dev", "dns0"],
        [*ip, client, "address", "add", f"{CLIENT}/24", "dev", "dns0"],
    ]
    try:
        for command in commands:
            subprocess.run(command, check=True)
        yield server, client
    finally:
        for each in (server, client):
            subprocess.run(["ip", "netns", "delete", each], check=False)


@contextlib.contextmanager
def running(command: Sequence[str], is_ready: Callable[[], bool]) -> Iterator[psutil.Process]:
    """Run a server while the block does."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        ends_at_s = time.monotonic() + START_S
        while not is_ready():
            assert process.poll() is None, f"{command} has ended"
            assert time.monotonic() < ends_at_s, f"{command} does not answer"
            time.sleep(0.05)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def within(namespace: str) -> Run:
    """Return what runs a program in a namespace and gives its output."""

    def run(command: Sequence[str]) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, check=True
        )
        return done.stdout

    return run


def answers(asking: Asking) -> bool:
    """Return whether a server answers."""
    text = asking.run(
        ["dnsperf", "-s", asking.server, "-d", str(asking.queries), "-n", "1", "-t", "1"]
    )
    return _number(r"Queries completed: +(\d+)", text) > 0


@contextlib.contextmanager
def ours_and_dnsmasq(folder: Path) -> Iterator[dict[str, Measured]]:
    """Run ours and dnsmasq, with the same names, at two addresses of one namespace."""
    queries = folder / "queries"
    queries.write_text("".join(f"{name} A\n" for name in names()))
    hosts = folder / "hosts"
    hosts.write_text(
        "".join(
            f"{address(service, slot)} {name}\n"
            for service, name in enumerate(names())
            for slot in range(1, ENDPOINTS + 1)
        )
    )
    with namespaces() as (server, client), contextlib.ExitStack() as held:
        enter = ["ip", "netns", "exec", server]
        commands = {
            "dray": [*enter, sys.executable, "-m", "benchmarks.dns", "--serve"],
            "dnsmasq": [
                *enter, "dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts",
                "--local-ttl=1", f"--addn-hosts={hosts}", f"--listen-address={PEER}",
                "--bind-interfaces", "--conf-file=/dev/null", "--pid-file", "--user=root",
            ],
        }  # fmt: skip
        found: dict[str, Measured] = {}
        for name, command in commands.items():
            asking = Asking(within(client), SERVER if name == "dray" else PEER, queries)
            process = held.enter_context(running(command, partial(answers, asking)))
            found[name] = Measured(asking, process)
            held.callback(found[name].signal, signal.SIGCONT)  # it shall hear that it has to end
            found[name].signal(signal.SIGSTOP)
        yield found


@contextlib.contextmanager
def docker_resolver(folder: Path) -> Iterator[Measured]:
    """Run Docker's embedded resolver with the name of a container that it knows."""
    with Lab.up(1) as lab:
        host = lab.host(1)
        network = host.docker.networks.create("dns-bench")
        sleep = ["sleep", "100000"]
        for name in ("known", "asks"):
            container = host.docker.containers.run(
                BUSYBOX.reference, sleep, detach=True, name=name, network=network.name
            )
        container.reload()
        pid = container.attrs["State"]["Pid"]
        network_of = host.exec(["readlink", f"/proc/{pid}/ns/net"]).stdout.strip()
        target = next(each for each in psutil.pids() if _network(each) == network_of)

        def run(command: Sequence[str]) -> str:
            # From outside: the groups of a host of the lab have no real-time share.
            enter = ["nsenter", "--net", "--target", str(target)]
            done = subprocess.run([*enter, *command], check=True, capture_output=True, text=True)
            return done.stdout

        queries = folder / "known"
        queries.write_text("known A\n")
        yield Measured(Asking(run, "127.0.0.11", queries))


def _network(pid: int) -> str:
    """Return the network namespace of a process; empty for one that has ended."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def measure(seconds: int, repeats: int, *, is_with_docker: bool) -> dict[str, object]:
    """Measure all in turn, several times."""
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        found = held.enter_context(ours_and_dnsmasq(folder))
        if is_with_docker:
            found["docker"] = held.enter_context(docker_resolver(folder))
        for _ in range(repeats):
            for each in found.values():
                each.measure(seconds)
        return {name: each.figures() for name, each in found.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dns", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, metavar="N")
    parser.add_argument("--repeats", type=int, default=5, metavar="N")
    parser.add_argument("--without-docker", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.serve:
        asyncio.run(serve())
        return 0
    told = about("dns")
    is_with_docker = not arguments.without_docker
    found = measure(arguments.seconds, arguments.repeats, is_with_docker=is_with_docker)
    result = {
        **told,
        "repeats": arguments.repeats,
        "services": SERVICES,
        "endpoints": SERVICES * ENDPOINTS,
        "changes_per_s": CHANGES_PER_S,
        "figures": found,
    }
    json.dump(result, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
