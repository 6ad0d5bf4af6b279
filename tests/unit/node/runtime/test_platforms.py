"""Is it known what a node can run, by its processor and by what its kernel emulates?"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from node.runtime.platforms import architectures, is_foreign, read_emulated

ARM64: Final = "7f454c460201010000000000000000000200b700"
S390X: Final = "7f454c4602020100000000000000000000020016"  # the one with its bytes the other way


def handler(magic: str, status: str = "enabled") -> str:
    """Return a handler as the kernel shows it."""
    return f"{status}\ninterpreter /usr/bin/qemu\nflags: F\noffset 0\nmagic {magic}\nmask ff\n"


@pytest.mark.parametrize(
    ("image", "node", "expected"),
    [
        ("linux/amd64", "linux/amd64", False),
        ("linux/arm64", "linux/amd64", True),
        ("linux/arm64/v8", "linux/arm64", False),
        ("linux/386", "linux/amd64", False),
        ("linux/amd64", "linux/386", True),
        ("linux/arm/v7", "linux/arm64", False),
        ("linux/arm64", "linux/arm", True),
        ("windows/amd64", "linux/amd64", True),
        ("", "linux/amd64", False),
        ("linux/", "linux/amd64", False),
        ("unknown/unknown", "linux/amd64", False),
    ],
)
def test_an_image_is_foreign_when_the_processor_does_not_run_it(
    image: str, node: str, expected: bool
) -> None:
    """What is not known is not foreign."""
    assert is_foreign(image, node) is expected


def test_emulated_processors_are_read_from_the_kernels_patterns() -> None:
    """Whatever the handlers are called; those that are off, and other formats, do not count."""
    assert architectures([handler(ARM64), handler(S390X)]) == {"arm64", "s390x"}
    others = [handler(ARM64, "disabled"), handler("4d5a"), handler("7f454c46"), "", "enabled\n"]
    assert architectures(others) == frozenset()


def test_a_kernel_that_does_not_tell_is_not_taken_for_one_without(tmp_path: Path) -> None:
    """binfmt_misc may be mounted elsewhere only."""
    assert read_emulated(tmp_path / "absent") is None
    assert read_emulated(tmp_path) is None
    (tmp_path / "register").touch(0o200)
    (tmp_path / "status").write_text("enabled\n")
    assert read_emulated(tmp_path) == frozenset()
    (tmp_path / "any-name").write_text(handler(ARM64))
    assert read_emulated(tmp_path) == frozenset({"arm64"})
