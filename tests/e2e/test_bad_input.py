"""What does a user hear who asks for what cannot be? One cluster, every mistake in a table."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from cli.exits import ExitCode
from tests.e2e.cluster import API_PORT, DRAY, Cluster, cluster_on
from tests.lab import Host
from tests.lab.etcd import EtcdCluster
from tests.lab.fixtures import LabFactory

LIMIT_S: Final = 60.0
TAKEN_PORT: Final = 8081
LOOP: Final = "while :; do sleep 1; done"
BUSY: Final = f"image: dray-test/busybox:1, command: [sh, -c, '{LOOP}'], stop_grace_period: 0s"
LISTEN: Final = (
    "import socket, time; s = socket.socket(); "
    f"s.bind(('0.0.0.0', {TAKEN_PORT})); s.listen(); print('listens', flush=True); time.sleep(600)"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Mistake:
    """A command that cannot be carried out.

    Attributes:
        what: What is wrong with it.
        command: Its arguments; FILE is replaced by the Compose file's path.
        status: How it ends.
        named: Texts that its message has.
        compose: The Compose file, where it has one.
        explained: What `explain` says of it in the end.
    """

    what: str
    command: tuple[str, ...]
    status: ExitCode
    named: tuple[str, ...]
    compose: str = ""
    explained: str = ""


UP: Final = ("up", "-f", "FILE", "--timeout", "6s")
NOTHING: Final = "nothing was changed"
REFUSED: Final = (
    Mistake("unknown node", ("node", "drain", "nobody"), ExitCode.REFUSED, ("nobody", "node ls")),
    Mistake("unknown project", ("explain", "shop/web"), ExitCode.REFUSED, ("shop", "dray ls")),
    Mistake("unknown project", ("down", "-p", "shop"), ExitCode.REFUSED, ("shop", "dray ls")),
    Mistake(
        "wrong host",
        ("ps", "--host", "127.0.0.1:1"),
        ExitCode.REFUSED,
        ("127.0.0.1:1", "check --host or DRAY_HOST"),
    ),
    Mistake(
        "bad Compose file",
        UP,
        ExitCode.REFUSED,
        ("compose.yaml:3", "imagine", "did you mean 'image'?", NOTHING),
        "name: shop\nservices:\n  web: {imagine: x}\n",
    ),
    Mistake(
        "a name that is too long",
        UP,
        ExitCode.REFUSED,
        ("64 characters, 63 are the most", NOTHING),
        f"name: shop\nservices: {{{'w' * 64}: {{{BUSY}}}}}\n",
    ),
    Mistake(
        "impossible resources, asked about first",
        ("up", "-f", "FILE", "--dry-run"),
        ExitCode.REFUSED,
        ("not all of it has room", NOTHING),
        f"name: shop\nservices: {{web: {{{BUSY}, mem_reservation: 900g}}}}\n",
    ),
)
"""Nothing of these reaches the cluster's state."""
STUCK: Final = (
    Mistake(
        "an image that does not exist",
        ("up", "-f", "FILE", "--timeout", "3s"),
        ExitCode.TIMED_OUT,
        ("not as asked for after 3 s", "dray explain stuck/web"),
        "name: stuck\nservices: {web: {image: 'localhost:1/nothing:1'}}\n",
        "image localhost:1/nothing:1",
    ),
    Mistake(
        "impossible resources",
        ("up", "-f", "FILE", "--timeout", "3s"),
        ExitCode.TIMED_OUT,
        ("not as asked for after 3 s", "dray explain stuck/web"),
        f"name: stuck\nservices: {{web: {{{BUSY}, mem_reservation: 900g}}}}\n",
        "memory: asks 900GiB",
    ),
    Mistake(
        "a crash loop",
        ("up", "-f", "FILE", "--timeout", "3s"),
        ExitCode.TIMED_OUT,
        ("not as asked for after 3 s", "dray explain stuck/web"),
        f"name: stuck\nservices: {{web: {{{BUSY.replace(LOOP, 'exit 3')}}}}}\n",
        "exit code 3",
    ),
)
"""These are taken, and told of; `explain` knows why."""


def _run(cluster: Cluster, mistake: Mistake) -> None:
    path = cluster.lab.directory / "compose.yaml"
    path.write_text(mistake.compose)
    command = [str(path) if part == "FILE" else part for part in mistake.command]
    status, out, err = cluster.try_dray(*command)
    shown = (mistake.what, status, out, err)
    assert status == mistake.status, shown
    assert all(text in err for text in mistake.named), shown
    assert "Traceback" not in err, shown
    has_begun = status in (ExitCode.TIMED_OUT, ExitCode.ROLLED_BACK)
    assert err.startswith("dray: ") or has_begun, shown


def _explained(cluster: Cluster, mistake: Mistake) -> None:
    cluster.wait(
        lambda: mistake.explained in cluster.dray("explain", "stuck/web"),
        f"{mistake.what} is explained by {mistake.explained!r}",
    )


@pytest.mark.timeout(300)
def test_every_mistake_is_told(lab_factory: LabFactory, tmp_path: Path) -> None:
    """Each ends with the documented status, names the thing, and leaves nothing half done."""
    lab = lab_factory(1)
    [host] = lab.hosts
    with (
        EtcdCluster(1, tmp_path, hosts=[host]) as etcd,
        cluster_on(lab, etcd, [host], [host]) as cluster,
    ):
        for mistake in REFUSED:
            _run(cluster, mistake)
        assert cluster.json("ls") == []
        for mistake in STUCK:
            _run(cluster, mistake)
            _explained(cluster, mistake)
            cluster.dray("down", "-p", "stuck")
        _a_port_of_another_project(cluster)
        _a_port_of_a_program(cluster, host)
        _a_revision_that_fails(cluster)
        _a_full_disk(cluster, host)
        _ctrl_c_while_waiting(cluster, host)
        _a_dead_scheduler(cluster, host)
        _a_node_of_another_cluster(cluster, host)


def _a_port_of_another_project(cluster: Cluster) -> None:
    """A published port has one owner, also across projects."""
    web = f"services: {{web: {{{BUSY}, ports: ['8080:80']}}}}\n"
    cluster.up(f"name: first\n{web}", "--detach")
    taken = Mistake(
        "a port that another project has",
        UP,
        ExitCode.REFUSED,
        ("8080", "first/web"),
        f"name: second\n{web}",
    )
    _run(cluster, taken)
    assert [project["name"] for project in cluster.json("ls")] == ["first"]
    cluster.dray("down", "-p", "first")


def _a_port_of_a_program(cluster: Cluster, host: Host) -> None:
    """The program keeps its port; who deploys hears of it, and it is no success."""
    program = host.popen([sys.executable, "-c", LISTEN], stdout=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stdout.readline() == b"listens\n"
    taken = Mistake(
        "a port that a program of the machine has",
        ("up", "-f", "FILE", "--timeout", "2s"),
        ExitCode.TIMED_OUT,
        (f"not published on node {host.name}: port {TAKEN_PORT}/tcp is taken by another program",),
        f"name: stuck\nservices: {{web: {{{BUSY}, ports: ['{TAKEN_PORT}:80']}}}}\n",
        f"port {TAKEN_PORT}/tcp is taken by another program",
    )
    cluster.up(taken.compose, "--detach")
    _explained(cluster, taken)
    _run(cluster, taken)
    program.kill()
    program.communicate(timeout_s=LIMIT_S)
    cluster.up(taken.compose, "--timeout", "60s", limit_s=70.0)
    cluster.dray("down", "-p", "stuck")


def _a_revision_that_fails(cluster: Cluster) -> None:
    """The revision before it is back, and the status says so."""
    policy = (
        "deploy: {restart_policy: {condition: none}, "
        "update_config: {failure_action: rollback, monitor: 1s}}"
    )
    cluster.up(f"name: back\nservices: {{web: {{{BUSY}, {policy}}}}}\n")
    bad = BUSY.replace(LOOP, "exit 3")
    failing = Mistake(
        "a revision that fails",
        ("up", "-f", "FILE"),
        ExitCode.ROLLED_BACK,
        ("rolled back", "exit code 3"),
        f"name: back\nservices: {{web: {{{bad}, {policy}}}}}\n",
    )
    _run(cluster, failing)
    [task] = cluster.tasks("back", "web")
    assert task["state"] == "running"
    cluster.dray("down", "-p", "back")


def _a_full_disk(cluster: Cluster, host: Host) -> None:
    """Output that cannot be written is an error, not a success."""
    command = ["sh", "-c", 'exec "$@" >/dev/full', "sh", *DRAY, "node", "ls"]
    environment = {"DRAY_HOST": cluster.all_api, "DRAY_INSECURE": "1"}
    done = host.exec(command, check=False, environment=environment)
    assert done.returncode == ExitCode.REFUSED, done.stderr
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def _ctrl_c_while_waiting(cluster: Cluster, host: Host) -> None:
    """What was applied is applied whole; the message says that it goes on, and how to see it."""
    path = cluster.lab.directory / "compose.yaml"
    services = "".join(f"  s{number}: {{{BUSY}}}\n" for number in range(3))
    path.write_text(f"name: many\nservices:\n{services}  huge: {{{BUSY}, mem_reservation: 900g}}\n")
    waiting = host.popen(
        [*DRAY, "up", "-f", str(path), "--host", cluster.all_api, "--insecure"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert waiting.stderr is not None
    first = waiting.stderr.readline()
    os.kill(waiting.pid, signal.SIGINT)
    _, rest = waiting.communicate(timeout_s=LIMIT_S)
    err = (first + (rest or b"")).decode()
    assert waiting.returncode == ExitCode.INTERRUPTED, err
    assert "goes on without us; see `dray ps -p many`" in err
    assert "Traceback" not in err
    assert [each["services"] for each in cluster.json("ls")] == [4]
    cluster.dray("down", "-p", "many")


def _a_dead_scheduler(cluster: Cluster, host: Host) -> None:
    """One that hangs and one that is gone are both named, within the command's own limits."""
    cluster.schedulers[host.index].pause()
    for has_hung in (True, False):
        if not has_hung:
            cluster.schedulers[host.index].resume()
            cluster.schedulers[host.index].kill()
        status, _, err = cluster.try_dray("ls", limit_s=LIMIT_S)
        assert status == ExitCode.REFUSED, (has_hung, err)
        assert "no scheduler answers" in err, (has_hung, err)
        assert f"{host.address}:{API_PORT}" in err, (has_hung, err)


def _a_node_of_another_cluster(cluster: Cluster, host: Host) -> None:
    """A daemon whose data is another cluster's is refused, and both sides say why."""
    cluster.etcd.etcdctl("del", "/dray/", "--prefix")
    cluster.init(host)
    cluster.start_scheduler(host)
    cluster.wait(lambda: "belongs to cluster" in cluster.log(host, "node"), "the node says why")
    assert cluster.json("node", "ls") == []
