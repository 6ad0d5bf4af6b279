"""How are interfaces, routes and kernel settings read and changed?

The functions block: the daemon calls them in a thread.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from dray.errors import DrayError
from node.network.commands import CommandFailed, run_tool
from node.network.observed import (
    Link,
    Observed,
    Route,
    parse_ends,
    parse_links,
    parse_neighbours,
    parse_routes,
)
from node.network.plan import SYSCTLS, Step, StepKind
from node.network.ruleset import BRIDGE, TUNNEL

__all__ = ["Hairpins", "are_still_loose", "carry_out", "observe", "routes"]

_SYSCTL_FOLDER: Final = Path("/proc/sys")
_BRIDGE_FILTER: Final = "net.bridge.bridge-nf-call-iptables"
FORWARD_CHAINS: Final = ("DOCKER-USER", "FORWARD")
_KINDS: Final = (
    StepKind.MODULE, StepKind.IP, StepKind.BRIDGE, StepKind.SYSCTL, StepKind.FORWARD_RULE,
)  # fmt: skip
_IPTABLES: Final = ("iptables", "-w", "5")  # waits that long for its lock, seconds


def observe() -> Observed:
    """Read what the kernel knows; what the engine knows is left at its default.

    So is dray's table, of which `Firewall` knows more.

    Raises:
        DrayError: A tool is missing or failed.
    """
    chain, rules = _forward_rules()
    links = parse_links(run_tool("ip", "-j", "-d", "address", "show"))
    neighbours, ends = _tunnel_entries() if TUNNEL in links else ({}, {})
    return Observed(
        links=links,
        routes=routes(),
        sysctls=dict(_sysctls((*SYSCTLS, _BRIDGE_FILTER))),
        forward_chain=chain,
        forward_rules=rules,
        neighbours=neighbours,
        ends=ends,
    )


def routes() -> tuple[Route, ...]:
    """Return the IPv4 routes of the main table.

    Raises:
        DrayError: The tool is missing or failed.
    """
    return parse_routes(run_tool("ip", "-j", "-4", "route", "show", "table", "main"))


def carry_out(steps: Sequence[Step], forward_chain: str) -> None:
    """Carry out the kernel's part of a plan, in its order.

    Args:
        steps: What to do.
        forward_chain: `Observed.forward_chain`.

    Raises:
        DrayError: A step failed. Those before it stay; others were tried all the same.
    """
    problems: list[DrayError] = []
    for kind in _KINDS:
        commands = [step.command for step in steps if step.kind is kind]
        try:
            if commands:
                _carry_out_kind(kind, commands, forward_chain)
        except DrayError as error:
            problems.append(error)
    if problems:
        raise problems[0]


def are_still_loose(links: Iterable[Link]) -> bool:
    """Return whether any of these interfaces is there and no port of a bridge even now."""
    return any(
        _number(folder / "ifindex") == link.index and not (folder / "master").exists()
        for link in links
        for folder in (Path("/sys/class/net") / link.name,)
    )


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # a container that ended took its interface along
        return 0


class Hairpins:
    """Lets the bridge give a container's packets back to it, as when its VIP leads to itself."""

    def __init__(self) -> None:
        """Know of no port of the bridge."""
        self._done: frozenset[str] = frozenset()

    def allow(self) -> None:
        """Allow it for every port that the bridge has now and did not have before.

        Not through the port's file: a write there spins while others change the machine's network,
        which took up to a fifth of the daemon's processor time while many containers started.
        """
        try:
            ports = frozenset(os.listdir(f"/sys/class/net/{BRIDGE}/brif"))
        except FileNotFoundError:
            return
        if new := sorted(ports - self._done):
            commands = "".join(f"link set dev {port} hairpin on\n" for port in new)
            try:
                run_tool("bridge", "-force", "-batch", "-", text=commands)
            except CommandFailed:
                pass  # a container that ends takes its port along; the others are done
            except DrayError:
                return  # the next write tries again; the look at the machine says what is amiss
        self._done = ports


def _carry_out_kind(kind: StepKind, commands: list[str], chain: str) -> None:
    if kind is StepKind.MODULE:
        for module in commands:
            run_tool("modprobe", module)
    elif kind is StepKind.IP:
        # One that fails, such as an interface that has gone meanwhile, does not stop the others.
        run_tool("ip", "-force", "-batch", "-", text="\n".join(commands) + "\n")
    elif kind is StepKind.BRIDGE:
        run_tool("bridge", "-force", "-batch", "-", text="\n".join(commands) + "\n")
    elif kind is StepKind.SYSCTL:
        for command in commands:
            _set_sysctl(*command.split("=", 1))
    elif kind is StepKind.FORWARD_RULE:
        for rule in commands:
            run_tool(*_IPTABLES, "-I", chain, *rule.split())


def _tunnel_entries() -> tuple[dict[str, str], dict[str, str]]:
    """Return the tunnel's neighbours and its forwarding table; none while it goes away."""
    with contextlib.suppress(CommandFailed):
        shown = run_tool("ip", "-j", "-4", "neighbour", "show", "nud", "permanent", "dev", TUNNEL)
        return parse_neighbours(shown), parse_ends(
            run_tool("bridge", "-j", "fdb", "show", "dev", TUNNEL)
        )
    return {}, {}


def _sysctls(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in names:
        with contextlib.suppress(OSError):
            yield name, _sysctl_path(name).read_text().strip()


def _sysctl_path(name: str) -> Path:
    return _SYSCTL_FOLDER / name.replace(".", "/")


def _set_sysctl(name: str, value: str) -> None:
    try:
        _sysctl_path(name).write_text(value)
    except OSError as error:
        raise CommandFailed(f"kernel setting {name}: {error.strerror}") from error


def _forward_rules() -> tuple[str, tuple[str, ...]]:
    """Return the chain in which rules for forwarded packets belong, and what it holds."""
    for chain in FORWARD_CHAINS[:-1]:
        with contextlib.suppress(CommandFailed):
            return chain, _rules(chain)
    return FORWARD_CHAINS[-1], _rules(FORWARD_CHAINS[-1])


def _rules(chain: str) -> tuple[str, ...]:
    printed = run_tool(*_IPTABLES, "-S", chain).splitlines()
    return tuple(line.strip() for line in printed if line.startswith("-A "))
