"""Does a follower of the store lose or double anything when the network fails one of its servers?

With the programs of `benchmarks.store_faults`, which has all faults and the figures: a follower and
a writer beside the switch, three servers on three hosts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.store_faults import World, black_holed, cut_from_peers, once
from tests.lab import Lab
from tests.lab.etcd import EtcdCluster


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fault", [black_holed, cut_from_peers])
def test_nothing_is_lost_nor_doubled(
    lab: Lab, tmp_path: Path, fault: Callable[[World], None]
) -> None:
    """The follower's server is silent, or knows no other one: it goes on with the next."""
    with EtcdCluster(3, tmp_path / "etcd", hosts=lab.hosts) as etcd:
        found = once(World(etcd, lab, tmp_path), fault, None)
    assert found["written"]["committed"] > 100
    assert (found["ours"]["lost"], found["ours"]["doubled"]) == (0, 0), found
