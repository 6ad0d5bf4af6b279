"""Do logs, commands, copies and watches pass between a user and a node as they should?"""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from dray.addresses import HostPort
from dray.client import Client, SyncClient
from dray.errors import (
    DrayError,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    NotLeader,
    PermissionDenied,
    Unavailable,
)
from dray.views import (
    CopyOptions,
    DnsAnswer,
    DnsQuery,
    ExecInput,
    ExecOutput,
    ExecStart,
    GossipMember,
    LogLine,
    LogLines,
    LogPosition,
    LogQuery,
    MembersAnswer,
    TaskTarget,
    WatchKind,
    WatchResponse,
)
from scheduler.api.ports import CopyFrom, CopyInto, MembersQuery
from tests.builders import a_service, a_slot, a_task, node_id, task_id
from tests.contract.client.rig import (
    DEADLINE_S,
    LIMITS,
    Cluster,
    FakeRelays,
    cluster,
    project_of,
    running,
    with_nodes,
)

WEB = TaskTarget(project="shop", service="web")


async def two_running(made: Cluster, client: Client) -> FakeRelays:
    """Let web.1 run on n1 and web.2 on n2; return the leader's relays."""
    await with_nodes(made, 2)
    await client.apply_project(project_of(a_service("web", replicas=2)))
    await made.assign({1: [a_task(1, a_slot(1))], 2: [a_task(2, a_slot(2))]})
    made.report(running(a_task(1)), running(a_task(2)))
    made.lead()
    return made.first.relays


def lines(number: int, *times: int) -> LogLines:
    """Return lines of a task, written at these times."""
    return LogLines(
        tuple(
            LogLine(task_id(number), a_slot(number), 1, time, line=f"{number}@{time}".encode())
            for time in times
        )
    )


async def texts(client: Client, query: LogQuery) -> tuple[list[str], list[str]]:
    """Return the lines and the notices of a query that ends."""
    found, notices = [], []
    async for reply in client.stream_logs(query):
        found += [line.line.decode() for line in reply.lines]
        notices += [notice.message for notice in reply.notices]
    return found, notices


@pytest.mark.parametrize("asked", [0, 1], ids=["leader", "other"])
async def test_logs_of_many_nodes_are_merged_by_time(asked: int) -> None:
    """Lines come in time order, by way of any scheduler; a lost node is a notice."""
    async with cluster(2) as made, made.client(made.schedulers[asked]) as client:
        relays = await two_running(made, client)
        relays.scripts[node_id(1)] = [lines(1, 10, 30), lines(1, 50)]
        relays.scripts[node_id(2)] = [lines(2, 20), Unavailable("it broke")]
        found, notices = await texts(client, LogQuery("shop", ("web",)))
        assert found == ["1@10", "2@20", "1@30", "1@50"]
        assert notices == ["lines of node n2 are missing: it broke"]
        with pytest.raises(DrayError, match="no project"):
            await texts(client, LogQuery("no"))
        with pytest.raises(InvalidRequest, match="one service"):
            await texts(client, LogQuery("shop", slots=(1,)))


async def test_followed_logs_take_in_nodes_that_come_later() -> None:
    """A task that is placed on another node while logs are followed is heard as well."""
    async with cluster() as made, made.client() as client:
        relays = await two_running(made, client)
        relays.scripts = {node_id(1): [lines(1, 10)], node_id(2): [lines(2, 20)]}
        await made.assign({2: []})
        found: list[bytes] = []
        async with asyncio.timeout(DEADLINE_S), aclosing(_followed(client)) as replies:
            async for line in replies:
                found.append(line.line)
                if len(found) == 1:
                    await made.assign({2: [a_task(2, a_slot(2))]})
                if found[-1] == b"2@20":
                    break
        assert found == [b"1@10", b"2@20"]


async def test_followed_logs_go_on_after_a_node_was_away() -> None:
    """A lost node is asked again for what is left, until it answers; once its user is told."""
    async with cluster() as made, made.client() as client:
        relays = await two_running(made, client)
        relays.scripts = {
            node_id(1): [lines(1, 10, 20, 20), Unavailable("it broke")],
            node_id(2): [lines(2, 20)],
        }
        notices: list[str] = []
        found: list[str] = []
        query = LogQuery("shop", tail=5, follow=True)
        async with asyncio.timeout(DEADLINE_S), aclosing(client.stream_logs(query)) as replies:
            async for reply in replies:
                found += [line.line.decode() for line in reply.lines]
                notices += [notice.message for notice in reply.notices]
                if notices and len(found) == 4:
                    del relays.scripts[node_id(1)]
                    asked = len(relays.opened)
                    while len(relays.opened) < asked + 2:
                        await asyncio.sleep(0)
                    relays.scripts[node_id(1)] = [lines(1, 30)]
                if "1@30" in found:
                    break
        assert sorted(found) == ["1@10", "1@20", "1@20", "1@30", "2@20"]
        assert notices == ["lines of node n1 come when it is back: it broke"]
        asked_again = [query for node, query in relays.opened if node == node_id(1)][1:]
        rest = replace(query, tail=None, read_to=(LogPosition(task_id(1), 1, 20, 2),))
        assert asked_again == [rest] * len(asked_again)


async def _followed(client: Client) -> AsyncGenerator[LogLine, None]:
    async for reply in client.stream_logs(LogQuery("shop", follow=True)):
        for line in reply.lines:
            yield line


@pytest.mark.parametrize("asked", [0, 1], ids=["leader", "other"])
async def test_a_command_runs_in_the_slot_that_is_named(asked: int) -> None:
    """Input reaches the node, output and exit code the user, by way of any scheduler."""
    async with cluster(2) as made, made.client(made.schedulers[asked]) as client:
        relays = await two_running(made, client)
        relays.scripts[node_id(2)] = [
            ExecOutput(started=True),
            ExecOutput(stdout=b"hello"),
            ExecOutput(exit_code=3),
        ]
        start = ExecStart(replace(WEB, slot=2), ("sh",), stdin=True)
        async with client.exec(start) as session:
            await session.send(ExecInput(stdin=b"exit 3"))
            outputs = [output async for output in session.output()]
        assert outputs == relays.scripts[node_id(2)]
        (opened,) = relays.opened
        assert opened == (node_id(2), replace(start, target=TaskTarget(task_id(2))))


async def test_streams_begin_at_a_scheduler_that_answers() -> None:
    """The first one named is dead: logs, commands and copies go to the next; none is an error."""
    nobody = HostPort("127.0.0.1", 1)
    async with cluster() as made:
        addresses = [nobody, made.first.address]
        async with made.client() as client:
            relays = await two_running(made, client)
        relays.scripts = {node_id(1): [lines(1, 10)], node_id(2): [lines(2, 20)]}
        async with Client(addresses, limits=LIMITS) as client:
            assert await texts(client, LogQuery("shop", ("web",))) == (["1@10", "2@20"], [])
        relays.scripts[node_id(1)] = [ExecOutput(exit_code=3)]
        async with (
            Client(addresses, limits=LIMITS) as client,
            client.exec(ExecStart(WEB, ("ls",))) as session,
        ):
            assert [output.exit_code async for output in session.output()] == [3]
    async with Client([nobody], limits=LIMITS) as client:
        with pytest.raises(Unavailable, match="no scheduler answers at 127"):
            await texts(client, LogQuery("shop", ("web",)))
        with pytest.raises(Unavailable, match="no scheduler answers at 127"):
            async with client.exec(ExecStart(WEB, ("ls",))):
                pass


async def test_a_command_that_cannot_run_says_why() -> None:
    """No command, no such slot, a slot that does not run, and a node's refusal."""
    async with cluster() as made, made.client() as client:
        relays = await two_running(made, client)
        await client.scale_services("shop", {"web": 3})

        async def run(start: ExecStart) -> None:
            async with client.exec(start) as session:
                async for _ in session.output():
                    pass

        async def refusal(start: ExecStart) -> DrayError:
            with pytest.raises(DrayError) as caught:
                await run(start)
            return caught.value

        assert isinstance(await refusal(ExecStart(WEB)), InvalidRequest)
        assert "no task" in (await refusal(ExecStart(replace(WEB, slot=3), ("ls",)))).message
        made.observed = replace(made.observed, attempts={})
        made.lead()
        assert isinstance(await refusal(ExecStart(WEB, ("ls",))), FailedPrecondition)
        made.report(running(a_task(1)))
        made.lead()
        relays.scripts[node_id(1)] = [PermissionDenied("not here")]
        assert isinstance(await refusal(ExecStart(WEB, ("ls",))), PermissionDenied)
        made.lead_nobody()
        assert isinstance(await refusal(ExecStart(WEB, ("ls",))), NotLeader)


async def pieces(*archive: bytes) -> AsyncIterator[bytes]:
    """Yield pieces of an archive."""
    for piece in archive:
        yield piece


@pytest.mark.parametrize("asked", [0, 1], ids=["leader", "other"])
async def test_archives_are_copied_both_ways(asked: int) -> None:
    """Pieces arrive whole and in order; large ones are cut to what the contract allows."""
    async with cluster(2) as made, made.client(made.schedulers[asked]) as client:
        relays = await two_running(made, client)
        relays.scripts[node_id(1)] = []
        archive = b"x" * (tarfile.BLOCKSIZE * 300)
        options = CopyOptions(WEB, "/data")
        reply = await client.copy_to_task(options, pieces(archive, b"end"))
        assert reply.copied_bytes == len(archive) + 3
        assert b"".join(each for each in relays.relays[0].inputs if isinstance(each, bytes)) == (
            archive + b"end"
        )
        assert relays.relays[0].is_input_ended.is_set()
        relays.scripts[node_id(1)] = [b"one", b"two"]
        assert [piece async for piece in client.copy_from_task(options)] == [b"one", b"two"]
        assert [type(purpose) for _, purpose in relays.opened] == [CopyInto, CopyFrom]
        with pytest.raises(InvalidRequest, match="absolute"):
            await client.copy_to_task(CopyOptions(WEB, "data"), pieces(b"x"))
        relays.scripts[node_id(1)] = [NotFound("there is no /data in the container")]
        with pytest.raises(NotFound, match="no /data"):
            await client.copy_to_task(options, pieces(b"x"))
        relays.scripts[node_id(1)] = [b"one", Unavailable("it broke")]
        with pytest.raises(Unavailable, match="it broke"):
            _ = [piece async for piece in client.copy_from_task(options)]


async def test_a_node_is_asked_for_its_members_and_names() -> None:
    """What one node sees of gossip and answers in DNS is passed on."""
    async with cluster(2) as made, made.client(made.schedulers[1]) as client:
        relays = await two_running(made, client)
        members = [GossipMember(node_id(2), "n2"), GossipMember(node_id(1), "n1")]
        relays.scripts[node_id(1)] = [MembersAnswer((each,)) for each in members]
        reply = await client.list_members("n1")
        assert [member.name for member in reply.members] == ["n1", "n2"]
        answer = DnsAnswer("web.shop.dray.internal.", "NOERROR", ("10.224.0.1",))
        relays.scripts[node_id(1)] = [answer]
        explained = await client.explain_dns(DnsQuery("web.shop"))
        assert (explained.node, explained.answer) == ("n1", answer)
        assert relays.opened[0][1] == MembersQuery()
        with pytest.raises(InvalidRequest):
            await client.explain_dns(DnsQuery(""))
        with pytest.raises(Unavailable):
            await client.list_members("n2")


async def until_complete(replies: AsyncIterator[WatchResponse]) -> list[WatchResponse]:
    """Return the replies of a watch up to the one that says that all was sent."""
    found = []
    async for reply in replies:
        found.append(reply)
        if reply.is_complete:
            return found
    raise AssertionError("the watch ended")


@pytest.mark.parametrize("asked", [0, 1], ids=["leader", "other"])
async def test_a_watch_shows_what_is_and_every_change(asked: int) -> None:
    """All objects come first, then each that changes, then the end of one that goes."""
    async with cluster(2) as made, made.client(made.schedulers[asked]) as client:
        await two_running(made, client)
        kinds = [WatchKind.TASK, WatchKind.SERVICE, WatchKind.NODE]
        async with asyncio.timeout(DEADLINE_S), aclosing(client.watch(kinds)) as replies:
            first = [change for reply in await until_complete(replies) for change in reply.changes]
            assert len([each for each in first if each.task]) == 2
            assert len([each for each in first if each.node]) == 2
            await client.scale_services("shop", {"web": 1})
            await made.assign({2: []})
            gone = None
            async for reply in replies:
                gone = next((each for each in reply.changes if each.is_deleted), None)
                if gone is not None:
                    break
            assert gone is not None
            assert gone.task is not None
            assert gone.task.slot == a_slot(2)


async def test_a_watch_goes_on_with_another_leader() -> None:
    """It resumes by itself; what was missed meanwhile makes the client forget what it knew."""
    async with cluster() as made, made.client() as client:
        await two_running(made, client)
        async with asyncio.timeout(DEADLINE_S):
            replies = client.watch([WatchKind.TASK])
            await until_complete(replies)
            made.lead_nobody()
            again = await until_complete(replies)
            assert not any(reply.is_reset for reply in again), "nothing was written"
            assert not again[-1].header.is_observed
            made.lead()
            await made.assign({1: []})
            third = await until_complete(replies)
            assert any(reply.is_reset for reply in third)
            assert third[-1].header.is_observed
            await replies.aclose()


async def test_the_synchronous_client_does_the_same() -> None:
    """Calls, lists, streams and commands work without an event loop of one's own."""
    async with cluster() as made, made.client() as client:
        relays = await two_running(made, client)
        relays.scripts[node_id(1)] = [ExecOutput(stdout=b"hi"), ExecOutput(exit_code=0)]
        address = made.first.address

        def use() -> list[ExecOutput]:
            with SyncClient([address], limits=LIMITS) as plain:
                assert len(plain.list_tasks("shop").tasks) == 2
                plain.scale_services("shop", {"web": 1})
                with pytest.raises(DrayError, match="no project"):
                    plain.get_project("no")
                watch = plain.watch([WatchKind.PROJECT])
                assert next(watch).changes
                watch.close()  # type: ignore[attr-defined]
                with plain.exec(ExecStart(WEB, ("ls",))) as session:
                    return list(session.output())

        assert await asyncio.to_thread(use) == relays.scripts[node_id(1)]
