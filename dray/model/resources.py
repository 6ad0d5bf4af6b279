"""How much of a machine does a task ask for, and how much has a node?

All quantities are integers in the unit of their name, so that sums are exact and nothing is ever
over-committed by rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dray.model.values import StringMap

__all__ = [
    "GPU_MILLIS_WHOLE",
    "BlkioDeviceRate",
    "BlkioLimits",
    "DeviceMapping",
    "DeviceRequest",
    "GenericResource",
    "Gpu",
    "GpuRequest",
    "NodeCapacity",
    "ResourceLimits",
    "ResourceReservations",
    "Ulimit",
]

GPU_MILLIS_WHOLE: Final = 1000  # a GPU is shared in thousandths


@dataclass(frozen=True, slots=True)
class GenericResource:
    """A countable resource of a node that people named: Compose's `generic_resources`.

    Attributes:
        kind: Its name, "ssd-slot".
        quantity: How many: what a service asks of one replica, or what a node has. > 0.
    """

    kind: str
    quantity: int


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """Devices that Docker's device drivers hand to a container.

    Compose's `devices` reservation and `gpus`.

    Attributes:
        driver: The driver, "nvidia"; empty: Docker chooses by capabilities.
        count: How many; -1 means all. Ignored (0) when `device_ids` names them.
        device_ids: Particular devices, by the driver's ids.
        capabilities: What each must be able to do: "gpu", "compute", "tpu".
        options: Options of the driver.
    """

    driver: str = ""
    count: int = 0
    device_ids: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    options: StringMap = ()


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """GPUs that placement counts.

    Attributes:
        count: Devices, >= 1.
        millis_per_gpu: Share of each device in thousandths, 1 to 1000. Below 1000 `count` is 1: one
            device is shared.
        models: Models that will do, in no order; empty: any.
    """

    count: int = 1
    millis_per_gpu: int = GPU_MILLIS_WHOLE
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ResourceReservations:
    """What placement sets aside on the node for one replica.

    Compose's `deploy.resources.reservations`, and `x-dray`.

    Attributes:
        cpu_millis: Thousandths of a CPU, >= 0.
        memory_bytes: Memory, >= 0.
        disk_bytes: Space in Docker's data folder, >= 0 (`x-dray: {disk: …}`).
        pids: Processes, >= 0; from the limit, as Compose has no reservation of them.
        gpu: GPUs, or None.
        generic: Named resources, by `kind`.
        devices: What Docker is told about devices when the container is made.
    """

    cpu_millis: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    pids: int = 0
    gpu: GpuRequest | None = None
    generic: tuple[GenericResource, ...] = ()
    devices: tuple[DeviceRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class BlkioDeviceRate:
    """A limit on one block device.

    Attributes:
        path: The device, "/dev/sda".
        rate: Bytes or operations a second (by the field that holds it); a weight is 10 to 1000.
    """

    path: str
    rate: int


@dataclass(frozen=True, slots=True)
class BlkioLimits:
    """Compose's `blkio_config`. Zero and empty mean: no limit.

    Attributes:
        weight: Share of all block I/O, 10 to 1000.
        weight_device: Share of one device's.
        read_bps: Bytes read a second.
        read_iops: Reads a second.
        write_bps: Bytes written a second.
        write_iops: Writes a second.
    """

    weight: int = 0
    weight_device: tuple[BlkioDeviceRate, ...] = ()
    read_bps: tuple[BlkioDeviceRate, ...] = ()
    read_iops: tuple[BlkioDeviceRate, ...] = ()
    write_bps: tuple[BlkioDeviceRate, ...] = ()
    write_iops: tuple[BlkioDeviceRate, ...] = ()


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A kernel limit of the container's processes: `soft` and `hard`, -1 for unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class DeviceMapping:
    """A device of the node inside the container: Compose's `devices`.

    Attributes:
        source: Path on the node, or a CDI name such as "vendor.com/class=device".
        target: Path in the container; equal to `source` when the file says nothing.
        permissions: Some of "rwm".
    """

    source: str
    target: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """What one container may use at the most.

    Compose's `deploy.resources.limits` and the older keys beside it.

    None means that Docker's default stands (for most: no limit).

    Attributes:
        cpu_millis: Thousandths of a CPU.
        memory_bytes: Memory; more gets the container killed (OOM).
        pids: Processes; -1 is unlimited.
        memory_swap_bytes: Memory and swap together; -1 is unlimited swap.
        memory_swappiness: 0 to 100.
        cpu_shares: Relative weight.
        cpu_period_us: CFS period, microseconds.
        cpu_quota_us: CFS quota, microseconds.
        cpu_rt_period_us: Real-time period, microseconds.
        cpu_rt_runtime_us: Real-time run time, microseconds.
        cpuset: CPUs that may be used, "0-3,7"; empty: all.
        shm_size_bytes: Size of /dev/shm.
        oom_kill_disable: Do not kill at the memory limit.
        oom_score_adj: -1000 to 1000.
        blkio: Block I/O limits, or None.
        ulimits: Kernel limits, by name.
        storage_opt: Options of Docker's storage driver (`size`).
    """

    cpu_millis: int | None = None
    memory_bytes: int | None = None
    pids: int | None = None
    memory_swap_bytes: int | None = None
    memory_swappiness: int | None = None
    cpu_shares: int | None = None
    cpu_period_us: int | None = None
    cpu_quota_us: int | None = None
    cpu_rt_period_us: int | None = None
    cpu_rt_runtime_us: int | None = None
    cpuset: str = ""
    shm_size_bytes: int | None = None
    oom_kill_disable: bool = False
    oom_score_adj: int | None = None
    blkio: BlkioLimits | None = None
    ulimits: tuple[Ulimit, ...] = ()
    storage_opt: StringMap = ()


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a node.

    Attributes:
        id: The driver's id of the device.
        model: "NVIDIA A100-SXM4-80GB".
        memory_bytes: Its memory; 0 when not known.
    """

    id: str
    model: str
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """What a node has for tasks, after the reserve for the system has been taken off.

    Attributes:
        cpu_millis: Thousandths of a CPU.
        memory_bytes: Memory.
        disk_bytes: Size of the file system that holds Docker's data.
        pids: Processes.
        tasks_max: Tasks that the node's subnet has addresses for.
        gpus: Its GPUs.
        generic: Named resources.
    """

    cpu_millis: int
    memory_bytes: int
    disk_bytes: int = 0
    pids: int = 0
    tasks_max: int = 508
    gpus: tuple[Gpu, ...] = ()
    generic: tuple[GenericResource, ...] = ()
