"""Does a node keep its promises when its daemon is killed between any two steps?

The real agent runs on the fake engine; a script of assignments, crashes, kills and faults is drawn;
after each step the invariants are looked at, and at the end the node must be where its last
assignment says.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from node.runtime.base import Refusal, Refused
from node.runtime.fake_engine import Call
from tests.node_machine import MEMORY, Machine, settle

TASKS_MAX = 3
SHARES = st.frozensets(st.integers(1, TASKS_MAX))
STEPS = st.one_of(
    st.tuples(st.just("assign"), SHARES),
    st.tuples(st.just("turns"), st.integers(0, 12)),
    st.tuples(st.just("kill"), st.integers(0, 12)),
    st.tuples(st.just("crash"), st.integers(0, 5)),
    st.tuples(st.just("refuse"), st.sampled_from(Call)),
    st.tuples(st.just("away"), st.integers(0, 12)),
)


async def play(machine: Machine, script: list[tuple[str, object]]) -> None:
    """Carry out a script, one daemon after another, and check where it ends."""
    left = list(script)
    while True:
        async with machine.daemon():
            if machine.revision:
                await machine.share(frozenset(machine.wanted))  # a leader repeats what stands
            while left:
                verb, what = left.pop(0)
                if verb == "kill":
                    assert isinstance(what, int)
                    await machine.turns(what)
                    break
                await act(machine, verb, what)
                machine.check()
            else:
                await settle(machine)
                return


async def act(machine: Machine, verb: str, what: object) -> None:
    """Carry out one step."""
    if verb == "assign":
        assert isinstance(what, frozenset)
        await machine.share(what)
    elif verb == "refuse":
        assert isinstance(what, Call)
        machine.engine.refuse(what, Refused(Refusal.OTHER, "no"))
    elif verb == "crash":
        assert isinstance(what, int)
        machine.crash(what)
    else:
        assert isinstance(what, int)
        if verb == "away":
            machine.engine.go_away()
        await machine.turns(what)
        machine.engine.come_back()


@settings(max_examples=60)
@given(st.lists(STEPS, max_size=14))
def test_a_node_killed_between_any_two_steps_goes_on(script: list[tuple[str, object]]) -> None:
    """No task has two running containers, none goes back, and the last assignment is reached."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        asyncio.run(play(Machine(Path(folder) / "node"), script))
