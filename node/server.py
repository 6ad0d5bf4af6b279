"""What is a node daemon made of, and in which order does it come up? The composition root.

    disk ─▶ identity, life ─▶ (a new node joins) ─▶ parts ─▶ loops under the supervisor

A loop that fails is started again by the supervisor; none of them holds what another cannot lose.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dray import __version__
from dray.addresses import HostPort
from dray.clock import Clock, SystemClock
from dray.errors import DrayError
from dray.log import Logger
from dray.model import ContentRef, FaultKind, NodeInfo, Platform, TaskAssignment, TaskTemplate
from dray.names import RandomIds, TaskId
from dray.tasks import Supervisor
from node.agent.agent import Agent, AgentParts, AgentSettings
from node.agent.alone import NoDiscovery, PlainNetwork
from node.agent.contents import Content, ContentFiles, ContentSource
from node.agent.disk import Disk
from node.agent.faults import Faults
from node.agent.peers import SUBNET_FACT, is_anybody_there, network_config, subnet_fact
from node.agent.publication import askers
from node.agent.session.relays import RelayParts, Relays
from node.agent.session.reports import Reports
from node.agent.session.stream import Session, SessionParts, SessionSettings
from node.agent.stored import Identity, NodeConfig
from node.dns.config import ServerConfig
from node.dns.resolvconf import DNS_PORT, container_resolv_conf
from node.dns.service import NodeDns
from node.dns.zone import ZoneConfig
from node.gossip.core import Address
from node.gossip.identity import Identity as GossipIdentity
from node.gossip.service import GossipConfig, GossipService
from node.metrics import MetricsServer, NodeMetrics
from node.network.engine import EngineNetworks
from node.network.ipam import gateway
from node.network.network import MachineNetwork
from node.ports import Discovery, NodeNetwork
from node.resources.gpus import NvidiaGpus
from node.resources.machine import MachineWatch
from node.resources.sample import Reserve
from node.runtime.base import Runtime
from node.runtime.docker import DockerRuntime
from node.settings import NodeSettings

__all__ = ["Server"]

FAULTS_EVERY_S = 1.0
NETWORK_AGAIN_S = 2.0
PEERS_KEPT_S = 60.0  # those of an earlier life of the daemon, and until gossip hears of any
MIB = 1024**2


@dataclass(frozen=True, slots=True)
class _Base:
    """What is there before the node knows its cluster."""

    disk: Disk
    runtime: Runtime
    faults: Faults
    clock: Clock
    rng: random.Random
    log: Logger
    session: SessionSettings


class Server:
    """A node daemon."""

    def __init__(self, settings: NodeSettings, *, log: Logger) -> None:
        """Make a daemon that does nothing yet."""
        self._settings = settings
        self._log = log

    async def run(self) -> None:
        """Run until cancelled; containers run on.

        Raises:
            DrayError: It cannot go on; the message says what to do.
        """
        settings = self._settings
        clock = SystemClock()
        disk = Disk(settings.data_dir)
        ids = RandomIds(secrets.randbits)
        identity = await asyncio.to_thread(disk.open, ids.new, clock.unix_s())
        files = settings.tls_files
        tls = await asyncio.to_thread(files.read) if files is not None else None
        runtime = DockerRuntime(Path(settings.docker_host.removeprefix("unix://")))
        base = _Base(
            disk,
            runtime,
            Faults(clock, self._log),
            clock,
            random.Random(secrets.randbits(64)),
            self._log,
            SessionSettings(settings.scheduler, tls, settings.insecure),
        )
        try:
            config = await asyncio.to_thread(disk.read_config)
            if config is None or identity.cluster_id is None:
                identity, config = await self._join(base, identity)
            await _Node(settings, base, identity, config).run()
        finally:
            await runtime.close()
            await asyncio.to_thread(disk.close)

    async def _join(self, base: _Base, identity: Identity) -> tuple[Identity, NodeConfig]:
        """Become a node of the cluster: the leader registers it and says what it is."""
        self._log.info("joining a cluster", node=self._settings.name, node_id=identity.node_id)
        machine = _machine(self._settings, base, dict)
        await machine.look_at_engine()
        await machine.glance_at_gpus()
        await machine.measure()
        discovery = NoDiscovery()
        agent = _agent(self._settings, base, identity, PlainNetwork(), discovery, _Nothing())
        parts = SessionParts(
            base.disk,
            agent,
            discovery,
            Reports(agent, discovery, base.runtime, machine, base.faults, base.clock),
            base.faults,
            base.clock,
            base.rng,
            base.log,
            lambda life: _info(self._settings, identity, life, machine),
            _ignore,
            lambda message, connection: None,
        )
        session = Session(base.session, parts, identity, None)
        await session.join()
        assert session.config is not None
        return session.identity, session.config


async def _ignore(_: NodeConfig) -> None:
    """Do nothing with a configuration: the daemon is only joining."""


class _Nothing:
    """Where a node that has not joined gets contents from."""

    async def fetch(self, project: str, ref: ContentRef) -> Content:
        """Never called: it runs nothing."""
        raise AssertionError((project, ref))


class _Node:
    """The parts of a node that knows its cluster, and their loops."""

    def __init__(
        self, settings: NodeSettings, base: _Base, identity: Identity, config: NodeConfig
    ) -> None:
        assert identity.cluster_id is not None
        self._settings = settings
        self._base = base
        self._identity = identity
        self._config = config
        self._is_configured = asyncio.Event()
        self._gossip = GossipService(
            GossipConfig(
                GossipIdentity(
                    identity.cluster_id,
                    identity.node_id,
                    config.record.name,
                    Address(settings.advertise, settings.gossip_port),
                    identity.life,
                ),
                addresses_path=settings.data_dir / "peers.json",
            ),
            rng=base.rng,
            log=base.log,
            keys=config.keyring,
        )
        socket = Path(settings.docker_host.removeprefix("unix://"))
        self._network = MachineNetwork(
            settings.data_dir / "network",
            EngineNetworks(socket),
            clock=base.clock,
            log=base.log,
            resolv_conf=_resolv_conf,
        )
        self._dns = NodeDns(
            ServerConfig(
                ZoneConfig(
                    identity.node_id,
                    (config.cluster.range_cidr, config.cluster.vip_range_cidr),
                ),
                (_dns_address(config.record.subnet),),
                (config.record.subnet,),
            ),
            self._gossip,
            clock=base.clock,
            log=base.log,
        )
        self._agent = _agent(settings, base, identity, self._network, self._gossip, self)
        self._machine = _machine(settings, base, lambda: self._agent.container_ids)
        self._relays = Relays(
            RelayParts(
                self._agent,
                base.runtime,
                self._gossip,
                self._dns,
                identity,
                base.clock,
                base.log,
            ),
            base.session.tls,
            insecure=settings.insecure,
        )
        self._session = self._make_session()
        self._supervisor = Supervisor(clock=base.clock, rng=base.rng, log=base.log)
        self._metrics = MetricsServer(self._make_metrics(), settings.metrics_listen)

    def _make_session(self) -> Session:
        base = self._base
        reports = Reports(
            self._agent, self._gossip, base.runtime, self._machine, base.faults, base.clock
        )
        parts = SessionParts(
            base.disk,
            self._agent,
            self._gossip,
            reports,
            base.faults,
            base.clock,
            base.rng,
            base.log,
            lambda life: _info(self._settings, self._identity, life, self._machine),
            self._configured,
            self._relays.open,
        )
        return Session(base.session, parts, self._identity, self._config)

    def _make_metrics(self) -> NodeMetrics:
        return NodeMetrics(
            states=lambda: tuple(self._agent.book.states.values()),
            faults=self._base.faults.all,
            usage=self._machine.node_usage,
            is_connected=lambda: self._session.connection is not None,
            loops=lambda: self._supervisor.statuses(),
            counted=self._gossip.counted,
            members=self._gossip.states,
            lateness_s=self._gossip.lateness_s,
            names=self._dns.counts,
        )

    async def fetch(self, project: str, ref: ContentRef) -> Content:
        """Return a piece of content from the leader."""
        return await self._session.fetch(project, ref)

    # ---- running ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run all loops until cancelled."""
        await self._agent.load()
        self._agent.join(self._config.record.cluster_id)
        await self._machine.look_at_engine()
        await self._machine.glance_at_gpus()
        await self._machine.measure()
        self._apply(self._config)
        await asyncio.to_thread(self._metrics.start)
        add = self._supervisor.add
        add("gossip", self._gossip.run)
        add("agent", self._agent.run)
        add("session", self._session.run)
        add("relays", self._relays.run)
        add("machine", self._machine.run)
        add("network", self._keep_network)
        add("network-repair", self._network.keep)
        add("balance", lambda: self._network.follow(self._gossip))
        add("dns", self._keep_dns)
        add("clients", self._follow_clients)
        add("faults", self._collect_faults)
        running = asyncio.create_task(self._supervisor.run(), name="loops")
        try:
            await asyncio.wait({running})
            running.result()
        except asyncio.CancelledError:
            await self._drain()
            raise
        finally:
            running.cancel()
            await asyncio.wait({running})
            if not running.cancelled():
                running.exception()  # looked at: it was raised above, or the end is near anyway
            await asyncio.to_thread(self._metrics.stop)
            await self._network.close()

    async def _drain(self) -> None:
        """Let tasks move away before the end, if that is wanted; all loops still run."""
        drain_s = self._settings.drain_on_stop_s
        if drain_s > 0:
            self._base.log.info("waiting for tasks to move away", duration_ms=drain_s * 1000)
            await self._session.leave(drain_s)
            await self._gossip.leave()

    async def _configured(self, config: NodeConfig) -> None:
        """Act on what the leader says about the node."""
        self._apply(config)

    def _apply(self, config: NodeConfig) -> None:
        self._config = config
        if config.keyring:
            self._gossip.set_keyring(config.keyring)
        self._gossip.publish(SUBNET_FACT, subnet_fact(config.record))
        if config.gossip_seeds:
            self._gossip.join(config.gossip_seeds)
        if config.removed_nodes:
            self._gossip.remove(config.removed_nodes)
        self._is_configured.set()

    async def _keep_network(self) -> None:
        """Make the machine's network what the registry and gossip say, whenever that changes."""
        made = None
        sequence = -1
        last = await asyncio.to_thread(self._base.disk.read_network)
        before = last.peers if last is not None else ()
        kept_until_s = self._base.clock.monotonic_s() + PEERS_KEPT_S
        while True:
            view = self._gossip.view()
            if self._base.clock.monotonic_s() > kept_until_s and is_anybody_there(view):
                before = ()  # gossip has told of everybody by now
            wanted = network_config(self._config, self._settings.advertise, view, before)
            if wanted != made:
                try:
                    await asyncio.to_thread(self._base.disk.write_network, wanted)
                    await self._network.ensure(wanted)
                    made = wanted
                except DrayError as error:
                    self._base.log.warning("network is not ready", error=str(error))
                    await self._base.clock.sleep(NETWORK_AGAIN_S)
                    continue
            self._is_configured.clear()
            sequence = max(sequence, view.sequence)
            await self._news(sequence)

    async def _news(self, sequence: int) -> None:
        """Wait for a newer view or another configuration."""
        waits = {
            asyncio.ensure_future(self._gossip.wait_view(sequence)),
            asyncio.ensure_future(self._is_configured.wait()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
            await asyncio.wait(waits)

    async def _keep_dns(self) -> None:
        """Answer names, once the address to listen on is there."""
        await self._dns.run()

    async def _follow_clients(self) -> None:
        """Tell the name server which task asks from which address, before it does."""
        number = -1
        while True:
            number = await self._agent.book.changed.wait(number)
            share = self._agent.share
            if share is not None:
                self._dns.set_clients(askers(share, self._agent.book.states.values()))
            await self._base.clock.sleep(0.01)

    async def _collect_faults(self) -> None:
        """Take over what other parts find wrong."""
        faults = self._base.faults
        while True:
            gossip = {kind: text for kind, text in self._gossip.faults() if kind in FaultKind}
            faults.tell("gossip", gossip)
            faults.tell_faults("network", self._network.problems())
            faults.tell_faults("dns", self._dns.problems())
            clock = self._base.clock
            off = self._session.clock_check.fault(clock.monotonic_s(), clock.unix_s())
            faults.tell("clock", {FaultKind.CLOCK_OFF: off} if off else {})
            await self._base.clock.sleep(FAULTS_EVERY_S)


def _agent(
    settings: NodeSettings,
    base: _Base,
    identity: Identity,
    network: NodeNetwork,
    discovery: Discovery,
    source: ContentSource,
) -> Agent:
    contents = ContentFiles(
        source,
        settings.data_dir,
        settings.run_dir / identity.node_id,
    )
    parts = AgentParts(base.disk, base.runtime, network, discovery, contents, base.clock, base.log)
    return Agent(
        AgentSettings(identity.node_id, settings.name, settings.advertise, settings.restart_wait_s),
        parts,
    )


def _machine(
    settings: NodeSettings, base: _Base, containers: Callable[[], Mapping[TaskId, str]]
) -> MachineWatch:
    reserve = None
    if settings.reserve_cpu_millis is not None or settings.reserve_memory is not None:
        reserve = Reserve(settings.reserve_cpu_millis or 0, settings.reserve_memory or 256 * MIB)
    return MachineWatch(
        base.runtime,
        containers,
        base.faults,
        base.clock,
        settings.data_dir,
        reserve,
        gpus=NvidiaGpus(),
        log=base.log,
    )


def _info(settings: NodeSettings, identity: Identity, life: int, machine: MachineWatch) -> NodeInfo:
    engine = machine.engine
    platform = Platform(engine.os, engine.architecture) if engine is not None else Platform()
    return NodeInfo(
        identity.node_id,
        settings.name,
        life,
        machine.boot_id,
        __version__,
        settings.advertise,
        settings.gossip_port,
        platform,
        "" if engine is None else engine.version,
        machine.capacity(),
        settings.labels,
    )


def _dns_address(subnet: str) -> HostPort:
    """Return where containers ask for names: the node's own address on its bridge."""
    return HostPort(gateway(subnet), DNS_PORT)


def _resolv_conf(task: TaskAssignment, template: TaskTemplate, server: str) -> str:
    container = template.container
    return container_resolv_conf(
        (server,),
        task.slot.project,
        dns=container.dns,
        dns_search=container.dns_search,
        dns_opt=container.dns_opt,
    )
