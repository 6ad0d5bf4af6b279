"""Is a secret in the store of no use to who has no key, and is every wrong key named?"""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from dray.errors import FailedPrecondition
from dray.model import ContentKind, ContentRef
from scheduler.api.sealing import KEY_BYTES, NO_SEALER, Sealer, read_key
from scheduler.store.records import ContentRecord

KEY = b"k" * KEY_BYTES
SECRET = ContentRecord(ContentRef(ContentKind.SECRET, "token", digest=b"d" * 32), b"hunter2")


def sealer(key: bytes = KEY) -> Sealer:
    """Return a sealer."""
    return Sealer(key, secrets.token_bytes)


def test_what_is_sealed_is_opened_again() -> None:
    """Only the one who has the key reads it, and sealing twice gives different bytes."""
    one, two = sealer().seal(SECRET), sealer().seal(SECRET)
    assert b"hunter2" not in one.content
    assert one.content != two.content
    assert one.sealed_by
    assert sealer().open(one).content == b"hunter2"


def test_configs_and_clusters_without_a_key_are_left_alone() -> None:
    """A config is no secret; without a key nothing is sealed, and nothing sealed is opened."""
    config = replace(SECRET, ref=replace(SECRET.ref, kind=ContentKind.CONFIG))
    assert sealer().seal(config) == config
    assert NO_SEALER.seal(SECRET) == SECRET
    assert sealer().open(SECRET) == SECRET
    with pytest.raises(FailedPrecondition, match="has no key"):
        NO_SEALER.open(sealer().seal(SECRET))


def test_another_key_or_another_place_is_refused() -> None:
    """A wrong key, changed bytes and a secret under another name are told apart from success."""
    stored = sealer().seal(SECRET)
    with pytest.raises(FailedPrecondition, match="another key"):
        sealer(b"x" * KEY_BYTES).open(stored)
    with pytest.raises(FailedPrecondition, match="was changed"):
        sealer().open(replace(stored, content=stored.content[:-1] + b"\0"))
    with pytest.raises(FailedPrecondition, match="was changed"):
        sealer().open(replace(stored, ref=replace(stored.ref, key="other")))
    with pytest.raises(FailedPrecondition, match="was changed"):
        sealer().open(replace(stored, content=b""))


def test_a_key_is_a_file_of_its_length(tmp_path: Path) -> None:
    """A missing file and one of another length are named, with how to make one."""
    path = tmp_path / "key"
    with pytest.raises(FailedPrecondition, match="cannot read"):
        read_key(path)
    path.write_bytes(KEY)
    assert read_key(path) == KEY
    path.write_bytes(KEY + b"\n")
    with pytest.raises(FailedPrecondition, match="is no key") as caught:
        read_key(path)
    assert "urandom" in caught.value.hint
