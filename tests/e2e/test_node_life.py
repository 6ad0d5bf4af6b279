"""Does a node keep what runs through everything that happens to its daemon, engine and machine?"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import shutil
import signal
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest

from dray.tasks import STOP_GRACE_S
from tests.e2e.cluster import Cluster, cluster_on
from tests.lab import Host
from tests.lab.etcd import EtcdCluster
from tests.lab.fixtures import LabFactory

REPO: Final = Path(__file__).parents[2]
PACKAGES: Final = ("cli", "dray", "node", "scheduler")
NEXT_VERSION: Final = "0.1.0.dev1"
COPY_BYTES: Final = 50 * 1024**2
REPLICAS: Final = 4
RESTART_WAIT_S: Final = 3.0
DRAIN_S: Final = 60.0
# Every line says whose it is and which one; the last one how many there were.
PROGRAM: Final = (
    "n=0; end=; trap 'end=1' TERM; "
    "until [ $$end ]; do n=$$((n+1)); echo $$DRAY_TASK $$n; sleep 0.02; done; "
    "echo $$DRAY_TASK end $$n"
)
COMPOSE: Final = f"""
name: shop
services:
  web:
    image: dray-test/busybox:1
    command: ["sh", "-c", "{PROGRAM}"]
    environment: {{{{RELEASE: "{{release}}"}}}}
    stop_grace_period: 5s
    deploy:
      replicas: {REPLICAS}
      update_config: {{{{parallelism: 2, delay: 0s, monitor: 0s}}}}
      placement: {{{{preferences: [{{{{spread: node.hostname}}}}]}}}}
"""


def running(*hosts: Host) -> dict[str, str]:
    """Return the containers that run on hosts, with when they started."""
    found = [each for host in hosts for each in host.docker.containers.list()]
    return {str(each.id): each.attrs["State"]["StartedAt"] for each in found}


@pytest.mark.timeout(300)
def test_a_node_keeps_what_runs(lab_factory: LabFactory, tmp_path: Path) -> None:
    """Logs, commands and copies work; nothing is started again that need not be."""
    lab = lab_factory(2)
    first, second = lab.hosts
    with (
        EtcdCluster(1, tmp_path, hosts=[first]) as etcd,
        cluster_on(lab, etcd, [first], lab.hosts) as cluster,
    ):
        cluster.up(COMPOSE.format(release=1), "--timeout", "60s")
        _logs_over_a_replacement(cluster, tmp_path / "lines")
        assert cluster.dray("exec", "-T", "shop/web.1", "echo", "hello") == "hello\n"
        _copies_there_and_back(cluster, first)
        _daemon_is_stopped(cluster, second)
        _daemon_is_killed_and_upgraded(cluster, second, tmp_path / "next")
        _engine_is_restarted(cluster, second)
        etcd.kill(0)
        cluster.schedulers[first.index].kill()
        _machine_is_restarted(cluster, second)


def _logs_over_a_replacement(cluster: Cluster, path: Path) -> None:
    """Follow a service while a daemon is killed and started again, and all tasks are replaced."""
    first = cluster.lab.host(1)
    old = {task["task_id"] for task in cluster.tasks("shop", "web")}
    follow = ("logs", "-f", "-n", "all", "-p", "shop", "--no-log-prefix", "web")
    with cluster.following(path, *follow, on=first):
        cluster.wait(lambda: _lines(path).keys() >= old, "the lines of all tasks come")
        _daemon_is_away_for_a_moment(cluster, path)
        cluster.up(COMPOSE.format(release=2), "--timeout", "60s")
        new = {task["task_id"] for task in cluster.tasks("shop", "web")} - old
        assert len(new) == REPLICAS
        cluster.wait(
            lambda: (
                all(_lines(path)[task][-1:] == ["end"] for task in old)
                and all(len(_lines(path)[task]) > 10 for task in new)
            ),
            "the last lines of the old tasks and the first ones of the new have come",
        )
    for task, lines in _lines(path).items():
        numbers = [line for line in lines if line != "end"]
        assert numbers == [str(number) for number in range(1, len(numbers) + 1)], task
    for task in old:
        last = re.search(f"{task} end ([0-9]+)$", path.read_text(), re.MULTILINE)
        assert last is not None
        assert int(last[1]) == len(_lines(path)[task]) - 1, "a line is missing at the end"


def _daemon_is_away_for_a_moment(cluster: Cluster, path: Path) -> None:
    """Kill a daemon while its lines are read, and wait until those of its tasks go on."""
    second = cluster.lab.host(2)
    theirs = {
        task["task_id"] for task in cluster.tasks("shop", "web") if task["node"] == second.name
    }
    assert theirs
    cluster.nodes[second.index].kill()
    cluster.start_node(second)
    cluster.wait_ready(2)
    before = {task: len(_lines(path)[task]) for task in theirs}
    cluster.wait(
        lambda: all(len(_lines(path)[task]) > before[task] + 10 for task in theirs),
        "the lines of the node go on",
    )


def _lines(path: Path) -> defaultdict[str, list[str]]:
    """Return the second words of all whole lines, by the first one: the task."""
    found = defaultdict(list)
    for line in path.read_text().split("\n")[:-1]:
        task, word, *_ = line.split()
        found[task].append(word)
    return found


def _copies_there_and_back(cluster: Cluster, host: Host) -> None:
    """Copy 50 MiB of noise into a container and out again."""
    data = os.urandom(1024**2) * (COPY_BYTES // 1024**2)
    source, back = (host.outside_path(f"/var/lib/dray/{name}") for name in ("noise", "back"))
    source.write_bytes(data)
    cluster.dray("cp", "/var/lib/dray/noise", "shop/web.1:/root/noise", on=host)
    cluster.dray("cp", "shop/web.1:/root/noise", "/var/lib/dray/back", on=host)
    assert hashlib.sha256(back.read_bytes()).digest() == hashlib.sha256(data).digest()
    source.unlink()
    back.unlink()


def _daemon_is_stopped(cluster: Cluster, host: Host) -> None:
    """Stop the daemon as systemd does: containers stay, or move away first where that is wanted."""
    before, tasks = running(host), _places(cluster)
    _stopped(cluster, host)
    assert running(host) == before
    cluster.start_node(host, flags=("--drain-on-stop-s", f"{DRAIN_S:g}s"))
    cluster.wait_ready(2)
    assert (running(host), _places(cluster)) == (before, tasks)
    _stopped(cluster, host)
    assert not running(host)
    cluster.wait(lambda: set(_places(cluster).values()) == {"host1"}, "its tasks run elsewhere")
    cluster.start_node(host)
    cluster.wait_ready(2)
    cluster.up(COMPOSE.format(release=3), "--timeout", "60s")
    assert running(host)


def _stopped(cluster: Cluster, host: Host) -> None:
    """Tell a daemon to stop, and wait until it has."""
    node = cluster.nodes[host.index]
    os.kill(node.pid, signal.SIGTERM)
    assert node.wait(DRAIN_S + STOP_GRACE_S) == 0


def _places(cluster: Cluster) -> dict[str, str]:
    """Return the nodes of the running tasks, by task."""
    tasks = cluster.tasks("shop", "web")
    return {task["task_id"]: task["node"] for task in tasks if task["state"] == "running"}


def _daemon_is_killed_and_upgraded(cluster: Cluster, host: Host, folder: Path) -> None:
    """Kill the daemon, start one of the next version: it finds all as it was."""
    before = running(host)
    for package in PACKAGES:
        shutil.copytree(REPO / package, folder / package, ignore=shutil.ignore_patterns("*.pyc"))
    init = folder / "dray" / "__init__.py"
    init.write_text(
        re.sub('__version__ = ".*"', f'__version__ = "{NEXT_VERSION}"', init.read_text())
    )
    cluster.nodes[host.index].kill()
    adopted = cluster.log(host, "node").count("containers adopted")
    cluster.start_node(host, environment={"PYTHONPATH": str(folder)})
    cluster.wait(
        lambda: cluster.log(host, "node").count("containers adopted") > adopted,
        "the new daemon knows its containers",
    )
    cluster.wait(lambda: NEXT_VERSION in cluster.dray("node", "ls", "--format", "json"), "upgraded")
    cluster.wait_ready(2)
    assert running(host) == before


def _engine_is_restarted(cluster: Cluster, host: Host) -> None:
    """Restart the Docker Engine below the daemon: live-restore keeps what runs."""
    before = running(host)
    host.kill_engine()
    host.start_engine()
    cluster.wait_ready(2)
    tasks = cluster.tasks("shop", "web")
    assert [task["attempt"] for task in tasks] == [1] * REPLICAS
    assert running(host) == before


def _machine_is_restarted(cluster: Cluster, host: Host) -> None:
    """Restart the machine while nobody leads: its tasks are back after the wait, not before."""
    count = len(running(host))
    assert count
    host.power_off()
    host.boot()
    assert not running(host)
    began_unix_s = time.time()
    cluster.start_node(host, flags=("--restart-wait-s", f"{RESTART_WAIT_S:g}s"))
    cluster.wait(lambda: len(running(host)) == count, "its tasks are back")
    for text in running(host).values():
        started = datetime.datetime.fromisoformat(text[:19] + "+00:00")
        assert started.timestamp() + 1.0 >= began_unix_s + RESTART_WAIT_S
