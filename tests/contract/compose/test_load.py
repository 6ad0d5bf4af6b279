"""Does `load` keep what its types promise?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dray.compose import FileSystem, Loaded, LoadRequest, Position, Problem, Rejected, load
from dray.compose.tree import plain
from dray.errors import DrayError
from dray.files import DiskFiles
from tests.compose_cases.files import MemoryFiles

_TEXT = """
name: shop
services:
  web:
    image: nginx
    environment: {A: "1"}
    deploy: {replicas: 2}
"""


def _files(kind: str, folder: Path, text: str) -> tuple[FileSystem, str]:
    if kind == "memory":
        return MemoryFiles({"compose.yaml": text}), "/shop/compose.yaml"
    path = folder / "compose.yaml"
    path.write_text(text)
    return DiskFiles(), str(path)


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_a_project_is_taken(kind: str, tmp_path: Path) -> None:
    """Both file systems give the same project, and its config is plain data."""
    files, path = _files(kind, tmp_path, _TEXT)
    result = load(LoadRequest((path,)), files)
    assert isinstance(result, Loaded)
    assert result.project.name == "shop"
    assert [service.name for service in result.project.services] == ["web"]
    assert json.loads(json.dumps(result.config)) == plain(result.config)
    assert result.used_files == (path,)


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_a_wrong_file_is_refused(kind: str, tmp_path: Path) -> None:
    """What is wrong is a value with a position, sorted by it."""
    text = _TEXT.replace("nginx", "[1]").replace("environment", "enviroment")
    files, path = _files(kind, tmp_path, text)
    result = load(LoadRequest((path,)), files)
    assert isinstance(result, Rejected)
    assert result.problems == (
        Problem(Position(path, 5, 12), "services.web.image", "must be text, not a list"),
        Problem(
            Position(path, 6, 5),
            "services.web.enviroment",
            "is not a known key",
            "did you mean 'environment'?",
        ),
    )


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    """What the file system refuses to read is told, not raised."""
    result = load(LoadRequest((str(tmp_path),)), DiskFiles())
    assert isinstance(result, Rejected)
    assert "is not a file" in result.problems[0].message


def test_no_file() -> None:
    """A request without a file is refused."""
    result = load(LoadRequest(()), MemoryFiles({}))
    assert result == Rejected((Problem(None, "", "no file was named", "name one with -f"),))


def test_a_file_system_that_fails() -> None:
    """Its failure is a problem with its message and hint."""

    class Broken:
        def read(self, path: str, bytes_max: int) -> bytes | None:
            raise DrayError(f"cannot read {path}", hint="mend it")

        def exists(self, path: str) -> bool:
            return False

    result = load(LoadRequest(("/a",)), Broken())
    assert result == Rejected((Problem(None, "", "cannot read /a", "mend it"),))
