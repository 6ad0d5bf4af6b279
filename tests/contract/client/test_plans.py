"""Is it told what would happen, without anything happening, and why something does not?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from dray.client import Client, Write
from dray.errors import InvalidRequest
from dray.model import AttemptReport, AttemptState, Availability
from dray.views import (
    ChangeKind,
    ExplainServiceResponse,
    LogLine,
    LogLines,
    PlannedActionKind,
    RebalanceGoal,
    RolloutState,
    SlotState,
)
from scheduler.store import keys
from scheduler.store.base import Put
from scheduler.store.codec import encode
from scheduler.store.records import RolloutVerdict
from tests.builders import a_key, a_service, a_slot, a_task, node_id, reserving, task_id
from tests.contract.client.rig import cluster, project_of, running, with_nodes

DRY = Write(dry_run=True)


async def test_a_dry_run_tells_nodes_and_changes_nothing() -> None:
    """Every task that would be made is told with its node; the store stays as it is."""
    async with cluster(2) as made, made.client(made.schedulers[1]) as client:
        await with_nodes(made, 2)
        before = (await made.writer.status()).revision
        reply = await client.apply_project(project_of(a_service("web", replicas=2)), DRY)
        assert [each.kind for each in reply.services] == [ChangeKind.CREATED]
        assert [each.kind for each in reply.actions] == [PlannedActionKind.CREATE] * 2
        assert {each.to_node for each in reply.actions} == {"n1", "n2"}
        assert all(each.reason for each in reply.actions)
        assert (await client.list_projects()).projects == ()
        assert (await made.writer.status()).revision == before


async def test_a_dry_run_tells_what_has_no_room() -> None:
    """What does not fit is told with the counts of nodes and the smallest change."""
    async with cluster() as made, made.client() as client:
        await with_nodes(made, 2)
        big = a_service("web", reservations=reserving(memory_gib=64))
        reply = await client.apply_project(project_of(big), DRY)
        (pending,) = reply.unplaced
        assert pending.slots == (a_slot(1),)
        assert [(each.reason, each.nodes) for each in pending.refusals] == [("memory", 2)]
        assert "all 2 nodes" in pending.summary
        assert pending.smallest_change


async def test_a_drain_tells_what_it_would_move() -> None:
    """The tasks of a node that is to be drained are told before it is done."""
    async with cluster() as made, made.client() as client:
        await with_nodes(made, 2)
        await client.apply_project(project_of(a_service("web")))
        await made.assign({1: [a_task(1)]})
        made.report(running(a_task(1)))
        made.lead()
        reply = await client.update_node("n1", DRY, availability=Availability.DRAIN)
        assert reply.node is not None
        assert reply.node.record.availability is Availability.DRAIN
        (action,) = reply.actions
        assert (action.kind, action.from_node, action.to_node) == (
            PlannedActionKind.MOVE,
            "n1",
            "n2",
        )
        after = (await client.get_node("n1")).node
        assert after is not None
        assert after.record.availability is Availability.ACTIVE


async def test_without_a_leader_a_dry_run_says_so() -> None:
    """The changes are told, the plan is not, and a warning says why."""
    async with cluster(leads=False) as made, made.client() as client:
        reply = await client.apply_project(project_of(a_service("web")), DRY)
        assert [each.kind for each in reply.services] == [ChangeKind.CREATED]
        assert reply.actions == ()
        assert "no leader" in reply.header.warnings[0]


async def explained(client: Client) -> ExplainServiceResponse:
    """Return why shop/web is as it is."""
    return await client.explain_service("shop", "web")


async def test_what_is_pending_is_explained_node_by_node() -> None:
    """Each node says with numbers what it lacks; an unready one says that."""
    async with cluster() as made, made.client() as client:
        await with_nodes(made, 2)
        await client.update_node("n2", availability=Availability.PAUSE)
        big = a_service("web", reservations=reserving(memory_gib=64))
        await client.apply_project(project_of(big))
        reply = await explained(client)
        (pending,) = reply.pending
        by_node = {refusal.node: refusal.reasons for refusal in pending.nodes}
        assert by_node["n1"] == ("memory: asks 64GiB, free 8GiB of 8GiB",)
        assert "not ready" in by_node["n2"]
        assert pending.smallest_change


async def test_what_restarts_is_explained_with_its_last_words() -> None:
    """A task that does not stay up is told with its attempt and its last lines."""
    async with cluster() as made, made.client() as client:
        await with_nodes(made, 1)
        await client.apply_project(project_of(a_service("web")))
        await made.assign({1: [a_task(1)]})
        report = AttemptReport(
            task_id(1), 3, AttemptState.FAILED, exit_code=7, restarts=2, reason="exit code 7"
        )
        made.report(report)
        before = AttemptReport(task_id(1), 2, AttemptState.FAILED, exit_code=1)
        made.lead(earlier={task_id(1): (before,)})
        line = LogLine(task_id(1), a_slot(1), 3, 5, line=b"no such file")
        made.first.relays.scripts[node_id(1)] = [LogLines((line,))]
        reply = await explained(client)
        (restarting,) = reply.restarting
        assert (restarting.node, restarting.attempts) == ("n1", (report, before))
        assert restarting.log_lines == (line,)
        del made.first.relays.scripts[node_id(1)]
        (quiet,) = (await explained(client)).restarting
        assert quiet.log_lines == ()
        assert reply.service is not None
        assert reply.service.slots[0].state is SlotState.FAILED


async def test_a_rollout_is_told_with_how_far_it_is() -> None:
    """The stored verdict and the tasks that are there give its state and its counts."""
    async with cluster() as made, made.client() as client:
        await with_nodes(made, 1)
        await client.apply_project(project_of(a_service("web", replicas=2)))
        await client.apply_project(project_of(a_service("web", replicas=2, image="web:2")))
        old, new = a_task(1, a_slot(1)), a_task(2, a_slot(2), revision=2)
        await made.assign({1: [old, new]})
        made.report(running(old), running(new))
        made.lead()
        verdict = RolloutVerdict(a_key(), RolloutState.RUNNING, 1, 2, 5.0)  # type: ignore[arg-type]
        await made.write(Put(keys.rollout_key(a_key()), encode(verdict)))
        service = (await client.get_service("shop", "web")).service
        assert service is not None
        rollout = service.rollout
        assert rollout is not None
        assert (rollout.state, rollout.updated, rollout.total) == (RolloutState.RUNNING, 1, 2)
        assert not service.is_converged


async def test_old_revisions_are_dropped_but_those_in_use_stay() -> None:
    """As many revisions are kept as the cluster says, and what a task runs, however old."""
    async with cluster() as made, made.client() as client:
        limits = replace(made.first.mirror.snapshot.cluster.limits, revisions_max=3)
        record = replace(made.first.mirror.snapshot.cluster, limits=limits)
        await made.write(Put(keys.CLUSTER, encode(record)))
        await with_nodes(made, 1)
        await client.apply_project(project_of(a_service("web")))
        await made.assign({1: [a_task(1)]})
        for number in range(2, 7):
            await client.scale_services("shop", {"web": number})
        history = await client.list_revisions("shop", "web")
        assert [each.revision for each in history.revisions] == [6, 5, 4, 1]


async def test_a_rebalance_is_planned_and_not_made() -> None:
    """The moves that empty a node are told with their slots; too many are refused."""
    async with cluster() as made, made.client() as client:
        await with_nodes(made, 2)
        spec = a_service("web", replicas=3, reservations=reserving(cpus=0.5, memory_gib=0.5))
        await client.apply_project(project_of(spec, a_service("db")))
        tasks = [a_task(number, a_slot(number)) for number in range(1, 4)]
        await made.assign({1: [*tasks], 2: [a_task(9, a_slot(1, "db"))]})
        made.report(*map(running, tasks), running(a_task(9, a_slot(1, "db"))))
        made.lead()
        plan = await client.plan_rebalance(RebalanceGoal.COMPACT)
        assert plan.freed_nodes == ("n2",)
        (move,) = plan.moves
        assert (move.slot, move.from_node, move.to_node) == (a_slot(1, "db"), "n2", "n1")
        even = await client.plan_rebalance(RebalanceGoal.EVEN, 1)
        assert all(each.from_node == "n1" for each in even.moves)
        with pytest.raises(InvalidRequest, match="moves_max"):
            await client.plan_rebalance(RebalanceGoal.EVEN, 0)
