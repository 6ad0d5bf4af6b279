"""Are two mistakes in one file both told, whichever they are?"""

from __future__ import annotations

import re
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from tests.compose_cases import mistakes_project, mistakes_structure
from tests.compose_cases.files import problems_of

_START: Final = "services:\n  web:\n"
# Without a path it is about the YAML itself, which ends loading at once.
_PLACE: Final = re.compile(r"compose\.yaml:([0-9]+):(?=[0-9]+: services\.)")
_CYCLE: Final = "extend one another"  # ends loading at once
_FILES: Final = {"bad.env": "A=1\nB?=2\n"}


def _is_one_service(text: str) -> bool:
    """Return whether a file is the service `web`, written in lines of its own, and no more."""
    rest = text.removeprefix(_START).splitlines()
    return text.startswith(_START) and all(line.startswith("    ") for line in rest)


_MISTAKES: Final = [
    (text, told[0])
    for _, text, told in mistakes_structure.MISTAKES + mistakes_project.MISTAKES
    if _is_one_service(text) and len(told) == 1 and _PLACE.match(told[0]) and _CYCLE not in told[0]
]
_KINDS_MIN: Final = 80


def _renamed(text: str) -> str:
    return re.sub(r"\bweb\b", "api", text)


@given(st.sampled_from(_MISTAKES), st.sampled_from(_MISTAKES))
def test_two_mistakes_are_both_told(first: tuple[str, str], second: tuple[str, str]) -> None:
    """Two services with a mistake each: both are told as they are alone, and nothing else."""
    assert len(_MISTAKES) >= _KINDS_MIN
    text = first[0] + _renamed(second[0]).removeprefix("services:\n")
    lines = first[0].count("\n") - 1
    moved = _PLACE.sub(lambda match: f"compose.yaml:{int(match[1]) + lines}:", second[1], count=1)
    assert problems_of(_FILES | {"compose.yaml": text}) == [first[1], _renamed(moved)]
