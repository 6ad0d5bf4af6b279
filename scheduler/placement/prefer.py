"""Which of the nodes that will do is liked best? One number a node, renewed as tasks are placed.

BINPACK asks the packing score (`score.py`) what a node would lose by taking the task; SPREAD asks
how much of it would be left. Both look at CPU and memory, the amounts that most services name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dray.model import PackingPolicy, ResourceReservations
from scheduler.placement.cluster import ClusterView, reservation_row
from scheduler.placement.score import Columns, Demand, Mix, make_mix, score_rows

__all__ = ["Preference", "cluster_mix"]

_SCORED: Final = 2  # CPU and memory, the first columns of `RESOURCES`


def cluster_mix(cluster: ClusterView, arriving: Sequence[tuple[ResourceReservations, int]]) -> Mix:
    """Return the mix of what runs on the cluster and what is to be placed now.

    Args:
        cluster: The cluster as it is.
        arriving: What each new task reserves, and how many there are.
    """
    weights: dict[tuple[int, ...], int] = {}
    shares = [(each.reservations, each.count) for node in cluster.nodes for each in node.running]
    for reservations, count in (*shares, *arriving):
        kind = tuple(reservation_row(reservations)[:_SCORED].tolist())
        weights[kind] = weights.get(kind, 0) + count
    kinds = [Demand(np.array(kind, dtype=np.int64)) for kind in weights]
    return make_mix(_columns(cluster, cluster.free), kinds, [float(n) for n in weights.values()])


class Preference:
    """How much each node is liked for one kind of task; less is better.

    Attributes:
        values: float64[n_nodes]. Those of nodes on which the task does not fit mean nothing.
    """

    def __init__(
        self,
        cluster: ClusterView,
        free: NDArray[np.int64],
        demand: NDArray[np.int64],
        policy: PackingPolicy,
        mix: Mix,
    ) -> None:
        """Look at every node once.

        Args:
            cluster: The cluster.
            free: int64[n_nodes, len(RESOURCES)]; what is free now. Kept, and read by `renew`.
            demand: int64[len(RESOURCES)]; what one task takes.
            policy: BINPACK or SPREAD.
            mix: What else is asked of the cluster.
        """
        self._columns = _columns(cluster, free)
        self._demand = Demand(demand[:_SCORED])
        self._spreads = policy is PackingPolicy.SPREAD
        self._mix = mix
        self.values = self._look(np.arange(len(cluster.nodes)))

    def renew(self, row: int) -> None:
        """Look at one node again, whose free amounts have changed."""
        self.values[row] = self._look(np.array([row]))[0]

    def _look(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        if not self._spreads:
            return score_rows(self._columns, rows, self._demand, self._mix)
        left = self._columns.free[rows].astype(np.float64) - self._demand.amounts
        capacity = np.maximum(self._columns.capacity[rows], 1)
        share: NDArray[np.float64] = (left / capacity).sum(axis=1)
        return -share


def _columns(cluster: ClusterView, free: NDArray[np.int64]) -> Columns:
    n_nodes = len(cluster.nodes)
    return Columns(
        cluster.capacity[:, :_SCORED],
        free[:, :_SCORED],
        np.zeros((n_nodes, 0), dtype=np.int64),
        np.zeros(n_nodes, dtype=np.int64),
    )
