"""What of gossip and names can Prometheus read at a node?"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from dray.model import MemberState, NodeUsage
from node.dns.config import ServerCounts
from node.gossip.counts import Counts
from node.metrics import NodeMetrics


def test_counts_are_told_by_name() -> None:
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
        names=lambda: ServerCounts(received=7, ready=4),
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
        'dray_node_dns_total{what="received"} 7.0',
        'dray_node_dns_total{what="ready"} 4.0',
        'dray_node_dns_total{what="malformed"} 0.0',
        "# TYPE dray_node_gossip_total counter",
        "# TYPE dray_node_gossip_lateness_seconds gauge",
    ):
        assert line in lines
