"""How do dray's nftables table and the kernel's connection tracking get what they should hold?

The methods block: the daemon calls them in a thread, one at a time.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from node.network.commands import CommandFailed, run_tool
from node.network.nft import Nft
from node.network.observed import set_elements, table_chains
from node.network.ruleset import SKELETON_CHAINS, TABLE
from node.network.tables import Tables

__all__ = ["FLOWS_PER_CALL_MAX", "Firewall", "open_connections"]

FLOWS_PER_CALL_MAX: Final = 500  # addresses whose connections one call of conntrack ends


class Firewall:
    """Writes dray's table; knows what its chains looked like when they were written last."""

    def __init__(self) -> None:
        """Know of nothing that was written."""
        self._nft = Nft()
        self._chains: dict[str, str] = {}

    def is_own(self, port: int) -> bool:
        """Return whether it was this process that changed nftables; see `Nft.is_own`."""
        return self._nft.is_own(port)

    def exists(self) -> bool:
        """Return whether there is a table of dray's, whoever wrote it."""
        return bool(self._listed())

    def listing(self) -> str:
        """Return the whole table as it is, with its elements; empty without one.

        Raises:
            DrayError: The library is missing.
        """
        return self._nft.listed(f"list table ip {TABLE}") if self.exists() else ""

    def chain_names(self) -> frozenset[str]:
        """Return the chains of the table that is there; none without one."""
        return frozenset(self._listed())

    def guarded_peers(self) -> frozenset[str]:
        """Return the nodes whose packets the table lets into the tunnel; none without one."""
        if not self.exists():
            return frozenset()
        return set_elements(self._nft.listed(f"list set ip {TABLE} peers"))

    def is_whole(self) -> bool:
        """Return whether the chains are those that were written last."""
        if not self._chains:
            return False
        found = self._listed()
        return all(found.get(name) == rules for name, rules in self._chains.items())

    def rebuild(self, tables: Tables) -> None:
        """Replace the whole table, in one transaction.

        Raises:
            DrayError: It was not replaced; what was there stands.
        """
        self._nft.carry_out(tables.rebuild_text())
        tables.written()
        if rest := tables.change_text():
            self._nft.carry_out(rest)
            tables.written()
        self._chains = {
            name: rules for name, rules in self._listed().items() if name in SKELETON_CHAINS
        }

    def update(self, tables: Tables) -> None:
        """Write what changed; a table that is not what it should be is replaced.

        Raises:
            DrayError: Neither was possible.
        """
        change = tables.change_text()
        if not change:
            tables.written()
            return
        try:
            self._nft.carry_out(change)
        except CommandFailed:
            self.rebuild(tables)
        else:
            tables.written()

    def end_flows(self, addresses: Collection[str]) -> None:
        """End all connections to these addresses, so that clients notice and connect anew.

        Call it after the table no longer leads to them.

        Raises:
            DrayError: Not all were ended.
        """
        self._forget([f"-D -r {address}" for address in sorted(addresses)])

    def end_datagram_flows(self, ports: Collection[int]) -> None:
        """Forget who sent datagrams to these ports of the node before anybody served them.

        Without it the kernel goes on delivering them to the node itself while the client sends.
        """
        self._forget([f"-D -p udp --orig-port-dst {port}" for port in sorted(ports)])

    def _forget(self, commands: list[str]) -> None:
        for at in range(0, len(commands), FLOWS_PER_CALL_MAX):
            lines = commands[at : at + FLOWS_PER_CALL_MAX]
            run_tool("conntrack", "-R", "/dev/stdin", text="\n".join(lines) + "\n")

    def _listed(self) -> dict[str, str]:
        """Return the rules of every chain of the table; nothing without a table.

        All tables are listed because nft reads no elements then; for one table it reads them all,
        which takes ten times as long.
        """
        listing = self._nft.listed("list ruleset ip", with_elements=False)
        return table_chains(listing, f"ip {TABLE}")


def open_connections(address: str) -> int:
    """Return how many TCP connections are open to a container of this node, however they came.

    Raises:
        DrayError: The kernel was not asked.
    """
    wanted = ("--proto", "tcp", "--state", "ESTABLISHED", "--reply-src", address)
    return len(run_tool("conntrack", "-L", *wanted).splitlines())
