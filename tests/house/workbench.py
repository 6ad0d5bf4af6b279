"""How do the gates' tests break a rule? A copy of the tree to spoil, and the test command on it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.house import tree

LIMIT_S: Final = 100.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the test command said about a spoilt tree.

    Attributes:
        status: Its exit status.
        output: All that it printed.
    """

    status: int
    output: str

    def names(self, path: str, line: int | None, text: str) -> bool:
        """Return whether it failed, and said the text in a line that names file and line."""
        place = f"{re.escape(path)}:{'[0-9]+' if line is None else line}:"
        found = re.search(f"{place}.*{re.escape(text)}", self.output)
        return self.status == 1 and found is not None


class Copy:
    """A copy of the tree whose files can be changed."""

    def __init__(self, top: Path, *, without: tuple[str, ...] = ()) -> None:
        """Copy all that git knows or would, less the folders named by `without`."""
        self.top = top
        for source in tree.files():
            relative = source.relative_to(tree.TOP)
            if str(relative).startswith(without):
                continue
            (top / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, top / relative)
            shutil.copymode(source, top / relative)
        subprocess.run(["git", "init", "-q", str(top)], check=True)  # so that files can be listed

    def append(self, name: str, text: str) -> int:
        """Add lines to the end of a file, which may be new; return the number of the first."""
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        old = path.read_text() if path.exists() else ""
        path.write_text(old + text)
        return old.count("\n") + 1

    def replace(self, name: str, pattern: str, new: str) -> int:
        """Replace the first match of a pattern in a file; return the number of its line."""
        path = self.top / name
        old = path.read_text()
        match = re.search(pattern, old, re.MULTILINE)
        assert match is not None, f"{name} has no {pattern}"
        path.write_text(old[: match.start()] + match.expand(new) + old[match.end() :])
        return old.count("\n", 0, match.start()) + 1

    def test(self, *arguments: str, variables: Mapping[str, str] | None = None) -> Verdict:
        """Run the test command on the copy, as `./dev.sh test ARGUMENTS` does."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.layers", *arguments],
            cwd=self.top,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
        return Verdict(done.returncode, done.stdout)
