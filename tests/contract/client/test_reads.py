"""Does a reply tell what is known from what is not, whichever scheduler is asked?"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from dray.client import Client, ClientLimits, Write
from dray.clock import SystemClock
from dray.errors import (
    DrayError,
    ErrorCode,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    NotLeader,
    Unavailable,
)
from dray.model import (
    UNPUBLISHED,
    AttemptReport,
    AttemptState,
    Availability,
    Event,
    EventKind,
    EventLevel,
    Fault,
    FaultKind,
    Health,
    NodeCondition,
    ReachKind,
    ServiceMode,
    ServiceModeKind,
    ServiceRevision,
    Taint,
    UpdatePolicy,
    WitnessEvidence,
)
from dray.names import ClusterId, SchedulerId
from dray.views import ListTasksResponse, RolloutState, RoundStatus, SlotState, WatchKind
from scheduler.api.views import UNCHECKED
from scheduler.reconcile import NodeObservation
from scheduler.store import keys
from scheduler.store.base import Put
from scheduler.store.codec import encode
from scheduler.store.records import JobVerdict, RolloutBatch, RolloutVerdict
from tests.builders import a_container, a_key, a_service, a_slot, a_task, an_id, node_id, task_id
from tests.contract.client.rig import (
    DEADLINE_S,
    Cluster,
    cluster,
    events,
    orphan,
    project_of,
    running,
    with_nodes,
)


async def three_replicas(made: Cluster, client: Client) -> None:
    """Ask for web with three replicas, of which two have tasks on n1 and n2."""
    await with_nodes(made, 2)
    await client.apply_project(project_of(a_service("web", replicas=3)))
    await made.assign({1: [a_task(1, a_slot(1))], 2: [a_task(2, a_slot(2))]})
    made.report(running(a_task(1)), running(a_task(2), health=Health.STARTING))
    made.lead(pending_reasons={a_slot(3): "no node has 2 GiB of memory"})


def states(reply: ListTasksResponse) -> list[tuple[int, SlotState]]:
    """Return slots with their states."""
    return [(task.slot.slot, task.state) for task in reply.tasks]


async def test_tasks_are_shown_as_they_are_by_any_scheduler() -> None:
    """The leader's knowledge is in the reply, also of one that does not lead."""
    async with cluster(2) as made, made.client(made.schedulers[1]) as client:
        await three_replicas(made, client)
        reply = await client.list_tasks("shop")
        assert reply.header.is_observed
        assert reply.header.scheduler_id == made.first.scheduler_id
        assert states(reply) == [
            (1, SlotState.RUNNING),
            (2, SlotState.RUNNING),
            (3, SlotState.PENDING),
        ]
        first, _, third = reply.tasks
        assert (first.node_name, first.image, first.observed) == (
            "n1",
            "web:1",
            running(a_task(1)),
        )
        assert third.reason == "no node has 2 GiB of memory"
        made.lead(notes={"shop/web": "waits for db"})
        assert (await client.list_tasks("shop")).tasks[2].reason == "waits for db"
        made.lead(pending_reasons={a_slot(3): "no node has 2 GiB of memory"})
        service = (await client.get_service("shop", "web")).service
        assert service is not None
        assert (service.desired, service.is_converged) == (3, False)
        assert service.problems == ("no node has 2 GiB of memory", UNCHECKED)
        assert states(await client.list_tasks(node="n2")) == [(2, SlotState.RUNNING)]


async def test_without_a_leader_what_is_observed_is_unknown() -> None:
    """What was asked is shown, what runs is unknown, and the reply says so."""
    async with cluster(2) as made, made.client(made.schedulers[1]) as client:
        await three_replicas(made, client)
        made.lead_nobody()
        reply = await client.list_tasks("shop")
        assert not reply.header.is_observed
        assert states(reply) == [
            (1, SlotState.UNKNOWN),
            (2, SlotState.UNKNOWN),
            (3, SlotState.PENDING),
        ]
        nodes = await client.list_nodes()
        assert {node.condition for node in nodes.nodes} == {NodeCondition.UNKNOWN}
        assert [node.record.name for node in nodes.nodes] == ["n1", "n2"]
        status = await client.get_status()
        assert (status.leader, status.last_round) == (None, None)
        async with Client([made.first.address], limits=ClientLimits(0.5, 0.5, 0.5)) as hasty:
            for call in (hasty.list_members, hasty.remove_orphans):
                with pytest.raises(NotLeader):
                    await call("n1")


async def test_a_leader_that_does_not_answer_is_not_waited_for() -> None:
    """When the leader is gone the reply comes from the store, unobserved, in bounded time."""
    async with cluster(1) as made, made.client() as client:
        await three_replicas(made, client)
        gone = replace(
            made.first.info, scheduler_id=SchedulerId(an_id(999)), epoch=made.first.info.epoch
        )
        made.first.leadership.become(replace(gone, address=made.first.address), None)
        reply = await client.list_tasks("shop")
        assert not reply.header.is_observed
        assert states(reply)[0] == (1, SlotState.UNKNOWN)


async def test_convergence_is_every_slot_well_and_nothing_else() -> None:
    """A service converges when its slots run the wanted content and their checks succeed."""
    async with cluster() as made, made.client() as client:
        await with_nodes(made, 1)
        await client.apply_project(project_of(a_service("web", replicas=2)))
        one, two = a_task(1, a_slot(1)), a_task(2, a_slot(2))

        async def converged() -> bool:
            made.lead()
            service = (await client.get_service("shop", "web")).service
            assert service is not None
            return service.is_converged

        await made.assign({1: [one, two]})
        assert not await converged(), "nothing was reported"
        made.report(running(one), running(two, health=Health.STARTING))
        assert not await converged(), "a check has not succeeded yet"
        made.report(running(two, health=Health.HEALTHY))
        assert await converged()
        await client.scale_services("shop", {"web": 2})
        await client.scale_services("shop", {"web": 1})
        assert not await converged(), "one task too many"
        await made.assign({1: [one]})
        assert await converged(), "a scaled service runs tasks of an older revision"
        await client.restart_services("shop")
        assert not await converged(), "its task is of the old content"


async def test_what_has_just_started_has_not_converged() -> None:
    """A task without a check must have run for the monitoring time: it may end at once again.

    A watch tells of the moment, although nothing happens then.
    """
    async with cluster() as made, made.client() as client:
        await with_nodes(made, 1)
        watched = UpdatePolicy(monitor_s=1.0)
        await client.apply_project(project_of(a_service("web", replicas=1, update=watched)))
        await made.assign({1: [a_task(1, a_slot(1))]})
        now_unix_s = SystemClock().unix_s()
        made.report(replace(running(a_task(1, a_slot(1))), started_unix_s=now_unix_s))
        made.lead()
        seen = []
        async with asyncio.timeout(DEADLINE_S):
            async for reply in client.watch([WatchKind.SERVICE], "shop"):
                seen += [
                    (each.service.is_converged, each.service.watched_until_unix_s)
                    for each in reply.changes
                    if each.service
                ]
                if seen[-1][0]:
                    break
        assert seen == [(False, now_unix_s + 1.0), (True, 0.0)]
        assert SystemClock().unix_s() >= now_unix_s + 1.0


async def test_a_rollout_that_is_watched_has_not_converged() -> None:
    """Until its monitoring is over it may be taken back: everything new runs, and it is not so."""
    async with cluster() as made, made.client() as client:
        await with_nodes(made, 1)
        await client.apply_project(project_of(a_service("web", replicas=1)))
        await client.apply_project(project_of(a_service("web", image="web:2", replicas=1)))
        new = a_task(1, a_slot(1), revision=2)
        await made.assign({1: [new]})
        made.report(running(new))
        key, one, two = a_key("web"), ServiceRevision(1), ServiceRevision(2)
        for state in (RolloutState.RUNNING, RolloutState.COMPLETED):
            verdict = RolloutVerdict(key, state, one, two, 5.0)
            await made.write(Put(keys.rollout_key(key), encode(verdict)))
            made.lead()
            service = (await client.get_service("shop", "web")).service
            assert service is not None
            assert service.is_converged is (state is RolloutState.COMPLETED)
        now_unix_s = SystemClock().unix_s()
        batches = (RolloutBatch((1,), now_unix_s),)
        verdict = RolloutVerdict(key, RolloutState.RUNNING, one, two, 5.0, batches)
        await made.write(Put(keys.rollout_key(key), encode(verdict)))
        made.lead()
        service = (await client.get_service("shop", "web")).service
        assert service is not None
        assert service.watched_until_unix_s == now_unix_s + 5.0


@pytest.mark.parametrize(
    ("health", "restarts", "is_converged", "problems"),
    [
        (Health.NONE, 0, True, ()),
        (Health.NONE, 1, False, ()),
        (Health.HEALTHY, 1, True, ()),
        (Health.STARTING, 0, False, (UNCHECKED,)),
    ],
)
async def test_a_clock_that_is_ahead_keeps_nobody_waiting(
    health: Health, restarts: int, is_converged: bool, problems: tuple[str, ...]
) -> None:
    """A task that started in the future has no age: one that never ended is taken for well."""
    async with cluster() as made, made.client() as client:
        await with_nodes(made, 1)
        await client.apply_project(project_of(a_service("web", replicas=1)))
        await made.assign({1: [a_task(1, a_slot(1))]})
        ahead_unix_s = SystemClock().unix_s() + 3_600.0
        started = replace(running(a_task(1), health=health), started_unix_s=ahead_unix_s)
        made.report(replace(started, restarts=restarts))
        made.lead()
        service = (await client.get_service("shop", "web")).service
        assert service is not None
        assert (service.is_converged, service.problems) == (is_converged, problems)
        assert service.watched_until_unix_s == 0.0


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({"state": AttemptState.PULLING}, SlotState.STARTING),
        ({"state": AttemptState.RUNNING, "health": Health.UNHEALTHY}, SlotState.UNHEALTHY),
        ({"state": AttemptState.FAILED, "exit_code": 1}, SlotState.FAILED),
        ({"state": AttemptState.REJECTED}, SlotState.FAILED),
        ({"state": AttemptState.PENDING, "next_attempt_unix_s": 9.0}, SlotState.FAILED),
        ({"state": AttemptState.PENDING}, SlotState.STARTING),
        ({"state": AttemptState.STOPPING}, SlotState.STOPPING),
    ],
    ids=str,
)
async def test_a_report_gives_the_state_of_its_slot(
    report: dict[str, object], expected: SlotState
) -> None:
    """Every state of an attempt is one of a slot."""
    async with cluster() as made, made.client() as client:
        await with_nodes(made, 1)
        await client.apply_project(project_of(a_service("web")))
        await made.assign({1: [a_task(1)]})
        made.report(AttemptReport(task_id(1), 2, **report))  # type: ignore[arg-type]
        made.lead()
        assert states(await client.list_tasks("shop")) == [(1, expected)]


async def test_reports_of_a_lost_node_are_old_news() -> None:
    """A task whose node cannot be heard is unknown, with the node's condition as the reason."""
    async with cluster() as made, made.client() as client:
        await three_replicas(made, client)
        down = NodeObservation(NodeCondition.DOWN, 5.0)
        made.observed = replace(made.observed, nodes={**made.observed.nodes, node_id(1): down})
        made.lead()
        reply = await client.list_tasks("shop")
        assert reply.tasks[0].state is SlotState.UNKNOWN
        assert reply.tasks[0].reason == "node n1 is down"


async def test_a_job_that_ended_is_completed() -> None:
    """A stored verdict is shown when the job's task is gone."""
    mode = ServiceMode(ServiceModeKind.REPLICATED_JOB, 2)
    async with cluster() as made, made.client() as client:
        await client.apply_project(project_of(a_service("job", mode=mode)))
        slots = [a_slot(1, "job"), a_slot(2, "job")]
        for slot in slots:
            verdict = JobVerdict(slot, 1, 0)  # type: ignore[arg-type]
            await made.write(Put(keys.job_key(slot), encode(verdict)))
        reply = await client.list_tasks("shop")
        assert states(reply) == [(1, SlotState.COMPLETED), (2, SlotState.COMPLETED)]
        service = (await client.get_service("shop", "job")).service
        assert service is not None
        assert service.is_converged


async def test_lists_come_in_pages_of_one_revision() -> None:
    """A long list is whole and without doubles, although the cluster changes while it is read."""
    async with cluster() as made, made.client() as client:
        await client.apply_project(project_of(a_service("web", replicas=2_500)))
        reply = await client.list_tasks("shop")
        assert [task.slot.slot for task in reply.tasks] == list(range(1, 2_501))
        with pytest.raises(InvalidRequest, match=r"page\.items_max"):
            await client.list_events(items_max=1_001)


async def test_pages_of_large_services_fit_into_a_message() -> None:
    """A list whose items are large comes in smaller pages, and whole."""
    async with cluster() as made, made.client() as client:
        huge = replace(a_container(), command=tuple("x" * 50_000 for _ in range(4)))
        for number in range(0, 28, 2):
            services = [a_service(f"s{number + more}", container=huge) for more in range(2)]
            await client.apply_project(project_of(*services))
        reply = await client.list_services("shop")
        assert len({each.record.spec.name for each in reply.services}) == 28


async def test_nodes_are_labelled_drained_and_removed() -> None:
    """A node's entry changes as asked; one that is not down is removed only by force."""
    async with cluster() as made, made.client() as client:
        await three_replicas(made, client)
        reply = await client.update_node(
            "n1",
            labels={"zone": "a"},
            taints=[Taint("gpu")],
            availability=Availability.DRAIN,
        )
        assert reply.node is not None
        record = reply.node.record
        assert (dict(record.labels), record.taints) == ({"zone": "a"}, (Taint("gpu"),))
        assert record.availability is Availability.DRAIN
        with pytest.raises(DrayError) as conflict:
            await client.update_node(
                "n1", Write(if_revision=reply.node.revision - 1), labels={"a": "b"}
            )
        assert conflict.value.code is ErrorCode.ABORTED
        cleared = await client.update_node(
            node_id(1), labels_removed=["zone"], taints_removed=["gpu"]
        )
        assert cleared.node is not None
        assert (cleared.node.record.labels, cleared.node.record.taints) == ((), ())
        with pytest.raises(InvalidRequest, match="label"):
            await client.update_node("n1", labels={"-": "x"})

        with pytest.raises(FailedPrecondition, match="not down"):
            await client.remove_node("n1")
        gone = await client.remove_node("n1", force=True)
        assert gone.moved == (a_slot(1),)
        with pytest.raises(NotFound):
            await client.get_node("n1")


async def test_a_node_is_shown_with_what_others_find_of_it() -> None:
    """Evidence, orphans and the sum of reservations belong to the reply about a node."""
    async with cluster() as made, made.client() as client:
        await three_replicas(made, client)
        evidence = WitnessEvidence(node_id(2), node_id(1), 1, ReachKind.SILENT, 2.0)
        made.lead(evidence=(evidence,), orphans={node_id(1): (orphan(50),)})
        reply = await client.get_node("n1")
        assert (reply.evidence, reply.orphans) == ((evidence,), (orphan(50),))
        assert reply.node is not None
        assert (reply.node.tasks, reply.node.condition) == (1, NodeCondition.READY)
        assert (await client.get_status()).orphans == 1
        ended = await client.remove_orphans(node="n1")
        assert ended.orphans == (orphan(50),)
        assert made.first.leadership.ended == [(node_id(1), (orphan(50).task_id,))]


async def test_status_and_info_say_who_serves() -> None:
    """The leader, the store, the counts and the last round are told."""
    async with cluster(2) as made, made.client() as client:
        await three_replicas(made, client)
        made.lead(last_round=RoundStatus(9.0, 0.1, created=2))
        status = await client.get_status()
        assert status.leader is not None
        assert status.leader.address == made.first.address
        assert [each.is_healthy for each in status.etcd] == [True]
        assert status.last_round == RoundStatus(9.0, 0.1, created=2)
        assert {each.condition: each.count for each in status.nodes} == {NodeCondition.READY: 2}
        assert {each.state: each.count for each in status.slots} == {
            SlotState.RUNNING: 2,
            SlotState.PENDING: 1,
        }
        info = await client.get_cluster_info()
        assert info.cluster is not None
        assert info.cluster.cluster_id == info.header.cluster_id
        rotated = await client.rotate_gossip_key()
        assert (rotated.key_id, rotated.key_ids) == (1, (1, 0))


async def test_events_are_filtered_newest_first() -> None:
    """Events of a project, a service, a node, a kind or a level can be asked for."""
    told = [
        Event(1, 10.0, EventKind.NODE, EventLevel.WARNING, "node n1", "down", "node down"),
        Event(2, 11.0, EventKind.TASK, EventLevel.INFO, "shop/web.1", "created"),
        Event(3, 12.0, EventKind.TASK, EventLevel.INFO, "shopping/web.1", "created"),
    ]
    async with cluster() as made, made.client() as client:
        await with_nodes(made, 1)
        await made.write(events(*told))

        async def numbers(**filters: object) -> list[int]:
            reply = await client.list_events(**filters)  # type: ignore[arg-type]
            return [event.sequence for event in reply.events]

        assert await numbers() == [3, 2, 1]
        assert await numbers(project="shop") == [2]
        assert await numbers(project="shop", service="web") == [2]
        assert await numbers(node="n1") == [1]
        assert await numbers(kinds=[EventKind.NODE]) == [1]
        assert await numbers(level_min=EventLevel.WARNING) == [1]
        assert await numbers(since_unix_s=11.5) == [3]


async def test_another_cluster_is_refused() -> None:
    """A client that knows its cluster is not answered by another one."""
    async with cluster() as made, made.client() as client:
        client.cluster_id = ClusterId(an_id(5))
        with pytest.raises(FailedPrecondition, match="this is cluster"):
            await client.get_status()


async def test_a_client_turns_to_a_scheduler_that_answers() -> None:
    """One that is gone is left for the next; with none the address is named."""
    async with cluster(2) as made:
        one, two = made.schedulers
        async with made.client(one, two) as client:
            await client.get_cluster_info()
            async with cluster(1, leads=False) as other:
                gone = other.first.address
            hosts = [gone, two.address]
            async with Client(hosts, limits=ClientLimits(5.0, 2.0, 2.0)) as failing_over:
                info = await failing_over.get_cluster_info()
                assert info.header.scheduler_id == two.scheduler_id
            async with Client([gone], limits=ClientLimits(2.0, 1.0, 0.5)) as lost:
                with pytest.raises(Unavailable, match=f"no scheduler answers at {gone}"):
                    await lost.get_cluster_info()


async def test_many_tasks_are_counted_now_and_then() -> None:
    """A large cluster's status has every slot, and is not counted anew for every question."""
    async with cluster() as made, made.client() as client:
        await with_nodes(made, 1)
        await client.apply_project(project_of(a_service("web", replicas=12_000)))
        await made.assign({1: [a_task(n, a_slot(n)) for n in range(1, 12_001)]})
        first = (await client.get_status()).slots
        assert sum(each.count for each in first) == 12_000
        await client.scale_services("shop", {"web": 12_001})
        assert (await client.get_status()).slots == first
        made.lead_nobody()
        assert {each.state for each in (await client.get_status()).slots} == {
            SlotState.UNKNOWN,
            SlotState.PENDING,
        }


async def test_a_port_that_another_program_has_is_told() -> None:
    """On some nodes: the service is as asked for, with a problem; on all of them it is not."""
    async with cluster() as made, made.client() as client:
        await with_nodes(made, 2)
        await client.apply_project(project_of(a_service("web", replicas=1)))
        await made.assign({1: [a_task(1, a_slot(1))]})
        made.report(running(a_task(1)))
        text = f"ill; shop/web{UNPUBLISHED}port 80/tcp is taken; shop/web2{UNPUBLISHED}other"
        faults = (Fault(FaultKind.NETWORK_BROKEN, 1.0, text),)
        problems = []
        for number in (1, 2):
            known = made.observed.nodes
            ill = replace(known[node_id(number)], faults=faults)
            made.observed = replace(made.observed, nodes={**known, node_id(number): ill})
            made.lead()
            service = (await client.get_service("shop", "web")).service
            assert service is not None
            problems.append(f"not published on node n{number}: port 80/tcp is taken")
            assert (service.problems, service.is_converged) == (tuple(problems), number == 1)
