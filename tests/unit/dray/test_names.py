"""Are names and ids held to one spelling, and is a wrong one told what would do?"""

from __future__ import annotations

import random

import pytest

from dray.errors import InvalidRequest
from dray.names import (
    DNS_LABEL_LENGTH_MAX,
    ID_BYTES,
    ID_LENGTH,
    RandomIds,
    check_label,
    check_service_name,
    dns_label,
    id_bytes,
    id_text,
    is_id,
    slot_name,
)

_LONGEST = "a" * DNS_LABEL_LENGTH_MAX


@pytest.mark.parametrize("name", ["a", "0", "a1", "web", "web-1", "a--b", "1", _LONGEST])
def test_labels_are_kept(name: str) -> None:
    """A DNS label is returned as it is."""
    assert check_label(name, "project") == name


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("", "project name '' is empty", "choose another name"),
        ("Web", "project name 'Web' may hold only", "'web' would do"),
        ("web_1", "project name 'web_1' may hold only", "'web-1' would do"),
        ("-web-", "project name '-web-' may hold only", "'web' would do"),
        ("web.shop", "project name 'web.shop' may hold only", "'web-shop' would do"),
        ("web\n", "project name 'web\\n' may hold only", "'web' would do"),
        ("wéb", "project name 'wéb' may hold only", "'w-b' would do"),
        ("店", "project name '店' may hold only", "choose another name"),
        ("---", "project name '---' may hold only", "choose another name"),
        ("a" * 64, f"project name '{_LONGEST}…' has 64 characters", f"'{_LONGEST}' would do"),
    ],
    ids=repr,
)
def test_other_names_are_refused_with_one_that_would_do(name: str, message: str, hint: str) -> None:
    """A name that is no label is refused with what is wrong and a name that is one."""
    with pytest.raises(InvalidRequest) as caught:
        check_label(name, "project")
    assert caught.value.message.startswith(message)
    assert caught.value.hint == hint


def test_a_huge_name_is_not_echoed() -> None:
    """A name of ten million characters makes a short message."""
    with pytest.raises(InvalidRequest) as caught:
        check_label("ü" * 10_000_000, "node")
    assert len(str(caught.value)) < 250
    assert "10000000 characters" in caught.value.message


@pytest.mark.parametrize("name", ["web", "Web", "web_1", "web.1", "_web", "-web", "WEB.", _LONGEST])
def test_service_names_are_those_of_compose(name: str) -> None:
    """Compose's names of services are kept as they are."""
    assert check_service_name(name) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "service name '' may hold only"),
        ("a b", "service name 'a b' may hold only"),
        ("web/1", "service name 'web/1' may hold only"),
        ("web\n", "service name 'web\\n' may hold only"),
        ("wéb", "service name 'wéb' may hold only"),
        ("._-", "service name '._-' has no letter or digit"),
        ("a" * 64, f"service name '{_LONGEST}…' has 64 characters"),
    ],
    ids=repr,
)
def test_other_service_names_are_refused(name: str, message: str) -> None:
    """A name that Compose refuses, or that leaves no DNS label, is refused by name."""
    with pytest.raises(InvalidRequest) as caught:
        check_service_name(name)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        *(("web", "web"), ("Web_1", "web-1"), ("a..b", "a-b"), ("-a-", "a"), ("", ""), ("é", "")),
        *(("a" * 64, _LONGEST), ("a" * 62 + "-b", "a" * 62), ("İ", "i")),
    ],
)
def test_dns_labels_of_names(name: str, label: str) -> None:
    """Other characters become hyphens, none of them at an end, and the cut leaves none there."""
    assert dns_label(name) == label


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x00" * ID_BYTES, "a" * ID_LENGTH),
        (b"\xff" * ID_BYTES, "7" * (ID_LENGTH - 1) + "4"),
        (bytes(range(ID_BYTES)), "aaaqeayeaudaocajbifqydiob4"),
    ],
)
def test_ids_have_one_text(raw: bytes, text: str) -> None:
    """The text and the bytes of an id stand for each other."""
    assert id_text(raw) == text
    assert id_bytes(text) == raw


@pytest.mark.parametrize(
    "text",
    [
        *("", "a" * 25, "a" * 27, "A" * 26, "a" * 25 + "b", "a" * 25 + "1", "a" * 26 + "\n"),
        *("a" * 25 + "=", "é" * 26, "a" * 25 + "\uff21", "a" * 1_000_000),
    ],
    ids=lambda text: f"{text[:30]!r}-{len(text)}",
)
def test_what_is_no_id_is_refused(text: str) -> None:
    """Text that no id has is refused, shortened, even when a base-32 decoder would take it."""
    assert not is_id(text)
    with pytest.raises(InvalidRequest, match="is not an id") as caught:
        id_bytes(text)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("length", [0, 15, 17])
def test_bytes_of_another_length_are_no_id(length: int) -> None:
    """Only 16 bytes are an id."""
    with pytest.raises(InvalidRequest, match=f"this one has {length}"):
        id_text(b"\x00" * length)


def test_random_ids_come_from_the_source_they_are_given() -> None:
    """Two factories with one seed agree; the ids of one are distinct and well-formed."""
    first, second = (RandomIds(random.Random(7).getrandbits) for _ in range(2))
    ids = [first.new() for _ in range(1000)]
    assert ids == [second.new() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(map(is_id, ids))


def test_slots_are_written_with_a_dot() -> None:
    """A slot is its service and its number."""
    assert slot_name("web", 3) == "web.3"
