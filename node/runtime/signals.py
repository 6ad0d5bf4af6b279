"""Which number has a signal that a user names, and which exit code what it ended? Pure."""

from __future__ import annotations

from typing import Final

from dray.errors import InvalidRequest

__all__ = ["KILLED_EXIT_CODE", "SIGNALLED_EXIT_CODE", "signal_number"]

SIGNALLED_EXIT_CODE: Final = 128  # plus the number of the signal that ended it

_NUMBERS = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9,
    "USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16,
    "CHLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24,
    "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28, "IO": 29, "PWR": 30, "SYS": 31,
}  # fmt: skip
"""Linux' numbers on the platforms that dray runs on (signal(7)); containers are always Linux."""
KILLED_EXIT_CODE: Final = SIGNALLED_EXIT_CODE + _NUMBERS["KILL"]


def signal_number(name: str) -> int:
    """Return the number of a signal: "SIGINT", "INT" or "2".

    Raises:
        InvalidRequest: There is no such signal.
    """
    if name.isascii() and name.isdecimal() and 1 <= int(name) <= 64:
        return int(name)
    short = name.upper().removeprefix("SIG")
    if short in _NUMBERS:
        return _NUMBERS[short]
    raise InvalidRequest(f"there is no signal {name!r}", hint="use one of `kill -l`")
