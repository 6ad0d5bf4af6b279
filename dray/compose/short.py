"""What do short ports, volumes and devices stand for, and a command that is one text?"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from typing import Any, Final

__all__ = [
    "BadShort",
    "is_address",
    "is_windows_path",
    "parse_device",
    "parse_ports",
    "parse_volume",
    "split_command",
]

PORT_MAX: Final = 65_535
_PORT_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_PROTOCOLS: Final = ("tcp", "udp", "sctp")
_PROPAGATIONS: Final = ("rprivate", "private", "rshared", "shared", "rslave", "slave")
_DRIVE = re.compile(r"[a-zA-Z]:")


class BadShort(Exception):
    """A short syntax that cannot be read; the text says why."""


def is_address(text: str) -> bool:
    """Return whether a text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _range(text: str, what: str, spec: str) -> tuple[int, int]:
    match = _PORT_RANGE.fullmatch(text)
    if match is None:
        raise BadShort(f"{spec!r} has no proper {what} port: {text!r}")
    first, last = int(match[1]), int(match[2] or match[1])
    if last > PORT_MAX or first > last:
        raise BadShort(
            f"{spec!r} has no proper {what} port: {text!r} is not within 0 to {PORT_MAX}"
        )
    return first, last


def parse_ports(spec: str) -> list[dict[str, Any]]:
    """Return the ports that `[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]` stands for.

    Both ports may be ranges.

    Raises:
        BadShort: It cannot be read.
    """
    rest, _, target_text = spec.rpartition(":")
    address, _, published_text = rest.rpartition(":")
    target_text, _, protocol = target_text.partition("/")
    if not target_text:
        raise BadShort(f"{spec!r} names no container port")
    protocol = (protocol or "tcp").lower()
    if protocol not in _PROTOCOLS:
        raise BadShort(f"{spec!r} has the protocol {protocol!r}; known are tcp, udp and sctp")
    address = _bare_address(address, spec)
    first, last = _range(target_text, "container", spec)
    if not first:
        raise BadShort(f"{spec!r} has no proper container port: 0")
    published_first = published_last = 0
    if published_text:
        published_first, published_last = _range(published_text, "published", spec)
        if last != first and last - first != published_last - published_first:
            raise BadShort(f"{spec!r} has ranges of different lengths")
    ports = []
    for offset in range(last - first + 1):
        port: dict[str, Any] = {"mode": "ingress", "target": first + offset, "protocol": protocol}
        if address:
            port["host_ip"] = address
        if published_text and last == first and published_last != published_first:
            port["published"] = f"{published_first}-{published_last}"
        elif published_text:
            port["published"] = str(published_first + offset)
        ports.append(port)
    return sorted(ports, key=lambda port: f"{port['target']}/{protocol}")


def _bare_address(address: str, spec: str) -> str:
    if not address:
        return ""
    is_bracketed = address.startswith("[") and address.endswith("]")
    bare = address[1:-1] if is_bracketed else address
    if not is_address(bare):
        raise BadShort(f"{spec!r} has no proper address: {address!r}")
    if ":" in bare and not is_bracketed:
        raise BadShort(f"{spec!r} has an IPv6 address without brackets: write [{bare}]")
    return bare


def parse_volume(spec: str) -> dict[str, Any]:
    """Return the mount that `[SOURCE:]TARGET[:OPTIONS]` stands for.

    Raises:
        BadShort: It cannot be read.
    """
    if not spec:
        raise BadShort("an empty volume")
    if len(spec) <= 2:
        return {"type": "volume", "target": spec}
    sections = _sections(spec)
    if not all(sections):
        raise BadShort(f"{spec!r} has an empty section between colons")
    if len(sections) > 3:
        raise BadShort(f"{spec!r} has too many colons")
    mount: dict[str, Any] = {}
    if len(sections) == 1:
        mount["target"] = sections[0]
    else:
        mount["source"], mount["target"] = sections[0], sections[1]
    bind: dict[str, Any] = {}
    volume: dict[str, Any] = {}
    for option in sections[2].split(",") if len(sections) == 3 else ():
        if option in ("ro", "rw"):
            mount["read_only"] = option == "ro"
        elif option == "nocopy":
            volume["nocopy"] = True
        elif option in _PROPAGATIONS:
            bind["propagation"] = option
        elif option in ("z", "Z"):
            bind["selinux"] = option
    if not mount.get("read_only"):
        mount.pop("read_only", None)
    mount["target"] = posixpath.normpath(mount["target"])
    if _is_path(mount.get("source", "")):
        mount |= {"type": "bind", "bind": bind | {"create_host_path": True}}
        return mount | ({"volume": volume} if volume else {})
    mount |= {"type": "volume", "volume": volume}
    return mount | ({"bind": bind} if bind else {})


def _sections(spec: str) -> list[str]:
    """Split at colons, but not inside `${…}` nor behind a drive letter."""
    sections = [""]
    depth = 0
    for index, character in enumerate(spec):
        if character == "$" and spec[index + 1 : index + 2] == "{":
            depth += 1
        elif character == "}" and depth:
            depth -= 1
        elif character == ":" and not depth:
            last = sections[-1]
            if not (len(last) == 1 and last.isalpha()):
                sections.append("")
                continue
        sections[-1] += character
    return sections


def _is_path(source: str) -> bool:
    return (source != "" and source[0] in "./~") or is_windows_path(source)


def is_windows_path(text: str) -> bool:
    r"""Return whether a text is a Windows path: `C:…` or `\\…`."""
    return text.startswith("\\\\") or _DRIVE.match(text) is not None


def parse_device(spec: str) -> dict[str, Any]:
    """Return the device that `SOURCE[:TARGET[:PERMISSIONS]]` stands for.

    Raises:
        BadShort: It cannot be read.
    """
    parts = spec.split(":")
    if len(parts) > 3:
        raise BadShort(f"{spec!r} has too many colons: use the long syntax")
    target = parts[1] if len(parts) > 1 and parts[1] else parts[0]
    permissions = parts[2] if len(parts) > 2 else "rwm"
    return {"source": parts[0], "target": target, "permissions": permissions}


def split_command(line: str) -> list[str]:
    """Return the words of a command written as one text, as the official tool splits it.

    Quotes and backslashes work as in a shell; what stands behind an unquoted `;`, `&`, `|`, `<` or
    `>` is no part of the command.

    Raises:
        BadShort: A quote or a parenthesis does not end.
    """
    words: list[str] = []
    word: list[str] = []
    has_word = is_escaped = False
    inside = ""  # the quote, "`" or ")" that ends where we are
    for character in line:
        if is_escaped:
            is_escaped = False
            word.append("\\" + character if inside in ("`", ")") else character)
            has_word = True
        elif character == "\\" and inside != "'":
            is_escaped = True
        elif inside:
            if character == inside:
                inside = ""
                has_word = True
                if character in "\"'":
                    continue
            word.append(character)
        elif character in " \t\r\n":
            if has_word:
                words.append("".join(word))
            word, has_word = [], False
        elif character in "\"'":
            inside = character
        elif character in ";&|<>":
            if character == ">" and word and all(digit in "0123456789" for digit in word):
                has_word = False
            break
        elif character == "(" and not (word and word[-1] == "$"):
            raise BadShort(f"{_shown(line)!r} has an unquoted parenthesis")
        else:
            inside = {"`": "`", "(": ")", ")": ")"}.get(character, "")
            word.append(character)
            has_word = True
    if inside or is_escaped:
        raise BadShort(f"{_shown(line)!r} has a quote, bracket or backslash without its end")
    return [*words, "".join(word)] if has_word else words


def _shown(text: str) -> str:
    return text if len(text) <= 60 else text[:60] + "…"
