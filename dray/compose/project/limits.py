"""How much may a container use, which devices does it get, and what is set aside for it?"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from dray.compose.place import Place
from dray.model import (
    BlkioDeviceRate,
    BlkioLimits,
    DeviceMapping,
    DeviceRequest,
    GenericResource,
    GpuRequest,
    ResourceLimits,
    ResourceReservations,
    Ulimit,
)

__all__ = ["devices", "limits", "reservations"]

_LIMIT_KEYS: Final = frozenset(
    {
        "blkio_config",
        "cpu_period",
        "cpu_quota",
        "cpu_rt_period",
        "cpu_rt_runtime",
        "cpu_shares",
        "cpus",
        "cpuset",
        "mem_limit",
        "mem_swappiness",
        "memswap_limit",
        "oom_kill_disable",
        "oom_score_adj",
        "pids_limit",
        "shm_size",
        "storage_opt",
        "ulimits",
    }
)
_RESERVING_KEYS: Final = frozenset({"gpus", "mem_reservation", "pids_limit"})
_GPU: Final = "gpu"
_NAMED_PERIOD_US: Final = 1_000_000


def limits(service: Place) -> ResourceLimits:
    """Return what a container may use; `deploy.resources.limits` wins over the older keys."""
    newer = service.at("deploy", "resources", "limits")
    cpus = newer.at("cpus").maybe_cpus()
    memory = newer.at("memory").maybe_size()
    pids = newer.at("pids").maybe_whole()
    if not service.has_any(_LIMIT_KEYS):
        return ResourceLimits(
            cpu_millis=cpus or None, memory_bytes=memory or None, pids=pids or None
        )
    cpus_older = service.at("cpus").maybe_cpus()
    memory_older = service.at("mem_limit").maybe_size()
    pids_older = service.at("pids_limit").maybe_whole()
    return ResourceLimits(
        # Zero means no limit, as for Docker.
        cpu_millis=(cpus if cpus is not None else cpus_older) or None,
        memory_bytes=(memory if memory is not None else memory_older) or None,
        pids=(pids if pids is not None else pids_older) or None,
        memory_swap_bytes=service.at("memswap_limit").maybe_size(),
        memory_swappiness=_bounded(service.at("mem_swappiness"), 0, 100),
        cpu_shares=service.at("cpu_shares").maybe_whole(),
        cpu_period_us=_microseconds(service.at("cpu_period")),
        cpu_quota_us=_microseconds(service.at("cpu_quota")),
        cpu_rt_period_us=_microseconds(service.at("cpu_rt_period")),
        cpu_rt_runtime_us=_microseconds(service.at("cpu_rt_runtime")),
        cpuset=service.at("cpuset").text(),
        shm_size_bytes=service.at("shm_size").maybe_size(),
        oom_kill_disable=service.at("oom_kill_disable").flag(),
        oom_score_adj=_bounded(service.at("oom_score_adj"), -1000, 1000),
        blkio=_blkio(service.at("blkio_config")),
        ulimits=_ulimits(service.at("ulimits")),
        storage_opt=service.at("storage_opt").pairs(),
    )


def _bounded(place: Place, low: int, high: int) -> int | None:
    value = place.maybe_whole()
    if value is not None and not low <= value <= high:
        place.fault(f"{value} is outside {low} to {high}")
        return None
    return value


def _microseconds(place: Place) -> int | None:
    """Return microseconds of a number, or of a duration such as `1400us`."""
    text = place.text()
    if not place.is_given:
        return None
    if text.lstrip("+-").isdecimal():
        return place.maybe_whole()
    duration_s = place.maybe_duration()
    return None if duration_s is None else int(Decimal(str(duration_s)) * _NAMED_PERIOD_US)


def _ulimits(place: Place) -> tuple[Ulimit, ...]:
    found: list[Ulimit] = []
    for name, told in place.entries():
        if isinstance(told.value, dict):
            soft, hard = told.at("soft").whole(), told.at("hard").whole()
        else:
            soft = hard = told.whole()
        if hard != -1 and (soft > hard or soft == -1):
            told.fault(f"the soft limit {soft} is above the hard one, {hard}")
        found.append(Ulimit(name, soft, hard))
    return tuple(found)


def _blkio(place: Place) -> BlkioLimits | None:
    if not place.is_given:
        return None
    return BlkioLimits(
        weight=place.at("weight").whole(),
        weight_device=_rates(place.at("weight_device"), "weight"),
        read_bps=_rates(place.at("device_read_bps"), "rate"),
        read_iops=_rates(place.at("device_read_iops"), "rate"),
        write_bps=_rates(place.at("device_write_bps"), "rate"),
        write_iops=_rates(place.at("device_write_iops"), "rate"),
    )


def _rates(place: Place, key: str) -> tuple[BlkioDeviceRate, ...]:
    """Return rates by device; the official tool prints these keys with a capital letter."""
    found: list[BlkioDeviceRate] = []
    for item in place.items():
        path = item.at("path").text() or item.at("Path").text()
        lower, upper = item.at(key), item.at(key.capitalize())
        told = lower if lower.is_given else upper
        found.append(BlkioDeviceRate(path, told.maybe_size() or 0))
    return tuple(found)


def devices(place: Place) -> tuple[DeviceMapping, ...]:
    """Return devices of the node inside the container."""
    return tuple(_device(item) for item in place.items())


def _device(place: Place) -> DeviceMapping:
    source = place.at("source").text()
    permissions = place.at("permissions").text() or "rwm"
    if set(permissions) - set("rwm"):
        place.at("permissions").fault(f"{permissions!r} holds more than r, w and m")
    return DeviceMapping(source, place.at("target").text() or source, permissions)


def reservations(service: Place) -> ResourceReservations:
    """Return what placement sets aside for one replica, less what `x-dray` adds."""
    told = service.at("deploy", "resources", "reservations")
    if not told.is_given and not service.has_any(_RESERVING_KEYS):
        pids_limit = service.at("deploy", "resources", "limits", "pids").maybe_whole()
        return ResourceReservations(pids=max(pids_limit or 0, 0))
    memory = told.at("memory").maybe_size()
    memory_older = service.at("mem_reservation").maybe_size()
    pids = service.at("deploy", "resources", "limits", "pids").maybe_whole()
    requests = [
        *(_request(item, is_gpu=True) for item in service.at("gpus").items()),
        *(_request(item) for item in told.at("devices").items()),
    ]
    return ResourceReservations(
        cpu_millis=told.at("cpus").maybe_cpus() or 0,
        memory_bytes=(memory if memory is not None else memory_older) or 0,
        pids=max(pids or service.at("pids_limit").maybe_whole() or 0, 0),
        gpu=_gpus([each for each in requests if _GPU in each.capabilities]),
        generic=_generic(told.at("generic_resources")),
        devices=tuple(requests),
    )


def _request(place: Place, *, is_gpu: bool = False) -> DeviceRequest:
    ids = place.at("device_ids").texts()
    capabilities = place.at("capabilities").texts()
    if is_gpu and _GPU not in capabilities:
        capabilities = (_GPU, *capabilities)
    if not capabilities:
        place.fault("names no capability", "add capabilities: [gpu]")
    return DeviceRequest(
        driver=place.at("driver").text(),
        count=_device_count(place.at("count"), has_ids=bool(ids)),
        device_ids=ids,
        capabilities=capabilities,
        options=place.at("options").pairs(),
    )


def _device_count(place: Place, *, has_ids: bool) -> int:
    """Return how many devices; -1 is all of them."""
    count = -1 if place.text() == "all" else place.maybe_whole()
    if has_ids:
        if count is not None and count > 0:
            place.fault("count and device_ids exclude each other", "keep one of them")
        return 0
    if count is None:
        return -1  # the specification: without a number, all of them
    if count < 1 and count != -1:
        place.fault(f"{count} is not a number of devices", "write 1 or more, or all")
        return 1
    return count


def _gpus(requests: list[DeviceRequest]) -> GpuRequest | None:
    """Return how many GPUs placement counts; "all" is at least one, and refused elsewhere."""
    counts = [len(each.device_ids) or max(each.count, 1) for each in requests]
    return GpuRequest(count=sum(counts)) if counts else None


def _generic(place: Place) -> tuple[GenericResource, ...]:
    found: dict[str, int] = {}
    for item in place.items():
        told = item.at("discrete_resource_spec")
        kind, quantity = told.at("kind").text(), told.at("value").whole()
        if not kind:
            item.fault("names no kind", "add discrete_resource_spec: {kind: …, value: …}")
        elif quantity < 1:
            told.at("value").fault(f"{quantity} is not a quantity", "write 1 or more")
        else:
            found[kind] = found.get(kind, 0) + quantity
    return tuple(GenericResource(kind, quantity) for kind, quantity in sorted(found.items()))
