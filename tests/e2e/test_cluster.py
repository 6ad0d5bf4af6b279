"""Does a cluster survive what it promises to, seen through the command that its users have?"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.cluster import Cluster, cluster_on
from tests.lab import Host, Lab
from tests.lab.etcd import EtcdCluster
from tests.lab.fixtures import LabFactory

LIMIT_S: Final = 60.0  # of one step on a busy machine
COMPOSE: Final = """
name: shop
services:
  web:
    image: dray-test/web:1
    ports: ["8080:80"]
    healthcheck: {test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"], interval: 1s}
    stop_grace_period: 1s
    deploy: {replicas: 4, restart_policy: {delay: 0s}}
  client:
    image: dray-test/busybox:1
    command: ["sh", "-c", "trap exit TERM; while :; do sleep 1; done"]
    stop_grace_period: 1s
    deploy: {placement: {constraints: ["node.hostname == host1"]}}
"""


def _etcd_on(host: Host, folder: Path) -> EtcdCluster:
    return EtcdCluster(1, folder, hosts=[host])


def _nodes_of(cluster: Cluster) -> set[str]:
    return {task["node"] for task in cluster.tasks("shop", "web")}


def _is_whole(cluster: Cluster, *, without: str = "") -> bool:
    tasks = cluster.tasks("shop", "web")
    return len(tasks) == 4 and all(
        task["state"] == "running" and task["health"] == "healthy" and task["node"] != without
        for task in tasks
    )


def _addresses(cluster: Cluster, node: str) -> set[str]:
    """Return the addresses that a node's DNS gives for all tasks of the service."""
    answer = cluster.json("dns", "tasks.web", "-n", node, "-p", "shop", "--service", "client")
    return {record.split()[-1] for record in answer["records"]}


def _container_ids(host: Host) -> set[str]:
    return {str(container.id) for container in host.docker.containers.list()}


def _published(host: Host, lab: Lab) -> str:
    """Return what a machine outside the cluster gets from a published port of a host."""
    url = f"http://{host.address}:8080/cgi-bin/who"
    code = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=5).read().decode())"
    return lab.switch_exec([sys.executable, "-c", code]).stdout.split()[0]


@pytest.mark.timeout(300)
def test_a_worker_loses_power(lab_factory: LabFactory, tmp_path: Path) -> None:
    """Its replicas run elsewhere, no DNS names the dead, and it is welcome when it returns."""
    lab = lab_factory(3)
    first, second, third = lab.hosts
    with (
        _etcd_on(first, tmp_path) as etcd,
        cluster_on(lab, etcd, [first, second], lab.hosts) as cluster,
    ):
        cluster.up(COMPOSE, "--timeout", "60s")
        assert len(_nodes_of(cluster)) >= 2, "one node holds all replicas"
        assert {_published(host, lab).rpartition("-")[0] for host in lab.hosts} == {"web"}
        before = {task["address"] for task in cluster.tasks("shop", "web")}
        cluster.wait(lambda: _addresses(cluster, "host1") == before, "DNS knows all")

        victim = next(host for host in (third, second) if host.name in _nodes_of(cluster))
        kept = [host for host in lab.hosts if host is not victim]
        dead = {t["address"] for t in cluster.tasks("shop", "web") if t["node"] == victim.name}
        victim.power_off()
        cluster.wait(
            lambda: _is_whole(cluster, without=victim.name), "all run elsewhere", deadline_s=LIMIT_S
        )
        assert cluster.conditions()[victim.name] == "down"
        for host in kept:
            cluster.wait(
                lambda name=host.name: not _addresses(cluster, name) & dead,  # type: ignore[misc]
                f"the DNS of {host.name} has forgotten the dead",
            )
        assert "node down" in {event["reason"] for event in cluster.json("events")}

        victim.boot()
        booted_unix_s = int(time.time())
        cluster.start_node(victim)
        cluster.wait_ready(3)
        cluster.wait(lambda: not _container_ids(victim), "what moved away has ended there")
        assert _starts(victim, booted_unix_s) == [], "what moved away was started again"
        assert _is_whole(cluster)


@pytest.mark.timeout(300)
def test_everything_that_decides_goes_and_comes_back(
    lab_factory: LabFactory, tmp_path: Path
) -> None:
    """Containers, restarts and names go on without it; afterwards nothing was restarted."""
    lab = lab_factory(2)
    first, second = lab.hosts
    with _etcd_on(first, tmp_path) as etcd, cluster_on(lab, etcd, [first], lab.hosts) as cluster:
        cluster.up(COMPOSE, "--timeout", "60s")
        client = _container(first, cluster.tasks("shop", "client")[0])
        running = _container_ids(first) | _container_ids(second)
        cluster.schedulers[first.index].kill()
        etcd.kill(0)

        answers = {_asked(client) for _ in range(30)}
        assert len(answers) > 1, answers
        _a_replica(first).kill()
        cluster.wait(
            lambda: len((_container_ids(first) | _container_ids(second)) - running) == 1,
            "the node has started the killed one again",
        )
        assert {_asked(client) for _ in range(30)} == answers

        after = _container_ids(first) | _container_ids(second)
        assert len(after) == len(running)
        etcd.restart(0)
        cluster.start_scheduler(first)
        cluster.wait_ready(2)
        cluster.wait(lambda: _is_whole(cluster), "the leader knows how all are")
        assert _container_ids(first) | _container_ids(second) == after


def _starts(host: Host, since_unix_s: int) -> list[Any]:
    """Return the starts of containers that a host's engine has seen since a time."""
    wanted = {"type": "container", "event": "start"}
    until = int(time.time()) + 1
    return list(host.docker.api.events(since_unix_s, until, filters=wanted, decode=True))


def _a_replica(host: Host) -> Any:
    """Return a container of the service on a host; no scheduler is asked."""
    label = "dray.service=web"
    return host.docker.containers.list(filters={"label": label})[0]


def _container(host: Host, task: dict[str, Any]) -> Any:
    label = f"dray.task-id={task['task_id']}"
    [found] = host.docker.containers.list(filters={"label": label})
    return found


def _asked(client: Any) -> str:
    """Return who answers the client by name, or "" for nobody."""
    # No -T: with it, this static busybox crashes when it looks up a name.
    command = ["timeout", "5", "wget", "-q", "-O", "-", "http://web/cgi-bin/who"]
    done = client.exec_run(command)
    return str(done.output.decode().split()[0]) if done.exit_code == 0 else ""
