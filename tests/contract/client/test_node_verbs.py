"""Do the verbs about gossip's members show and change what the cluster's API says?"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from dray.model import MemberState, ReachKind
from dray.views import GossipMember, MembersAnswer
from tests.builders import node_id
from tests.contract.client.rig import Cluster, cluster, with_nodes


async def dray(made: Cluster, *words: str) -> tuple[int, str]:
    """Run the command line as its users do; return its status and what it said."""
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", *words),
        env={**os.environ, "DRAY_HOST": str(made.first.address)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await command.communicate()
    assert command.returncode is not None
    return command.returncode, output.decode()


async def test_members_show_what_was_seen_and_what_was_heard() -> None:
    """Life, incarnation, seen, heard, contact, round trip and flaps have a column each."""
    async with cluster() as made:
        await with_nodes(made, 2)
        made.lead()
        relays = made.first.relays
        member = GossipMember(
            node_id(2), "n2", None, 1_700_000_001, 3, MemberState.STALLED, ReachKind.ACCEPTED, 4.25,
            MemberState.SUSPECT, node_id(1), 0.0125, 2, 7.0,
        )  # fmt: skip
        relays.scripts[node_id(1)] = [MembersAnswer((member,))]
        status, table = await dray(made, "node", "members", "n1")
        assert status == 0
        head, row = table.splitlines()
        assert head.split() == [
            "MEMBER", "STATE", "SEEN", "HEARD", "CONTACT", "RTT", "LIFE", "INC", "FLAPS",
        ]  # fmt: skip
        assert row.split() == [
            "n2", "stalled", "accepted", "suspect", "4.2", "s", "12.5", "ms",
            "1700000001", "3", "2",
        ]  # fmt: skip
        relays.scripts[node_id(1)] = [MembersAnswer((member,))]
        _, text = await dray(made, "node", "members", "n1", "--format", "json")
        (plain,) = json.loads(text)
        assert (plain["since_s"], plain["heard_from"]) == (7.0, node_id(1))


async def test_a_new_key_is_told() -> None:
    """`rotate-key` says with which key gossip seals now, and which ones nodes still accept."""
    async with cluster() as made:
        told = "gossip seals with key 1; nodes still accept 0\n"
        assert await dray(made, "node", "rotate-key") == (0, told)


async def test_a_removed_node_is_not_listed() -> None:
    """`rm --force` ends a node that is ready; without it the answer says why not."""
    async with cluster() as made:
        await with_nodes(made, 2)
        made.lead()
        status, text = await dray(made, "node", "rm", "n1")
        assert status != 0
        assert "not down" in text
        assert await dray(made, "node", "rm", "n1", "--force") == (0, "node n1: removed\n")
        _, text = await dray(made, "node", "ls", "--format", "json")
        assert [each["name"] for each in json.loads(text)] == ["n2"]
