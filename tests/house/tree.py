"""Which files make up this repository? The list that every house test reads."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

TOP: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("dray", "scheduler", "node", "cli")
GENERATED_MARK: Final = "_pb2"


@cache
def files() -> tuple[Path, ...]:
    """Return every file that is committed or could be: all but what git ignores."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-coz", "--exclude-standard"]
    listed = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True).stdout
    return tuple(
        sorted(path for name in listed.split("\0") if name and (path := TOP / name).is_file())
    )


@cache
def modules() -> tuple[Path, ...]:
    """Return every hand-written Python file."""
    return tuple(p for p in files() if p.suffix == ".py" and GENERATED_MARK not in p.name)


@cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a Python file."""
    return ast.parse(path.read_text(), filename=str(path))


def shown(path: Path, line: int, text: str) -> str:
    """Return a finding in the form that editors and terminals make clickable."""
    return f"{path.relative_to(TOP)}:{line}: {text}"


def report(findings: list[str]) -> str:
    """Return findings one a line, for an assertion's message."""
    return "\n" + "\n".join(findings)
