"""What can Prometheus read of a node? Counted when it asks, nothing in between."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dray.addresses import HostPort
from dray.errors import FailedPrecondition
from dray.model import AttemptState, Fault, MemberState, NodeUsage
from dray.tasks import LoopStatus
from node.agent.tasks import TaskState
from node.dns.config import ServerCounts

__all__ = ["MetricsServer", "NodeMetrics"]


class NodeMetrics(Collector):
    """The node's figures.

    The functions are called from the server's thread: each returns values that are never changed,
    or copies them in one step.
    """

    def __init__(
        self,
        *,
        states: Callable[[], Iterable[TaskState]],
        faults: Callable[[], Iterable[Fault]],
        usage: Callable[[], NodeUsage],
        is_connected: Callable[[], bool],
        loops: Callable[[], Iterable[LoopStatus]],
        counted: Callable[[], dict[str, int]],
        members: Callable[[], Mapping[MemberState, int]],
        lateness_s: Callable[[], float],
        names: Callable[[], ServerCounts],
    ) -> None:
        """Ask these functions whenever Prometheus asks."""
        self._states = states
        self._faults = faults
        self._usage = usage
        self._is_connected = is_connected
        self._loops = loops
        self._counted = counted
        self._members = members
        self._lateness_s = lateness_s
        self._names = names

    def collect(self) -> Iterator[Metric]:
        """Yield all figures."""
        states = tuple(self._states())
        yield from _tasks(states)
        connected = GaugeMetricFamily(
            "dray_node_leader_connected", "Whether the stream to the leader is up."
        )
        connected.add_metric([], float(self._is_connected()))
        yield connected
        faults = GaugeMetricFamily(
            "dray_node_fault", "What is wrong with the node.", labels=["kind"]
        )
        for fault in self._faults():
            faults.add_metric([fault.kind.name.lower()], 1.0)
        yield faults
        yield from _usage(self._usage())
        restarts = CounterMetricFamily(
            "dray_node_loop_restarts", "Starts of a loop after a failure.", labels=["loop"]
        )
        for loop in self._loops():
            restarts.add_metric([loop.name], float(loop.restarts))
        yield restarts
        yield from self._gossip()
        asked = CounterMetricFamily(
            "dray_node_dns",
            "What the name server has done with queries since its process started.",
            labels=["what"],
        )
        for what, count in dataclasses.asdict(self._names()).items():
            asked.add_metric([what], float(count))
        yield asked

    def _gossip(self) -> Iterator[Metric]:
        counted = CounterMetricFamily(
            "dray_node_gossip",
            "What gossip has counted: probes, suspicions, refutations, false alarms …",
            labels=["what"],
        )
        for what, count in sorted(self._counted().items()):
            counted.add_metric([what], float(count))
        yield counted
        members = GaugeMetricFamily(
            "dray_node_gossip_members", "Members by what they are held to be.", labels=["state"]
        )
        held = self._members()
        for state in MemberState:
            members.add_metric([state.name.lower()], float(held.get(state, 0)))
        yield members
        late = GaugeMetricFamily(
            "dray_node_gossip_lateness_seconds",
            "How late gossip's event loop ran at worst in the last minute.",
        )
        late.add_metric([], self._lateness_s())
        yield late


def _tasks(states: tuple[TaskState, ...]) -> Iterator[Metric]:
    tasks = GaugeMetricFamily(
        "dray_node_tasks", "Tasks by the state of their newest attempt.", labels=["state"]
    )
    count = Counter(state.state for state in states)
    for state in AttemptState:
        tasks.add_metric([state.name.lower()], float(count[state]))
    yield tasks
    ends = GaugeMetricFamily(
        "dray_node_task_restarts",
        "Attempts that ended by themselves within the restart window.",
        labels=["project", "service", "slot"],
    )
    for each in states:
        if each.ends_unix_s:
            slot = each.slot
            labels = [slot.project, slot.service, str(slot.slot)]
            ends.add_metric(labels, float(len(each.ends_unix_s)))
    yield ends


def _usage(usage: NodeUsage) -> Iterator[Metric]:
    for name, text, value in (
        ("cpu_cores", "CPUs in use.", usage.cpu_millis / 1000),
        ("memory_bytes", "Memory in use.", usage.memory_bytes),
        ("disk_bytes", "Bytes in use where Docker's data is.", usage.disk_bytes),
        ("cpu_pressure_ratio", "Share of time that waits for a CPU.", usage.cpu_pressure_millis),
        ("memory_pressure_ratio", "Share of time that waits for memory.",
         usage.memory_pressure_millis),
        ("io_pressure_ratio", "Share of time that waits for disks.", usage.io_pressure_millis),
    ):  # fmt: skip
        gauge = GaugeMetricFamily(f"dray_node_{name}", text)
        gauge.add_metric([], value / 1000 if name.endswith("_ratio") else float(value))
        yield gauge


class MetricsServer:
    """Answers Prometheus in a thread of its own."""

    def __init__(self, metrics: Collector, address: HostPort) -> None:
        """Serve these figures at this address, once started."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(metrics)
        self._address = address
        self._stop: Callable[[], None] | None = None

    def start(self) -> None:
        """Listen. Blocks for a moment.

        Raises:
            FailedPrecondition: The address is taken.
        """
        try:
            server, thread = start_http_server(
                self._address.port, self._address.host, self._registry
            )
        except OSError as error:
            raise FailedPrecondition(
                f"cannot listen on {self._address} for metrics: {error.strerror}",
                hint="choose another address with --metrics-listen",
            ) from error

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join(timeout=5.0)

        self._stop = stop

    def stop(self) -> None:
        """End it; once is enough, twice is harmless. Blocks for up to a second."""
        if self._stop is not None:
            self._stop()
            self._stop = None
