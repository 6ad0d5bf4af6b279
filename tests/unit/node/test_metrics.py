"""What of gossip can Prometheus read at a node?"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from dray.model import MemberState, NodeUsage
from node.gossip.counts import Counts
from node.metrics import NodeMetrics


def test_gossip_is_told_by_name() -> None:
    """Counts, members by state and the lateness of gossip's loop are there, each with a type."""
    counts = Counts(probes=7, suspicions=2, refutations=1, false_alarms=1)
    metrics = NodeMetrics(
        states=lambda: (),
        faults=lambda: (),
        usage=NodeUsage,
        is_connected=lambda: True,
        loops=lambda: (),
        counted=lambda: {
            "probes": counts.probes,
            "suspicions": counts.suspicions,
            "refutations": counts.refutations,
            "false_alarms": counts.false_alarms,
        },
        members=lambda: {MemberState.ALIVE: 5, MemberState.STALLED: 1},
        lateness_s=lambda: 0.125,
    )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    lines = generate_latest(registry).decode().splitlines()
    for line in (
        'dray_node_gossip_total{what="probes"} 7.0',
        'dray_node_gossip_total{what="suspicions"} 2.0',
        'dray_node_gossip_total{what="refutations"} 1.0',
        'dray_node_gossip_total{what="false_alarms"} 1.0',
        'dray_node_gossip_members{state="alive"} 5.0',
        'dray_node_gossip_members{state="stalled"} 1.0',
        'dray_node_gossip_members{state="dead"} 0.0',
        "dray_node_gossip_lateness_seconds 0.125",
        "# TYPE dray_node_gossip_total counter",
        "# TYPE dray_node_gossip_lateness_seconds gauge",
    ):
        assert line in lines
