"""Do connections go where they should while endpoints come, go, drain and die?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from dray.model import Health, MemberState, PortProtocol, PublishedPort, PublishMode
from node.ports import AttachRefused
from tests.integration.network_rig import (
    CLIENT,
    PORT,
    Box,
    Cluster,
    Try,
    kept_cluster,
    published,
    service,
    vip,
)
from tests.lab import Process, wait_for

pytestmark = pytest.mark.timeout(300)  # a lab with containers, on a machine that does much else

# Connects and prints who answers; then prints how the connection ends, and when: the number of
# lines that came back before it did.
HOLDER = """
import socket, sys
held = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)
lines = held.makefile("rwb")
print(lines.readline().decode().split()[0], flush=True)
for line in sys.stdin.buffer:
    try:
        lines.write(line)
        lines.flush()
        print("kept" if lines.readline() == line else "closed", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
        break
"""
# Connects again and again until its input ends; prints how often, and every kind of failure.
STEADY = """
import json, select, socket, sys
failures, count = {}, 0
print("begun", flush=True)
while not select.select([sys.stdin], [], [], 0.005)[0]:
    count += 1
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as one:
            one.sendall(b"hello")
            with one.makefile("rb") as lines:
                lines.readline()
                assert lines.read(5) == b"hello"
    except (OSError, AssertionError) as error:
        name = type(error).__name__
        failures[name] = failures.get(name, 0) + 1
print(json.dumps([count, failures]))
"""
# The same with datagrams from one socket, each tried once.
DATAGRAMS = """
import socket, sys
held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
held.connect((sys.argv[1], int(sys.argv[2])))
held.settimeout(2)
for line in sys.stdin:
    try:
        held.send(bytes(64))
        print(held.recv(100).decode().split()[0], flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.fixture(scope="module")
def kept(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """Keep three nodes, with a client on the first one."""
    with kept_cluster(pytestconfig) as made:
        made.services = {"client": service(250)}
        made.start(made.nodes[0], "client", 1)
        yield made


@pytest.fixture
def cluster(kept: Cluster) -> Iterator[Cluster]:
    """Lend the nodes; the test's own containers and services go after it."""
    yield kept
    kept.states.clear()
    for box in [box for box in kept.boxes.values() if box.slot.service != "client"]:
        kept.remove(box, tell=False)
    gone = [name for name in kept.services if name != "client"]
    for name in gone:
        kept.services[name] = replace(kept.services[name], vip="", published=())
    kept.tell()
    for name in gone:
        del kept.services[name]


def client(cluster: Cluster) -> Box:
    """Return the container that asks."""
    return cluster.boxes["client.1"]


def spread(cluster: Cluster, address: str, port: int = PORT, tries: int = 40) -> set[str]:
    """Return who answers to many connections, or how they fail."""
    outcomes = client(cluster).reach([("tcp", address, port, 0)] * tries)
    return {outcome if isinstance(outcome, str) else outcome[0] for outcome in outcomes}


def web_on_each_node(cluster: Cluster, *ports: PublishedPort, affinity: bool = False) -> list[Box]:
    """Run one container of `web` on every node."""
    cluster.services["web"] = service(1, ports, affinity=affinity)
    cluster.start_all((node, "web", node.host.index, ("default",)) for node in cluster.nodes)
    cluster.tell()
    return [cluster.boxes[f"web.{node.host.index}"] for node in cluster.nodes]


def program(box: Box, code: str, *arguments: str) -> Process:
    """Start a program in a container's network, with pipes."""
    return box.node.host.popen(
        ["nsenter", f"--net=/proc/{box.pid}/ns/net", sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def say(process: Process) -> str:
    """Give a program a line, and return the one that it prints."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()
    return process.stdout.readline().decode().strip()


def test_connections_spread_over_what_is_ready(cluster: Cluster) -> None:
    """Endpoints that are unhealthy, draining or on a suspect or dead node get no connections."""
    one, two, three = web_on_each_node(cluster)
    assert spread(cluster, vip(1)) == {"web.1", "web.2", "web.3"}
    two.health = Health.UNHEALTHY
    cluster.tell()
    assert spread(cluster, vip(1)) == {"web.1", "web.3"}
    one.draining = True
    cluster.tell()
    assert spread(cluster, vip(1)) == {"web.3"}
    cluster.states[three.node.node_id] = MemberState.SUSPECT
    cluster.tell()
    assert spread(cluster, vip(1)) == {"web.3"}
    cluster.states[three.node.node_id] = MemberState.DEAD
    cluster.tell()
    assert spread(cluster, vip(1)) == {"web.1", "web.2"}  # not ready, but known to run


def test_a_service_without_endpoints_refuses(cluster: Cluster) -> None:
    """Its own address and those of nobody refuse at once; they do not hang."""
    cluster.services["web"] = service(1)
    cluster.tell()
    assert spread(cluster, vip(1), tries=2) == {"ConnectionRefusedError"}
    assert spread(cluster, "10.224.9.9", tries=2) == {"ConnectionRefusedError"}
    assert spread(cluster, "10.220.0.9", tries=2) == {"ConnectionRefusedError"}


def test_connections_to_a_dead_endpoint_end(cluster: Cluster) -> None:
    """Open connections break at the next write, and datagrams find another endpoint at once."""
    web_on_each_node(cluster)
    held, datagrams = program(client(cluster), HOLDER, vip(1), str(PORT)), None
    try:
        assert held.stdout is not None
        server = held.stdout.readline().decode().strip()
        assert say(held) == "kept"
        datagrams = program(client(cluster), DATAGRAMS, vip(1), str(PORT))
        first = say(datagrams)
        assert first == say(datagrams)
        for name in {server, first}:
            cluster.remove(cluster.boxes[name])
        assert say(held) in ("ConnectionResetError", "closed", "BrokenPipeError")
        assert say(datagrams) in cluster.boxes
    finally:
        for process in (held, datagrams):
            if process is not None:
                process.kill()
                process.communicate()


def test_a_draining_endpoint_keeps_its_connections(cluster: Cluster) -> None:
    """What is open goes on until the container stops; what is new goes elsewhere."""
    web_on_each_node(cluster)
    held = program(client(cluster), HOLDER, vip(1), str(PORT))
    try:
        assert held.stdout is not None
        server = held.stdout.readline().decode().strip()
        cluster.boxes[server].draining = True
        cluster.tell()
        assert server not in spread(cluster, vip(1))
        assert say(held) == "kept"
    finally:
        held.kill()
        held.communicate()


def test_no_connection_fails_while_endpoints_are_replaced(cluster: Cluster) -> None:
    """In the right order (start, tell; drain, tell; stop) replacing endpoints harms nobody."""
    web_on_each_node(cluster)
    steady = program(client(cluster), STEADY, vip(1), str(PORT))
    try:
        assert steady.stdout is not None
        assert steady.stdout.readline() == b"begun\n"
        for slot in range(4, 10):
            cluster.start(cluster.nodes[slot % 3], "web", slot)
            cluster.tell()
            old = cluster.boxes[f"web.{slot - 3}"]
            old.draining = True
            cluster.tell()
            cluster.remove(old)
        count, failures = json.loads(steady.communicate(b"end\n")[0])
        assert failures == {}
        assert count > 50
    finally:
        steady.kill()
        steady.communicate()


def test_affinity_keeps_a_client_with_its_endpoint(cluster: Cluster) -> None:
    """One client always reaches the same endpoint, from every node, until that one goes."""
    web_on_each_node(cluster, published(8080), affinity=True)
    (found,) = spread(cluster, vip(1))
    assert spread(cluster, vip(1)) == {found}
    outside: list[Try] = [("tcp", node.config.address, 8080, 0) for node in cluster.nodes] * 3
    done = cluster.lab.switch_exec(
        [sys.executable, "-c", CLIENT, "5"], stdin_text=json.dumps(outside)
    )
    assert len({name for name, _ in json.loads(done.stdout)}) == 1
    cluster.remove(cluster.boxes[found])
    (other,) = spread(cluster, vip(1))
    assert other != found


def test_ports_in_host_mode_lead_to_the_nodes_own_tasks(cluster: Cluster) -> None:
    """They answer on nodes with a task only, and a second service cannot have the port there."""
    first, second, third = cluster.nodes
    port = published(8088, PublishMode.HOST)
    cluster.services["hosted"] = service(3)
    for node in (second, third):
        cluster.start(node, "hosted", node.host.index, ports=(port,))
    cluster.tell()
    assert spread(cluster, second.config.address, 8088, 4) == {"hosted.2"}
    assert spread(cluster, third.config.address, 8088, 4) == {"hosted.3"}
    assert spread(cluster, first.config.address, 8088, 2) == {"ConnectionRefusedError"}
    refused = cluster.attach(second, "other", 1, ports=(port,))
    assert isinstance(refused, AttachRefused)
    assert "port 8088/tcp is published by shop/hosted (host mode) already" in refused.message
    cluster.remove(cluster.boxes["hosted.2"])
    assert spread(cluster, second.config.address, 8088, 2) == {"ConnectionRefusedError"}


def test_a_port_that_a_program_has_stays_the_programs(cluster: Cluster) -> None:
    """That node says so and leaves the port alone; the others publish it, and it too later on."""
    first, second, _ = cluster.nodes
    squatter = second.host.popen(
        [sys.executable, "-m", "http.server", "8099", "--directory", "/run/lock"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(
            lambda: "8099" in second.host.exec(["busybox", "netstat", "-ltn"]).stdout,
            "the program listens",
        )
        web_on_each_node(cluster, published(8099))
        said = "shop/web is not published here: port 8099/tcp is taken by another program"
        assert any(message.startswith(said) for message in second.ask("problems"))
        assert first.ask("problems") == []
        assert spread(cluster, first.config.address, 8099) == {"web.1", "web.2", "web.3"}
        page = cluster.lab.switch_exec(
            ["busybox", "wget", "-q", "-O", "-", f"http://{second.config.address}:8099/"]
        )
        assert "Directory listing" in page.stdout
    finally:
        squatter.end()
    wait_for(lambda: second.ask("problems") == [], "the port is published", deadline_s=40)
    assert spread(cluster, second.config.address, 8099) == {"web.1", "web.2", "web.3"}


def test_datagrams_that_came_too_early_find_their_way(cluster: Cluster) -> None:
    """A client that kept sending to a published port is served once the service is there."""
    udp = PublishedPort(PORT, 8077, protocol=PortProtocol.UDP)
    address = cluster.nodes[1].config.address
    sender = cluster.lab.switch_popen(
        [sys.executable, "-c", DATAGRAMS, address, "8077"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert say(sender) == "ConnectionRefusedError"
        web_on_each_node(cluster, udp)
        wait_for(lambda: say(sender) in cluster.boxes, "it is answered", deadline_s=10)
    finally:
        sender.kill()
        sender.communicate()


def test_host_ip_is_honoured(cluster: Cluster) -> None:
    """A port published on one address of the node answers there alone."""
    node = cluster.nodes[0]
    local = replace(published(8066), host_ip="127.0.0.1")
    web_on_each_node(cluster, local)
    tries: list[Try] = [("tcp", "127.0.0.1", 8066, 0), ("tcp", node.config.address, 8066, 0)]
    done = node.host.exec([sys.executable, "-c", CLIENT, "5"], stdin_text=json.dumps(tries))
    answered, refused = json.loads(done.stdout)
    assert answered[0] in cluster.boxes
    assert refused == "ConnectionRefusedError"
