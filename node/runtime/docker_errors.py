"""Which kind of no is it that the Docker Engine says, and is it worth asking again?

The engine gives a status and a sentence; the sentence is all that tells one trouble from another.
The sentences below are those of Docker 20.10 to 28 with runc; one that nobody knows is `OTHER`, or
`INVALID` when the status blames the request. Pure.
"""

from __future__ import annotations

import re
from typing import Final

from node.runtime.base import Refusal, Refused

__all__ = ["MESSAGE_LENGTH_MAX", "one_line", "refused", "refused_pull"]

MESSAGE_LENGTH_MAX: Final = 500
_BAD_REQUEST: Final = 400

_FORMAT_MEANS: Final = (
    "the program is for another processor than this node's, or a script without a #! line: "
    "build the image for this platform, or constrain the service to nodes of its own"
)

# First match wins: what is more special stands above what is more general.
_SENTENCES: Final[tuple[tuple[str, Refusal, bool], ...]] = (
    (r"no space left on device|disk quota exceeded", Refusal.DISK_FULL, True),
    (r"does not match the specified platform", Refusal.WRONG_PLATFORM, False),
    (r"no matching manifest for|no match for platform", Refusal.WRONG_PLATFORM, False),
    (r"executable file not found", Refusal.COMMAND_NOT_FOUND, False),
    (r'exec: "[^"]*": .*no such file or directory', Refusal.COMMAND_NOT_FOUND, False),
    (r"exec \S+: no such file or directory", Refusal.COMMAND_NOT_FOUND, False),
    (
        r'exec: "[^"]*": .*(permission denied|is a directory)|exec \S+: permission denied',
        Refusal.COMMAND_NOT_EXECUTABLE,
        False,
    ),
    (r"exec format error", Refusal.COMMAND_NOT_EXECUTABLE, False),
    (r"bind source path does not exist", Refusal.MOUNT_MISSING, False),
    (r"is already in use by container", Refusal.NAME_TAKEN, True),
    (r"port is already allocated|ports are not available", Refusal.PORT_TAKEN, True),
    (r"(listen|bind)\b.*address already in use", Refusal.PORT_TAKEN, True),
    (r"address already in use", Refusal.ADDRESS_TAKEN, True),
    (
        r"gathering device information|could not select device driver|unresolvable CDI device",
        Refusal.DEVICE_MISSING,
        False,
    ),
    (r"no such volume", Refusal.VOLUME_MISSING, False),
    (r"network \S+ not found|no such network", Refusal.NETWORK_MISSING, False),
    (r"no such image", Refusal.IMAGE_NOT_FOUND, False),
    (
        r"unable to find (user|group)|no matching entries in (passwd|group) file"
        r"|invalid isolation|storage-opt|decoding seccomp profile|^cannot mkdir: .* not a directory"
        r"|sysctl|rlimit|unknown or invalid runtime|is not a shared( or slave)? mount",
        Refusal.INVALID,
        False,
    ),
)

_PULL_SENTENCES: Final[tuple[tuple[str, Refusal, bool], ...]] = (
    (r"no space left on device|disk quota exceeded", Refusal.DISK_FULL, True),
    (
        r"no matching manifest for|does not match the specified platform",
        Refusal.WRONG_PLATFORM,
        False,
    ),
    # Docker Hub answers alike for "there is none" and "you may not see it"; the words say both.
    (r"repository does not exist|manifest unknown|name unknown", Refusal.IMAGE_NOT_FOUND, False),
    (r"manifest for .* not found|no such image|not found: ", Refusal.IMAGE_NOT_FOUND, False),
    (
        r"unauthorized|no basic auth credentials|authentication required|\bdenied\b|forbidden",
        Refusal.IMAGE_DENIED,
        False,
    ),
    (r"invalid reference format|cannot parse platform", Refusal.INVALID, False),
    (
        r"dial (tcp|unix)|i/o timeout|timeout|connection re(fused|set)|no such host|\beof\b"
        r"|request canceled|server gave http response|x509|tls: |toomanyrequests"
        r"|unexpected http status|server misbehaving|network is unreachable|no route to host",
        Refusal.REGISTRY_UNREACHABLE,
        True,
    ),
)


def refused(status: int, message: str, *, container_id: str = "") -> Refused:
    """Return what the engine's answer to a create, start or volume call means.

    Args:
        status: HTTP status, >= 400.
        message: The engine's sentence.
        container_id: The container that the call was about, to tell its absence from that of
            another one that it refers to.
    """
    found = _lookup(_SENTENCES, message)
    if found is not None:
        return found
    text = one_line(message)
    if re.search(r"no such container", message, re.IGNORECASE):
        is_own = bool(container_id) and container_id in message
        return Refused(Refusal.NOT_FOUND if is_own else Refusal.NETWORK_MISSING, text)
    if "is marked for removal" in message:
        return Refused(Refusal.NOT_FOUND, text)
    return Refused(Refusal.INVALID if status == _BAD_REQUEST else Refusal.OTHER, text)


def refused_pull(status: int, message: str) -> Refused:
    """Return what the engine's words about a pull mean.

    Args:
        status: HTTP status; 0 when the words came in the middle of the pull.
        message: The engine's sentence, most often the registry's.
    """
    found = _lookup(_PULL_SENTENCES, message)
    if found is not None:
        return found
    kind = Refusal.INVALID if status == _BAD_REQUEST else Refusal.OTHER
    return Refused(kind, one_line(message))


def one_line(message: str) -> str:
    """Return the words on one line, without runc's empty ending, cut to 500 characters."""
    text = " ".join(message.split()).removesuffix(": unknown")
    return text if len(text) <= MESSAGE_LENGTH_MAX else text[: MESSAGE_LENGTH_MAX - 1] + "…"


def _lookup(sentences: tuple[tuple[str, Refusal, bool], ...], message: str) -> Refused | None:
    for pattern, refusal, retryable in sentences:
        if re.search(pattern, message, re.IGNORECASE):
            return Refused(refusal, _explained(message), retryable)
    return None


def _explained(message: str) -> str:
    """Return the words on one line, with what they mean where the kernel's own say too little."""
    if "exec format error" not in message:
        return one_line(message)
    return one_line(f"{message} ({_FORMAT_MEANS})")
