"""Does the test command bite? Each rule is broken on purpose in a copy of the tree.

The rules that need root and an engine to break are in tests/integration/test_gates.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Final

import pytest

from tests.house import tree
from tests.house.workbench import Copy, Verdict

CONTRACT: Final = "proto/dray/api/v1"

pytestmark = pytest.mark.timeout(240)  # the copy's whole type check, on a machine that is busy

# Tests that break one rule each: name, body, line of the fault in the body (from 1), what is said.
FAULTS: Final = {
    "blocked_loop": (
        """
        async def test_fault() -> None:
            \"\"\"Block the event loop.\"\"\"
            import time

            time.sleep(0.01)
        """,
        5,
        "Blocking call to time.sleep",
    ),
    "orphan_task": (
        """
        import asyncio

        async def test_fault() -> None:
            \"\"\"Leave a task behind.\"\"\"
            kept = asyncio.get_running_loop().create_task(asyncio.sleep(60))
            assert not kept.done()
        """,
        5,
        "this task outlives the test",
    ),
    "leftover_process": (
        """
        import subprocess

        def test_fault() -> None:
            \"\"\"Leave a process behind that has left our process tree.\"\"\"
            subprocess.run(["setsid", "--fork", "sleep", "61"], check=True)
        """,
        3,
        "sleep 61",
    ),
    "leftover_thread": (
        """
        import threading

        def test_fault() -> None:
            \"\"\"Leave a thread behind.\"\"\"
            threading.Thread(target=threading.Event().wait, args=(6,), name="stray").start()
        """,
        3,
        "thread 'stray'",
    ),
    "lost_error": (
        """
        import asyncio

        async def test_fault() -> None:
            \"\"\"Let a task fail without anybody looking.\"\"\"

            async def fail() -> None:
                raise ValueError("lost")

            task = asyncio.create_task(fail())
            while not task.done():
                await asyncio.sleep(0)
        """,
        7,
        "Task exception was never retrieved",
    ),
    "silent_skip": (
        """
        import pytest

        def test_fault() -> None:
            \"\"\"Skip for a reason that nobody has agreed to.\"\"\"
            pytest.skip("not today")
        """,
        5,
        "skipped: not today",
    ),
}


@pytest.fixture(scope="module")
def faulty_tests(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    """Run the unit layer with nothing in it but the faults."""
    bench = Copy(tmp_path_factory.mktemp("faults") / "tree", without=("tests/unit/",))
    for name, (body, _, _) in FAULTS.items():
        bench.append(f"tests/unit/test_{name}.py", dedent(body).lstrip("\n"))
    return bench.test("--layer", "unit")


@pytest.mark.parametrize("name", FAULTS)
def test_fault_in_a_test_is_found(faulty_tests: Verdict, name: str) -> None:
    """A test with this fault fails, and the output names its file and line."""
    _, line, text = FAULTS[name]
    assert faulty_tests.names(f"tests/unit/test_{name}.py", line, text), faulty_tests.output


def test_all_faults_are_counted(faulty_tests: Verdict) -> None:
    """The last line counts every faulty test as failed, once."""
    assert faulty_tests.output.splitlines()[-1] == f"0 passed, {len(FAULTS)} failed"


@dataclass(frozen=True, slots=True)
class Breach:
    """One broken rule: where it is, and what must be said of it.

    Attributes:
        path: The file, new or not.
        text: Lines added at its end.
        offset: Which of them is at fault, from 0.
        says: What the output has to say.
    """

    path: str
    text: str
    offset: int
    says: str


LONG: Final = "".join(f"    assert {number} >= 0\n" for number in range(69))
BREACHES: Final = {
    "clock": Breach("dray/units.py", "import time\n", 0, "imports time"),
    "loop": Breach("dray/units.py", "import asyncio\n", 0, "imports asyncio"),
    "chance": Breach("dray/names.py", "import random\n", 0, "imports random"),
    "rpc": Breach("dray/errors.py", "import grpc\n", 0, "imports grpc"),
    "other program": Breach("node/gate.py", "import scheduler\n", 0, "imports scheduler"),
    "module foreseen": Breach("node/health/probe.py", "import socket\n", 0, "imports socket"),
    "generated": Breach("scheduler/store/etcdpb/etcd_pb2.py", "# by hand\n", 0, "Not what"),
    "long function": Breach(
        "cli/gate.py", f'def long() -> None:\n    """Go on."""\n{LONG}', 0, "long has 71 lines"
    ),
    "broad handler": Breach(
        "cli/broad.py", "try:\n    pass\nexcept Exception:\n    pass\n", 2, "catches every error"
    ),
    "wall clock": Breach("cli/clock.py", "import time\n\nNOW = time.time()\n", 2, "TID251"),
}


@dataclass(frozen=True, slots=True)
class Spoilt:
    """What was said of the tree with every breach in it, and the line of each."""

    verdict: Verdict
    lines: dict[str, int]
    renumbered: str


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Spoilt:
    """Run the static layers on a tree with all breaches."""
    bench = Copy(tmp_path_factory.mktemp("spoilt") / "tree")
    bench.append("node/health/__init__.py", '"""Is it healthy?"""\n')
    lines = {
        name: bench.append(breach.path, breach.text) + breach.offset
        for name, breach in BREACHES.items()
    }
    protos = [str(p.relative_to(tree.TOP)) for p in tree.files() if p.suffix == ".proto"]
    renumbered = min(name for name in protos if name.startswith(CONTRACT))
    bench.replace(renumbered, r"^(  [\w.]+ \w+) = 1;", r"\1 = 1901;")
    layers = ("--layer", "lint", "--layer", "imports", "--layer", "proto", "--layer", "house")
    return Spoilt(bench.test(*layers, "--", "-k", "test_tidy"), lines, renumbered)


@pytest.mark.parametrize("name", BREACHES)
def test_breach_is_found(spoilt: Spoilt, name: str) -> None:
    """A file that breaks this rule fails a static layer, which names file and line."""
    breach = BREACHES[name]
    assert spoilt.verdict.names(breach.path, spoilt.lines[name], breach.says), spoilt.verdict.output


def test_renumbered_field_is_found(spoilt: Spoilt) -> None:
    """A field with a new number breaks peers of another version and fails the check."""
    says = "Previously present field"
    assert spoilt.verdict.names(spoilt.renumbered, None, says), spoilt.verdict.output


def test_every_layer_counts_its_breach(spoilt: Spoilt) -> None:
    """Each of the four layers has failed, and the last line is the plain count."""
    for layer in ("lint", "imports", "proto", "house"):
        assert re.search(rf"^{layer} .* [1-9]\d* failed", spoilt.verdict.output, re.MULTILINE), (
            layer
        )
    assert re.fullmatch(r"\d+ passed, \d+ failed", spoilt.verdict.output.splitlines()[-1])


def test_empty_layer_is_found(tmp_path: Path) -> None:
    """A layer that runs no test fails."""
    verdict = Copy(tmp_path / "tree", without=("tests/unit/",)).test("--layer", "unit")
    assert verdict.status == 1
    assert "it ran no test" in verdict.output
