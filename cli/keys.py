"""How does a full-screen verb read single keys, and leave the terminal as it was?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["keys_to"]

KEYS_BYTES_MAX: Final = 64  # read at once; the rest comes with the next call


@contextlib.contextmanager
def keys_to(pressed: Callable[[str], None]) -> Iterator[None]:
    """Call a function with every key that is pressed; without a terminal no key ever is.

    Ctrl-C stays what it is. Needs a running event loop.
    """
    if not sys.stdin.isatty():
        yield
        return
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    saved = termios.tcgetattr(descriptor)

    def read() -> None:
        data = os.read(descriptor, KEYS_BYTES_MAX)
        if not data:
            loop.remove_reader(descriptor)  # the terminal has gone; it would be readable for ever
        for key in data.decode(errors="ignore"):
            pressed(key)

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, saved)
