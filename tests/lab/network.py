"""How are the hosts wired together, and how is a wire cut?

The switch is a network namespace with one bridge; each host has one veth pair, whose outer end `pN`
is a port of that bridge. Cuts are frames dropped in the switch, by port: a host's own firewall
neither sees nor undoes them, and tunnels between hosts are cut like everything else.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network

from tests.lab.errors import LabError
from tests.lab.process import program_environment

LABS_RANGE = IPv4Network("10.77.0.0/16")
LABS_MAX = 256
HOSTS_MAX = 200
HOST_OFFSET = 10  # host 1 is .11; .1 is the switch
TOOL_TIMEOUT_S = 20.0


class Direction(Enum):
    """Which way frames are dropped, as seen from the host that is cut."""

    BOTH = "both"
    IN = "in"
    OUT = "out"


def subnet(number: int) -> IPv4Network:
    """Return the subnet of the lab with this number (0 to LABS_MAX - 1)."""
    return IPv4Network((int(LABS_RANGE.network_address) + number * 256, 24))


def switch_address(number: int) -> IPv4Address:
    """Return the address of a lab's switch."""
    return subnet(number)[1]


def host_address(number: int, index: int) -> IPv4Address:
    """Return the address of a lab's host (index from 1)."""
    return subnet(number)[HOST_OFFSET + index]


def hardware_address(number: int, index: int) -> str:
    """Return the hardware address of a host: the same at every boot, as peers cache it."""
    return f"02:64:6c:{number:02x}:00:{index:02x}"


def port(index: int) -> str:
    """Return the name of a host's port of the switch."""
    return f"p{index}"


@dataclass(frozen=True, slots=True)
class Cuts:
    """Every cut in force. Hosts are indexes from 1.

    Attributes:
        one_way: (sender, receiver) pairs whose frames are dropped; 0 stands for everyone.
        dark: Hosts without power: nothing passes, whatever the other fields say.
    """

    one_way: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    dark: frozenset[int] = field(default_factory=frozenset)

    def cut(self, index: int, direction: Direction, peers: Sequence[int] | None) -> "Cuts":
        """Return these cuts and those between a host and its peers (None: the switch too)."""
        added: set[tuple[int, int]] = set()
        for peer in (0,) if peers is None else peers:
            if direction in (Direction.BOTH, Direction.OUT):
                added.add((index, peer))
            if direction in (Direction.BOTH, Direction.IN):
                added.add((peer, index))
        return Cuts(self.one_way | added, self.dark)

    def heal(self, index: int) -> "Cuts":
        """Return these cuts without any that one host has a part in."""
        return Cuts(frozenset(pair for pair in self.one_way if index not in pair), self.dark)

    def power(self, index: int, *, on: bool) -> "Cuts":
        """Return these cuts with one host's power switched."""
        return Cuts(self.one_way, self.dark - {index} if on else self.dark | {index})

    def of(self, index: int) -> list[str]:
        """Return the cuts of one host in words."""
        words = []
        for direction, pairs in (
            ("out", [p[1] for p in self.one_way if p[0] == index]),
            ("in", [p[0] for p in self.one_way if p[1] == index]),
        ):
            if 0 in pairs:
                words.append(f"{direction}: all")
            elif pairs:
                words.append(f"{direction}: " + " ".join(map(str, sorted(pairs))))
        return words


def cut_rules(cuts: Cuts) -> str:
    """Return the nft text that makes exactly these cuts hold, in one transaction.

    One way, address resolution still passes: a filtering router or a broken uplink leaves it alone,
    and without it the open direction would close too as soon as the neighbour entry has aged. Both
    ways, nothing passes.
    """
    lines = ["table bridge lab", "delete table bridge lab", "table bridge lab {"]
    chains = {
        "forward": ("iifname", "oifname"),
        "input": ("iifname", None),
        "output": (None, "oifname"),
    }
    for hook, (source_key, target_key) in chains.items():
        lines.append(f"chain {hook} {{ type filter hook {hook} priority 0; policy accept;")
        for index in sorted(cuts.dark):
            lines += [f'{key} "{port(index)}" drop' for key in (source_key, target_key) if key]
        for sender, receiver in sorted(cuts.one_way):
            matches = []
            for key, index in ((source_key, sender), (target_key, receiver)):
                if index:
                    matches.append(f'{key} "{port(index)}"' if key else None)
            if (
                None in matches
            ):  # a pair of hosts: only forwarding sees both; one host: only this hook's side
                continue
            spared = "" if (receiver, sender) in cuts.one_way else "ether type != arp "
            lines.append(f"{' '.join(filter(None, matches))} {spared}drop")
        lines.append("}")
    lines.append("}")
    return "\n".join(lines) + "\n"


def tool(pid: int, argv: Sequence[str], text: str | None = None) -> str:
    """Run a network tool of the machine in the network namespace of a process."""
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", *argv]
    result = subprocess.run(
        command,
        input=text if text is not None else "",
        capture_output=True,
        text=True,
        check=False,
        timeout=TOOL_TIMEOUT_S,
        env=program_environment(),
    )
    if result.returncode:
        raise LabError(f"{' '.join(argv)}: {result.stderr.strip()}\n{text or ''}".strip())
    return result.stdout


class Switch:
    """The switch of one lab, through the process that holds its network namespace."""

    def __init__(self, pid: int, number: int) -> None:
        """Take over the namespace of process `pid` as the switch of lab `number`."""
        self.pid = pid
        self.number = number

    def set_up(self) -> None:
        """Create the bridge with the switch's address."""
        commands = [
            "link set lo up",
            "link add br0 type bridge forward_delay 0",
            f"addr add {switch_address(self.number)}/24 dev br0",
            "link set br0 up",
        ]
        tool(self.pid, ["ip", "-batch", "-"], "\n".join(commands) + "\n")

    def plug(self, index: int, host_pid: int) -> None:
        """Wire a host's fresh network namespace to its port; give it its address and route."""
        end = port(index)
        self.unplug(index)
        commands = [
            f"link add {end} type veth peer name eth0 "
            f"address {hardware_address(self.number, index)} netns {host_pid}",
            f"link set {end} master br0 up",
        ]
        tool(self.pid, ["ip", "-batch", "-"], "\n".join(commands) + "\n")
        inside = [
            "link set lo up",
            f"addr add {host_address(self.number, index)}/24 brd + dev eth0",
            "link set eth0 up",
            # Engines want one; nothing is forwarded.
            f"route add default via {switch_address(self.number)}",
        ]
        tool(host_pid, ["ip", "-batch", "-"], "\n".join(inside) + "\n")

    def unplug(self, index: int) -> None:
        """Remove a host's port if it is still there.

        The kernel removes the port of a dead host by itself, some time after its last process has
        gone.
        """
        try:
            tool(self.pid, ["ip", "link", "del", port(index)])
        except LabError as err:
            # Gone before it was looked up, or between that and its removal.
            if not any(said in str(err) for said in ("Cannot find device", "No such device")):
                raise

    def apply(self, cuts: Cuts) -> None:
        """Make exactly these cuts hold."""
        tool(self.pid, ["nft", "-f", "-"], cut_rules(cuts))

    def set_link(self, index: int, *, up: bool) -> None:
        """Switch a port on or off; the host sees its carrier go and come."""
        tool(self.pid, ["ip", "link", "set", port(index), "up" if up else "down"])
