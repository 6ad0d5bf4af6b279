"""Who may connect, and as what is a node registered?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from dray.model import ClusterLimits, ClusterRecord, Epoch, StoreRevision, string_map
from scheduler.nodes.messages import Hello, Refused, RefusedReason
from scheduler.nodes.registry import Registration, refusal, registration
from scheduler.nodes.subnets import subnet6_of, subnet_count, subnet_number, subnet_of
from scheduler.store.base import CompareField, Put
from scheduler.store.keys import node_key, node_name_key, subnet_key
from scheduler.store.snapshot import Snapshot
from tests.builders import CLUSTER_ID, a_node, a_snapshot, an_id, an_info, node_id

CLUSTER = ClusterRecord(CLUSTER_ID, generation=2, min_version="0.2.0")
EPOCH = Epoch(2, 10)
HELLO = Hello(replace(an_info(1), version="0.2.1"), CLUSTER_ID, 2, epoch=EPOCH, is_new=True)


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (replace(HELLO, cluster_id=an_id(99)), RefusedReason.WRONG_CLUSTER),
        (replace(HELLO, generation=3), RefusedReason.OLD_EPOCH),
        (replace(HELLO, epoch=Epoch(2, 11)), RefusedReason.OLD_EPOCH),
        (replace(HELLO, info=replace(HELLO.info, version="0.1.9")), RefusedReason.TOO_OLD),
        (replace(HELLO, info=replace(HELLO.info, version="what")), RefusedReason.TOO_OLD),
        (replace(HELLO, min_version="0.3.0"), RefusedReason.LEADER_TOO_OLD),
    ],
)
def test_what_a_hello_is_refused_for(hello: Hello, reason: RefusedReason) -> None:
    """Each has its reason, and a sentence that names the node or its cluster."""
    refused = refusal(hello, CLUSTER, EPOCH, "0.2.5")
    assert refused is not None
    assert refused.reason is reason
    assert "n1" in refused.message


@pytest.mark.parametrize(
    "hello",
    [
        HELLO,
        replace(HELLO, cluster_id="", generation=0, epoch=None),
        replace(HELLO, epoch=Epoch(1, 99), generation=1),
        replace(HELLO, min_version="0.2.5", info=replace(HELLO.info, version="0.10.0.dev1")),
    ],
)
def test_what_a_hello_is_not_refused_for(hello: Hello) -> None:
    """A new node, one from before an election or a restore, and neighbouring versions."""
    assert refusal(hello, CLUSTER, EPOCH, "0.2.5") is None


def with_registered(*numbers: int, cluster: ClusterRecord = CLUSTER) -> Snapshot:
    """Return a store in which these nodes are registered with the subnets from 0 on."""
    records = [a_node(number) for number in numbers]
    return replace(
        a_snapshot(nodes=records),
        cluster=cluster,
        node_names={record.name: record.node_id for record in records},
        subnets={index: record.node_id for index, record in enumerate(records)},
        mod_revisions={node_key(record.node_id): StoreRevision(7) for record in records},
    )


def test_a_new_node_gets_the_lowest_free_subnet_and_its_name() -> None:
    """All three keys are created only if absent, in one transaction."""
    found = registration(HELLO, with_registered(2, 3), 50.0)
    assert isinstance(found, Registration)
    assert found.txn is not None
    assert found.record.subnet == "10.192.4.0/23"
    assert found.record.created_unix_s == 50.0
    keys = [node_key(node_id(1)), node_name_key("n1"), subnet_key(2)]
    assert [operation.key for operation in found.txn.operations] == keys
    assert [(compare.key, compare.field, compare.revision) for compare in found.txn.compares] == [
        (key, CompareField.CREATE_REVISION, 0) for key in keys
    ]


def test_nodes_that_join_together_ask_for_different_subnets() -> None:
    """What another one is about to get is not asked for."""
    found = registration(HELLO, with_registered(2, 3), 50.0, taken={2, 3})
    assert isinstance(found, Registration)
    assert found.subnet == 4
    assert found.record.subnet == "10.192.8.0/23"


def test_a_registered_node_is_found_and_gains_labels() -> None:
    """The registry's labels win; new ones of the command line are added by compare-and-set."""
    snapshot = with_registered(1)
    assert registration(HELLO, snapshot, 0.0) == Registration(a_node(1))
    labelled = replace(HELLO, info=replace(HELLO.info, labels=string_map({"disk": "ssd"})))
    found = registration(labelled, snapshot, 0.0)
    assert isinstance(found, Registration)
    assert found.record.labels == (("disk", "ssd"),)
    assert found.txn is not None
    assert [type(operation) for operation in found.txn.operations] == [Put]
    assert found.txn.compares[0].revision == 7
    known = replace(snapshot, nodes={node_id(1): a_node(1, labels={"disk": "hdd"})})
    assert registration(labelled, known, 0.0) == Registration(a_node(1, labels={"disk": "hdd"}))


@pytest.mark.parametrize(
    ("hello", "snapshot", "reason"),
    [
        (replace(HELLO, is_new=False), with_registered(2), RefusedReason.NOT_REGISTERED),
        (
            replace(HELLO, info=replace(HELLO.info, name="n2")),
            with_registered(2),
            RefusedReason.NAME_TAKEN,
        ),
        (
            replace(HELLO, info=replace(HELLO.info, name="Not_A_Label")),
            with_registered(),
            RefusedReason.PROTOCOL,
        ),
        (
            HELLO,
            with_registered(2, cluster=replace(CLUSTER, limits=ClusterLimits(nodes_max=1))),
            RefusedReason.CLUSTER_FULL,
        ),
        (
            HELLO,
            with_registered(2, 3, cluster=replace(CLUSTER, range_cidr="10.192.0.0/22")),
            RefusedReason.CLUSTER_FULL,
        ),
    ],
)
def test_who_is_not_registered(hello: Hello, snapshot: Snapshot, reason: RefusedReason) -> None:
    """Each refusal has its reason; nothing is written."""
    refused = registration(hello, snapshot, 0.0)
    assert isinstance(refused, Refused)
    assert refused.reason is reason


def test_subnets_are_numbered() -> None:
    """The number of a subnet and the subnet of a number are each other's inverse."""
    cluster = replace(CLUSTER, range6_cidr="fd00:1::/48")
    assert subnet_count(cluster) == 4096
    for number in (0, 1, 17, 4095):
        assert subnet_number(cluster.range_cidr, subnet_of(cluster, number)) == number
    assert subnet_of(cluster, 0) == "10.192.0.0/23"
    assert subnet6_of(cluster, 2) == "fd00:1:0:2::/64"
    assert subnet6_of(CLUSTER, 2) == ""
