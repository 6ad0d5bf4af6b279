"""With which status does `dray` end, and what does it say when something is wrong?"""

from __future__ import annotations

import enum

from dray.errors import DrayError, ErrorCode, InvalidRequest

__all__ = ["ExitCode", "UsageError", "exit_code_of"]


class ExitCode(enum.IntEnum):
    """What scripts branch on."""

    CONVERGED = 0
    """What was asked for is so."""
    REFUSED = 1
    """It was not done: the request, the cluster or the environment said no."""
    USAGE = 2
    """The command line or the CLI's settings are wrong; nothing was sent."""
    ROLLED_BACK = 3
    """It was begun, failed, and the previous state is back."""
    TIMED_OUT = 4
    """It was begun and goes on without us: the time to wait for it is over."""
    INTERRUPTED = 130
    """Ctrl-C, as shells count it: 128 + SIGINT."""
    OUTPUT_CLOSED = 141
    """Whoever read our output went away (`dray ps | head`): 128 + SIGPIPE."""


class UsageError(InvalidRequest):
    """The command line, a variable or the CLI's file is wrong. Nothing was sent."""


def exit_code_of(error: DrayError) -> ExitCode:
    """Return the status that a failure ends the command with."""
    if isinstance(error, UsageError):
        return ExitCode.USAGE
    if error.code is ErrorCode.DEADLINE_EXCEEDED:
        return ExitCode.TIMED_OUT
    return ExitCode.REFUSED
