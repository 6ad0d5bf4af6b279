"""Do clients notice when a replica is taken away?"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.cluster import cluster_on
from tests.lab.etcd import EtcdCluster
from tests.lab.fixtures import LabFactory
from tests.lab.wait import wait_for

REQUESTS_MAX: Final = 30
COMPOSE: Final = """
name: shop
services:
  web:
    image: dray-test/web:1
    stop_grace_period: 60s
    deploy: {replicas: 2, placement: {preferences: [{spread: node.hostname}]}}
  client:
    image: dray-test/busybox:1
    command: ["sleep", "100000"]
    stop_grace_period: 1s
"""


def _containers(hosts: list[Any], service: str) -> list[Any]:
    label = f"dray.service={service}"
    return [
        each for host in hosts for each in host.docker.containers.list(filters={"label": label})
    ]


def _slow(client: Any) -> str:
    """Return what a request through the VIP gets that takes four seconds to be answered."""
    # No -T: with it, this static busybox crashes when it looks up a name.
    command = ["timeout", "60", "wget", "-q", "-O", "-", "http://web/cgi-bin/slow?4"]
    return str(client.exec_run(command).output.decode().strip())


def _is_working(container: Any) -> bool:
    processes = container.top()["Processes"] or []
    return any("sleep 4" in " ".join(process) for process in processes)


@pytest.mark.timeout(240)
def test_work_in_flight_is_finished(lab_factory: LabFactory, tmp_path: Path) -> None:
    """A replica that is to go answers first what it was asked, though its program would not."""
    lab = lab_factory(2)
    [first, _] = hosts = list(lab.hosts)
    with (
        EtcdCluster(1, tmp_path, hosts=[first]) as etcd,
        cluster_on(lab, etcd, [first], hosts) as cluster,
        ThreadPoolExecutor(REQUESTS_MAX) as pool,
    ):
        cluster.up(COMPOSE, "--timeout", "60s")
        [client] = _containers(hosts, "client")
        replicas = _containers(hosts, "web")
        assert len(replicas) == 2
        asked: list[Future[str]] = []

        def is_everybody_working() -> bool:
            if len(asked) < REQUESTS_MAX:
                asked.append(pool.submit(_slow, client))
            return all(_is_working(each) for each in replicas)

        wait_for(is_everybody_working, "both replicas are asked", poll_s=0.1)
        cluster.dray("scale", "shop/web=1", "--timeout", "60s")
        wait_for(lambda: len(_containers(hosts, "web")) == 1, "one replica is left")
        assert {each.result() for each in asked} == {"done"}
