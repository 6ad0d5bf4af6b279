"""How much harm does a task do on each node? The bin-packing score: less is better.

A node's free amounts are worth what the cluster's mix of tasks could still do with them. For each
kind of task in the mix, count how many of it would fit: the least, over the resources, of free
amount by demand, as a fraction, but nothing at all below one whole task. That count times the
kind's size (in shares of an average node) times its share of the mix, summed over the kinds, says
what a node would hold if all that came were alike. Since what comes is mixed, the same is said of
two blends, the average GPU task and the average task without GPUs, which may also fit in part. The
node's value is the weighted mean of both, and the score of a node for a task is the value that the
node loses when it takes the task.

From this follow the things that other scores need rules for: CPU-only tasks keep off nodes with
free GPUs while GPU tasks are about, unless such a node has CPU to spare; what remains on a node
keeps the proportions that the mix asks for; the last room for a big task is kept; what no task can
use is used up first, since it is worth nothing.

The loss is counted in steps of `LOSS_STEP` of an average node. Nodes within one step are alike, and
the lowest row wins: differences smaller than that are noise, and following them would open nodes
everywhere.

Everything here is pure; a score of a row depends on that row, the task and the mix alone, so a
cached score stays true until its row or the mix changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BLENDS_SHARE",
    "DEVICE_MILLIS",
    "KINDS_MAX",
    "LOSS_STEP",
    "Columns",
    "Demand",
    "Mix",
    "device_for",
    "make_mix",
    "room_of",
    "score_rows",
    "value_of",
    "value_rows",
    "worth_of",
]

KINDS_MAX: Final = 32
"""Kinds of task in a mix; the most frequent are kept."""

LOSS_STEP: Final = 0.1
"""Losses within one such step, in values of an average node, count as equal."""

DEVICE_MILLIS: Final = 1000
"""What a whole, untouched GPU has free."""

BLENDS_SHARE: Final = 0.75
"""Weight of the blends in a node's value; that of the single kinds is the rest."""

BLOCK_ROWS: Final = 512
"""Rows that are valued at once: the arrays in between then stay in the processor's cache."""

_ROUNDING: Final = 1e-9  # in steps: sums of floats must not fall under a step's edge
_NOT_ASKED: Final = 1e30  # a count that no other resource exceeds
_HALF_UNIT: Final = 0.5  # lets 0 free units stand for "enough" where nothing is asked


@dataclass(frozen=True, slots=True)
class Demand:
    """What one task of a kind takes.

    Attributes:
        amounts: int64[n_resources], in the units of the columns.
        gpu_count: GPUs; 0 means none.
        gpu_millis: Of each of them: 1,000 is a whole one; less only where `gpu_count` is 1.
        gpu_models: Bit i is set where model i will do; -1: any.
    """

    amounts: NDArray[np.int64]
    gpu_count: int = 0
    gpu_millis: int = 0
    gpu_models: int = -1


@dataclass(frozen=True, slots=True)
class Columns:
    """The nodes as the score sees them.

    Attributes:
        capacity: int64[n_nodes, n_resources].
        free: int64[n_nodes, n_resources]; may be negative, or enormous where there is no limit.
        gpu_free: int64[n_nodes, n_devices], thousandths; -1 where the node has no such device.
            May have no columns at all.
        gpu_model: int64[n_nodes]; the number of the model, from 0 on (63 at most).
    """

    capacity: NDArray[np.int64]
    free: NDArray[np.int64]
    gpu_free: NDArray[np.int64]
    gpu_model: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Mix:
    """Kinds of task with their weights, made ready for scoring: see `make_mix`.

    Attributes:
        per_unit: float64[n_resources, n_kinds]; how many tasks one unit holds. The last two kinds
            are the blends.
        worth: float64[n_kinds]; share of the mix times size.
        least: float64[n_kinds]; the count below which nothing counts: 1, of blends 0.
        gpu_per_milli: float64[n_kinds]; how many tasks one thousandth of a device holds.
        gpu_per_device: float64[n_kinds]; how many tasks a count of usable devices makes.
        gpu_slack: float64[n_kinds]; enormous for kinds without GPUs, else 0.
        gpu_models: int64[n_kinds].
        has_gpus: Any kind asks for GPUs.
        has_models: Any kind asks for certain models.
    """

    per_unit: NDArray[np.float64]
    worth: NDArray[np.float64]
    least: NDArray[np.float64]
    gpu_per_milli: NDArray[np.float64]
    gpu_per_device: NDArray[np.float64]
    gpu_slack: NDArray[np.float64]
    gpu_models: NDArray[np.int64]
    has_gpus: bool
    has_models: bool


def make_mix(columns: Columns, kinds: list[Demand], weights: list[float]) -> Mix:
    """Return the mix of these kinds on this cluster.

    Args:
        columns: The cluster; only what nodes have counts, not what is free.
        kinds: Kinds of task; of more than `KINDS_MAX` the heaviest are kept, earlier ones first.
        weights: Of each kind: how many tasks of it there are or were, decayed or not.
    """
    weight = np.array(weights, dtype=np.float64) / max(float(sum(weights)), _ROUNDING)
    amounts = np.array([kind.amounts for kind in kinds], dtype=np.float64)
    amounts = amounts.reshape(len(kinds), columns.free.shape[1])
    counts = np.array([kind.gpu_count for kind in kinds], dtype=np.float64)
    millis = np.array([kind.gpu_millis for kind in kinds], dtype=np.float64)
    models = np.array([kind.gpu_models for kind in kinds], dtype=np.int64)
    kept = np.argsort(-weight, kind="stable")[:KINDS_MAX]
    groups = np.array([counts > 0, counts == 0]) * weight
    shares = groups.sum(axis=1)
    parts = groups * _inverse(shares, 0.0)[:, None]
    kept_share = weight[kept] / max(float(weight[kept].sum()), _ROUNDING)
    amounts = np.concatenate([amounts[kept], parts @ amounts])
    millis = np.concatenate([millis[kept], parts @ (counts * millis)])
    counts = np.concatenate([counts[kept], shares * [1, 0] > 0])
    share = np.concatenate([kept_share * (1 - BLENDS_SHARE), shares * BLENDS_SHARE])
    average, average_gpus = _average_node(columns)
    sizes = (amounts * _inverse(average, 0.0)).sum(axis=1)
    sizes += counts * millis / DEVICE_MILLIS * _inverse(average_gpus, 0.0)
    return Mix(
        per_unit=np.ascontiguousarray(_inverse(amounts, _NOT_ASKED).T),
        worth=share * sizes,
        least=np.concatenate([np.ones(len(kept)), np.zeros(len(shares))]),
        gpu_per_milli=_inverse(millis, 0.0),
        gpu_per_device=_inverse(counts, 0.0),
        gpu_slack=np.where(counts > 0, 0.0, _NOT_ASKED),
        gpu_models=np.concatenate([models[kept], np.full(len(shares), -1)]),
        has_gpus=bool(counts.any()),
        has_models=bool((models[kept][counts[: len(kept)] > 0] != -1).any()),
    )


def value_rows(columns: Columns, rows: NDArray[np.intp], mix: Mix) -> NDArray[np.float64]:
    """Return what the free amounts of these rows are worth to the mix: float64[len(rows)]."""
    return value_of(columns.free[rows], columns.gpu_free[rows], columns.gpu_model[rows], mix)


def score_rows(
    columns: Columns,
    rows: NDArray[np.intp],
    demand: Demand,
    mix: Mix,
    values: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return the loss, in whole steps, of each row that takes the task: float64[len(rows)].

    Args:
        columns: The cluster.
        rows: Rows on which the task fits; the score of another row means nothing.
        demand: The task.
        mix: What else is asked of the cluster.
        values: `value_rows` of these rows where the caller has kept them.
    """
    free = columns.free[rows]
    devices = columns.gpu_free[rows]
    models = columns.gpu_model[rows]
    before = value_of(free, devices, models, mix) if values is None else values
    after = value_of(free - demand.amounts, _devices_after(devices, demand), models, mix)
    steps: NDArray[np.float64] = np.floor((before - after) / LOSS_STEP + _ROUNDING)
    return steps


def device_for(devices: NDArray[np.int64], demand: Demand) -> NDArray[np.intp]:
    """Return which devices of one node the task gets: intp[gpu_count].

    A share goes where the least is left that is enough; whole ones are the first untouched.

    Args:
        devices: int64[n_devices] of a node on which the task fits.
        demand: The task.
    """
    if demand.gpu_count == 0:
        return np.zeros(0, dtype=np.intp)
    if demand.gpu_millis >= DEVICE_MILLIS:
        return np.flatnonzero(devices == DEVICE_MILLIS)[: demand.gpu_count]
    enough = np.where(devices >= demand.gpu_millis, devices, DEVICE_MILLIS + 1)
    return np.array([enough.argmin()], dtype=np.intp)


def _devices_after(devices: NDArray[np.int64], demand: Demand) -> NDArray[np.int64]:
    """Return int64[n_rows, n_devices] once each row has taken the task, as `device_for` says."""
    if demand.gpu_count == 0:
        return devices
    after = devices.copy()
    if demand.gpu_millis >= DEVICE_MILLIS:
        whole = devices == DEVICE_MILLIS
        after[whole & (whole.cumsum(axis=1) <= demand.gpu_count)] = 0
        return after
    enough = np.where(devices >= demand.gpu_millis, devices, DEVICE_MILLIS + 1)
    after[np.arange(len(after)), enough.argmin(axis=1)] -= demand.gpu_millis
    return after


def value_of(
    free: NDArray[np.int64], devices: NDArray[np.int64], models: NDArray[np.int64], mix: Mix
) -> NDArray[np.float64]:
    """Return what free amounts are worth to the mix: float64[n_rows].

    Args:
        free: int64[n_rows, n_resources].
        devices: int64[n_rows, n_devices], thousandths; -1 where there is none.
        models: int64[n_rows], models of the devices.
        mix: What is asked of the cluster.
    """
    return worth_of(room_of(free), devices, models, mix)


def room_of(free: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return free amounts as `worth_of` takes them: float64 of the same shape."""
    room: NDArray[np.float64] = np.maximum(free, 0) + _HALF_UNIT
    return room


def worth_of(
    room: NDArray[np.float64], devices: NDArray[np.int64], models: NDArray[np.int64], mix: Mix
) -> NDArray[np.float64]:
    """Return what `value_of` returns, for amounts from `room_of`, less whole units or not."""
    if len(room) <= BLOCK_ROWS:
        return _worth_of(room, devices, models, mix)
    blocks = [slice(at, at + BLOCK_ROWS) for at in range(0, len(room), BLOCK_ROWS)]
    return np.concatenate(
        [_worth_of(room[each], devices[each], models[each], mix) for each in blocks]
    )


def _worth_of(
    room: NDArray[np.float64], devices: NDArray[np.int64], models: NDArray[np.int64], mix: Mix
) -> NDArray[np.float64]:
    counts = room[:, :1] * mix.per_unit[0]
    for resource in range(1, len(mix.per_unit)):
        np.minimum(counts, room[:, resource, None] * mix.per_unit[resource], out=counts)
    if mix.has_gpus:
        shares = np.maximum(devices, 0)[:, :, None] * mix.gpu_per_milli
        usable = np.where(shares >= mix.least, shares, 0.0).sum(axis=1) * mix.gpu_per_device
        if mix.has_models:
            usable *= (mix.gpu_models >> models[:, None]) & 1
        np.minimum(counts, usable + mix.gpu_slack, out=counts)
    counts *= counts >= mix.least  # below one whole task it is worth nothing
    value: NDArray[np.float64] = counts @ mix.worth
    return value


def _average_node(columns: Columns) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what an average node has: float64[n_resources] and GPUs, float64[1]."""
    n_nodes = max(len(columns.capacity), 1)
    gpus = float((columns.gpu_free >= 0).sum())
    return columns.capacity.sum(axis=0, dtype=np.float64) / n_nodes, np.array([gpus / n_nodes])


def _inverse(values: NDArray[np.float64], where_zero: float) -> NDArray[np.float64]:
    """Return 1 / values, and `where_zero` where there is nothing to divide by."""
    inverse = np.full(values.shape, where_zero)
    np.divide(1.0, values, out=inverse, where=values > 0)
    return inverse
