"""Does the page about Compose keys say what the code does?"""

from __future__ import annotations

from dray.compose.treatment import ROWS
from tests import compose_document


def test_the_page_is_current() -> None:
    """The committed page is the one that the tables generate."""
    assert compose_document.is_current(), "run: python -m tests.compose_document --write"


def test_the_page_names_every_key() -> None:
    """Every key that a file can have is in the page, in its own words."""
    text = compose_document.PATH.read_text(encoding="utf-8")
    names = {row.path for row in ROWS if not row.path.endswith(("*", "[]"))}
    printed = (".Path", ".Rate", ".Weight", "networks.default", "secrets.*.content")
    short = {name.replace("services.*.x-dray.", "").replace("x-dray.", "") for name in names}
    missing = [
        name
        for name in sorted(short)
        if f"`{name}`" not in text and not name.endswith((*printed, "x-dray"))
    ]
    assert len(names) > 250
    assert not missing
