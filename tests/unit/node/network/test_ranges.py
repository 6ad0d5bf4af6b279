"""Is everything noticed that the cluster's ranges would take from the machine?"""

from __future__ import annotations

import pytest

from node.network.ranges import MachineRoute, range_conflicts, static_conflicts

RANGE, VIPS = "10.192.0.0/11", "10.224.0.0/16"
OWN = frozenset({"dray0", "dray-vx"})


@pytest.mark.parametrize(
    ("route", "said"),
    [
        (MachineRoute("default", "eth0", False), ""),
        (MachineRoute("192.168.1.0/24", "eth0"), ""),
        (MachineRoute("10.0.0.0/8", "eth0", False), ""),
        (MachineRoute("10.200.0.0/23", "dray0"), ""),
        (MachineRoute("10.192.0.0/11"), ""),
        (MachineRoute("fd00::/8", "eth0"), ""),
        (MachineRoute("10.0.0.0/8", "eth0"), "10.0.0.0/8 (interface eth0) collides"),
        (MachineRoute("10.200.0.0/16", "tun0", False), "10.200.0.0/16 (interface tun0) collides"),
        (MachineRoute("10.224.1.5", "br7"), "range 10.224.0.0/16"),
        (MachineRoute("10.192.0.0/11", "eth1", False), "10.192.0.0/11 (interface eth1) collides"),
    ],
    ids=[
        "default", "elsewhere", "covering-router", "own", "unreachable", "other-family",
        "covering-link", "inside", "host-in-vips", "equal",
    ],
)  # fmt: skip
def test_routes(route: MachineRoute, said: str) -> None:
    """A route inside a range, or a network around it, is in the way; a router's is not."""
    found = range_conflicts([RANGE, VIPS], [route], own_devices=OWN)
    assert bool(found) == bool(said)
    assert said in "".join(found)


def test_nodes_inside_the_range() -> None:
    """A node whose own address lies in the containers' range cannot take part."""
    (said,) = range_conflicts([RANGE, VIPS], [], own_devices=OWN, peers=["10.193.0.4", "10.1.0.1"])
    assert "10.193.0.4" in said
    assert "--range" in said


def test_ranges_that_overlap_each_other() -> None:
    """The ranges of containers and services must be apart."""
    (said,) = range_conflicts(["10.0.0.0/8", VIPS], [], own_devices=OWN)
    assert said == "the cluster's ranges 10.0.0.0/8 and 10.224.0.0/16 overlap"


@pytest.mark.parametrize(
    ("route", "is_taken"),
    [
        (MachineRoute("10.5.0.0/16", "eth0"), True),
        (MachineRoute("10.5.0.9", "br7"), True),
        (MachineRoute("10.5.0.0/16", "eth0", False), False),
        (MachineRoute("default", "eth0"), False),
        (MachineRoute("10.6.0.0/16", "eth0"), False),
        (MachineRoute("10.0.0.0/8"), False),
    ],
    ids=["link", "host", "router", "default", "elsewhere", "unreachable"],
)
def test_addresses_that_files_name(route: MachineRoute, is_taken: bool) -> None:
    """One that a neighbour of the machine may have is none for a service."""
    found = static_conflicts(["10.5.0.9"], [route])
    assert bool(found) is is_taken
    assert all("10.5.0.9" in each and route.device in each for each in found)
