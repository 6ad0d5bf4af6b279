"""Does membership survive whatever a seed makes of the network? Small worlds, one a seed."""

from __future__ import annotations

import random

from dray.model import Endpoint, Epoch, ServiceFacts, ServiceKey, ServiceRevision, SlotKey
from dray.names import TaskId, id_text
from node.gossip.core import Event, Leave, PublishFact
from node.gossip.packing import pack_service, service_fact_name
from node.gossip.parameters import Parameters
from tests.simulation import faults
from tests.simulation.checkers import after_quiet, at_rest, watch_sizes, watch_views
from tests.simulation.gossip_cluster import GossipCluster

FAULTS_FROM_S = 3.0
FAULTS_UNTIL_S = 20.0
QUIET_LIMIT_S = 60.0  # everything must be whole again by then; usually it takes a few seconds
SETTLED_S = 5.0  # then what was said last is still spread
REST_S = 10.0  # and then there is nothing left to say


def publication(name: str, service: str, number: int) -> PublishFact:
    """Return the command that publishes one endpoint of a service, or none for number 0.

    The address of the endpoint is of `name` and `number`.
    """
    key = ServiceKey("shop", service)
    if number == 0:
        return PublishFact(service_fact_name(key), None)
    task_id = TaskId(id_text(bytes([number % 256]) * 16))
    slot = SlotKey(key.project, key.service, number)
    endpoint = Endpoint(slot, task_id, Epoch(1, 7), address=f"10.192.{ord(name) % 256}.{number}")
    value = pack_service(ServiceFacts(ServiceRevision(1), endpoints=(endpoint,)))
    assert isinstance(value, bytes)
    return PublishFact(service_fact_name(key), value)


def build(seed: int) -> GossipCluster:
    """Return the world of a seed, with everything that is going to happen in it scheduled."""
    rng = random.Random(f"plan/{seed}")
    cluster = GossipCluster(seed, Parameters(tombstone_keep_s=rng.choice((1.0, 600.0))))
    watch_sizes(cluster)
    watch_views(cluster)
    names = [chr(ord("a") + index) for index in range(rng.randint(2, 7))]
    for name in names:
        cluster.start(name)
    hosts = [cluster.host(name) for name in names]
    plan = faults.draw(rng, hosts, FAULTS_FROM_S, FAULTS_UNTIL_S)
    faults.schedule(cluster.world, plan, cluster.start_at)
    for _ in range(rng.randint(0, 12)):
        number = rng.choice((0, rng.randint(1, 200), rng.randint(1, 200)))
        event = publication(rng.choice(names), rng.choice(("web", "api", "db")), number)
        later(cluster, rng.uniform(0.0, FAULTS_UNTIL_S), rng.choice(names), event)
    untouched = [name for name in names if cluster.host(name) not in faults.touched(plan)]
    if len(untouched) > 1 and rng.random() < 0.4:
        leaves_at_s = rng.uniform(FAULTS_FROM_S, FAULTS_UNTIL_S - 2.0)
        later(cluster, leaves_at_s, untouched[0], Leave())
        host = cluster.host(untouched[0])
        cluster.world.at(leaves_at_s + 1.0, lambda: cluster.world.crash(host))
    return cluster


def later(cluster: GossipCluster, at_s: float, name: str, event: Event) -> None:
    """Give a node an event at that time, if it runs then."""

    def call() -> None:
        if cluster.world.is_running(cluster.host(name)):
            cluster.command(name, event)

    cluster.world.at(at_s, call)


def broken_in(seed: int) -> tuple[list[str], GossipCluster]:
    """Run the world of a seed to its end; return what is broken there, and the world."""
    cluster = build(seed)
    world = cluster.world
    world.run_until(FAULTS_UNTIL_S)
    end_s = world.now_s + QUIET_LIMIT_S
    broken = after_quiet(cluster)
    while broken and world.now_s < end_s:
        world.run_for(0.5)
        broken = after_quiet(cluster)
    if not broken:
        world.run_for(SETTLED_S)
        broken = at_rest(cluster, REST_S)
    return broken, cluster


def test_views_become_whole_and_equal(seed: int, replay: str) -> None:
    """After any faults the dead are found, the living are held alive, and all views are equal."""
    print(replay)  # shown with a failure, also with one of the core's own assertions
    broken, _ = broken_in(seed)
    assert not broken, "\n".join(broken)


def test_same_seed_same_trace() -> None:
    """A world is a function of its seed: two runs agree in every effect, two seeds do not."""
    traces = [broken_in(seed)[1].world.trace for seed in (3, 3, 4)]
    assert traces[0] == traces[1]
    assert traces[1] != traces[2]
