"""Does `DiskFiles` read just what the loader may have, and say why when it cannot?"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dray.errors import DrayError, ErrorCode
from dray.files import DiskFiles


@pytest.mark.parametrize(("size", "limit", "given"), [(0, 5, 0), (5, 5, 5), (6, 5, 6), (9, 5, 6)])
def test_a_file_is_read_up_to_one_byte_beyond_the_limit(
    tmp_path: Path, size: int, limit: int, given: int
) -> None:
    """One byte more than allowed tells that a file is too large, without reading all of it."""
    path = tmp_path / "compose.yaml"
    path.write_bytes(b"x" * size)
    assert DiskFiles().read(str(path), limit) == b"x" * given


@pytest.mark.parametrize("name", ["missing.yaml", "no/such/folder/x.yaml", "file/below", "a\0b"])
def test_what_is_not_there_is_none(tmp_path: Path, name: str) -> None:
    """No file of that name, a folder that is a file, an impossible name: nothing is there."""
    (tmp_path / "file").touch()
    path = f"{tmp_path}/{name}"
    assert DiskFiles().read(path, 10) is None
    assert not DiskFiles().exists(path)


def test_a_link_is_followed(tmp_path: Path) -> None:
    """A link to a file reads as the file, a broken one as nothing."""
    (tmp_path / "real").write_bytes(b"content")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "broken").symlink_to("nowhere")
    assert DiskFiles().read(f"{tmp_path}/link", 10) == b"content"
    assert DiskFiles().read(f"{tmp_path}/broken", 10) is None
    assert DiskFiles().exists(f"{tmp_path}/link")


def test_a_folder_is_there_and_is_no_file(tmp_path: Path) -> None:
    """A folder is refused with its name."""
    assert DiskFiles().exists(str(tmp_path))
    with pytest.raises(DrayError) as caught:
        DiskFiles().read(str(tmp_path), 10)
    assert caught.value.message == f"{tmp_path} is not a file"
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    """A pipe that nobody writes to is refused rather than waited for."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DrayError, match="is not a file"):
        DiskFiles().read(f"{tmp_path}/pipe", 10)


@pytest.mark.parametrize(
    ("make", "number"), [("circle", errno.ELOOP), ("x" * 300, errno.ENAMETOOLONG)], ids=str
)
def test_what_cannot_be_read_is_said(tmp_path: Path, make: str, number: int) -> None:
    """The system's own words follow the path."""
    (tmp_path / "circle").symlink_to("circle")
    path = f"{tmp_path}/{make}"
    with pytest.raises(DrayError) as caught:
        DiskFiles().read(path, 10)
    assert caught.value.message == f"cannot read {path}: {os.strerror(number)}"
    assert caught.value.code is ErrorCode.FAILED_PRECONDITION
    assert not DiskFiles().exists(path)
