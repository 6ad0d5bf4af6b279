"""Do the columns of the cluster view say what the nodes said?"""

from __future__ import annotations

import numpy as np
import pytest

from dray.model import NodeCapacity, ResourceReservations
from scheduler.placement.cluster import UNLIMITED, cluster_view, reservation_row, taken_from
from scheduler.placement.node import RESOURCES
from tests.builders import a_key, a_placement_node, a_share, node_id

HUGE = 2**63 - 1


def test_rows_are_sorted_by_node_id() -> None:
    """Row i of every column is node i, whatever the order in which nodes are given."""
    view = cluster_view([a_placement_node(2, cpus=2, accepts_new=False), a_placement_node(1)])
    assert [node.node_id for node in view.nodes] == [node_id(1), node_id(2)]
    assert view.capacity[:, 0].tolist() == [4000, 2000]
    assert view.accepts_new.tolist() == [True, False]


def test_an_empty_cluster_has_columns_of_no_rows() -> None:
    """No nodes: every column has the right width and type all the same."""
    view = cluster_view([])
    assert view.capacity.shape == view.free.shape == (0, len(RESOURCES))
    assert view.accepts_new.dtype == np.bool_
    assert dict(view.replicas) == {}


def test_free_is_what_running_tasks_leave() -> None:
    """Every task of a share is counted, in every resource, and the service's column counts it."""
    asked = ResourceReservations(cpu_millis=10, memory_bytes=20, disk_bytes=30, pids=40)
    capacity = NodeCapacity(100, 100, 100, 100, tasks_max=5)
    running = (a_share("web", 2, asked), a_share("web", 1), a_share("db", 1))
    view = cluster_view([a_placement_node(1, capacity=capacity, running=running)])
    assert view.free.tolist() == [[80, 60, 40, 20, 1]]
    assert view.replicas == {a_key("web"): {node_id(1): 3}, a_key("db"): {node_id(1): 1}}


def test_a_node_that_shrank_has_less_than_nothing() -> None:
    """A deficit is kept as such, and stays a number however large it is."""
    asked = ResourceReservations(cpu_millis=10, memory_bytes=HUGE)
    running = (a_share("web", 500, asked),)
    view = cluster_view([a_placement_node(1, cpus=1, memory_gib=1, running=running)])
    assert view.free[0, 0] == 1000 - 5000
    assert view.free[0, 1] < -HUGE // 4


def test_what_is_not_reported_is_unlimited_and_stays_so() -> None:
    """Disk and pids of 0 mean no limit; taking from them leaves them unlimited."""
    asked = ResourceReservations(cpu_millis=1, disk_bytes=HUGE, pids=HUGE)
    view = cluster_view([a_placement_node(1, cpus=1, running=(a_share("web", 3, asked),))])
    assert view.free[0, 2:4].tolist() == [UNLIMITED, UNLIMITED]
    left = taken_from(view.free[0], reservation_row(asked))
    assert left.tolist() == [996, view.free[0, 1], UNLIMITED, UNLIMITED, 508 - 4]


def test_the_largest_capacity_is_still_a_limit() -> None:
    """A node that reports the largest number there is is counted down like any other."""
    capacity = NodeCapacity(1, HUGE, HUGE, HUGE)
    asked = ResourceReservations(memory_bytes=1, disk_bytes=1, pids=1)
    view = cluster_view([a_placement_node(1, capacity=capacity)])
    left = taken_from(view.free[0], reservation_row(asked))
    assert (left < view.free[0]).tolist() == [False, True, True, True, True]


def test_a_node_given_twice_is_a_bug() -> None:
    """Two rows of one node would give its room out twice."""
    with pytest.raises(AssertionError, match="twice"):
        cluster_view([a_placement_node(1), a_placement_node(1)])
