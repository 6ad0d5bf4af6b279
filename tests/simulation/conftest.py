"""Which worlds does the simulation layer run? Options, and how a failing seed is replayed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SEEDS = 200


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what chooses worlds and rewrites expectations."""
    group = parser.getgroup("simulation")
    group.addoption("--seed", type=int, default=None, help="run only the world of this seed")
    group.addoption("--seeds", type=int, default=SEEDS, help="how many worlds to run")
    group.addoption(
        "--rewrite", action="store_true", help="write what scenarios print as what is expected"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that takes `seed` every seed, or the one that was asked for."""
    if "seed" in metafunc.fixturenames:
        only = metafunc.config.getoption("--seed", default=None)
        count = metafunc.config.getoption("--seeds", default=SEEDS)
        metafunc.parametrize("seed", [only] if only is not None else range(count))


@pytest.fixture
def replay(seed: int) -> str:
    """Return how to run this world again, to be printed with a failure."""
    return (
        f"seed={seed} commit={_commit()}\n"
        f"replay: ./dev.sh test --layer simulation -- --seed {seed} -k test_seeds"
    )


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    root = Path(__file__).parent
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"
