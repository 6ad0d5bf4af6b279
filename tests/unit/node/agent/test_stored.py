"""Does the node's disk give back what was written, and nothing that it does not understand?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dray.addresses import HostPort
from dray.errors import FailedPrecondition
from dray.model import (
    Assignment,
    AttemptState,
    ClusterRecord,
    Epoch,
    GossipKey,
    Health,
    NodeRecord,
    ProjectParts,
    SlotKey,
    StoreRevision,
)
from dray.names import id_text
from node.agent.assign import Share
from node.agent.disk import Disk
from node.agent.files import read_file, write_file
from node.agent.stored import (
    NodeConfig,
    pack_config,
    pack_share,
    pack_task,
    pack_tasks,
    unpack_config,
    unpack_identity,
    unpack_share,
    unpack_tasks,
)
from node.agent.tasks import StopCause, TaskState
from node.ports import NetworkConfig, NetworkPeer
from tests.node_agent import CLUSTER, NODE, a_task, an_entry, task_id


def config() -> NodeConfig:
    """Return what a leader says of a node."""
    return NodeConfig(
        ClusterRecord(CLUSTER),
        NodeRecord(NODE, CLUSTER, "n1", "10.192.0.0/23"),
        (GossipKey(1, b"k" * 32, primary=True),),
        (HostPort("10.0.0.2", 7401),),
        (HostPort("10.0.0.1", 7400),),
        (NODE,),
    )


def test_what_is_written_is_read() -> None:
    """Configuration, share and tasks come back as they were."""
    assert unpack_config(pack_config(config())) == config()
    assignment = Assignment(
        CLUSTER, NODE, Epoch(1, 2), StoreRevision(3), (a_task(1),), (an_entry(),)
    )
    share = Share(assignment, {"shop": ProjectParts("shop", creatable_volumes=("shop_data",))})
    assert unpack_share(pack_share(share)) == share
    state = TaskState(
        task_id(1),
        SlotKey("shop", "web", 1),
        is_wanted=False,
        attempt=4,
        state=AttemptState.STOPPING,
        stop_cause=StopCause.UNHEALTHY,
        health=Health.UNHEALTHY,
        container_id="c",
        exit_code=None,
        reason="its health check failed",
        ends_unix_s=(1.0, 2.5),
        failures=2,
    )
    found = unpack_tasks(pack_tasks([pack_task(state)], [state.task_id], "boot"))
    assert (found.states, found.orphans, found.boot_id) == ((state,), (state.task_id,), "boot")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        b"[]",
        b'{"format":2}',
        b'{"format":1}',
        b'{"format":1,"node_id":1,"life":"x","cluster_id":null,"epoch":null}',
    ],
)
def test_what_is_not_understood_is_refused_with_the_next_step(data: bytes) -> None:
    """A broken file, or a newer version's, is never guessed at."""
    for unpack in (unpack_identity, unpack_config, unpack_share, unpack_tasks):
        with pytest.raises(FailedPrecondition) as caught:
            unpack(data)
        assert caught.value.hint


def test_a_file_is_replaced_as_a_whole_and_kept_from_others(tmp_path: Path) -> None:
    """What a killed writer left beside it does not matter."""
    path = tmp_path / "keys"
    assert read_file(path) is None
    (tmp_path / ".keys.new").write_bytes(b"torn")
    write_file(path, b"one")
    write_file(path, b"two")
    assert read_file(path) == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in tmp_path.iterdir()) == ["keys"]


def test_each_start_is_a_new_life_of_the_same_node(tmp_path: Path) -> None:
    """The life grows also when the clock was set back, and nobody else may use the folder."""
    first = Disk(tmp_path / "node")
    identity = first.open(lambda: id_text(b"x" * 16), 1_000.5)
    assert (identity.life, identity.cluster_id) == (1_000, None)
    with pytest.raises(FailedPrecondition, match="another node daemon uses"):
        Disk(tmp_path / "node").open(lambda: id_text(b"y" * 16), 2_000.0)
    first.write_identity(dataclasses.replace(identity, cluster_id=CLUSTER, epoch=Epoch(1, 9)))
    first.close()
    second = Disk(tmp_path / "node")
    again = second.open(lambda: id_text(b"y" * 16), 10.0)
    second.close()
    assert (again.node_id, again.life) == (identity.node_id, 1_001)
    assert (again.cluster_id, again.epoch) == (CLUSTER, Epoch(1, 9))


def test_the_disk_keeps_what_it_is_told(tmp_path: Path) -> None:
    """Nothing is there before it is written."""
    disk = Disk(tmp_path)
    network = NetworkConfig(
        NODE, "10.0.0.1", "10.192.0.0/23", "10.192.0.0/11", "10.224.0.0/16",
        peers=(NetworkPeer(NODE, "10.0.0.2", "10.192.2.0/23"),),
    )  # fmt: skip
    assert (disk.read_config(), disk.read_share(), disk.read_network()) == (None, None, None)
    assert disk.read_tasks().states == ()
    disk.write_config(config())
    disk.write_network(network)
    assert disk.read_config() == config()
    assert disk.read_network() == network
