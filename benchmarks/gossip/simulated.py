"""What does gossip do in worlds that a machine cannot hold? Simulations with real encoding.

`worlds`: how many seeds of the test layer's worlds hold. `large`: 1,000 nodes with 50,000
endpoints: what a view costs in memory, how long a joiner takes, what 100 changes a second cost.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time
import tracemalloc
from collections.abc import Sequence

from dray.model import (
    Endpoint,
    EndpointPort,
    Epoch,
    Fact,
    FactKey,
    FactVersion,
    Health,
    MemberState,
    ServiceFacts,
    ServiceKey,
    ServiceRevision,
    SlotKey,
)
from dray.names import TaskId, id_text
from node.gossip.core import PublishFact
from node.gossip.facts import FactStore
from node.gossip.packing import pack_service, service_fact_name
from node.gossip.swim import SwimCore
from tests.simulation.gossip_cluster import GossipCluster, node_id_of
from tests.simulation.large import large_cluster
from tests.simulation.test_seeds import broken_in

__all__ = ["PARTS", "large", "worlds"]

ENDPOINTS_PER_SERVICE = 5
SERVICES_PER_NODE = 10
CHANGES_PER_S = 100
CHANGES_S = 3
REST_S = 5.0
LIMIT_S = 120.0
PARTS = ("memory", "rest", "join", "changes")
PROGRESS_SEEDS = 500


def worlds(first: int, count: int) -> dict[str, object]:
    """Run so many seeded worlds; return how many were run, and which are broken.

    Says on standard error how far it is; when it is ended before, what is done counts.
    """
    begin_s = time.process_time()
    broken: list[int] = []
    done = 0
    with contextlib.suppress(SystemExit):
        for seed in range(first, first + count):
            wrong = _wrong_in(seed)
            if wrong:
                broken.append(seed)
                print(f"seed {seed}: {'; '.join(wrong)}", file=sys.stderr, flush=True)
            done += 1
            if done % PROGRESS_SEEDS == 0:
                print(f"{done} of {count} seeds", file=sys.stderr, flush=True)
    return {
        "first_seed": first,
        "seeds": done,
        "broken": broken,
        "replay": "./dev.sh test --layer simulation -- --seed SEED -k test_seeds",
        "cpu_seconds": round(time.process_time() - begin_s, 1),
    }


def _wrong_in(seed: int) -> list[str]:
    try:
        return broken_in(seed)[0]
    except AssertionError as error:  # one of the core's own, or a limit exceeded
        return [str(error)]


def _publication(node: int, service: int, version: int) -> PublishFact:
    """Return what one node publishes of one of its services."""
    key = ServiceKey(f"p{node % 50}", f"s{service}")
    endpoints = tuple(
        Endpoint(
            SlotKey(key.project, key.service, node * 100 + slot),
            TaskId(id_text((node << 40 | service << 20 | slot).to_bytes(16, "big"))),
            Epoch(1, 1_000_000 + version),
            f"10.{192 + node // 256}.{node % 256}.{service * 10 + slot}",
            health=Health.HEALTHY,
            ports=(EndpointPort(8080, "tcp", "http"),),
            networks=("default",),
            aliases=(("default", key.service),),
        )
        for slot in range(ENDPOINTS_PER_SERVICE)
    )
    value = pack_service(ServiceFacts(ServiceRevision(1), "10.224.0.1", endpoints=endpoints))
    assert isinstance(value, bytes)
    return PublishFact(service_fact_name(key), value)


def _known(cluster: GossipCluster, nodes: int) -> FactStore:
    """Return a store of everybody and everything that they publish."""
    known = FactStore()
    for number in range(nodes):
        name = f"n{number}"
        member = cluster.view(name).member(node_id_of(name))
        assert member is not None
        known.put_member(member)
        for service in range(SERVICES_PER_NODE):
            event = _publication(number, service, 0)
            version = FactVersion(member.life, service + 1)
            known.merge(Fact(FactKey(member.node_id, event.name), version, event.value), 0.0)
    return known


def _memory_mib(cluster: GossipCluster, nodes: int) -> float:
    """Return what a store of its own takes, with nothing shared."""
    tracemalloc.start()
    known = _known(cluster, nodes)
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(known) == nodes
    return held_bytes / 2**20


def _join(cluster: GossipCluster, nodes: int) -> dict[str, object]:
    """Let one more node join; return when it knows everything, and what that cost."""
    world = cluster.world
    begin_s, cpu_s = world.now_s, time.process_time()
    cluster.start("late")
    services = sum(1 for _ in cluster.view("n1").services())

    def is_whole() -> bool:
        view = cluster.view("late")
        return sum(1 for _ in view.services()) == services and (
            sum(m.state is MemberState.ALIVE for m in view.members()) == nodes + 1
        )

    while not is_whole() and world.now_s - begin_s < LIMIT_S:
        world.run_for(0.1)
    return {
        "whole_after_s": round(world.now_s - begin_s, 1),
        "cpu_seconds_of_all": round(time.process_time() - cpu_s, 1),
        "chunks": cluster.core("late").counted()["pulls"],
    }


def _change(cluster: GossipCluster, nodes: int) -> dict[str, object]:
    """Change endpoints all the time; return the traffic, and when the last change is everywhere."""
    world, rng = cluster.world, random.Random(7)
    sends, sent_bytes, cpu_s = world.sends, world.sent_bytes, time.process_time()
    for number in range(CHANGES_PER_S * CHANGES_S):
        node = rng.randrange(nodes)
        service = rng.randrange(SERVICES_PER_NODE)
        cluster.command(f"n{node}", _publication(node, service, number + 1))
        world.run_for(1.0 / CHANGES_PER_S)
    found: dict[str, object] = {
        "changes_per_s": CHANGES_PER_S,
        "datagrams_per_node_s": round((world.sends - sends) / nodes / CHANGES_S, 2),
        "payload_bytes_per_node_s": round((world.sent_bytes - sent_bytes) / nodes / CHANGES_S),
        "cpu_percent_of_a_core_per_node": round(
            100.0 * (time.process_time() - cpu_s) / nodes / CHANGES_S, 2
        ),
    }
    begin_s = world.now_s
    while len(_digests(cluster)) > 1 and world.now_s - begin_s < LIMIT_S:
        world.run_for(0.25)
    return {**found, "equal_after_s": round(world.now_s - begin_s, 2)}


def _digests(cluster: GossipCluster) -> set[int]:
    found: set[int] = set()
    for name in cluster.running():
        core = cluster.core(name)
        assert isinstance(core, SwimCore)
        found.add(core.digest)
    return found


def _rest(cluster: GossipCluster, nodes: int) -> dict[str, object]:
    """Let nothing happen; return what that costs."""
    begin = (cluster.world.sends, cluster.world.sent_bytes, time.process_time())
    cluster.world.run_for(REST_S)
    return {
        "datagrams_per_node_s": round((cluster.world.sends - begin[0]) / nodes / REST_S, 2),
        "payload_bytes_per_node_s": round((cluster.world.sent_bytes - begin[1]) / nodes / REST_S),
        "cpu_percent_of_a_core_per_node": round(
            100.0 * (time.process_time() - begin[2]) / nodes / REST_S, 3
        ),
    }


def large(nodes: int, parts: Sequence[str] = PARTS) -> dict[str, object]:
    """Return the figures of one world of so many nodes, each with 50 endpoints of ten services.

    The last of the nodes is the one that joins: 1,000 are the most that gossip takes.
    """
    found: dict[str, object] = {
        "nodes": nodes,
        "endpoints": nodes * SERVICES_PER_NODE * ENDPOINTS_PER_SERVICE,
    }
    nodes -= 1
    cluster = large_cluster(nodes, seed=1, known=_known)
    if "memory" in parts:
        found["store_mib_per_node"] = round(_memory_mib(cluster, nodes), 1)
    for part, measure in (("rest", _rest), ("join", _join), ("changes", _change)):
        if part in parts:
            found[part] = measure(cluster, nodes)
            print(f"{part}: {found[part]}", file=sys.stderr, flush=True)
    return found
