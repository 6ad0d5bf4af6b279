"""Does the repository say only what holds on every machine? Does the lock follow the project?"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.house import tree

TEXT_BYTES_MAX: Final = 2_000_000
# Assembled, so that this file does not name what it looks for.
HOSTS: Final = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("proxy", "golang", "org"),
        ("registry-1", "docker", "io"),
        ("ghcr", "io"),
        ("quay", "io"),
    )
]
FOREIGN_PATH: Final = re.compile(r"(?<![\w.])/(?:work/|root/\.|home/[a-z][\w-]*/|Users/)")
UNFINISHED: Final = re.compile(r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3]) + r")\b")
LINE_EXEMPT: Final = "requirements.lock"


def lines() -> Iterator[tuple[Path, int, str]]:
    """Yield every line of every text file."""
    for path in tree.files():
        if path.stat().st_size > TEXT_BYTES_MAX or path.name in (LINE_EXEMPT, "LICENSE"):
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            yield path, number, line


def test_no_registry_is_named() -> None:
    """No file names a package registry or mirror: it works behind whichever one is configured."""
    found = [
        tree.shown(path, number, f"names the registry {host}")
        for path, number, line in lines()
        for host in HOSTS
        if host in line
    ]
    locked = (tree.TOP / LINE_EXEMPT).read_text()
    found += [f"{LINE_EXEMPT}:1: names {host}" for host in HOSTS if host in locked]
    assert not found, tree.report(found)


def test_no_path_of_one_machine() -> None:
    """No file names a folder that only somebody's machine has."""
    found = [
        tree.shown(path, number, f"names a folder of one machine: {match[0]}")
        for path, number, line in lines()
        if (match := FOREIGN_PATH.search(line))
    ]
    assert not found, tree.report(found)


def test_nothing_is_marked_unfinished() -> None:
    """No comment promises later work: an issue says it, or it is done."""
    found = [
        tree.shown(path, number, f"is marked unfinished: {match[0]}")
        for path, number, line in lines()
        if (match := UNFINISHED.search(line))
    ]
    assert not found, tree.report(found)


def project() -> dict[str, Any]:
    """Return the project table file."""
    return tomllib.loads((tree.TOP / "pyproject.toml").read_text())


def locked_versions() -> dict[str, list[Version]]:
    """Return the pinned versions by name; several where they differ by platform."""
    found: dict[str, list[Version]] = {}
    for line in (tree.TOP / LINE_EXEMPT).read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*])?==([^ ;\\]+)", line):
            found.setdefault(canonicalize_name(match[1]), []).append(Version(match[2]))
    return found


def wanted() -> list[Requirement]:
    """Return every requirement of the project, its extras and its groups, but for itself."""
    table = project()
    texts = list(table["project"]["dependencies"])
    for extra in table["project"]["optional-dependencies"].values():
        texts += extra
    for group in table["dependency-groups"].values():
        texts += [entry for entry in group if isinstance(entry, str)]
    return [r for text in texts if (r := Requirement(text)).name != table["project"]["name"]]


def test_lock_satisfies_the_project() -> None:
    """The lock pins everything the project asks for, at versions that it accepts."""
    locked = locked_versions()
    assert wanted()
    found = []
    for requirement in wanted():
        versions = locked.get(canonicalize_name(requirement.name), [])
        if not versions or not all(version in requirement.specifier for version in versions):
            pinned = ", ".join(map(str, versions)) or "nothing"
            found.append(f"requirements.lock:1: {requirement} is asked for, {pinned} is pinned")
    assert not found, tree.report(found)


def test_lock_is_hashed() -> None:
    """Every pinned version carries hashes, so that an index cannot swap a file."""
    blocks = re.split(r"\n(?=[A-Za-z])", (tree.TOP / LINE_EXEMPT).read_text().strip())
    bare = [block.split()[0] for block in blocks if "==" in block and "--hash=" not in block]
    assert len(blocks) > 1
    assert not bare, bare
