"""Does the library that comes with `nft` do what the tool does? In a network of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dray.errors import FailedPrecondition
from node.network import nft
from node.network.changes import NetworkChanges
from node.network.commands import CommandFailed
from node.network.firewall import Firewall
from node.network.nft import Nft
from node.network.tables import Entry, Tables
from tests.lab.inside import CLONE_NEWNET, unshare
from tests.unit.node.network.builders import LAYOUT

TABLE = "table ip mine { set held { type ipv4_addr; }; }"


@pytest.fixture
def inside() -> Iterator[ThreadPoolExecutor]:
    """Yield a thread with a network of its own."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(unshare, CLONE_NEWNET).result()
        yield thread


def test_a_transaction_that_fails_changes_nothing(inside: ThreadPoolExecutor) -> None:
    """What nftables says is told, and the connection goes on; a listing has elements or not."""

    def do() -> None:
        kernel = Nft()
        kernel.carry_out(TABLE)
        kernel.carry_out("add element ip mine held { 192.0.2.1 }")
        with pytest.raises(CommandFailed, match="No such file or directory"):
            kernel.carry_out(
                "add element ip mine held { 192.0.2.2 }\n"
                "delete element ip mine held { 192.0.2.3 }\n"
            )
        with pytest.raises(CommandFailed, match="syntax error"):
            kernel.carry_out("add nonsense")
        assert "elements = { 192.0.2.1 }" in kernel.listed("list table ip mine")
        assert "elements" not in kernel.listed("list ruleset ip", with_elements=False)
        assert "set held" in kernel.listed("list ruleset ip", with_elements=False)

    inside.submit(do).result()


def test_what_others_did_meanwhile_is_seen(inside: ThreadPoolExecutor) -> None:
    """Somebody else deletes the table and makes it anew: nobody goes by what it was."""

    def do() -> None:
        first, second = Nft(), Nft()
        first.carry_out(TABLE)
        first.carry_out("add element ip mine held { 192.0.2.1 }")
        second.carry_out("delete table ip mine")
        with pytest.raises(CommandFailed, match="No such file or directory"):
            first.carry_out("add element ip mine held { 192.0.2.2 }")
        second.carry_out(TABLE)
        first.carry_out("add element ip mine held { 192.0.2.3 }")
        assert "elements = { 192.0.2.3 }" in second.listed("list table ip mine")

    inside.submit(do).result()


def test_a_table_is_written_changed_and_found_whole(inside: ThreadPoolExecutor) -> None:
    """A changed element leaves it whole; without a chain's rules it is not; a new one is."""

    def do() -> None:
        firewall, tables = Firewall(), Tables(LAYOUT)
        assert not firewall.exists()
        firewall.rebuild(tables)
        tables.put("peers", {Entry("peers", "192.0.2.1"): "", Entry("known", "10.192.4.1"): ""})
        firewall.update(tables)
        assert firewall.is_whole()
        assert firewall.guarded_peers() == {"192.0.2.1"}
        Nft().carry_out("flush chain ip dray forward")
        assert not firewall.is_whole()
        firewall.rebuild(tables)
        assert firewall.is_whole()
        assert "10.192.4.1" in firewall.listing()

    inside.submit(do).result()


def test_own_changes_wake_nobody(inside: ThreadPoolExecutor) -> None:
    """What this process does to nftables is nothing to look at; what another one does is."""

    async def watch(kernel: Nft) -> None:
        with NetworkChanges(kernel.is_own) as changes:
            kernel.carry_out("add element ip mine held { 192.0.2.1 }")
            for _ in range(5):  # what was told is read in the next turn of the loop
                await asyncio.sleep(0)
            assert not changes.are_there
            other = await asyncio.create_subprocess_exec("nft", "flush set ip mine held")
            async with asyncio.timeout(10):
                assert await other.wait() == 0
                while not changes.are_there:
                    await asyncio.sleep(0)

    def do() -> None:
        kernel = Nft()
        kernel.carry_out(TABLE)
        asyncio.run(watch(kernel))

    inside.submit(do).result()


def test_a_machine_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal names the package."""
    monkeypatch.setattr(nft, "_LIBRARY", "libnftables.so.none")
    nft._library.cache_clear()
    try:
        with pytest.raises(FailedPrecondition) as refused:
            Nft().listed("list ruleset")
        assert "nftables" in refused.value.hint
    finally:
        nft._library.cache_clear()
