"""Nodes with the product's network on hosts of the lab, containers on them, and who reaches whom.

Gossip is played by the rig: every node is told at once what all of them publish.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import IO, Any, cast

import docker.errors
import psutil
import pytest

from dray.model import (
    ContainerSpec,
    Endpoint,
    Epoch,
    Fact,
    FactKey,
    FactVersion,
    Health,
    ImageOptions,
    Member,
    MemberState,
    NetworkAttachment,
    NetworkSpec,
    ProjectParts,
    PublishedPort,
    PublishMode,
    ServiceFacts,
    ServiceKey,
    ServiceRevision,
    SlotKey,
    TaskAssignment,
    TaskTemplate,
)
from dray.names import NodeId, TaskId, id_text
from node.gossip.packing import pack_service, service_fact_name
from node.network.ipam import gateway
from node.ports import Attached, AttachRefused, NetworkConfig, NetworkPeer
from tests import guard, machine
from tests.integration.network_driver import packed, unpacked
from tests.lab import BUSYBOX, Host, Lab, Process
from tests.lab.fixtures import kept_lab

RANGE, VIPS = "10.192.0.0/11", "10.224.0.0/16"
PORT = 7000
PROJECT = "shop"
PAYLOAD_BYTES = 1_048_576

# Serves TCP and UDP on a port: answers "NAME CLIENT" to a datagram; over TCP it sends that line
# and then back whatever it gets. Over TCP "push" is answered with a mebibyte.
SERVER = """
import asyncio, sys
name, port = sys.argv[1], int(sys.argv[2])
class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, client):
        said = f"{name} {client[0]} ".encode()
        self.transport.sendto(said + data[len(said):], client)
async def talk(reader, writer):
    try:
        writer.write(f"{name} {writer.get_extra_info('peername')[0]}\\n".encode())
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()
async def main():
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Datagrams, local_addr=("0.0.0.0", port))
    server = await asyncio.start_server(talk, "0.0.0.0", port)
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

# Reads a list of [protocol, address, port, bytes] as JSON; prints [name, client address] for each
# that was answered, the kind of error else. Datagrams are tried again as any client would. Names in
# place of addresses are asked of the server that is named as the second argument.
CLIENT = """
import asyncio, json, os, socket, struct, sys
class NoSuchName(OSError):
    pass
async def address_of(name):
    if name.replace(".", "").isdigit():
        return name
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        asking.connect((sys.argv[2], 53))
        for _ in range(20):
            query = os.urandom(2) + struct.pack("!5H", 0x0100, 1, 0, 0, 0)
            await loop.sock_sendall(asking, query + labels + struct.pack("!BHH", 0, 1, 1))
            try:
                async with asyncio.timeout(1):
                    while (answer := await loop.sock_recv(asking, 4096))[:2] != query[:2]:
                        pass
            except TimeoutError:
                continue
            if struct.unpack("!H", answer[6:8])[0]:
                return first(answer)
            raise NoSuchName(name)
    raise TimeoutError(name)
def first(answer):
    at = 12
    while answer[at]:
        at += answer[at] + 1
    at += 5
    return socket.inet_ntoa(answer[at + 12 : at + 16])
async def tcp(address, port, size):
    reader, writer = await asyncio.open_connection(address, port)
    name, client = (await reader.readline()).decode().split()
    sent = os.urandom(size)
    writer.write(sent)
    if size and await reader.readexactly(size) != sent:
        return "damaged"
    writer.close()
    return [name, client]
class Answers(asyncio.DatagramProtocol):
    def __init__(self):
        self.answer = asyncio.get_running_loop().create_future()
    def datagram_received(self, data, server):
        if not self.answer.done():
            self.answer.set_result(data)
    def error_received(self, error):
        if not self.answer.done():
            self.answer.set_exception(error)
async def udp(address, port, size):
    loop = asyncio.get_running_loop()
    transport, answers = await loop.create_datagram_endpoint(Answers, remote_addr=(address, port))
    sent = bytes(64) + os.urandom(size)
    try:
        for _ in range(4):
            transport.sendto(sent)
            done, _ = await asyncio.wait([answers.answer], timeout=0.5)
            if done:
                break
        else:
            raise TimeoutError
        got = answers.answer.result()
        name, client = got[:64].rstrip(bytes(1)).decode().split()
        return [name, client] if got[64:] == sent[64:] else "damaged"
    finally:
        transport.close()
async def one(protocol, address, port, size):
    try:
        async with asyncio.timeout(float(sys.argv[1])):
            where = await address_of(address)
            return await {"tcp": tcp, "udp": udp}[protocol](where, port, size)
    except (OSError, asyncio.IncompleteReadError) as error:
        return type(error).__name__
async def main():
    tries = json.load(sys.stdin)
    print(json.dumps(await asyncio.gather(*(one(*each) for each in tries))))
asyncio.run(main())
"""

Try = tuple[str, str, int, int]
Outcome = list[str] | str


@dataclass
class Node:
    """One host as a node: its place in the cluster, and the network's process on it."""

    host: Host
    config: NetworkConfig
    process: Process | None = None

    @property
    def node_id(self) -> NodeId:
        """Its id."""
        return self.config.node_id

    def start(self) -> None:
        """Start the network's daemon."""
        pipe = subprocess.PIPE
        self.process = self.host.popen(
            [sys.executable, "-m", "tests.integration.network_driver", "/var/lib/dray/network"],
            stdin=pipe,
            stdout=pipe,
        )

    def stop(self, *, kill: bool = False) -> None:
        """End the daemon, by its own decision or by SIGKILL."""
        if self.process is None:
            return
        if kill:
            self.process.kill()
        self.process.communicate()
        self.process = None

    def ask(self, name: str, *arguments: object) -> Any:
        """Call a method of the driver or the network; return what it returns."""
        kind, value = self.try_asking(name, *arguments)
        assert kind == "done", value
        return value

    def try_asking(self, name: str, *arguments: object) -> tuple[str, Any]:
        """Call a method; return "done" with the value or "failed" with the message."""
        assert self.process is not None
        to, back = cast("IO[bytes]", self.process.stdin), cast("IO[bytes]", self.process.stdout)
        to.write(packed((name, arguments)))
        to.flush()
        line = back.readline()
        assert line, f"the network of {self.host.name} has ended"
        kind, value = unpacked(line)
        return kind, value


@dataclass
class Box:
    """A container: its slot and address, and the server in it."""

    node: Node
    slot: SlotKey
    task_id: TaskId
    address: str
    networks: tuple[str, ...]
    container_id: str
    pid: int
    server: Process
    health: Health = Health.NONE
    draining: bool = False

    @property
    def name(self) -> str:
        """What its server answers with."""
        return f"{self.slot.service}.{self.slot.slot}"

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run a program of the host in the container's network."""
        return self.node.host.exec(
            ["nsenter", f"--net=/proc/{self.pid}/ns/net", *argv], stdin_text=stdin
        ).stdout

    def reach(self, tries: Iterable[Try], timeout_s: float = 5.0) -> list[Outcome]:
        """Return what came of trying to reach some addresses from inside, all at once."""
        words = (sys.executable, "-c", CLIENT, str(timeout_s), gateway(self.node.config.subnet))
        done = self.run(*words, stdin=json.dumps([*tries]))
        return cast("list[Outcome]", json.loads(done))


@dataclass
class Cluster:
    """All nodes and containers, and what gossip tells of them."""

    lab: Lab
    nodes: list[Node]
    boxes: dict[str, Box] = field(default_factory=dict)
    states: dict[NodeId, MemberState] = field(default_factory=dict)
    services: dict[str, ServiceFacts] = field(default_factory=dict)
    networks: dict[str, NetworkSpec] = field(default_factory=dict)
    version: int = 0

    def parts(self) -> ProjectParts:
        """Return the project's networks."""
        return ProjectParts(PROJECT, tuple(self.networks.values()))

    def task(self, service: str, slot: int) -> TaskAssignment:
        """Return the assignment of a slot."""
        task_id = TaskId(id_text(f"{service}.{slot}".encode().ljust(16, b"_")[:16]))
        key = SlotKey(PROJECT, service, slot)
        return TaskAssignment(task_id, key, ServiceRevision(1), Epoch(1, 1))

    def attach(
        self,
        node: Node,
        service: str,
        slot: int,
        networks: tuple[str, ...] = ("default",),
        ports: tuple[PublishedPort, ...] = (),
    ) -> Attached | AttachRefused:
        """Ask a node's network for the addresses of a task."""
        template = TaskTemplate(
            ContainerSpec(ImageOptions(BUSYBOX.reference)),
            networks=tuple(NetworkAttachment(name) for name in networks),
        )
        outcome = node.ask("attach", self.task(service, slot), template, self.parts(), ports)
        assert isinstance(outcome, Attached | AttachRefused)
        return outcome

    def start(
        self,
        node: Node,
        service: str,
        slot: int,
        networks: tuple[str, ...] = ("default",),
        ports: tuple[PublishedPort, ...] = (),
    ) -> Box:
        """Run a container of a service with a server in it; `tell` makes it known."""
        attached = self.attach(node, service, slot, networks, ports)
        assert isinstance(attached, Attached), attached
        api = node.host.docker.api
        endpoint = api.create_endpoint_config(ipv4_address=attached.address)
        container = api.create_container(
            BUSYBOX.reference,
            ["sleep", "100000"],
            mac_address=attached.network.mac_address,
            host_config=api.create_host_config(network_mode=attached.network.name),
            networking_config=api.create_networking_config(
                {attached.network.name: endpoint}  # type: ignore[arg-type] # the stub is wrong
            ),
            name=f"{service}-{slot}",
        )["Id"]
        api.start(container)
        full = tuple(sorted(self.networks[name].name for name in networks))
        task = self.task(service, slot)
        pid = api.inspect_container(container)["State"]["Pid"]
        server = self._serve(node, pid, f"{service}.{slot}")
        box = Box(node, task.slot, task.task_id, attached.address, full, container, pid, server)
        self.boxes[box.name] = box
        return box

    def start_all(self, wanted: Iterable[tuple[Node, str, int, tuple[str, ...]]]) -> None:
        """Run containers, on all nodes at the same time."""
        work = list(wanted)

        def start_on(node: Node) -> None:
            for where, name, slot, networks in work:
                if where is node:
                    self.start(node, name, slot, networks)

        self.on_all_nodes(start_on)

    def on_all_nodes(self, do: Callable[[Node], object]) -> None:
        """Do something with every node at the same time."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            for outcome in [pool.submit(do, node) for node in self.nodes]:
                outcome.result()

    def _serve(self, node: Node, pid: int, name: str) -> Process:
        process = node.host.popen(
            ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", SERVER, name, str(PORT)],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    def start_again(self, box: Box) -> None:
        """Start the container of a slot that ended; it keeps its address."""
        api = box.node.host.docker.api
        api.start(box.container_id)
        box.pid = api.inspect_container(box.container_id)["State"]["Pid"]
        box.server = self._serve(box.node, box.pid, box.name)

    def lose_power(self, node: Node) -> list[Box]:
        """Cut a node's power and boot it, with a new daemon; return its containers, which ended."""
        mine = [box for box in self.boxes.values() if box.node is node]
        node.stop(kill=True)
        for box in mine:
            box.server.kill()
            box.server.communicate()
        node.host.power_off()
        node.host.boot()
        node.start()
        return mine

    def remove(self, box: Box, *, tell: bool = True) -> None:
        """Remove a container, and tell everybody."""
        box.server.kill()
        box.server.communicate()
        box.node.host.docker.api.remove_container(box.container_id, force=True)
        del self.boxes[box.name]
        if tell:
            self.tell()
        box.node.ask("release", box.task_id)

    def tell(self, *nodes: Node) -> None:
        """Tell nodes, all if none is named, what there is now, and wait until they follow."""
        self.version += 1
        for node in nodes or self.nodes:
            if node.process is not None:
                node.ask("add_facts", *self._members(), *self._facts())

    def _members(self) -> Iterator[Member]:
        for node in self.nodes:
            state = self.states.get(node.node_id, MemberState.ALIVE)
            name, address = node.host.name, node.config.address
            yield Member(node.node_id, name, address, 7401, 1, self.version, state)

    def _facts(self) -> Iterator[Fact]:
        for name, facts in self.services.items():
            key = ServiceKey(PROJECT, name)
            for node in self.nodes:
                mine = tuple(
                    _endpoint(box)
                    for box in self.boxes.values()
                    if box.node is node and box.slot.service == name
                )
                value = pack_service(replace(facts, endpoints=mine))
                assert isinstance(value, bytes)
                version = FactVersion(1, self.version)
                yield Fact(FactKey(node.node_id, service_fact_name(key)), version, value)

    def mend(self) -> None:
        """Bring back what a failed test may have left behind: everybody runs and knows all."""
        self.lab.mend()
        for node in self.nodes:
            if node.process is None:
                node.start()
                node.ask("ensure", node.config)
        self.tell()

    def readdress(self, node: Node, address: str) -> None:
        """Let a node have another address from now on, and tell every daemon."""
        for each in self.nodes:
            peers = tuple(
                replace(peer, address=address) if peer.node_id == node.node_id else peer
                for peer in each.config.peers
            )
            own = address if each is node else each.config.address
            each.config = replace(each.config, address=own, peers=peers)
        self.on_all_nodes(lambda each: each.ask("ensure", each.config))
        self.tell()

    def own_processes(self) -> set[int]:
        """Return the ids of the daemons, their name servers and the servers in containers."""
        running = [node.process for node in self.nodes if node.process is not None]
        running += [box.server for box in self.boxes.values()]
        found = {pid for process in running for pid in process.own_pids}
        for pid in list(found):
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
        return found

    def close(self) -> None:
        """End the servers and the daemons, and remove the containers."""
        for box in list(self.boxes.values()):
            box.server.kill()
            box.server.communicate()
            with contextlib.suppress(docker.errors.APIError):
                box.node.host.docker.api.remove_container(box.container_id, force=True)
        for node in self.nodes:
            node.stop()


def _endpoint(box: Box) -> Endpoint:
    return Endpoint(
        box.slot,
        box.task_id,
        Epoch(1, 1),
        box.address,
        health=box.health,
        draining=box.draining,
        networks=box.networks,
    )


def service(
    number: int, ports: tuple[PublishedPort, ...] = (), *, affinity: bool = False
) -> ServiceFacts:
    """Return what is known of the numbered service: its own address, and its published ports."""
    return ServiceFacts(ServiceRevision(1), vip(number), ports, affinity)


def vip(number: int) -> str:
    """Return the own address of the numbered service."""
    return f"10.224.0.{number}"


def published(number: int, mode: PublishMode = PublishMode.INGRESS) -> PublishedPort:
    """Return a published port that leads to the servers."""
    return PublishedPort(PORT, number, mode=mode)


@contextlib.contextmanager
def kept_cluster(config: pytest.Config, networks: Iterable[NetworkSpec] = ()) -> Iterator[Cluster]:
    """Keep three nodes over several tests; the guard leaves their processes alone."""
    watch = config.stash[guard.GUARD_KEY]
    with kept_lab(config, 3) as lab, cluster_of(lab, networks) as cluster:

        def is_ours(thing: machine.Thing) -> bool:
            number = thing.identity.partition(":")[0]
            return thing.kind == "process" and int(number) in cluster.own_processes()

        watch.exempt.append(is_ours)
        try:
            yield cluster
        finally:
            watch.exempt.remove(is_ours)


@contextlib.contextmanager
def cluster_of(lab: Lab, networks: Iterable[NetworkSpec] = ()) -> Iterator[Cluster]:
    """Make the lab's hosts nodes of one cluster, with their networks in order."""
    ids = {
        host.index: NodeId(id_text(f"node{host.index}".encode().ljust(16))) for host in lab.hosts
    }
    peers = tuple(
        NetworkPeer(ids[host.index], host.address, f"10.192.{2 * host.index}.0/23")
        for host in lab.hosts
    )
    nodes = [
        Node(host, NetworkConfig(peer.node_id, host.address, peer.subnet, RANGE, VIPS, peers=peers))
        for host, peer in zip(lab.hosts, peers, strict=True)
    ]
    cluster = Cluster(lab, nodes)
    cluster.networks = {spec.key: spec for spec in networks} or {
        "default": NetworkSpec("default", f"{PROJECT}_default")
    }
    try:
        for node in nodes:
            node.start()
        cluster.on_all_nodes(lambda node: node.ask("ensure", node.config))
        yield cluster
    finally:
        cluster.close()
