"""Is every transaction of a round a safe place to stop, within etcd's limits?"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dray.model import Epoch, ServiceRevision, SlotKey, StoreRevision, TaskAssignment
from dray.names import NodeId, TaskId
from scheduler.loops.commit import BYTES_MAX, KEYS_MAX, Batch, batches_of, fences_of
from scheduler.loops.steps import Add, Drop, Step, Stop
from scheduler.reconcile import ActionReason, CreateTask
from scheduler.store.base import TXN_BYTES_MAX, Compare, CompareField
from scheduler.store.keys import LEADER, assignment_key, volume_key
from scheduler.store.records import VolumePin
from scheduler.store.snapshot import Snapshot
from tests.builders import a_snapshot, a_task, node_id, task_id

EPOCH = Epoch(1, 9)
FENCE = Compare(LEADER, CompareField.CREATE_REVISION, StoreRevision(9))
NODES = st.integers(1, 200)


def slot_of(number: int) -> SlotKey:
    """Return the slot that the task of a number has."""
    return SlotKey("shop", f"web-{number % 3}", number)


def an_action(number: int) -> CreateTask:
    """Return what the steps of these tests pretend to carry out."""
    slot = slot_of(number)
    return CreateTask(slot, task_id(number), ServiceRevision(1), ActionReason.NEW_SLOT)


@st.composite
def plans(draw: st.DrawFn) -> tuple[Snapshot, list[Step]]:
    """Return a snapshot and steps about it: creations, stops, removals and moves."""
    where = draw(st.lists(NODES, max_size=60))
    tasks: dict[int, list[TaskAssignment]] = {}
    for number, node in enumerate(where):
        tasks.setdefault(node, []).append(a_task(number, slot_of(number)))
    steps: list[Step] = []
    for number, node in enumerate(where):
        old = task_id(number)
        new = a_task(1_000 + number, slot_of(number), epoch=EPOCH)
        match draw(st.integers(0, 3)):
            case 0:
                steps.append(Step(an_action(number), (Stop(node_id(node), old),)))
            case 1:
                steps.append(Step(an_action(number), (Drop(node_id(node), old),)))
            case 2:
                edits = (Drop(node_id(node), old), Add(node_id(draw(NODES)), new))
                steps.append(Step(an_action(number), edits))
            case _:
                pass
    for number in range(2_000, 2_000 + draw(st.integers(0, 150))):
        target = node_id(draw(NODES))
        pin = VolumePin("shop", f"v{number}", target)
        pins = ((volume_key("shop", f"v{number}"), pin),) if draw(st.booleans()) else ()
        added = a_task(number, slot_of(number), epoch=EPOCH)
        steps.append(Step(an_action(number), (Add(target, added),), pins))
    return a_snapshot(tasks=tasks), draw(st.permutations(steps))


def applied(stored: dict[NodeId, dict[TaskId, bool]], step: Step) -> None:
    """Apply a step to what is stored: whether each task is to end, by node."""
    for edit in step.edits:
        tasks = stored.setdefault(edit.node_id, {})
        match edit:
            case Add(_, task):
                tasks[task.task_id] = task.stop
            case Stop(_, ended):
                tasks[ended] = True
            case Drop(_, dropped):
                del tasks[dropped]


def state_of(snapshot: Snapshot) -> dict[NodeId, dict[TaskId, bool]]:
    """Return what is stored, in the form of `applied`."""
    return {
        each: {task.task_id: task.stop for task in assignment.tasks}
        for each, assignment in snapshot.assignments.items()
    }


def check_limits(batch: Batch, snapshot: Snapshot) -> None:
    """Check that a batch makes a transaction that etcd takes."""
    txn = batch.txn(fences_of(snapshot, FENCE), snapshot.mod_revisions)
    assert len(txn.operations) <= KEYS_MAX
    assert txn.size_bytes <= TXN_BYTES_MAX
    assert txn.compares[0] == FENCE
    assert {each.key for each in txn.operations} <= {each.key for each in txn.compares}


@settings(max_examples=30)
@given(plans())
def test_every_prefix_of_the_batches_is_whole_steps(plan: tuple[Snapshot, list[Step]]) -> None:
    """After each transaction the assignments are those after its steps; each step is done once.

    So a slot that moves is never stored twice, nor lost, wherever the round stops.
    """
    snapshot, steps = plan
    stored, expected = state_of(snapshot), state_of(snapshot)
    done: list[Step] = []
    for batch in batches_of(snapshot, steps, EPOCH):
        check_limits(batch, snapshot)
        for step in batch.steps:
            applied(expected, step)
        for assignment in batch.assignments:
            slots = [(task.slot, task.task_id) for task in assignment.tasks]
            assert slots == sorted(slots)
            assert assignment.epoch == EPOCH
            stored[assignment.node_id] = {task.task_id: task.stop for task in assignment.tasks}
        assert stored == expected
        done += batch.steps
    assert sorted(done, key=id) == sorted(steps, key=id)


@settings(max_examples=30)
@given(plans())
def test_ends_come_before_beginnings(plan: tuple[Snapshot, list[Step]]) -> None:
    """What frees room is committed no later than what may need it."""
    snapshot, steps = plan
    order = [step for batch in batches_of(snapshot, steps, EPOCH) for step in batch.steps]
    begins = [any(isinstance(edit, Add) for edit in step.edits) for step in order]
    assert begins == sorted(begins)


def test_a_node_that_dies_with_all_its_tasks_fits() -> None:
    """One node's 508 tasks move to 508 others: its key is written again and again, in step."""
    tasks = [a_task(number, slot_of(number)) for number in range(508)]
    snapshot = a_snapshot(tasks={1: tasks})
    steps = [
        Step(
            an_action(number),
            (
                Drop(node_id(1), task_id(number)),
                Add(node_id(2 + number), a_task(5_000 + number, slot_of(number))),
            ),
        )
        for number in range(508)
    ]
    batches = list(batches_of(snapshot, steps, EPOCH))
    assert len(batches) == -(-508 // (KEYS_MAX - 1))
    for batch in batches:
        assert assignment_key(node_id(1)) in batch.keys
        check_limits(batch, snapshot)


def test_full_nodes_are_bounded_by_bytes() -> None:
    """Full nodes with long names make smaller transactions rather than too large ones."""
    tasks = {
        node: [
            a_task(
                node * 300 + number,
                SlotKey("p" * 63, f"{number % 50:02}" + "s" * 60, node * 300 + number),
            )
            for number in range(300)
        ]
        for node in range(1, 90)
    }
    snapshot = a_snapshot(tasks=tasks)
    steps = [
        Step(an_action(node), (Stop(node_id(node), tasks[node][0].task_id),)) for node in tasks
    ]
    batches = list(batches_of(snapshot, steps, EPOCH))
    assert len(batches) > 1
    for batch in batches:
        check_limits(batch, snapshot)
        assert batch.txn((), {}).size_bytes <= BYTES_MAX
