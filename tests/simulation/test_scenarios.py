"""Do the scenarios still end as they are written down? `--rewrite` writes what they print now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.script import run_text

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, request: pytest.FixtureRequest) -> None:
    """A scenario's commands print what its file says."""
    expected = path.read_text()
    printed = run_text(expected)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(printed)
        return
    assert printed == expected, (
        f"{path.name} prints something else. If you understand why, and it is right:\n"
        "./dev.sh test --layer simulation -- -k test_scenarios --rewrite"
    )


def test_there_are_scenarios() -> None:
    """The folder is found, and not empty."""
    assert len(SCENARIOS) >= 3
