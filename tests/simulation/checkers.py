"""Which properties of a gossip cluster must hold, and which of them are broken?

Each function returns the broken ones as sentences; an empty list is a pass. `after_quiet` holds
once faults have ended and time has passed, the others at any moment.
"""

from __future__ import annotations

from dray.model import Member, MemberState
from tests.simulation.gossip_cluster import GossipCluster, node_id_of

__all__ = ["after_quiet", "at_rest", "view_text", "watch_sizes", "watch_views"]

# A ping and an ack a second each way, helpers' work, and what looks for the dead and the seeds.
SENDS_PER_NODE_S_MAX = 6.0
_GONE = (MemberState.DEAD, MemberState.LEFT)


def after_quiet(cluster: GossipCluster) -> list[str]:
    """Every dead member is found, no living one is held dead, and all views are equal."""
    broken: list[str] = []
    running = cluster.running()
    views = {name: view_text(cluster, name) for name in running}
    for observer in running:
        view = cluster.view(observer)
        for name in cluster.names:
            member = view.member(node_id_of(name))
            if name in running:
                broken += _living(cluster, observer, name, member)
            elif member is not None and member.state not in _GONE:
                broken.append(f"{observer} holds dead {name} to be {member.state.name}")
    first = running[0] if running else ""
    broken += [
        f"{name} sees other facts than {first}: {views[name]} and {views[first]}"
        for name in running[1:]
        if views[name] != views[first]
    ]
    return broken


def at_rest(cluster: GossipCluster, duration_s: float) -> list[str]:
    """Let time pass in a whole cluster: nothing is left to say, and traffic is steady and small."""
    world = cluster.world
    running = cluster.running()
    sends_before = world.sends
    world.run_for(duration_s)
    broken = after_quiet(cluster)
    for name in running if len(running) > 1 else []:  # who is alone keeps its news
        sizes = cluster.sizes(name)
        broken += [
            f"{name} still has {sizes[part][0]} {part}"
            for part in ("news", "pieces")
            if sizes[part][0]
        ]
    rate = (world.sends - sends_before) / duration_s / len(running)
    if rate > SENDS_PER_NODE_S_MAX:
        broken.append(f"{rate:.1f} datagrams a second and node, at rest")
    return broken


def _living(cluster: GossipCluster, observer: str, name: str, member: Member | None) -> list[str]:
    if member is None:
        return [f"{observer} does not know living {name}"]
    if member.state is not MemberState.ALIVE:
        return [f"{observer} holds living {name} to be {member.state.name}"]
    if member.life != cluster.life(name):
        return [f"{observer} knows life {member.life} of {name}, it is {cluster.life(name)}"]
    return []


def view_text(cluster: GossipCluster, observer: str) -> list[str]:
    """Return what a node holds true of those present and their facts, the same in equal views."""
    view = cluster.view(observer)
    lines = [
        f"{member.name} {member.life}.{member.incarnation}"
        for member in view.members()
        if member.state is MemberState.ALIVE
    ]
    for service in view.services():
        lines += [
            f"{service.project}/{service.service} {e.endpoint.slot.slot} {e.endpoint.address}"
            for e in view.endpoints(service)
            if e.member_state is MemberState.ALIVE
        ]
    return lines


def watch_sizes(cluster: GossipCluster) -> None:
    """Fail in the step in which any part of a core's state exceeds its limit."""

    def check(host: str) -> None:
        for name in cluster.names:
            if cluster.host(name) == host and cluster.world.machine(host) is not None:
                for part, (size, size_max) in cluster.sizes(name).items():
                    assert size <= size_max, f"{name}: {size} {part}, {size_max} are the most"

    cluster.world.checks.append(check)


def watch_views(cluster: GossipCluster) -> None:
    """Fail in the step in which a view's number goes back, or a member's life does."""
    newest: dict[tuple[str, int], int] = {}
    lives: dict[tuple[str, int, str], tuple[int, int]] = {}

    def check(host: str) -> None:
        for name in cluster.names:
            if cluster.host(name) != host or cluster.world.machine(host) is None:
                continue
            view = cluster.view(name)
            run = (name, cluster.life(name))
            assert view.sequence >= newest.get(run, 0), f"{name}: view {view.sequence} went back"
            newest[run] = view.sequence
            for member in view.members():
                version = (member.life, member.incarnation)
                key = (*run, member.name)
                assert version >= lives.get(key, (0, 0)), f"{name}: {member.name} went back"
                lives[key] = version

    cluster.world.checks.append(check)
