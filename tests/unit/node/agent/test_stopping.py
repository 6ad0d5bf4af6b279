"""Does a container hear that it has to end only when nobody needs it any more?"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dray.clock import ManualClock
from dray.errors import Unavailable
from dray.model import AttemptState, ProjectParts, ServiceKey
from node.agent.alone import PlainNetwork
from node.agent.contents import ContentFiles
from node.agent.logs import Followed
from node.agent.platforms import Platforms
from node.agent.requests import Work, container_request
from node.agent.steps import Steps
from node.agent.tasks import ContainerStopped, StopCause, TaskState
from node.runtime.base import ContainerNetwork, ContainerState, Created
from node.runtime.fake import FakeRuntime
from node.runtime.fake_engine import FakeEngine
from tests.node_agent import CLUSTER, IMAGE, Contents, a_task, an_entry, task_id

GRACE_S = 10.0
ADDRESS = "10.192.0.2"


class Surroundings(PlainNetwork):
    """Network and publication that write down when they were asked; connections end at a time."""

    def __init__(self, clock: ManualClock, *, has_others: bool, busy_until_s: float) -> None:
        super().__init__()
        self._clock = clock
        self._has_others = has_others
        self._busy_until_s = busy_until_s
        self.is_blind = False
        self.told: list[str] = []

    async def withdrawn(self, service: ServiceKey) -> bool:
        """Take two seconds."""
        self.told.append("withdrawn")
        await self._clock.sleep(2.0)
        return self._has_others

    def process_ended(self, container_id: str) -> None:
        """Never called: nothing is watched here."""
        raise AssertionError(container_id)

    async def connections(self, address: str) -> int:
        """Return how many there are."""
        assert address == ADDRESS
        if self.is_blind:
            raise Unavailable("nobody tells")
        return int(self._clock.monotonic_s() < self._busy_until_s)

    def lender(self, service: ServiceKey) -> str | None:
        """Return nothing."""
        return None


async def stopped_after_s(
    folder: Path,
    *,
    has_others: bool = True,
    busy_s: float = 0.0,
    cause: StopCause = StopCause.ORDERED,
    is_blind: bool = False,
) -> float:
    """Return how long a container runs on after it was told to stop."""
    clock = ManualClock()
    engine = FakeEngine(clock.unix_s, images=[IMAGE])
    runtime = FakeRuntime(engine)
    around = Surroundings(clock, has_others=has_others, busy_until_s=clock.monotonic_s() + busy_s)
    around.is_blind = is_blind
    contents = ContentFiles(Contents(), folder, folder / "run")
    platforms = Platforms(runtime, lambda: None)
    steps = Steps(
        *(runtime, around, contents, around, around, clock),
        *(lambda: None, Followed().read_out, platforms),
    )
    work = Work(CLUSTER, "n1", a_task(), an_entry(stop_grace_s=GRACE_S), ProjectParts("shop"), 1)
    request = container_request(work, ContainerNetwork("none"), mounts=(), files=(), lenders={})
    made = await runtime.create(request)
    assert isinstance(made, Created)
    await runtime.start(made.container_id)
    state = TaskState(
        task_id(1),
        work.task.slot,
        state=AttemptState.STOPPING,
        stop_cause=cause,
        container_id=made.container_id,
        address=ADDRESS,
        started_unix_s=1.0,
    )
    began_s = clock.monotonic_s()
    stopping = asyncio.create_task(steps.stop(work, state))
    while not stopping.done():
        found = await runtime.inspect(made.container_id)
        assert found is not None
        assert found.state is ContainerState.RUNNING, "it was told before the step had ended"
        await clock.advance(0.25)
    assert await stopping == ContainerStopped()
    found = await runtime.inspect(made.container_id)
    assert found is not None
    assert found.state is ContainerState.EXITED
    assert around.told == ["withdrawn"]
    await runtime.close()
    return clock.monotonic_s() - began_s


@pytest.mark.parametrize(
    ("case", "least_s", "most_s"),
    [
        ({}, 2.0, 2.5),
        ({"busy_s": 5.0}, 5.0, 5.75),
        ({"busy_s": 60.0}, 2.0 + GRACE_S, 2.5 + GRACE_S),
        ({"busy_s": 60.0, "has_others": False}, 2.0, 2.5),
        ({"busy_s": 60.0, "cause": StopCause.UNHEALTHY}, 2.0, 2.5),
        ({"busy_s": 60.0, "is_blind": True}, 2.0, 2.5),
    ],
    ids=["idle", "busy", "busy-for-ever", "nobody-else", "unhealthy", "machine-does-not-tell"],
)
async def test_the_signal_comes_after_withdrawal_and_drain(
    tmp_path: Path, case: dict[str, object], least_s: float, most_s: float
) -> None:
    """Open connections are waited for, up to the grace period, if others can take over."""
    took_s = await stopped_after_s(tmp_path, **case)  # type: ignore[arg-type]
    assert least_s <= took_s <= most_s
