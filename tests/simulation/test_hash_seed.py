"""Does a world depend on anything but its seed, such as the order of a set of texts?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = (
    "from tests.simulation.test_seeds import broken_in\n"
    "print(broken_in(5)[1].world.trace, broken_in(11)[1].world.trace)"
)


def trace(hash_seed: str) -> str:
    """Return the traces of two worlds, run by a process with this hash seed."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return result.stdout


def test_the_same_in_every_process() -> None:
    """Processes that hash texts differently run the same worlds, effect by effect."""
    assert trace("1") == trace("2") != ""
