"""Does the node tell what is wrong with its engine, and only for as long as it is?"""

from __future__ import annotations

from pathlib import Path

import pytest

from dray.clock import SystemClock
from dray.log import get_logger
from dray.model import FaultKind
from node.agent.faults import Faults
from node.resources.machine import MachineWatch
from node.runtime.fake import FakeRuntime
from node.runtime.fake_engine import FakeEngine


@pytest.fixture
def engine() -> FakeEngine:
    """Return an engine."""
    return FakeEngine(lambda: 1_700_000_000.0)


def a_watch(engine: FakeEngine, folder: Path) -> tuple[MachineWatch, Faults]:
    """Return who watches a machine, and what it has told."""
    clock = SystemClock()
    faults = Faults(clock, get_logger("faults"))
    return MachineWatch(FakeRuntime(engine), dict, faults, clock, folder), faults


def told(faults: Faults) -> dict[FaultKind, str]:
    """Return the faults that stand."""
    return {fault.kind: fault.message for fault in faults.all()}


async def test_an_engine_whose_restart_would_end_containers_is_a_fault(
    engine: FakeEngine, tmp_path: Path
) -> None:
    """Without live-restore the message says what to set and where; with it the fault is over."""
    watch, faults = a_watch(engine, tmp_path)
    engine.live_restore = False
    await watch.look_at_engine()
    message = told(faults)[FaultKind.LIVE_RESTORE_OFF]
    assert '"live-restore": true' in message
    assert "daemon.json" in message
    engine.live_restore = True
    await watch.look_at_engine()
    assert told(faults) == {}


async def test_an_engine_that_is_away_is_a_fault_and_no_more(
    engine: FakeEngine, tmp_path: Path
) -> None:
    """What was known of it stays; it is over when the engine answers."""
    watch, faults = a_watch(engine, tmp_path)
    await watch.look_at_engine()
    before = watch.engine
    assert before is not None
    engine.go_away()
    await watch.look_at_engine()
    assert told(faults).keys() == {FaultKind.DOCKER_AWAY}
    assert "containers run on" in told(faults)[FaultKind.DOCKER_AWAY]
    assert watch.engine == before
    engine.come_back()
    await watch.look_at_engine()
    assert told(faults) == {}
