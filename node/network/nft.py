"""How is nftables asked and told, without a process of its own for each change?

Through `libnftables`, the library that the tool `nft` is made of and comes with. A process would
cost a start, and at its end more than that: the kernel lets a netlink socket through which
something was deleted close only after all processors have passed a quiet state (15 ms), long after
the change is in force. Here the socket stays open.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import weakref
from pathlib import Path
from typing import Final

from dray.errors import FailedPrecondition
from node.network.commands import PACKAGES, SAID_CHARACTERS_MAX, CommandFailed

__all__ = ["NETLINK_NETFILTER", "Nft"]

NETLINK_NETFILTER: Final = 12
_LIBRARY: Final = "libnftables.so.1"
_STATELESS: Final = 1 << 2  # NFT_CTX_OUTPUT_*: no counters and the like
_TERSE: Final = 1 << 11  # no elements


class Nft:
    """A connection to the kernel's nftables, opened when it is first needed.

    Its calls block, and are made one at a time: by whichever thread, but in the network namespace
    of the first one.
    """

    def __init__(self) -> None:
        """Open nothing yet."""
        self._opened: int | None = None
        self._ports: frozenset[int] = frozenset()

    def is_own(self, port: int) -> bool:
        """Return whether a message of nftables tells of a change that this process made.

        Args:
            port: The netlink port of who made it, which the message names.
        """
        return port in self._ports

    def carry_out(self, text: str) -> None:
        """Carry out commands in one transaction.

        Raises:
            FailedPrecondition: The library is not installed; the hint names the package.
            CommandFailed: nftables said no; nothing was changed.
        """
        self._run(text, 0)

    def listed(self, command: str, *, with_elements: bool = True) -> str:
        """Return what a `list` command prints.

        Raises:
            FailedPrecondition: The library is not installed; the hint names the package.
            CommandFailed: nftables said no, as when there is no such thing.
        """
        return self._run(command, 0 if with_elements else _STATELESS | _TERSE)

    def _run(self, text: str, flags: int) -> str:
        library, context = _library(), self._context()
        library.nft_ctx_output_set_flags(context, flags)
        failed = library.nft_run_cmd_from_buffer(context, text.encode())
        if not self._ports:  # the library opens its socket with its first command
            self._ports = _own_ports()
        printed: bytes = library.nft_ctx_get_output_buffer(context)
        said: bytes = library.nft_ctx_get_error_buffer(context)
        if failed:
            words = " ".join(said.decode(errors="replace").split())
            raise CommandFailed(f"nft: {words[:SAID_CHARACTERS_MAX] or 'failed'}")
        return printed.decode(errors="replace")

    def _context(self) -> int:
        if self._opened is None:
            library = _library()
            opened: int = library.nft_ctx_new(0)
            weakref.finalize(self, library.nft_ctx_free, opened)
            library.nft_ctx_buffer_output(opened)
            library.nft_ctx_buffer_error(opened)
            self._opened = opened
        return self._opened


def _own_ports() -> frozenset[int]:
    """Return the netlink ports through which this process talks to the kernel's netfilter."""
    folder = Path("/proc/thread-self")
    inodes = set()
    for name in os.listdir(folder / "fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own, and what others close
            inodes.add(os.readlink(folder / "fd" / name))
    rows = [line.split() for line in (folder / "net/netlink").read_text().splitlines()[1:]]
    return frozenset(
        int(port)
        for _, protocol, port, *_, inode in rows
        if int(protocol) == NETLINK_NETFILTER and f"socket:[{inode}]" in inodes
    )


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise FailedPrecondition(
            f"the library {_LIBRARY} is not installed",
            hint=f"install the package {PACKAGES['nft']}",
        ) from error
    context, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("nft_ctx_new", context, [ctypes.c_uint32]),
        ("nft_ctx_free", None, [context]),
        ("nft_ctx_buffer_output", ctypes.c_int, [context]),
        ("nft_ctx_buffer_error", ctypes.c_int, [context]),
        ("nft_ctx_output_set_flags", None, [context, ctypes.c_uint]),
        ("nft_ctx_get_output_buffer", text, [context]),
        ("nft_ctx_get_error_buffer", text, [context]),
        ("nft_run_cmd_from_buffer", ctypes.c_int, [context, text]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
