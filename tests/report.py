"""What did this pytest run do? A plugin that writes the counts as JSON for tests/layers.py.

A test counts once, however many of its phases failed. A skip counts as allowed only when the table
`[tool.dray.skips]` of pyproject.toml lists the test; any other skip is a failure.
"""

from __future__ import annotations

import fnmatch
import json
import tomllib
from pathlib import Path
from typing import Final

import pytest

_RANK: Final = {"passed": 0, "skipped": 1, "failed": 2}


class Report:
    """Collects one outcome for each test and writes them when the session ends.

    Attributes:
        outcomes: Worst outcome so far of every test, by node id.
        skips: Reason of every skip, by node id.
        allowed: Patterns of node ids that may be skipped, each with its reason.
    """

    def __init__(self, path: Path, allowed: dict[str, str]) -> None:
        self.path = path
        self.allowed = allowed
        self.outcomes: dict[str, str] = {}
        self.skips: dict[str, str] = {}

    def is_listed(self, node_id: str) -> bool:
        """Return whether a test may be skipped."""
        return any(fnmatch.fnmatchcase(node_id, pattern) for pattern in self.allowed)

    def note(self, node_id: str, outcome: str) -> None:
        """Keep the worst outcome of a test."""
        known = self.outcomes.get(node_id, "passed")
        self.outcomes[node_id] = max(known, outcome, key=_RANK.__getitem__)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take one phase (set-up, call, tear-down) of one test."""
        if report.when == "call" or report.outcome != "passed":
            self.note(report.nodeid, report.outcome)
        if report.outcome == "skipped":
            self.skips[report.nodeid] = _place_and_reason(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Take a module that could not be read, or that skipped itself."""
        if report.outcome != "passed":
            self.note(report.nodeid, report.outcome)
        if report.outcome == "skipped":
            self.skips[report.nodeid] = _place_and_reason(report)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print every skip that is not listed, with file and line."""
        for node_id, text in sorted(self.skips.items()):
            if not self.is_listed(node_id):
                terminalreporter.write_line(
                    f"{text} [{node_id} is not listed in [tool.dray.skips]]", red=True
                )

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Write the counts."""
        unlisted = {node_id for node_id in self.skips if not self.is_listed(node_id)}
        skipped = sorted(
            node_id
            for node_id, outcome in self.outcomes.items()
            if outcome == "skipped" and node_id not in unlisted
        )
        failed = sorted(
            node_id
            for node_id, outcome in self.outcomes.items()
            if outcome == "failed" or (outcome == "skipped" and node_id in unlisted)
        )
        counts = {
            "passed": len(self.outcomes) - len(failed) - len(skipped),
            "failed": failed,
            "skipped": {node_id: self.skips[node_id] for node_id in skipped},
        }
        self.path.write_text(json.dumps(counts))


def _place_and_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return `path:line: skipped: reason` of a skipped report."""
    if isinstance(report.longrepr, tuple):
        path, line, reason = report.longrepr
        shown = Path(path)
        if shown.is_absolute() and shown.is_relative_to(Path.cwd()):
            shown = shown.relative_to(Path.cwd())
        return f"{shown}:{line}: skipped: {reason.removeprefix('Skipped: ')}"
    reason = getattr(report, "wasxfail", "expected to fail")
    assert isinstance(report, pytest.TestReport), report
    return f"{report.location[0]}:{(report.location[1] or 0) + 1}: skipped: {reason}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the file of counts."""
    parser.addoption("--report-file", type=Path, help="write the counts of the run here, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Start collecting when a file was named."""
    path = config.getoption("--report-file")
    if isinstance(path, Path):
        project = tomllib.loads((config.rootpath / "pyproject.toml").read_text())
        allowed = project["tool"]["dray"].get("skips", {})
        config.pluginmanager.register(Report(path, allowed), "dray-report")
