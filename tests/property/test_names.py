"""Do ids and their texts stand for each other, and is every suggested name a good one?"""

from __future__ import annotations

import re
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from dray.errors import InvalidRequest
from dray.names import (
    ID_BYTES,
    check_label,
    check_service_name,
    dns_label,
    id_bytes,
    id_text,
    is_id,
)

_ID_LIKE = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=25, max_size=27)
_NAMES = st.text(max_size=80) | st.text("abcXYZ019-_. é\n", max_size=80)


def is_label(name: str) -> bool:
    """Return whether RFC 1123 takes the name, by a wording of its own."""
    allowed = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
    return 1 <= len(name) <= 63 and set(name) <= allowed and name == name.strip("-")


@given(st.binary(min_size=ID_BYTES, max_size=ID_BYTES))
def test_every_id_is_read_back(raw: bytes) -> None:
    """From bytes to text and back changes nothing."""
    assert id_bytes(id_text(raw)) == raw


@given(st.text(max_size=30) | _ID_LIKE)
def test_every_text_is_one_id_or_none(text: str) -> None:
    """From text to bytes and back changes nothing; all other text is refused."""
    try:
        raw = id_bytes(text)
    except InvalidRequest:
        assert not is_id(text)
    else:
        assert is_id(text)
        assert id_text(raw) == text


@given(_NAMES)
def test_dns_labels_are_labels(name: str) -> None:
    """What stands for a name is empty or a label, and stands for itself."""
    label = dns_label(name)
    assert label == "" or is_label(label)
    assert dns_label(label) == label


@given(_NAMES)
def test_a_refused_name_gets_a_suggestion_that_is_accepted(name: str) -> None:
    """A name is kept, or refused; a suggestion in the hint would be kept."""
    try:
        assert check_label(name, "node") == name
    except InvalidRequest as error:
        suggestion = re.fullmatch(r"'(.+)' would do", error.hint)
        if suggestion is not None:
            assert check_label(suggestion[1], "node") == suggestion[1]


@given(_NAMES)
def test_an_accepted_service_has_a_label(name: str) -> None:
    """Every accepted name of a service resolves under a label."""
    with suppress(InvalidRequest):
        assert check_service_name(name) == name
        assert is_label(dns_label(name))
