"""How are small values written into bytes and read back, with every length bounded?

The codecs of gossip (`messages`, `packing`) share this pair of a writer and a reader. Integers are
big-endian or variable-length (7 bits a byte, low bits first); text and bytes are preceded by their
length. The reader trusts nothing: whatever is short, too large or not canonical raises `WireError`,
which the codecs turn into a returned `Malformed`. It never leaves them.
"""

from __future__ import annotations

import functools
import ipaddress
from dataclasses import dataclass
from typing import Final

from dray.errors import InvalidRequest
from dray.names import ID_BYTES, id_bytes, id_text

__all__ = [
    "CACHE_ITEMS_MAX",
    "Malformed",
    "Reader",
    "WireError",
    "Writer",
    "address_bytes",
    "address_text",
]

CACHE_ITEMS_MAX: Final = 4_096  # ids and addresses: four times the members gossip is built for
UVARINT_BYTES_MAX: Final = 10  # 64 bits, 7 in a byte

_FAMILIES: Final = {0: 0, 4: 4, 6: 16}  # family mark -> bytes of the address


@dataclass(frozen=True, slots=True)
class Malformed:
    """What was to be decoded, or encoded, is not allowed; `reason` says why, for people."""

    reason: str


class WireError(Exception):
    """Bytes cannot be read, or a value does not fit its field. Caught inside the codecs."""


class Writer:
    """Collects the bytes of one value."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data)

    def take(self) -> bytes:
        """Return what was written."""
        return bytes(self._data)

    def raw(self, data: bytes) -> None:
        """Write bytes whose number the reader knows."""
        self._data += data

    def fixed(self, value: int, size: int) -> None:
        """Write an unsigned integer of `size` bytes."""
        if not 0 <= value < 1 << (8 * size):
            raise WireError(f"{value} does not fit {size} bytes")
        self._data += value.to_bytes(size, "big")

    def uvarint(self, value: int) -> None:
        """Write an unsigned integer below 2**64 in as few bytes as it needs."""
        if not 0 <= value < 1 << 64:
            raise WireError(f"{value} is not an unsigned 64-bit number")
        while value > 0x7F:
            self._data.append(value & 0x7F | 0x80)
            value >>= 7
        self._data.append(value)

    def blob(self, data: bytes, bytes_max: int) -> None:
        """Write bytes with their number before them."""
        if len(data) > bytes_max:
            raise WireError(f"{len(data)} bytes where {bytes_max} are the most")
        self.uvarint(len(data))
        self._data += data

    def text(self, text: str, bytes_max: int) -> None:
        """Write text as UTF-8 with its length in bytes before it."""
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise WireError("text with lone surrogates") from error
        self.blob(data, bytes_max)

    def id(self, text: str) -> None:
        """Write an id (node, task, cluster) in its 16 bytes."""
        self._data += _id_bytes(text)

    def address(self, host: str) -> None:
        """Write an IP address; an empty one takes one byte."""
        self._data += _host_bytes(host)


class Reader:
    """Reads one value from bytes that nobody vouches for."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    @property
    def at(self) -> int:
        """Bytes read so far."""
        return self._at

    def since(self, start: int) -> bytes:
        """Return what was read from `start` (an earlier `at`) on."""
        return self._data[start : self._at]

    def raw(self, size: int) -> bytes:
        """Read `size` bytes."""
        data = self._data[self._at : self._at + size]
        if len(data) < size:
            raise WireError(f"{size} bytes wanted, {len(data)} left")
        self._at += size
        return data

    def fixed(self, size: int) -> int:
        """Read an unsigned integer of `size` bytes."""
        return int.from_bytes(self.raw(size), "big")

    def uvarint(self, value_max: int) -> int:
        """Read an unsigned integer of at most `value_max`, in its shortest form only."""
        value = 0
        for index in range(UVARINT_BYTES_MAX):
            byte = self.fixed(1)
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if byte == 0 and index > 0:
                    raise WireError("a number is longer than it need be")
                if value > value_max:
                    raise WireError(f"{value} where {value_max} is the most")
                return value
        raise WireError("a number does not end")

    def blob(self, bytes_max: int) -> bytes:
        """Read bytes with their number before them."""
        return self.raw(self.uvarint(bytes_max))

    def text(self, bytes_max: int) -> str:
        """Read UTF-8 text with its length before it."""
        try:
            return self.blob(bytes_max).decode()
        except UnicodeDecodeError as error:
            raise WireError("text is not UTF-8") from error

    def id(self) -> str:
        """Read an id in its text form."""
        return _id_text(self.raw(ID_BYTES))

    def address(self) -> str:
        """Read an IP address; the empty text stands for none."""
        family = self.fixed(1)
        if family not in _FAMILIES:
            raise WireError(f"there is no address family {family}")
        return _host_text(self.raw(_FAMILIES[family]))

    def end(self) -> None:
        """Check that nothing is left."""
        if self.left:
            raise WireError(f"{self.left} bytes too many")


def address_bytes(host: str) -> bytes:
    """Return the 4 or 16 bytes of an IP address in its canonical text form; none of an empty one.

    Raises:
        WireError: It is not the canonical form of an address.
    """
    return _host_bytes(host)[1:]


def address_text(packed: bytes) -> str:
    """Return the text of an address of 4 or 16 bytes."""
    return _host_text(packed)


@functools.lru_cache(CACHE_ITEMS_MAX)
def _id_bytes(text: str) -> bytes:
    try:
        return id_bytes(text)
    except InvalidRequest as error:
        raise WireError(error.message) from error


@functools.lru_cache(CACHE_ITEMS_MAX)
def _id_text(data: bytes) -> str:
    return id_text(data)


@functools.lru_cache(CACHE_ITEMS_MAX)
def _host_bytes(host: str) -> bytes:
    if not host:
        return b"\x00"
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise WireError(f"{host[:64]!r} is not an IP address") from error
    if str(address) != host or getattr(address, "scope_id", None) is not None:
        raise WireError(f"{host[:64]!r} is not the plain form of its address")
    return bytes([address.version]) + address.packed


@functools.lru_cache(CACHE_ITEMS_MAX)
def _host_text(packed: bytes) -> str:
    if len(packed) == 4:  # as `ipaddress` writes it, in less time
        return ".".join(map(str, packed))
    return str(ipaddress.ip_address(packed)) if packed else ""
