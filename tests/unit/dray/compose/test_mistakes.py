"""Is every kind of mistake told exactly, with its place and what was probably meant?"""

from __future__ import annotations

import pytest

from dray.compose import PROBLEMS_MAX
from tests.compose_cases import mistakes_project, mistakes_structure
from tests.compose_cases.files import problems_of

_ALL = mistakes_structure.MISTAKES + mistakes_project.MISTAKES
_KINDS_MIN = 120


@pytest.mark.parametrize(
    ("text", "told"), [each[1:] for each in _ALL], ids=[each[0] for each in _ALL]
)
def test_mistake_is_told(text: str, told: list[str]) -> None:
    """The whole message is as in the table: file, line, column, path, cause and hint."""
    assert problems_of({"compose.yaml": text, "bad.env": "A=1\nB?=2\n"}) == told


def test_there_are_enough_kinds() -> None:
    """The tables hold many kinds, and no kind twice."""
    names = [each[0] for each in _ALL]
    assert len(set(names)) == len(names) >= _KINDS_MIN


def test_all_problems_are_told() -> None:
    """Loading does not stop at the first problem of a stage, and tells them by place."""
    told = problems_of("services:\n  a: {imag: x}\n  b: {image: 5}\n  c: {image: x, prots: []}\n")
    assert [each.split(": ")[1] for each in told] == [
        "services.a.imag",
        "services.b.image",
        "services.c.prots",
    ]


def test_problems_are_bounded() -> None:
    """A file that is wrong everywhere gives a list that a person can read."""
    text = "services:\n" + "".join(f"  s{index}: {{imag: x}}\n" for index in range(1000))
    told = problems_of(text)
    assert len(told) == PROBLEMS_MAX + 1
    assert told[-1] == "there may be more problems than these (mend these first)"
