"""Do the documents name commands, files and headings that exist?"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.house import tree

FENCE: Final = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]*))?\)")
VERB: Final = re.compile(r"\./dev\.sh +(?:[A-Z_]+=\S+ +)*([a-z]+)")
SHELLS: Final = ("sh", "bash", "console")


def documents() -> list[Path]:
    """Return every Markdown file."""
    return [path for path in tree.files() if path.suffix == ".md"]


def line_of(text: str, position: int) -> int:
    """Return the number of the line that a position is in."""
    return text.count("\n", 0, position) + 1


def verbs() -> set[str]:
    """Return the verbs that `./dev.sh help` lists."""
    told = subprocess.run(
        [str(tree.TOP / "dev.sh"), "help"], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    return set(re.findall(r"^  ([a-z]+)  ", told, re.MULTILINE))


def named_verbs(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and verb of every dev.sh command in a document, in prose and in blocks."""
    text = path.read_text()
    for match in VERB.finditer(text):
        yield line_of(text, match.start()), match[1]


def test_commands_exist() -> None:
    """Every `./dev.sh VERB` in a document is a verb that its help lists."""
    known = verbs()
    found = [
        tree.shown(path, line, f"./dev.sh has no verb {verb}")
        for path in documents()
        for line, verb in named_verbs(path)
        if verb not in known
    ]
    assert {"demo", "test", "lint", "proto", "bench", "lab", "shell"} <= known
    assert not found, tree.report(found)


def test_readme_shows_the_two_commands() -> None:
    """The README has both commands in a block that can be copied."""
    blocks = [
        body for kind, body in FENCE.findall((tree.TOP / "README.md").read_text()) if kind in SHELLS
    ]
    shown = {line.split("#")[0].strip() for body in blocks for line in body.splitlines()}
    assert {"./dev.sh demo", "./dev.sh test"} <= {line.removeprefix("$ ") for line in shown}


def test_links_resolve() -> None:
    """Every link to a file of the repository finds it."""
    found = []
    for path in documents():
        text = path.read_text()
        for match in LINK.finditer(text):
            target = path.parent / match[1] if match[1] else path
            if not target.exists():
                found.append(tree.shown(path, line_of(text, match.start()), f"no {match[1]}"))
    assert not found, tree.report(found)
