"""When is the table of an earlier daemon replaced?"""

from __future__ import annotations

from dray.model import Fact, FactKey, FactVersion, Member, MemberState, ServiceKey
from node.gossip.facts import FactStore
from node.gossip.packing import pack_service, service_fact_name
from node.network.handover import HANDOVER_MAX_S, QUIET_S, Handover
from tests.unit.node.network.builders import facts, node_id

OWN, PEER, OTHER = node_id(1), node_id(2), node_id(3)


class Gossip:
    """A fact store that hears of members and services."""

    def __init__(self) -> None:
        self.store = FactStore()

    def hear(self, node: int, state: MemberState = MemberState.ALIVE) -> None:
        """Let it hear of a member."""
        self.store.put_member(
            Member(node_id(node), f"n{node}", f"10.0.0.{node}", 7401, 1, 0, state)
        )

    def learn(self, node: int, service: str) -> None:
        """Let it learn what a node publishes of a service."""
        key = FactKey(node_id(node), service_fact_name(ServiceKey("shop", service)))
        value = pack_service(facts())
        assert isinstance(value, bytes)
        self.store.merge(Fact(key, FactVersion(1, 1), value), 0.0)


def seen(gossip: Gossip, handover: Handover, now_s: float) -> Handover:
    """Return the state after the store's view, with two peers to hear of."""
    return handover.seen(gossip.store.view(), OWN, {PEER, OTHER}, now_s)


def test_nothing_heard_is_not_the_same_as_nothing_there() -> None:
    """However long gossip takes, an earlier table serves on until the long bound."""
    gossip = Gossip()
    gossip.hear(1)
    gossip.learn(1, "web")
    handover = seen(gossip, Handover(100.0), 130.0)
    assert handover.ends_s == 100.0 + HANDOVER_MAX_S


def test_it_is_over_a_moment_after_peers_were_heard() -> None:
    """Each further member and service puts the end off; what only repeats itself does not."""
    gossip = Gossip()
    gossip.hear(2)
    handover = seen(gossip, Handover(100.0), 101.0)
    assert handover.ends_s == 101.0 + QUIET_S
    gossip.learn(2, "web")
    handover = seen(gossip, handover, 102.5)
    assert handover.ends_s == 102.5 + QUIET_S
    gossip.learn(2, "web")
    handover = seen(gossip, handover, 103.0)
    assert handover.ends_s == 102.5 + QUIET_S


def test_news_that_never_ends_does_not_put_it_off_for_ever() -> None:
    """The long bound holds in any case."""
    gossip = Gossip()
    gossip.hear(2)
    handover = seen(gossip, Handover(100.0), 100.0 + HANDOVER_MAX_S - 0.5)
    assert handover.ends_s == 100.0 + HANDOVER_MAX_S


def test_a_dead_peer_was_not_heard() -> None:
    """What is only known to be dead says nothing about the others."""
    gossip = Gossip()
    gossip.hear(2, MemberState.DEAD)
    assert seen(gossip, Handover(100.0), 101.0).ends_s == 100.0 + HANDOVER_MAX_S


def test_a_node_alone_waits_for_its_own_services() -> None:
    """Without peers to hear of, what it publishes itself is all there is."""
    gossip = Gossip()
    gossip.hear(1)
    alone = Handover(100.0).seen(gossip.store.view(), OWN, (), 101.0)
    assert alone.ends_s == 100.0 + HANDOVER_MAX_S
    gossip.learn(1, "web")
    assert alone.seen(gossip.store.view(), OWN, (), 102.0).ends_s == 102.0 + QUIET_S
