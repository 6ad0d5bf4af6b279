"""How does FGD choose? Fragmentation gradient descent (Weng et al., ATC'23), as its artefact does.

Of a node, for one kind of task, all idle GPU is fragmented when the task does not fit by CPU, GPU
or model, or wants no GPU at all; otherwise only what sits on devices with less than the task's
share. The expectation over the typical kinds, the most frequent ones that make 95 % of the
workload's tasks (known in advance), is the node's fragmentation. The node, and of it the device,
whose fragmentation grows least wins. The artefact squashes the growth with a logistic function into
whole numbers from 0 to 100 and gives ties to the first node by name, which matters: without it the
allocation is 1.6 points lower.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.placement.simulate import Simulation
from benchmarks.placement.workload import WHOLE, Workload
from scheduler.placement.score import Demand, device_for

__all__ = ["FgdPolicy"]

TYPICAL_SHARE: Final = 0.95
SCORE_MAX: Final = 100
CHUNK_ROWS: Final = 256  # keeps the intermediate arrays in the cache


class FgdPolicy:
    """FGD with the workload's own distribution of kinds."""

    def __init__(self, workload: Workload) -> None:
        counts = np.bincount(workload.tasks, minlength=len(workload.kinds)).astype(np.float64)
        order = np.argsort(-counts, kind="stable")
        enough = int(np.searchsorted(counts[order].cumsum(), TYPICAL_SHARE * counts.sum())) + 1
        typical = order[:enough]
        kinds = [workload.kinds[number] for number in typical]
        self.kinds = workload.kinds
        self._frequency = counts[typical] / counts[typical].sum()
        self._cpu = np.array([kind.amounts[0] for kind in kinds])
        self._gpus = np.array([kind.gpu_count for kind in kinds])
        self._millis = np.array([kind.gpu_millis for kind in kinds])
        self._models = np.array([kind.gpu_models for kind in kinds], dtype=np.int64)
        self._cache: dict[int, tuple[NDArray[np.int64], ...]] = {}

    def arrived(self, sim: Simulation, number: int) -> None:
        """Learn nothing: the distribution is known."""

    def choose(self, sim: Simulation, number: int, rows: NDArray[np.intp]) -> int:
        """Return the row with the highest score, the first of several."""
        scores, versions, _ = self._cached(sim, number)
        stale = rows[versions[rows] != sim.version[rows]]
        for start in range(0, len(stale), CHUNK_ROWS):
            self._refresh(sim, number, stale[start : start + CHUNK_ROWS])
        return int(rows[scores[rows].argmax()])

    def devices(self, sim: Simulation, number: int, row: int) -> NDArray[np.intp]:
        """Return the device with the best score, or the first untouched ones."""
        kind = self.kinds[number]
        if kind.gpu_count == 0 or kind.gpu_millis >= WHOLE:
            amounts = np.array(kind.amounts, dtype=np.int64)
            return device_for(sim.gpu_free[row], Demand(amounts, kind.gpu_count, kind.gpu_millis))
        _, versions, device = self._cached(sim, number)
        if versions[row] != sim.version[row]:
            self._refresh(sim, number, np.array([row], dtype=np.intp))
        return np.array([device[row]], dtype=np.intp)

    def _cached(self, sim: Simulation, number: int) -> tuple[NDArray[np.int64], ...]:
        if number not in self._cache:
            zeros = np.zeros(len(sim.free), dtype=np.int64)
            self._cache[number] = (zeros, zeros - 1, zeros.copy())
        return self._cache[number]

    def _refresh(self, sim: Simulation, number: int, rows: NDArray[np.intp]) -> None:
        """Score these rows anew; on all of them the task fits."""
        kind = self.kinds[number]
        scores, versions, device = self._cached(sim, number)
        cpu, gpus, model = sim.free[rows, 0], sim.gpu_free[rows], sim.model[rows]
        before = self._fragmented(cpu, gpus, model)
        left = cpu - kind.amounts[0]
        if kind.gpu_count == 1 and kind.gpu_millis < WHOLE:
            each = []
            for index in range(gpus.shape[1]):
                after = gpus.copy()
                after[:, index] -= kind.gpu_millis
                score = _score(before - self._fragmented(left, np.maximum(after, -1), model))
                each.append(np.where(gpus[:, index] >= kind.gpu_millis, score, -1))
            table = np.array(each)
            scores[rows], device[rows] = table.max(axis=0), table.argmax(axis=0)
        else:
            after = gpus.copy()
            whole = gpus == WHOLE
            after[whole & (whole.cumsum(axis=1) <= kind.gpu_count)] = 0
            scores[rows] = _score(before - self._fragmented(left, after, model))
        versions[rows] = sim.version[rows]

    def _fragmented(
        self, cpu: NDArray[np.int64], gpus: NDArray[np.int64], model: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the expected fragmented thousandths of GPUs: float64[n_rows]."""
        idle = np.maximum(gpus, 0)
        enough = gpus[:, :, None] >= np.maximum(self._millis, 1)
        fits = (enough.sum(axis=1) >= self._gpus) & (cpu[:, None] >= self._cpu)
        fits &= (self._gpus > 0) & (((self._models >> model[:, None]) & 1) == 1)
        usable = np.einsum("rd,rdk->rk", idle.astype(np.float64), enough.astype(np.float64))
        total = idle.sum(axis=1).astype(np.float64)
        result: NDArray[np.float64] = total - (usable * fits) @ self._frequency
        return result


def _score(gain: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return whole numbers from 0 to 100."""
    return (SCORE_MAX / (1 + np.exp(-gain / WHOLE))).astype(np.int64)
