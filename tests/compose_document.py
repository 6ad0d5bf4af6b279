"""Is the page about Compose keys what the tables say? `python -m tests.compose_document`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from dray.compose.treatment_page import compose_document

PATH: Final = Path(__file__).parent.parent / "dray" / "compose" / "COMPOSE.md"


def is_current() -> bool:
    """Return whether the page on disk is the generated one."""
    return PATH.is_file() and PATH.read_text(encoding="utf-8") == compose_document()


def main(arguments: list[str]) -> int:
    """Write the page, or check it; return the exit status."""
    if arguments == ["--write"]:
        PATH.write_text(compose_document(), encoding="utf-8")
        return 0
    if is_current():
        return 0
    print(f"{PATH.name} is stale: python -m tests.compose_document --write", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
