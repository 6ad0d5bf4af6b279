"""Does the bin-packing score prefer what leaves the most room for the tasks that are about?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from scheduler.placement.score import (
    BLENDS_SHARE,
    DEVICE_MILLIS,
    KINDS_MAX,
    LOSS_STEP,
    Columns,
    Demand,
    device_for,
    make_mix,
    score_rows,
    value_rows,
)

UNLIMITED = int(np.iinfo(np.int64).max)


def columns(
    capacity: list[tuple[int, ...]],
    free: list[tuple[int, ...]] | None = None,
    gpus: list[tuple[int, ...]] | None = None,
    models: list[int] | None = None,
) -> Columns:
    """Return columns; nodes are empty, without GPUs, unless it is said otherwise."""
    n_nodes = len(capacity)
    devices = np.array(gpus, dtype=np.int64) if gpus else np.zeros((n_nodes, 0), dtype=np.int64)
    return Columns(
        np.array(capacity, dtype=np.int64),
        np.array(free or capacity, dtype=np.int64),
        devices,
        np.array(models or [0] * n_nodes, dtype=np.int64),
    )


def demand(*amounts: int, gpus: int = 0, millis: int = 0, models: int = -1) -> Demand:
    """Return what a task takes."""
    return Demand(np.array(amounts, dtype=np.int64), gpus, millis, models)


def rows(count: int) -> NDArray[np.intp]:
    """Return the first rows."""
    return np.arange(count, dtype=np.intp)


def test_value_is_what_still_fits() -> None:
    """Half a node that holds 2.5 tasks of half a node is worth 1.25 nodes per resource asked."""
    seen = columns([(1000, 1000)], free=[(1250, 9999)])
    mix = make_mix(seen, [demand(500, 0)], [3.0])
    assert value_rows(seen, rows(1), mix)[0] == pytest.approx(1250.5 / 500 * 0.5)


def test_last_whole_task_is_worth_more_than_its_units() -> None:
    """One unit below a whole task, all that the single kinds were worth is gone."""
    seen = columns([(1000,)] * 2, free=[(499,), (500,)])
    mix = make_mix(seen, [demand(500)], [1.0])
    values = value_rows(seen, rows(2), mix)
    assert values[1] - values[0] > (1 - BLENDS_SHARE) * 0.5


def test_useless_room_is_used_first() -> None:
    """A small task goes where the big ones of the mix no longer fit."""
    seen = columns([(1000,)] * 2, free=[(1000,), (400,)])
    mix = make_mix(seen, [demand(500), demand(100)], [10.0, 1.0])
    lost = score_rows(seen, rows(2), demand(100), mix)
    assert lost[1] < lost[0]


def test_cpu_tasks_keep_off_nodes_whose_gpus_need_the_cpu() -> None:
    """A CPU-only task prefers the node without GPUs although it comes later."""
    seen = columns([(8000,), (8000,)], gpus=[(1000, 1000), (-1, -1)])
    mix = make_mix(seen, [demand(4000, gpus=1, millis=1000), demand(2000)], [3.0, 1.0])
    lost = score_rows(seen, rows(2), demand(2000), mix)
    assert lost[1] < lost[0]


def test_cpu_tasks_use_cpu_that_gpus_do_not_need() -> None:
    """Where the GPUs are taken, the CPU beside them is as good as any."""
    seen = columns([(8000,), (8000,)], gpus=[(0, 0), (-1, -1)])
    mix = make_mix(seen, [demand(4000, gpus=1, millis=1000), demand(2000)], [3.0, 1.0])
    lost = score_rows(seen, rows(2), demand(2000), mix)
    assert lost[0] == lost[1]


def test_share_keeps_whole_devices_whole() -> None:
    """A share goes to the node with a device that is already broken."""
    seen = columns([(8000,)] * 2, gpus=[(1000, 1000), (500, 1000)])
    mix = make_mix(
        seen, [demand(100, gpus=2, millis=1000), demand(100, gpus=1, millis=500)], [1.0, 1.0]
    )
    lost = score_rows(seen, rows(2), demand(100, gpus=1, millis=500), mix)
    assert lost[1] < lost[0]


def test_models_that_are_asked_for_are_kept() -> None:
    """A task that takes any model goes where nobody insists on the model."""
    seen = columns([(8000,)] * 2, gpus=[(1000,), (1000,)], models=[3, 1])
    picky = demand(100, gpus=1, millis=1000, models=1 << 3)
    mix = make_mix(seen, [picky], [1.0])
    lost = score_rows(seen, rows(2), demand(100, gpus=1, millis=1000), mix)
    assert lost[1] < lost[0]


def test_unlimited_resources_never_bind() -> None:
    """A resource that a node is not limited in, or is short of, breaks no arithmetic."""
    seen = columns([(1000, 0)] * 2, free=[(1000, UNLIMITED), (-5, UNLIMITED)])
    mix = make_mix(seen, [demand(500, 7)], [1.0])
    values = value_rows(seen, rows(2), mix)
    assert values[0] > 0.0
    assert values[1] == pytest.approx(0.0, abs=0.001)


def test_blend_is_the_average_of_all_kinds() -> None:
    """Kinds beyond the bound still count in the blend, which fits in part."""
    seen = columns([(1000,)], free=[(50,)])
    kinds = [demand(200)] * KINDS_MAX + [demand(100)] * KINDS_MAX
    mix = make_mix(seen, kinds, [2.0] * KINDS_MAX + [1.0] * KINDS_MAX)
    expected = BLENDS_SHARE * 50.5 / 1000  # the count by demand, times demand by node
    assert value_rows(seen, rows(1), mix)[0] == pytest.approx(expected)


def test_no_task_is_worth_nothing() -> None:
    """Before anything is known, all nodes are alike."""
    seen = columns([(1000,)] * 2, free=[(50,), (1000,)])
    mix = make_mix(seen, [], [])
    assert score_rows(seen, rows(2), demand(50), mix).tolist() == [0.0, 0.0]


def test_only_the_heaviest_kinds_count() -> None:
    """The mix is bounded, so the price of a score is."""
    seen = columns([(1000,)])
    kinds = [demand(size) for size in range(1, KINDS_MAX + 20)]
    mix = make_mix(seen, kinds, [float(size) for size in range(1, KINDS_MAX + 20)])
    n_blends = int((mix.least == 0).sum())
    assert len(mix.worth) == KINDS_MAX + n_blends
    assert mix.per_unit.min() == 1 / (KINDS_MAX + 19)


def test_device_choice() -> None:
    """A share gets the tightest device; whole ones are the first untouched; none is none."""
    devices = np.array([1000, 400, 300, -1], dtype=np.int64)
    assert device_for(devices, demand(1, gpus=1, millis=300)).tolist() == [2]
    assert device_for(devices, demand(1, gpus=1, millis=350)).tolist() == [1]
    assert device_for(devices, demand(1, gpus=1, millis=DEVICE_MILLIS)).tolist() == [0]
    assert device_for(devices, demand(1)).tolist() == []


amounts = st.tuples(st.integers(0, 4000), st.integers(0, 4000))


@given(
    free=st.lists(amounts, min_size=1, max_size=8),
    kinds=st.lists(st.tuples(amounts, st.integers(0, 3)), min_size=1, max_size=6),
    gpus=st.integers(0, 1000),
)
def test_rows_are_scored_alone(
    free: list[tuple[int, ...]], kinds: list[tuple[tuple[int, int], int]], gpus: int
) -> None:
    """A row's score is the same alone and among others, with and without its value: caches hold.

    It is a whole number of steps, and no task adds value.
    """
    seen = columns([(8000, 8000)] * len(free), free=free, gpus=[(gpus, 1000)] * len(free))
    demands = [
        demand(*asked, gpus=min(count, 2), millis=(0, 300, 1000, 1000)[count])
        for asked, count in kinds
    ]
    mix = make_mix(seen, demands, [1.0] * len(demands))
    together = score_rows(seen, rows(len(free)), demands[0], mix)
    values = value_rows(seen, rows(len(free)), mix)
    for row in range(len(free)):
        one = np.array([row], dtype=np.intp)
        assert score_rows(seen, one, demands[0], mix, values[one]) == together[row]
    assert (together == np.floor(together)).all()
    assert (together >= 0).all()
    assert LOSS_STEP > 0
