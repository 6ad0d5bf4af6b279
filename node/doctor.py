"""What is wrong with this machine's network, and what repairs it? `dray node doctor`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from dray.errors import DrayError, FailedPrecondition
from node.agent.disk import Disk
from node.network import kernel
from node.network.echo import silent_gateways
from node.network.engine import EngineNetworks
from node.network.firewall import Firewall
from node.network.ipam import gateway
from node.network.observed import Observed, strays
from node.network.plan import Plan, Step, StepKind, docker_network, plan
from node.network.ruleset import SKELETON_CHAINS, TUNNEL_PORT
from node.ports import NetworkConfig, NetworkPeer
from node.settings import NodeSettings

__all__ = ["Examination", "diagnose", "examine", "report", "shell_command"]


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found out about a machine.

    Attributes:
        config: What its network should be.
        observed: What it looks like.
        found: What has to be done.
        chains: Chains of dray's nftables table.
        guarded: Nodes whose packets the table lets into the tunnel.
        silent: Peers that do not answer through the tunnel; not asked while anything else is wrong.
        engine_problem: Why the Docker Engine could not be asked; empty: it answered.
    """

    config: NetworkConfig
    observed: Observed
    found: Plan
    chains: frozenset[str] = frozenset()
    guarded: frozenset[str] = frozenset()
    silent: tuple[NetworkPeer, ...] = ()
    engine_problem: str = ""


async def diagnose(settings: NodeSettings, out: TextIO) -> int:
    """Print what is wrong and what repairs it, changing nothing; return 1 if anything is.

    Raises:
        FailedPrecondition: The node has no network yet.
        DrayError: The machine cannot be looked at.
    """
    config = await asyncio.to_thread(Disk(settings.data_dir).read_network)
    if config is None:
        raise FailedPrecondition(
            f"the node in {settings.data_dir} has no network yet",
            hint="name its folder with --data, or run `dray node run` first",
        )
    engine = EngineNetworks(Path(settings.docker_host.removeprefix("unix://")))
    try:
        return report(await examine(config, engine), out)
    finally:
        await engine.close()


async def examine(config: NetworkConfig, engine: EngineNetworks) -> Examination:
    """Look at the machine, changing nothing.

    Raises:
        DrayError: A tool is missing, or the process may not look.
    """
    firewall = Firewall()
    chains = await asyncio.to_thread(firewall.chain_names)
    observed = replace(await asyncio.to_thread(kernel.observe), is_table_whole=bool(chains))
    problem = ""
    try:
        network = await engine.find()
        ends = await engine.container_ends() if network is not None else ()
        loose = strays(observed.links, ends)
        observed = replace(observed, docker_network=network, strays=loose)
    except DrayError as error:
        observed, problem = replace(observed, is_engine_there=False), str(error)
    done = Examination(
        config,
        observed,
        plan(config, observed),
        chains,
        await asyncio.to_thread(firewall.guarded_peers),
        engine_problem=problem,
    )
    if any(problems(done)):
        return done
    others = [peer for peer in config.peers if peer.subnet and peer.node_id != config.node_id]
    silent = await silent_gateways([gateway(peer.subnet) for peer in others])
    return replace(done, silent=tuple(peer for peer in others if gateway(peer.subnet) in silent))


def report(done: Examination, out: TextIO) -> int:
    """Print an examination's problems, each with its repair; return 1 if there are any."""
    count = 0
    for problem, repair in problems(done):
        count += 1
        print(f"problem  {problem}", file=out)
        if repair:
            print(f"repair   {repair}", file=out)
    if not count:
        print("nothing is wrong", file=out)
        return 0
    print(f"{count} problem{'s' if count > 1 else ''}", file=out)
    if done.found.steps:
        print("a running daemon (`dray node run`) repairs what has a command by itself", file=out)
    return 1


def problems(done: Examination) -> Iterator[tuple[str, str]]:
    """Yield what is wrong, a sentence each, with what repairs it; empty: the sentence says it."""
    if done.engine_problem:
        yield done.engine_problem, "start the Docker Engine: systemctl start docker"
    for text in (*done.found.blocked, *done.found.waiting):
        yield text, ""
    for step in done.found.steps:
        yield step.problem, shell_command(step, done.config, done.observed)
    if done.observed.is_table_whole:
        yield from _table_problems(done)
    for peer in done.silent:
        yield (
            f"nothing comes back from {peer.address} through the tunnel",
            f"open UDP port {TUNNEL_PORT} between all nodes, unless that node is down",
        )


def _table_problems(done: Examination) -> Iterator[tuple[str, str]]:
    remedy = "restart the daemon, which writes the table anew: systemctl restart dray-node"
    missing = SKELETON_CHAINS - done.chains
    if missing:
        yield f"the nftables table dray has lost its chains {_listed(missing)}", remedy
    peers = {peer.address for peer in done.config.peers if peer.node_id != done.config.node_id}
    if strangers := done.guarded - peers:
        yield f"{_listed(strangers)} may send into the tunnel and is no node", remedy
    if shut := peers - done.guarded:
        yield f"packets from {_listed(shut)} are not let into the tunnel", remedy


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def shell_command(step: Step, config: NetworkConfig, observed: Observed) -> str:
    """Return what a person would type to carry a step out."""
    if step.kind is StepKind.DOCKER_NETWORK:
        wanted = docker_network(config, int(step.command))
        return (
            f"docker network create --subnet {wanted.subnet} --gateway {wanted.gateway} "
            f"-o com.docker.network.bridge.name={wanted.bridge} "
            "-o com.docker.network.bridge.enable_ip_masquerade=false "
            f"-o com.docker.network.driver.mtu={wanted.mtu} dray"
        )
    prefix = {
        StepKind.MODULE: "modprobe ",
        StepKind.REMOVE_DOCKER_NETWORK: "docker network rm ",
        StepKind.IP: "ip ",
        StepKind.BRIDGE: "bridge ",
        StepKind.SYSCTL: "sysctl -w ",
        StepKind.FORWARD_RULE: f"iptables -I {observed.forward_chain} ",
        StepKind.TABLE: "restart the daemon, which writes the table: systemctl restart dray-node",
    }[step.kind]
    return f"{prefix}{step.command}"
