"""How are the machine's network tools run, with a limit on what they may take?

The functions block: the daemon calls them in a thread.
"""

from __future__ import annotations

import subprocess
from typing import Final

from dray.errors import DeadlineExceeded, DrayError, ErrorCode, FailedPrecondition

__all__ = ["PACKAGES", "TOOL_TIMEOUT_S", "CommandFailed", "run_tool"]

TOOL_TIMEOUT_S: Final = 30.0  # the largest table takes a second; a locked kernel never ends
SAID_CHARACTERS_MAX: Final = 500
PACKAGES: Final = {
    "bridge": "iproute2",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "iptables": "iptables",
    "modprobe": "kmod",
    "nft": "nftables",
}


class CommandFailed(DrayError):
    """A tool of the machine said no; the message has its words. It may work another time."""

    code = ErrorCode.FAILED_PRECONDITION
    retryable = True


def run_tool(*argv: str, text: str = "") -> str:
    """Run a tool to its end and return what it printed.

    Args:
        argv: The tool and its arguments.
        text: Its standard input.

    Raises:
        FailedPrecondition: It is not installed; the hint names the package.
        DeadlineExceeded: It did not end in time and was killed; what it did is not known.
        CommandFailed: It ended with an error.
    """
    try:
        done = subprocess.run(
            argv,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=TOOL_TIMEOUT_S,
            env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL": "C",
            },
        )
    except FileNotFoundError as error:
        raise FailedPrecondition(
            f"the program {argv[0]} is not installed",
            hint=f"install the package {PACKAGES.get(argv[0], argv[0])}",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DeadlineExceeded(f"{argv[0]} did not end within {TOOL_TIMEOUT_S:g} s") from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:SAID_CHARACTERS_MAX]
        raise CommandFailed(f"{' '.join(argv)}: {said or f'exit status {done.returncode}'}")
    return done.stdout
