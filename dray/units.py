"""How is text such as "512m", "1.5GiB", "30s" or "0.5" turned into numbers, and back?

The only parser of such text. Sizes follow Compose and Docker: k, m, g, t, p mean powers of 1,024
with or without "b" or "ib" behind them. Durations follow Go and Compose: "1m30s", "1h5m", "300ms";
a unit may not be left out. CPU counts are decimal. Exact decimal arithmetic, so "0.1" never turns
into 99 milli-CPUs.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Final

from dray.errors import InvalidRequest

__all__ = [
    "CPU_MILLIS_MAX",
    "DURATION_S_MAX",
    "SIZE_BYTES_MAX",
    "UNIT_TEXT_LENGTH_MAX",
    "format_bytes",
    "format_cpus",
    "format_duration",
    "parse_bytes",
    "parse_cpus",
    "parse_duration",
]

UNIT_TEXT_LENGTH_MAX: Final = (
    64  # characters: no honest quantity is longer; bounds the work on hostile input
)
SIZE_BYTES_MAX: Final = 2**63 - 1  # int64 on the wire and in Docker's API
CPU_MILLIS_MAX: Final = 100_000_000  # 100,000 cores: above any machine, far below int64
DURATION_S_MAX: Final = 2**63 / 1e9  # Docker counts nanoseconds in int64: 292 years

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(i?b)?", re.IGNORECASE)
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w)")
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SECONDS: Final = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "μs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86_400),
    "w": Decimal(604_800),
}
_SHOWN_UNITS: Final = (("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000))


def parse_bytes(text: str | int) -> int:
    """Return a size in bytes, >= 0, rounded up to whole bytes.

    Args:
        text: "512m", "1.5GiB", "1024", "64kb" or a plain number of bytes.

    Raises:
        InvalidRequest: Not a size, negative, or above `SIZE_BYTES_MAX`.
    """
    if isinstance(text, int):
        return _bounded_size(text, str(text))
    _check_length(text)
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(f"{text!r} is not a size", hint="write it as 512m, 1.5g or 1024")
    number, prefix, _ = match.groups()
    size = Decimal(number) * (Decimal(1024) ** _POWERS[prefix.lower()])
    return _bounded_size(int(size.to_integral_value(ROUND_CEILING)), text)


def format_bytes(size_bytes: int) -> str:
    """Return the shortest exact text that `parse_bytes` reads back to the same size.

    "512MiB", "1000B".
    """
    assert size_bytes >= 0, size_bytes
    for unit, power in (("PiB", 5), ("TiB", 4), ("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if size_bytes and size_bytes % 1024**power == 0:
            return f"{size_bytes // 1024**power}{unit}"
    return f"{size_bytes}B"


def parse_cpus(text: str | int | float) -> int:
    """Return a CPU count in milli-CPUs, >= 0, rounded up: "0.5" is 500.

    Raises:
        InvalidRequest: Not a decimal number, negative, or above `CPU_MILLIS_MAX`.
    """
    shown = str(text)
    _check_length(shown)
    try:
        cpus = Decimal(shown.strip())
    except InvalidOperation:
        cpus = Decimal("NaN")
    if not cpus.is_finite():
        raise InvalidRequest(f"{shown!r} is not a number of CPUs", hint="write it as 0.5 or 2")
    if cpus < 0 or cpus * 1000 > CPU_MILLIS_MAX:
        raise InvalidRequest(f"{shown!r} CPUs is outside 0 to {CPU_MILLIS_MAX // 1000}")
    return int((cpus * 1000).to_integral_value(ROUND_CEILING))


def format_cpus(cpu_millis: int) -> str:
    """Return milli-CPUs as a decimal count that `parse_cpus` reads back: 1500 is "1.5"."""
    assert cpu_millis >= 0, cpu_millis
    whole, rest = divmod(cpu_millis, 1000)
    return f"{whole}.{rest:03}".rstrip("0").rstrip(".") if rest else str(whole)


def parse_duration(text: str) -> float:
    """Return a duration in seconds, >= 0.

    Args:
        text: Numbers with units, summed: "1m30s", "300ms", "1.5h". "0" needs no unit.

    Raises:
        InvalidRequest: Not a duration, or longer than `DURATION_S_MAX`.
    """
    _check_length(text)
    stripped = text.strip()
    if stripped == "0":
        return 0.0
    total, position = Decimal(0), 0
    while match := _DURATION_PART.match(stripped, position):
        total += Decimal(match[1]) * _SECONDS[match[2]]
        position = match.end()
    if not stripped or position != len(stripped):
        raise InvalidRequest(f"{text!r} is not a duration", hint="write it as 30s, 1m30s or 500ms")
    if total > Decimal(DURATION_S_MAX):
        raise InvalidRequest(f"{text!r} is longer than 292 years")
    return float(total)


def format_duration(duration_s: float) -> str:
    """Return a duration as text that `parse_duration` reads back, to the nanosecond.

    90.0 is "1m30s".
    """
    assert 0 <= duration_s <= DURATION_S_MAX, duration_s
    rest_ns = round(Decimal(repr(duration_s)) * 1_000_000_000)
    parts: list[str] = []
    for unit, unit_ns in _SHOWN_UNITS[:2]:
        count, rest_ns = divmod(rest_ns, unit_ns)
        if count:
            parts.append(f"{count}{unit}")
    if rest_ns and not parts and rest_ns < 1_000_000_000:
        return _format_below_second(rest_ns)
    seconds, fraction_ns = divmod(rest_ns, 1_000_000_000)
    if fraction_ns:
        parts.append(f"{seconds}.{fraction_ns:09}".rstrip("0") + "s")
    elif seconds or not parts:
        parts.append(f"{seconds}s")
    return "".join(parts)


def _format_below_second(duration_ns: int) -> str:
    for unit, unit_ns in (("ms", 1_000_000), ("us", 1_000)):
        if duration_ns % unit_ns == 0:
            return f"{duration_ns // unit_ns}{unit}"
    return f"{duration_ns}ns"


def _bounded_size(size_bytes: int, shown: str) -> int:
    if not 0 <= size_bytes <= SIZE_BYTES_MAX:
        raise InvalidRequest(f"size {shown!r} is outside 0 to 2^63-1 bytes")
    return size_bytes


def _check_length(text: str) -> None:
    if len(text) > UNIT_TEXT_LENGTH_MAX:
        raise InvalidRequest(
            f"a quantity of {len(text)} characters; {UNIT_TEXT_LENGTH_MAX} are the most"
        )
