"""Are addresses given out once, kept by their tasks, and left to rest?"""

from __future__ import annotations

import pytest

from dray.errors import InvalidRequest
from dray.names import TaskId
from node.network.ipam import (
    REST_MIN_S,
    REST_S,
    Allocated,
    NoAddress,
    Pool,
    adopt,
    allocate,
    empty_pool,
    gateway,
    release,
)

SMALL = "10.192.0.0/29"  # .2 to .6


def task(number: int) -> TaskId:
    """Return a task's id."""
    return TaskId(f"task-{number}")


def given(pool: Pool, number: int, now_s: float = 0.0) -> Allocated:
    """Return the outcome of an allocation that succeeds."""
    outcome = allocate(pool, task(number), now_s)
    assert isinstance(outcome, Allocated), outcome
    return outcome


def refused(pool: Pool, number: int, now_s: float = 0.0) -> NoAddress:
    """Return the outcome of an allocation that fails."""
    outcome = allocate(pool, task(number), now_s)
    assert isinstance(outcome, NoAddress), outcome
    return outcome


def full(now_s: float = 0.0) -> Pool:
    """Return a pool of which tasks 0 to 4 hold everything."""
    pool = empty_pool(SMALL)
    for number in range(5):
        pool = given(pool, number, now_s).pool
    return pool


def test_every_usable_address_is_given_out_once() -> None:
    """The gateway, the network and the broadcast address are nobody's; all others are used."""
    assert gateway(SMALL) == "10.192.0.1"
    assert sorted(full().held.values()) == [f"10.192.0.{n}" for n in range(2, 7)]
    outcome = refused(full(), 9)
    assert outcome.retryable
    assert "all addresses of 10.192.0.0/29 are taken" in outcome.message


def test_a_task_keeps_its_address() -> None:
    """Asking twice gives the same address: a new attempt of a task is found where it was."""
    first = given(empty_pool(SMALL), 1)
    assert given(first.pool, 1) == first


def test_an_address_rests_before_it_is_used_again() -> None:
    """Others are given out first; then the one that rested longest, not before its minimum."""
    pool = release(release(full(), task(3), 10.0), task(1), 11.0)
    early = refused(pool, 9, 10.0 + REST_MIN_S - 1)
    assert early.retryable
    assert early.retry_after_s == pytest.approx(1.0)
    late = given(pool, 9, 11.0 + REST_MIN_S)
    assert late.address == "10.192.0.5"  # task 3's
    assert late.address not in late.pool.resting


def test_rested_addresses_are_ordinary_again() -> None:
    """After its rest an address is found in its turn."""
    pool = release(full(), task(2), 0.0)
    assert given(pool, 9, REST_S).address == "10.192.0.4"


def test_the_search_goes_round() -> None:
    """An address that is free long since is not taken while later ones were never used."""
    pool = given(empty_pool(SMALL), 1).pool
    pool = release(pool, task(1), 0.0)
    assert given(pool, 2, REST_S * 2).address == "10.192.0.3"


def test_adopting_follows_the_engine() -> None:
    """A running container's address is its task's, whatever was remembered."""
    pool = given(empty_pool(SMALL), 1).pool
    taken = pool.held[task(1)]
    pool = adopt(pool, task(2), taken)
    assert dict(pool.held) == {task(2): taken}
    assert given(pool, 1).address != taken
    assert adopt(pool, task(3), "192.0.2.1") == pool


def test_releasing_what_nobody_holds() -> None:
    """A task without an address gives nothing back."""
    assert release(empty_pool(SMALL), task(1), 0.0) == empty_pool(SMALL)


def test_ipv6_subnets() -> None:
    """A long subnet gives out addresses from its start."""
    pool = empty_pool("fd00:64::/64")
    assert gateway(pool.subnet) == "fd00:64::1"
    assert given(pool, 1).address == "fd00:64::2"


@pytest.mark.parametrize("subnet", ["10.0.0.0/30", "10.0.0.0/8", "10.0.0.1/24", "x"])
def test_subnets_that_will_not_do(subnet: str) -> None:
    """A subnet that cannot hold tasks is refused by name."""
    with pytest.raises(InvalidRequest, match=subnet.split("/")[0]):
        empty_pool(subnet)
