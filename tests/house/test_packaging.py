"""What does `pip install dray` put on a machine, and does any of it collide with something else?"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house import tree

OURS: Final = {"dray", "scheduler", "node", "cli"}
# Top-level names of the source tree that must never be installed by anyone into a user's path.
GENERIC: Final = ("scheduler", "node", "cli")


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and the source archive once, without any network."""
    out = tmp_path_factory.mktemp("dist")
    uv = Path(sys.executable).with_name("uv")
    options = ["--no-build-isolation", "--offline", "--no-config", "--python", sys.executable]
    done = subprocess.run(
        [str(uv), "build", "--quiet", *options, "--out-dir", str(out), str(tree.TOP)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    """Return the built wheel."""
    (found,) = distributions.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def about(wheel: Path) -> Message:
    """Return the wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def test_wheel_holds_four_packages(wheel: Path) -> None:
    """The wheel installs the four packages and its own metadata, nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert tops == OURS | {top for top in tops if re.fullmatch(r"dray-.*\.dist-info", top)}


def test_wheel_holds_every_module(wheel: Path) -> None:
    """Every module of the four packages is in the wheel, and the mark that they are typed."""
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    relative = [path.relative_to(tree.TOP) for path in tree.files()]
    expected = {str(p) for p in relative if p.parts[0] in OURS and p.suffix in (".py", ".pyi")}
    assert expected, "found no module"
    assert expected <= packed, sorted(expected - packed)
    assert "dray/py.typed" in packed


def test_wheel_works_without_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    """The installed packages import from the wheel alone, in an empty folder."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)  # noqa: S202 - our own archive, built above
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {', '.join(sorted(OURS))}\n"
    code += "".join(f"print({name}.__file__)\n" for name in sorted(OURS))
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert all(line.startswith(str(tmp_path)) for line in done.stdout.split()), done.stdout


def test_source_archive_can_build_a_wheel(distributions: Path) -> None:
    """The source archive holds what building needs and none of the tests."""
    (found,) = distributions.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "dray/__init__.py"} <= names
    assert not {name for name in names if name.startswith(("tests/", "benchmarks/", ".ci/"))}


def test_entry_point(wheel: Path) -> None:
    """The wheel installs one command, `dray`."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/entry_points.txt")]
        lines = archive.read(name).decode().split("\n")
    assert [line for line in lines if "=" in line] == ["dray = cli.__main__:main"]


def test_licence(wheel: Path, about: Message) -> None:
    """The wheel says that it is under the Apache License 2.0 and carries the text."""
    assert about["License-Expression"] == "Apache-2.0"
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/licenses/LICENSE")]
        assert "Version 2.0" in archive.read(name).decode()[:300]


def required(requirements: list[str], extras: set[str]) -> set[str]:
    """Return the distributions that an install with these extras brings, also indirectly."""
    found: set[str] = set()
    waiting = [(requirements, frozenset(extras))]
    while waiting:
        texts, chosen = waiting.pop()
        for requirement in map(Requirement, texts):
            name = canonicalize_name(requirement.name)
            is_wanted = requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in chosen | {""}
            )
            if is_wanted and name == "dray":
                waiting.append((requirements, frozenset(requirement.extras)))
            elif is_wanted and name not in found:
                found.add(name)
                waiting.append((list(_requires(name)), frozenset(requirement.extras)))
    return found


@cache
def _requires(name: str) -> tuple[str, ...]:
    return tuple(metadata.requires(name) or ())


@pytest.mark.parametrize(
    ("extras", "present", "absent"),
    [
        (set(), {"grpcio", "protobuf"}, {"docker", "numpy", "pyroute2", "psutil", "structlog"}),
        ({"node"}, {"docker", "dnspython", "psutil"}, {"numpy"}),
        ({"scheduler"}, {"numpy", "structlog"}, {"docker", "pyroute2", "dnspython"}),
        ({"all"}, {"numpy", "docker", "structlog", "psutil"}, set()),
    ],
    ids=["client", "node", "scheduler", "all"],
)
def test_extras(about: Message, extras: set[str], present: set[str], absent: set[str]) -> None:
    """A client needs no Docker and no numpy, a node no numpy, a scheduler no Docker."""
    brought = required(about.get_all("Requires-Dist") or [], extras)
    assert present <= brought
    assert not brought & absent


def test_no_dependency_brings_our_names() -> None:
    """No distribution of the environment installs a top-level `scheduler`, `node` or `cli`."""
    owners = metadata.packages_distributions()
    clashes = {name: owners[name] for name in GENERIC if set(owners.get(name, [])) - {"dray"}}
    assert not clashes
    assert "pytest" in owners, "the list of installed names is empty"
