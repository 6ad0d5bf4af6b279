"""How much of the GPUs could be given out at all by who refuses nothing that fits?

A bound for schedulers of every kind, also for those that know what will come. Take the most
frequent share of a device that is larger than half of it, the *blocker*. Up to some moment a
device is untouched on a node with room for a blocker; since nothing ends, one was all the time
before, so every blocker that came until then was placed. Afterwards a blocker finds room only
beside shares that are smaller than what it leaves of a device, and only tasks that ask for less CPU
or memory than it does still find untouched devices.

Of all moments, and all fillings of devices with shares, the best is a linear program: how many
devices hold each combination of shares. CPU and memory do not count in it, small shares take no
room, and fractions of devices are allowed, so no scheduler exceeds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import highspy

from benchmarks.placement.workload import ANY_MODEL, WHOLE, Fleet, Kind, Workload

__all__ = ["most_allocated_percent"]

WIDTH_MIN: Final = 1 / 512
"""Of the last interval of moments that is looked at, as a part of all tasks."""


def most_allocated_percent(fleet: Fleet, workload: Workload) -> float:
    """Return the share of the fleet's GPUs that nobody can exceed, if no departures free any.

    Args:
        fleet: The nodes.
        workload: The tasks in the order in which they come.
    """
    tasks = [workload.kinds[task] for task in workload.tasks]
    large = Counter(
        kind
        for kind in tasks
        if WHOLE < 2 * kind.gpu_total < 2 * WHOLE and kind.gpu_models == ANY_MODEL
    )
    if not large:
        return 100.0  # nothing is said about such tasks
    program = _Program(fleet, tasks, large.most_common(1)[0][0])
    intervals = [(program.most(0.0, 1.0), 0.0, 1.0)]
    while True:  # the interval with the highest bound is halved: it is the one that counts
        most, start, end = max(intervals)
        if end - start <= WIDTH_MIN:
            return 100.0 * most / (int(fleet.gpus.sum()) * WHOLE)
        intervals.remove((most, start, end))
        middle = (start + end) / 2
        intervals += [
            (program.most(start, middle), start, middle),
            (program.most(middle, end), middle, end),
        ]


class _Program:
    """The linear program for moments in an interval."""

    def __init__(self, fleet: Fleet, tasks: list[Kind], blocker: Kind) -> None:
        self._devices = int(fleet.gpus.sum())
        self._tasks = tasks
        self._blocker = blocker
        small = WHOLE - self._blocker.gpu_millis
        self._small = [kind for kind in tasks if 0 < kind.gpu_total <= small]
        self._counts: Counter[int] = Counter(
            kind.gpu_millis for kind in tasks if small < kind.gpu_total < WHOLE
        )
        self._fillings = list(_fillings(sorted(self._counts, reverse=True), WHOLE))

    def most(self, start: float, end: float) -> float:
        """Return the thousandths given out at most, when the moment is between two others.

        Args:
            start: Part of the tasks that have come by the earliest moment.
            end: The same of the latest.
        """
        blocker, n_tasks = self._blocker, len(self._tasks)
        until = self._tasks[: int(end * n_tasks) + 1]
        later = self._tasks[len(until) :]
        whole = sum(kind.gpu_total for kind in until if kind.gpu_total >= WHOLE)
        whole += sum(
            kind.gpu_total for kind in later if kind.gpu_total >= WHOLE and self._is_less(kind)
        )
        most = dict(self._counts)
        most[blocker.gpu_millis] = len(self._small) + sum(
            kind.gpu_millis == blocker.gpu_millis
            for kind in [*until, *filter(self._is_less, later)]
        )
        blocked = sum(kind == blocker for kind in self._tasks[: int(start * n_tasks)])
        given = self._solved(most, {blocker.gpu_millis: blocked}, whole / WHOLE)
        return given + sum(kind.gpu_total for kind in self._small)

    def _solved(self, most: dict[int, int], least: dict[int, int], whole: float) -> float:
        """Return the thousandths that devices hold at most; less than nothing when none will do.

        Args:
            most: Shares of each size that there are.
            least: Shares that must have a place.
            whole: Whole devices that are asked for.
        """
        solver = highspy.Highs()  # type: ignore[no-untyped-call]
        solver.silent()
        holding = [solver.addVariable(0) for _ in self._fillings]
        wholes = solver.addVariable(0, whole)
        solver.addConstr(sum(holding) + wholes <= self._devices)
        for millis, count in most.items():
            held = sum(
                each[millis] * variable
                for each, variable in zip(self._fillings, holding, strict=True)
                if millis in each
            )
            solver.addConstr(held <= count)
            solver.addConstr(held >= least.get(millis, 0))
        sizes = [sum(size * n for size, n in each.items()) for each in self._fillings]
        given = sum(size * each for size, each in zip(sizes, holding, strict=True))
        solver.maximize(given + WHOLE * wholes)
        if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return -float(self._devices * WHOLE)  # so many blockers do not fit
        return float(solver.getObjectiveValue())

    def _is_less(self, kind: Kind) -> bool:
        """Return whether a task may fit where a blocker does not."""
        return any(a < b for a, b in zip(kind.amounts, self._blocker.amounts, strict=True))


def _fillings(sizes: list[int], room: int) -> Iterator[Counter[int]]:
    """Yield every combination of shares, at least one, that a device with so much room holds."""
    for index, size in enumerate(sizes):
        if size <= room:
            yield Counter({size: 1})
            for rest in _fillings(sizes[index:], room - size):
                yield rest + Counter({size: 1})
