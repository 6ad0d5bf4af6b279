"""What does the machine use now? Measured every few seconds, with the faults that follow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from dray.clock import Clock
from dray.errors import DeadlineExceeded, Unavailable
from dray.log import Logger
from dray.model import FaultKind, NodeCapacity, NodeUsage, TaskUsage
from dray.names import TaskId
from node.agent.faults import Faults
from node.resources.gpus import GpuReading, GpuSource
from node.resources.read import (
    ProcessGroup,
    TaskReading,
    find_group,
    read_boot_id,
    read_disk,
    read_machine,
    read_task,
)
from node.resources.sample import (
    MachineReading,
    Reserve,
    capacity_of,
    default_reserve,
    disk_faults,
    usage_of,
)
from node.runtime.base import EngineInfo, Runtime

__all__ = ["LATE_S", "MEASURE_EVERY_S", "MachineWatch"]

MEASURE_EVERY_S: Final = 5.0
ENGINE_EVERY_S: Final = 10.0
GPUS_EVERY_S: Final = 300.0  # one that has failed is missing from the list
LATE_EVERY_S: Final = 1.0
LATE_S: Final = 1.0  # s that the daemon's loop may be late before it is a fault
LATE_CLEAR_S: Final = 60.0
SEEN_WITHIN_S: Final = 30.0  # where a container's processes are does not change
_ROUND_BYTES: Final = 256 * 1024


class MachineWatch:
    """Measures the machine, its tasks and its engine."""

    def __init__(
        self,
        runtime: Runtime,
        containers: Callable[[], Mapping[TaskId, str]],
        faults: Faults,
        clock: Clock,
        data_folder: Path,
        reserve: Reserve | None = None,
        tasks_max: int = 508,
        gpus: GpuSource | None = None,
        log: Logger | None = None,
    ) -> None:
        """Measure nothing yet.

        Args:
            runtime: The engine.
            containers: Returns the containers of running tasks.
            faults: Told what is wrong.
            clock: Measures time.
            data_folder: The node's own folder, whose disk counts too.
            reserve: What is kept back for the system; None: by the machine's size.
            tasks_max: Tasks that the node has addresses for.
            gpus: Who looks for GPUs; None: nobody does.
            log: Told when they cannot be read.
        """
        self._runtime = runtime
        self._containers = containers
        self._faults = faults
        self._clock = clock
        self._data_folder = data_folder
        self._reserve = reserve
        self.tasks_max = tasks_max
        self.engine: EngineInfo | None = None
        self.boot_id = ""
        self._gpu_source = gpus
        self._gpus = GpuReading()
        self._log = log
        self._reading: MachineReading | None = None
        self._usage = NodeUsage()
        self._groups: dict[str, ProcessGroup] = {}
        self._readings: dict[TaskId, tuple[str, TaskReading]] = {}
        self._task_usages: tuple[TaskUsage, ...] = ()

    # ---- what was measured -----------------------------------------------------------------------

    def capacity(self) -> NodeCapacity:
        """Return what the machine has for tasks; `measure` was called before."""
        assert self._reading is not None, "nothing was measured yet"
        reserve = self._reserve or default_reserve(self._reading)
        return capacity_of(self._reading, reserve, self.tasks_max, self._gpus.gpus)

    def node_usage(self) -> NodeUsage:
        """Return what the machine uses."""
        return self._usage

    def task_usages(self) -> tuple[TaskUsage, ...]:
        """Return what the tasks use, by task id."""
        return self._task_usages

    # ---- measuring -------------------------------------------------------------------------------

    async def measure(self) -> None:
        """Measure the machine once."""
        self.boot_id = self.boot_id or await asyncio.to_thread(read_boot_id)
        data = self.engine.data_root if self.engine is not None else ""
        reading = await asyncio.to_thread(read_machine, data, self._clock.monotonic_s())
        self._usage = usage_of(self._reading, reading)
        self._reading = reading
        own = await asyncio.to_thread(read_disk, str(self._data_folder))
        self._faults.tell("disks", disk_faults((reading.engine_disk, own)))

    async def run(self) -> None:
        """Measure for as long as the daemon runs."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_engine(), name="engine")
            group.create_task(self._watch_lateness(), name="lateness")
            group.create_task(self._watch_gpus(), name="gpus")
            while True:
                await self.measure()
                await self._measure_tasks()
                await self._clock.sleep(MEASURE_EVERY_S)

    async def _measure_tasks(self) -> None:
        containers = dict(self._containers())
        for container_id in self._groups.keys() - set(containers.values()):
            del self._groups[container_id]
        for container_id in containers.values():
            if container_id not in self._groups:
                group = await self._find_group(container_id)
                if group is not None:
                    self._groups[container_id] = group
        known = {
            task_id: (container_id, self._groups[container_id])
            for task_id, container_id in containers.items()
            if container_id in self._groups
        }
        at_s = self._clock.monotonic_s()
        found = await asyncio.to_thread(
            lambda: {each: read_task(group, at_s) for each, (_, group) in known.items()}
        )
        usages, readings = [], {}
        for task_id in sorted(found):
            reading, container_id = found[task_id], known[task_id][0]
            if reading is None:
                del self._groups[container_id]
                continue
            before = self._readings.get(task_id)
            readings[task_id] = (container_id, reading)
            is_same = before is not None and before[0] == container_id
            usages.append(_task_usage(task_id, before[1] if is_same and before else None, reading))
        self._readings = readings
        self._task_usages = tuple(usages)

    async def _find_group(self, container_id: str) -> ProcessGroup | None:
        try:
            found = await self._runtime.inspect(container_id, seen_within_s=SEEN_WITHIN_S)
        except (Unavailable, DeadlineExceeded):
            return None
        if found is None or not found.pid:
            return None
        return await asyncio.to_thread(find_group, found.pid)

    # ---- the engine and the daemon itself --------------------------------------------------------

    async def look_at_engine(self) -> None:
        """Ask the engine once what it is, and note when it is away."""
        try:
            self.engine = await self._runtime.info()
        except (Unavailable, DeadlineExceeded) as error:
            text = f"the Docker Engine does not answer ({error.message}): containers run on"
            self._faults.tell("engine", {FaultKind.DOCKER_AWAY: text})
            return
        faults = {}
        if not self.engine.live_restore:
            faults[FaultKind.LIVE_RESTORE_OFF] = (
                "a restart of the Docker Engine would end all containers: set "
                '"live-restore": true in /etc/docker/daemon.json and reload it'
            )
        self._faults.tell("engine", faults)

    async def glance_at_gpus(self) -> None:
        """See which GPUs the machine has, as far as that takes no time."""
        if self._gpu_source is not None:
            self._gpus = await self._gpu_source.glance()

    async def _watch_gpus(self) -> None:
        source = self._gpu_source
        problem = ""
        while source is not None:
            self._gpus = await source.read()
            if self._gpus.problem != problem and self._log is not None:
                problem = self._gpus.problem
                self._log.warning("gpus", error=problem or "they can be read again")
            await self._clock.sleep(GPUS_EVERY_S)

    async def _watch_engine(self) -> None:
        while True:
            await self.look_at_engine()
            is_away = any(fault.kind is FaultKind.DOCKER_AWAY for fault in self._faults.all())
            await self._clock.sleep(1.0 if is_away else ENGINE_EVERY_S)

    async def _watch_lateness(self) -> None:
        clear_at_s = 0.0
        while True:
            before_s = self._clock.monotonic_s()
            await self._clock.sleep(LATE_EVERY_S)
            now_s = self._clock.monotonic_s()
            late_s = now_s - before_s - LATE_EVERY_S
            if late_s > LATE_S:
                clear_at_s = now_s + LATE_CLEAR_S
                text = f"the daemon's loop ran {late_s:.1f} s late: the machine is overloaded"
                self._faults.tell("lateness", {FaultKind.DAEMON_LATE: text})
            elif now_s >= clear_at_s:
                self._faults.tell("lateness", {})


def _task_usage(task_id: TaskId, before: TaskReading | None, now: TaskReading) -> TaskUsage:
    """Return what a task uses, rounded so that noise is no news."""
    cpu_millis = 0
    if before is not None and now.at_s > before.at_s:
        used_ns = max(0, now.cpu_ns - before.cpu_ns)
        cpu_millis = round(used_ns / (now.at_s - before.at_s) / 1e6)
    return TaskUsage(
        task_id,
        cpu_millis=cpu_millis,
        memory_bytes=round(now.memory_bytes / _ROUND_BYTES) * _ROUND_BYTES,
        network_rx_bytes=now.network_rx_bytes,
        network_tx_bytes=now.network_tx_bytes,
        block_read_bytes=now.block_read_bytes,
        block_write_bytes=now.block_write_bytes,
        pids=now.pids,
    )
