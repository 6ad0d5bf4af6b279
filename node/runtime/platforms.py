"""Can a node run an image of another platform? By its processor, or by an emulator of the kernel's.

Linux hands programs of other processors to interpreters that were registered with binfmt_misc: each
is a file whose pattern holds the number that the ELF format has for the processor.
Source: Documentation/admin-guide/binfmt-misc.rst of the kernel; elf.h for the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

__all__ = ["BINFMT_FOLDER", "architectures", "is_foreign", "read_emulated"]

BINFMT_FOLDER: Final = Path("/proc/sys/fs/binfmt_misc")
_HANDLER_BYTES_MAX: Final = 4_096
_ARCHITECTURES: Final = {
    3: "386",
    21: "ppc64le",
    22: "s390x",
    40: "arm",
    62: "amd64",
    183: "arm64",
    243: "riscv64",
    258: "loong64",
}
_ALSO_NATIVE: Final = frozenset({("amd64", "386"), ("arm64", "arm")})  # by most of these processors
_MAGIC: Final = re.compile(r"^magic ([0-9a-f]+)$", re.MULTILINE)
_ELF: Final = b"\x7fELF"
_BIG_ENDIAN: Final = 2


def is_foreign(image: str, node: str) -> bool:
    """Return whether an image's platform is one that a node does not run by itself.

    Args:
        image: "linux/arm64/v8"; what is empty or unknown is not foreign.
        node: "linux/amd64".
    """
    own, have = image.split("/")[:2], node.split("/")[:2]
    if len(own) < 2 or not all(own) or "unknown" in own:
        return False
    return own != have and not (own[0] == have[0] and (have[1], own[1]) in _ALSO_NATIVE)


def architectures(handlers: Iterable[str]) -> frozenset[str]:
    """Return whose programs are emulated.

    Args:
        handlers: What the files of binfmt_misc say.
    """
    found = set()
    for text in handlers:
        magic = _MAGIC.search(text)
        if magic is None or not text.startswith("enabled") or len(magic[1]) % 2:
            continue
        pattern = bytes.fromhex(magic[1])
        if len(pattern) >= 20 and pattern.startswith(_ELF):
            is_big = pattern[5] == _BIG_ENDIAN
            machine = int.from_bytes(pattern[18:20], "big" if is_big else "little")
            found.add(_ARCHITECTURES.get(machine, ""))
    return frozenset(found - {""})


def read_emulated(folder: Path = BINFMT_FOLDER) -> frozenset[str] | None:
    """Return whose programs the kernel emulates, or None if it does not tell. It blocks."""
    try:
        if not (folder / "register").exists():
            return None  # it is not mounted here; there may be handlers all the same
        return architectures(
            path.read_text(encoding="ascii", errors="replace")[:_HANDLER_BYTES_MAX]
            for path in folder.iterdir()
            if path.name not in ("register", "status")
        )
    except OSError:
        return None
