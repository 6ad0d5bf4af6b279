"""Which faults are acted out, and what must happen at each? One function a row of the table."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.e2e.cluster import API_PORT, DRAY
from tests.e2e.scene import Scene
from tests.lab import Host
from tests.lab.process import Process

__all__ = ["ACTS", "SMALL_ACTS"]

SETTLED_S: Final = 3.0  # what would happen wrongly has had the time to happen
STALLED_LIMIT_S: Final = 20.0  # the table's: down after it
HOUR: Final = "+1h"
# Not its command: that forks, and stays between a daemon and who kills it.
FAKETIME: Final = "*/faketime/libfaketimeMT.so.1"


def _last(scene: Scene) -> Host:
    """Return the host that is tampered with: no scheduler, no etcd in larger clusters."""
    return scene.lab.hosts[-1]


def _others(scene: Scene, victim: Host) -> list[Host]:
    return [host for host in scene.lab.hosts if host is not victim]


def _count(scene: Scene, host: Host) -> int:
    return len(scene.containers([host]))


# --- the control plane ---


def leader_killed_in_a_deployment(scene: Scene) -> None:
    """The leader is killed while many replicas are being started: all run, none of them twice."""
    cluster, leader = scene.cluster, scene.leader()
    before = scene.replicas
    scene.begin()
    cluster.dray("scale", f"shop/web={scene.many}", "--detach")
    scene.replicas = scene.many
    scene.wait("some of the new replicas run", lambda: len(scene.containers()) > before + 2)
    scene.begin()
    cluster.schedulers[leader.index].kill()
    worst = 0

    def is_done() -> bool:
        nonlocal worst
        worst = max(worst, len(scene.twice()))
        return scene.is_whole_on(scene.lab.hosts) and scene.is_told_whole()

    scene.wait("another scheduler finishes the deployment", is_done)
    scene.check("no replica ran twice at any look", holds=worst == 0, note=f"most: {worst}")
    ran = len(scene.containers())
    scene.check("as many containers run as asked for", holds=ran == scene.many, note=f"{ran}")
    cluster.start_scheduler(leader)
    cluster.dray("scale", f"shop/web={before}", "--timeout", "120s", limit_s=130.0)
    scene.replicas = before


def all_that_decides_is_away(scene: Scene, away_s: float) -> None:
    """All schedulers and etcd are killed: containers, restarts and names go on; then adopted."""
    cluster, host = scene.cluster, scene.lab.hosts[0]
    running, names = scene.containers(), scene.addresses(host)
    scene.begin()
    for index in list(cluster.schedulers):
        cluster.schedulers[index].kill()
    for index in range(len(cluster.etcd.members)):
        cluster.etcd.kill(index)
    status, _, err = cluster.try_dray("node", "ls", limit_s=120.0)
    scene.check("the command says that no scheduler answers", holds=status == 1, note=err.strip())
    time.sleep(away_s / 2)
    killed = next(iter(scene.containers([host])))
    host.docker.containers.get(killed).kill()
    scene.wait(
        "a container that crashes is started again by its node",
        lambda: len(scene.containers()) == len(running) and killed not in scene.containers(),
    )
    time.sleep(away_s / 2)
    kept = set(running) - {killed}
    scene.check("every other container is the same", holds=kept <= set(scene.containers()))
    answers = scene.addresses(host)
    scene.check("names give the same addresses", holds=answers == names, note=f"{len(answers)}")
    during = set(scene.containers())
    scene.begin()
    cluster.etcd.mend()
    for index in list(cluster.schedulers):
        cluster.start_scheduler(scene.lab.host(index))
    cluster.wait_ready(len(scene.lab.hosts))
    scene.wait("the new leader knows that all run", scene.is_told_whole)
    time.sleep(SETTLED_S)
    scene.check("no container was restarted", holds=set(scene.containers()) == during)


def an_etcd_server_is_lost(scene: Scene) -> None:
    """One server of three, the leading one: writes go on, nothing moves."""
    cluster, running = scene.cluster, set(scene.containers())
    leading = cluster.etcd.leader()
    assert leading is not None
    scene.begin()
    cluster.etcd.kill(leading)

    def can_write() -> bool:
        cluster.dray("node", "label", _last(scene).name, "seen=yes", limit_s=20.0)
        return True

    scene.wait("a write is taken", can_write, 20.0)
    time.sleep(SETTLED_S)
    scene.check("no container was touched", holds=set(scene.containers()) == running)
    cluster.etcd.restart(leading)


# --- a node ---


def power_is_cut(scene: Scene) -> None:
    """Silent to all witnesses: down, replaced at once; welcome when it is back."""
    victim = _last(scene)
    others = _others(scene, victim)
    dead = _addresses_of(scene, victim)
    scene.begin()
    victim.power_off()
    scene.wait("all replicas run elsewhere", lambda: scene.is_whole_on(others))
    scene.wait("the node is held to be down", lambda: scene.condition(victim) == "down")
    scene.wait(
        "no other node's DNS names its addresses",
        lambda: not any(scene.addresses(host) & dead for host in others),
    )
    scene.begin()
    victim.boot()
    scene.cluster.start_node(victim)
    scene.wait("after its boot it is ready", lambda: scene.condition(victim) == "ready")
    scene.wait("what moved away has ended there", lambda: not scene.twice())


def _addresses_of(scene: Scene, host: Host) -> set[str]:
    tasks = scene.cluster.json("ps", "-p", "shop")
    return {task["address"] for task in tasks if task["node"] == host.name and task["address"]}


def one_node_is_cut_off(scene: Scene) -> None:
    """A partition of one: the cluster replaces, the node keeps serving; healed, it gives way."""
    victim = _last(scene)
    others, kept = _others(scene, victim), scene.containers([victim])
    scene.begin()
    victim.cut()
    scene.wait("all replicas run elsewhere", lambda: scene.is_whole_on(others))
    scene.wait("the node is held to be down", lambda: scene.condition(victim) == "down")
    scene.check("the node has kept what it ran", holds=set(scene.containers([victim])) == set(kept))
    scene.begin()
    victim.heal()
    scene.wait("healed, it is ready", lambda: scene.condition(victim) == "ready")
    scene.wait("what moved away has ended there", lambda: not scene.twice())
    scene.wait("its DNS names what runs", lambda: len(scene.addresses(victim)) == scene.replicas)


def a_half_is_cut_off(scene: Scene) -> None:
    """Two of five, without a quorum: the others replace; both sides serve; healed, one of each."""
    lost, kept = scene.lab.hosts[3:], scene.lab.hosts[:3]
    running = scene.containers(lost)
    scene.begin()
    for host in lost:
        host.cut(peers=kept)
    scene.wait("all replicas run on the larger side", lambda: scene.is_whole_on(kept))
    scene.check(
        "the smaller side has kept what it ran", holds=set(scene.containers(lost)) == set(running)
    )
    names = scene.addresses(lost[0])
    scene.check("the smaller side answers names", holds=bool(names), note=f"{len(names)}")
    scene.begin()
    for host in lost:
        host.heal()
    scene.wait(
        "healed, all are ready", lambda: set(scene.cluster.conditions().values()) == {"ready"}
    )
    scene.wait("every replica runs once", lambda: not scene.twice() and scene.is_told_whole())


def a_node_is_heard_by_the_leader_only(scene: Scene) -> None:
    """Its stream is up and witnesses cannot reach it: isolated after 10 s, moved start-first."""
    victim, leader = _last(scene), scene.leader()
    peers = [host for host in _others(scene, victim) if host is not leader]
    scene.begin()
    victim.cut(peers=peers)
    time.sleep(5.0)
    early = scene.condition(victim)
    scene.check("it is not judged within 5 s", holds=early == "ready", note=early)
    scene.wait("it is isolated", lambda: scene.condition(victim) == "isolated", 30.0)
    scene.wait(
        "its replicas run elsewhere", lambda: scene.is_whole_on(_others(scene, victim)), 90.0
    )
    scene.begin()
    victim.heal()
    scene.wait("healed, it is ready", lambda: scene.condition(victim) == "ready")
    scene.wait("every replica runs once", lambda: not scene.twice() and scene.is_told_whole())


def a_node_is_not_heard(scene: Scene) -> None:
    """One way only: it hears all, nobody hears it. It is replaced, and keeps what it runs."""
    victim = _last(scene)
    others, kept = _others(scene, victim), scene.containers([victim])
    scene.begin()
    victim.cut("out")
    scene.wait("all replicas run elsewhere", lambda: scene.is_whole_on(others))
    scene.check("it keeps what it runs", holds=set(scene.containers([victim])) == set(kept))
    scene.begin()
    victim.heal()
    scene.wait("healed, it is ready", lambda: scene.condition(victim) == "ready")
    scene.wait("every replica runs once", lambda: not scene.twice())


def a_daemon_hangs(scene: Scene) -> None:
    """SIGSTOP: stalled, nothing moves for 20 s, then down and replaced."""
    victim = _last(scene)
    daemon, running = scene.cluster.nodes[victim.index], set(scene.containers())
    scene.begin()
    daemon.pause()
    scene.wait("it is stalled", lambda: scene.condition(victim) == "stalled", 20.0)
    time.sleep(8.0)
    scene.check("nothing has moved", holds=set(scene.containers()) == running)
    scene.wait("it is down", lambda: scene.condition(victim) == "down", 45.0)
    step = scene.steps[-1]
    late = step.after_s is not None and step.after_s >= STALLED_LIMIT_S
    scene.check("not before 20 s", holds=late, note=f"{step.after_s} s")
    scene.wait("all replicas run elsewhere", lambda: scene.is_whole_on(_others(scene, victim)))
    scene.begin()
    daemon.resume()
    scene.wait("resumed, it is ready", lambda: scene.condition(victim) == "ready")
    scene.wait("what moved away has ended there", lambda: not scene.twice())


def a_daemon_is_killed(scene: Scene) -> None:
    """SIGKILL: agent_down; tasks are kept, in DNS they come last; the next daemon adopts them."""
    victim = _last(scene)
    running, names = set(scene.containers()), scene.addresses(scene.lab.hosts[0])
    own = _addresses_of(scene, victim)
    scene.begin()
    scene.cluster.nodes[victim.index].kill()
    scene.wait("it is agent_down", lambda: scene.condition(victim) == "agent_down", 30.0)
    time.sleep(8.0)
    scene.check("nothing has moved", holds=set(scene.containers()) == running)
    answers = scene.addresses(scene.lab.hosts[0])
    others = names - own
    scene.check("names give the replicas of the others", holds=bool(others) and answers == others)
    scene.begin()
    scene.cluster.start_node(victim)
    scene.wait("started again, it is ready", lambda: scene.condition(victim) == "ready")
    time.sleep(SETTLED_S)
    scene.check("no container was restarted", holds=set(scene.containers()) == running)


def docker_stops(scene: Scene) -> None:
    """The engine ends and starts: the node stays ready, with a fault; nothing is restarted."""
    victim = _last(scene)
    running = set(scene.containers())
    scene.begin()
    victim.stop_engine()
    scene.wait("the fault is told", lambda: "docker_away" in scene.faults(victim), 30.0)
    time.sleep(10.0)
    now = scene.condition(victim)
    scene.check("the node is not given up", holds=now == "ready", note=now)
    moved = set(scene.containers(_others(scene, victim))) - running
    scene.check("nothing is started elsewhere", holds=not moved)
    scene.begin()
    victim.start_engine()
    scene.wait("the fault is over", lambda: "docker_away" not in scene.faults(victim))
    scene.wait("the leader knows that all run", scene.is_told_whole)
    scene.check("no container was restarted", holds=set(scene.containers()) == running)


def a_host_reboots(scene: Scene) -> None:
    """Power off and on at once, the daemon with it: every replica runs again, each once."""
    victim = _last(scene)
    scene.begin()
    victim.power_off()
    victim.boot()
    scene.cluster.start_node(victim)
    scene.wait("it is ready", lambda: scene.condition(victim) == "ready")
    scene.wait("all run", lambda: scene.is_whole_on(scene.lab.hosts) and scene.is_told_whole())
    scene.wait("each once", lambda: not scene.twice())


def a_clock_is_an_hour_off(scene: Scene) -> None:
    """A daemon whose clock is an hour ahead is told of; nothing moves, now or when it is right."""
    victim = _last(scene)
    running = set(scene.containers())
    daemon = scene.cluster.nodes.pop(victim.index)
    daemon.kill()
    daemon.wait(10.0)
    scene.begin()
    wrong = _start_with_clock(scene, victim, HOUR)
    scene.cluster.nodes[victim.index] = wrong
    scene.wait("it is ready", lambda: scene.condition(victim) == "ready")
    scene.wait("the fault is told", lambda: "clock_off" in scene.faults(victim), 20.0)
    time.sleep(SETTLED_S)
    scene.check("no container was touched", holds=set(scene.containers()) == running)
    scene.begin()
    wrong.kill()
    wrong.wait(10.0)
    scene.cluster.start_node(victim)
    scene.wait("with the right clock it is ready", lambda: scene.condition(victim) == "ready")
    scene.wait("the fault is over", lambda: "clock_off" not in scene.faults(victim))
    scene.check("no container was touched", holds=set(scene.containers()) == running)


def _start_with_clock(scene: Scene, host: Host, offset: str) -> Process:
    """Start a host's daemon under libfaketime; monotonic clocks stay right, as on a real host."""
    schedulers = [scene.lab.host(index) for index in sorted(scene.cluster.schedulers)]
    with (scene.lab.directory / f"{host.name}.clock.log").open("ab") as log:
        return host.popen(
            [
                *(*DRAY, "node", "run", "--insecure"),
                *("--scheduler", ",".join(f"{each.address}:{API_PORT}" for each in schedulers)),
                *("--name", host.name, "--advertise", host.address),
                *("--data", "/var/lib/dray/node"),
            ],
            environment={
                "LD_PRELOAD": str(next(Path("/usr/lib").glob(FAKETIME))),
                "FAKETIME": offset,
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )


# --- small clusters ---


def the_only_scheduler_is_killed(scene: Scene) -> None:
    """In the middle of a deployment: its nodes go on, and back it finishes; nothing runs twice."""
    cluster, first = scene.cluster, scene.lab.hosts[0]
    before, running = scene.replicas, set(scene.containers())
    scene.begin()
    cluster.dray("scale", f"shop/web={scene.many}", "--detach")
    scene.replicas = scene.many
    cluster.schedulers[first.index].kill()
    status, _, err = cluster.try_dray("ls", limit_s=120.0)
    scene.check("the command says that no scheduler answers", holds=status == 1, note=err.strip())
    scene.check("what ran goes on", holds=running <= set(scene.containers()))
    scene.begin()
    cluster.start_scheduler(first)
    scene.wait("back, it finishes the deployment", scene.is_told_whole)
    scene.check("no replica runs twice", holds=not scene.twice())
    scene.check("nothing was restarted", holds=running <= set(scene.containers()))
    cluster.dray("scale", f"shop/web={before}", "--timeout", "120s", limit_s=130.0)
    scene.replicas = before


def the_only_scheduler_loses_power(scene: Scene) -> None:
    """With its etcd: the other nodes keep what they run; back, all is adopted."""
    first, *others = scene.lab.hosts
    running = set(scene.containers(others))
    scene.begin()
    first.power_off()
    time.sleep(15.0)
    scene.check("the others keep what they run", holds=set(scene.containers(others)) == running)
    names = scene.addresses(others[0])
    scene.check("their DNS answers", holds=bool(names), note=f"{len(names)} addresses")
    scene.begin()
    first.boot()
    scene.cluster.etcd.mend()
    scene.cluster.start_scheduler(first)
    scene.cluster.start_node(first)
    scene.cluster.wait_ready(len(scene.lab.hosts))
    scene.wait("back, all run", scene.is_told_whole)
    scene.wait("each once", lambda: not scene.twice())
    scene.check(
        "nothing on the others was restarted", holds=running <= set(scene.containers(others))
    )


def the_leaders_host_loses_power(scene: Scene) -> None:
    """One of three with a scheduler and etcd each: the others elect and replace."""
    victim = scene.leader()
    others = _others(scene, victim)
    scene.begin()
    victim.power_off()
    scene.wait("all replicas run elsewhere", lambda: scene.is_whole_on(others))
    scene.wait("another scheduler leads", lambda: scene.leader() is not victim)
    scene.begin()
    victim.boot()
    scene.cluster.etcd.mend()
    scene.cluster.start_scheduler(victim)
    scene.cluster.start_node(victim)
    scene.wait("back, it is ready", lambda: scene.condition(victim) == "ready")
    scene.wait("each runs once", lambda: not scene.twice() and scene.is_told_whole())


ACTS: Final[Mapping[str, Callable[[Scene], None]]] = {
    act.__name__: act
    for act in (
        a_daemon_is_killed,
        docker_stops,
        an_etcd_server_is_lost,
        a_clock_is_an_hour_off,
        power_is_cut,
        a_host_reboots,
        one_node_is_cut_off,
        a_half_is_cut_off,
        a_node_is_heard_by_the_leader_only,
        a_node_is_not_heard,
        a_daemon_hangs,
        leader_killed_in_a_deployment,
    )
}
"""On five hosts, three with a scheduler and etcd; `all_that_decides_is_away` comes beside them."""

SMALL_ACTS: Final[Mapping[str, tuple[int, int, tuple[Callable[[Scene], None], ...]]]] = {
    "two hosts, one scheduler": (
        2,
        1,
        (
            power_is_cut,
            a_host_reboots,
            one_node_is_cut_off,
            a_node_is_not_heard,
            a_daemon_hangs,
            a_daemon_is_killed,
            docker_stops,
            a_clock_is_an_hour_off,
            the_only_scheduler_is_killed,
            the_only_scheduler_loses_power,
        ),
    ),
    "three hosts, three schedulers": (
        3,
        3,
        (
            power_is_cut,
            a_host_reboots,
            one_node_is_cut_off,
            a_node_is_not_heard,
            a_daemon_hangs,
            a_daemon_is_killed,
            docker_stops,
            a_clock_is_an_hour_off,
            an_etcd_server_is_lost,
            leader_killed_in_a_deployment,
            the_leaders_host_loses_power,
        ),
    ),
}
"""By name: hosts, schedulers (each with etcd beside it), and what is acted out."""
