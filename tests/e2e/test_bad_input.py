"""What does a user hear who asks for what cannot be? One cluster, every mistake in a table."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest

from cli.exits import ExitCode
from tests.e2e.cluster import API_PORT, DRAY, Cluster, cluster_on
from tests.lab import Host
from tests.lab.etcd import EtcdCluster
from tests.lab.fixtures import LabFactory

LIMIT_S: Final = 60.0
BUSY: Final = "image: dray-test/busybox:1, command: [sh, -c, 'while :; do sleep 1; done']"


@dataclasses.dataclass(frozen=True, slots=True)
class Mistake:
    """A command that cannot be carried out.

    Attributes:
        what: What is wrong with it.
        command: Its arguments; FILE is replaced by the Compose file's path.
        status: How it ends.
        named: Texts that its message has.
        compose: The Compose file, where it has one.
    """

    what: str
    command: tuple[str, ...]
    status: ExitCode
    named: tuple[str, ...]
    compose: str = ""


UP: Final = ("up", "-f", "FILE", "--timeout", "6s")
REFUSED: Final = (
    Mistake("unknown node", ("node", "drain", "nobody"), ExitCode.REFUSED, ("nobody", "node ls")),
    Mistake("unknown project", ("explain", "shop/web"), ExitCode.REFUSED, ("shop",)),
    Mistake("no number", ("scale", "shop/web=many"), ExitCode.USAGE, ("many", "SERVICE=REPLICAS")),
    Mistake("wrong host", ("ps", "--host", "127.0.0.1:1"), ExitCode.REFUSED, ("127.0.0.1:1",)),
    Mistake("no host", ("ps", "--host", "a:b:c"), ExitCode.USAGE, ("a:b:c",)),
    Mistake("no file", ("up", "-f", "/nowhere/c.yaml"), ExitCode.REFUSED, ("/nowhere/c.yaml",)),
    Mistake(
        "bad Compose file",
        UP,
        ExitCode.REFUSED,
        ("compose.yaml:3", "imagine", "nothing was changed"),
        "name: shop\nservices:\n  web: {imagine: x}\n",
    ),
    Mistake(
        "bad YAML",
        UP,
        ExitCode.REFUSED,
        ("compose.yaml:2", "nothing was changed"),
        "name: shop\nservices: {web: [\n",
    ),
    Mistake(
        "a name that is too long",
        UP,
        ExitCode.REFUSED,
        ("63", "nothing was changed"),
        f"name: shop\nservices: {{{'w' * 64}: {{{BUSY}}}}}\n",
    ),
    Mistake(
        "a key whose executor does not exist",
        UP,
        ExitCode.REFUSED,
        ("ipv4_address", "compose.yaml:3"),
        f"name: shop\nservices:\n  web: {{{BUSY}, networks: {{a: {{ipv4_address: 10.1.2.3}}}}}}\n"
        "networks: {a: {}}\n",
    ),
    Mistake(
        "one port for two services",
        UP,
        ExitCode.REFUSED,
        ("8080", "web"),
        f"name: shop\nservices:\n  api: {{{BUSY}, ports: ['8080:80']}}\n"
        f"  web: {{{BUSY}, ports: ['8080:80']}}\n",
    ),
)
"""Nothing of these reaches the cluster's state."""
STUCK: Final = (
    Mistake(
        "an image that does not exist",
        UP,
        ExitCode.TIMED_OUT,
        ("localhost:1/nothing:1", "not as asked for after 6 s"),
        "name: stuck\nservices: {web: {image: 'localhost:1/nothing:1'}}\n",
    ),
    Mistake(
        "impossible resources",
        ("up", "-f", "FILE", "--timeout", "2s"),
        ExitCode.TIMED_OUT,
        ("memory", "not as asked for after 2 s"),
        f"name: stuck\nservices: {{web: {{{BUSY}, mem_reservation: 900g}}}}\n",
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
    assert err.startswith("dray: ") or mistake in STUCK, shown


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
            assert cluster.json("ls") == [], mistake.what
        for mistake in STUCK:
            _run(cluster, mistake)
            assert mistake.named[0] in cluster.dray("explain", "stuck/web"), mistake.what
            cluster.dray("down", "-p", "stuck")
        _a_port_of_another_project(cluster)
        _a_full_disk(cluster, host)
        _ctrl_c_while_waiting(cluster, host)
        _a_node_of_another_cluster(cluster, host)
        _a_dead_scheduler(cluster, host)


def _a_port_of_another_project(cluster: Cluster) -> None:
    """A published port has one owner, also across projects."""
    web = f"services: {{web: {{{BUSY}, ports: ['8080:80'], stop_grace_period: 0s}}}}\n"
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


def _a_full_disk(cluster: Cluster, host: Host) -> None:
    """Output that cannot be written is an error, not a success."""
    command = ["sh", "-c", 'exec "$@" >/dev/full', "sh", *DRAY, "version"]
    done = host.exec(command, check=False)
    assert done.returncode == ExitCode.REFUSED, done.stderr
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert cluster.json("ls") == []


def _ctrl_c_while_waiting(cluster: Cluster, host: Host) -> None:
    """What was applied is applied whole; the message says that it goes on."""
    path = cluster.lab.directory / "compose.yaml"
    services = "".join(f"  s{number}: {{{BUSY}, stop_grace_period: 0s}}\n" for number in range(3))
    path.write_text(f"name: many\nservices:\n{services}  huge: {{{BUSY}, mem_reservation: 900g}}\n")
    api = cluster.api([host])
    waiting = host.popen(
        [*DRAY, "up", "-f", str(path), "--host", api, "--insecure"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    cluster.wait(lambda: len(cluster.tasks("many", "huge")) == 1, "the project is applied")
    assert waiting.stderr is not None
    first = waiting.stderr.readline()
    os.kill(waiting.pid, signal.SIGINT)
    _, rest = waiting.communicate()
    err = (first + (rest or b"")).decode()
    assert waiting.wait(LIMIT_S) == ExitCode.INTERRUPTED, err
    assert "goes on without us" in err
    assert "Traceback" not in err
    assert [each["services"] for each in cluster.json("ls")] == [4]
    cluster.dray("down", "-p", "many")


def _a_node_of_another_cluster(cluster: Cluster, host: Host) -> None:
    """A daemon whose data is another cluster's takes nothing from this one, and says why."""
    cluster.nodes[host.index].kill()
    cluster.nodes[host.index].wait(LIMIT_S)
    folder = host.outside_path("/var/lib/dray/node")
    name = str(cluster.json("status")["cluster_id"]).encode()
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    changed = [path for path in files if name in path.read_bytes()]
    assert changed, files
    for path in changed:
        path.write_bytes(path.read_bytes().replace(name, b"a" * len(name)))
    cluster.start_node(host)
    cluster.wait(lambda: "another cluster" in cluster.log(host, "node"), "the daemon says why")
    assert "ready" not in cluster.conditions().values()


def _a_dead_scheduler(cluster: Cluster, host: Host) -> None:
    """A killed scheduler and one that hangs are both named, within the command's own limits."""
    cluster.schedulers[host.index].pause()
    status, _, err = cluster.try_dray("ls", limit_s=LIMIT_S)
    assert status in (ExitCode.REFUSED, ExitCode.TIMED_OUT), err
    assert f"{host.address}:{API_PORT}" in err
    cluster.schedulers[host.index].resume()
    cluster.schedulers[host.index].kill()
    status, _, err = cluster.try_dray("ls", limit_s=LIMIT_S)
    assert status == ExitCode.REFUSED, err
    assert f"{host.address}:{API_PORT}" in err
