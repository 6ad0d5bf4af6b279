"""How is text such as "512m", "1.5GiB", "30s" or "0.5" turned into numbers, and back?

The only parser of such text. It reads what the official Compose loader reads, and to the same
numbers (compared with docker/go-units 0.5.0 and go-str2duration 2.2.0 over 6,000 texts):

- Sizes: k, m, g, t, p mean powers of 1,024, with or without "b" or "ib" behind them, one space
  before the unit at most. A fraction of a byte is cut off.
- Durations: "1m30s", "1h5m", "300ms", "1d"; a unit may not be left out. A fraction of a nanosecond
  is cut off.
- CPU counts: decimal numbers, rounded up to a thousandth.

It differs on purpose where the official one overflows or is silly: what does not fit is refused,
and so are negative amounts, infinities and hexadecimal or underscored numbers. Arithmetic is exact,
so "0.1" never turns into 99 milli-CPUs.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
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

# Characters: no honest quantity is longer; bounds the work on hostile input.
UNIT_TEXT_LENGTH_MAX: Final = 64
SIZE_BYTES_MAX: Final = 2**63 - 1  # int64 on the wire and in Docker's API
CPU_MILLIS_MAX: Final = 100_000_000  # 100,000 cores: above any machine, far below int64
# Docker counts nanoseconds in int64: 292 years. Whole seconds, so that a float holds it exactly.
DURATION_S_MAX: Final = 9_223_372_036.0

_NUMBER: Final = r"\+?((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]{1,3})?)"
_SIZE = re.compile(_NUMBER + r" ?(?:([kmgtp])(?:i?b)?|b)?", re.IGNORECASE | re.ASCII)
_CPUS = re.compile(_NUMBER, re.IGNORECASE | re.ASCII)
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w)")
# More digits than any product of a text of UNIT_TEXT_LENGTH_MAX characters has: nothing is rounded.
_EXACT: Final = Context(prec=128)
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
_NANOSECOND: Final = Decimal("1e-9")
_SHOWN_UNITS: Final = (("h", 3_600_000_000_000), ("m", 60_000_000_000))


def parse_bytes(text: str | int) -> int:
    """Return a size in bytes, >= 0; a fraction of a byte is cut off, as Docker does.

    Args:
        text: "512m", "1.5GiB", "1024", "64 kb" or a plain number of bytes.

    Raises:
        InvalidRequest: Not a size, negative, or above `SIZE_BYTES_MAX`.
    """
    if isinstance(text, int):
        return _bounded_size(text, str(text) if abs(text) < 10**UNIT_TEXT_LENGTH_MAX else "…")
    _check_length(text)
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"{text!r} is not a size", hint="write it as 512m, 1.5g or 1024")
    power = _POWERS[(match[2] or "").lower()]
    size = _EXACT.multiply(Decimal(match[1]), Decimal(1024**power))
    return _bounded_size(int(size.to_integral_value(ROUND_FLOOR)), text)


def format_bytes(size_bytes: int) -> str:
    """Return a size in the largest unit that divides it: "512MiB", "1000B".

    `parse_bytes` reads it back to the same size.
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
    if isinstance(text, int) and abs(text) > CPU_MILLIS_MAX:
        raise InvalidRequest(f"a number of CPUs is at most {CPU_MILLIS_MAX // 1000}")
    shown = str(text)
    _check_length(shown)
    match = _CPUS.fullmatch(shown)
    if match is None:
        raise InvalidRequest(f"{shown!r} is not a number of CPUs", hint="write it as 0.5 or 2")
    cpu_millis = _EXACT.multiply(Decimal(match[1]), Decimal(1000))
    if cpu_millis > CPU_MILLIS_MAX:
        raise InvalidRequest(f"{shown!r} CPUs is outside 0 to {CPU_MILLIS_MAX // 1000}")
    return int(cpu_millis.to_integral_value(ROUND_CEILING))


def format_cpus(cpu_millis: int) -> str:
    """Return milli-CPUs as a decimal count that `parse_cpus` reads back: 1500 is "1.5"."""
    assert cpu_millis >= 0, cpu_millis
    whole, rest = divmod(cpu_millis, 1000)
    return f"{whole}.{rest:03}".rstrip("0").rstrip(".") if rest else str(whole)


def parse_duration(text: str) -> float:
    """Return a duration in seconds, >= 0; a fraction of a nanosecond is cut off, as Go does.

    Args:
        text: Numbers with units, summed: "1m30s", "300ms", "1.5h". "0" needs no unit.

    Raises:
        InvalidRequest: Not a duration, or longer than `DURATION_S_MAX`.
    """
    _check_length(text)
    if text == "0":
        return 0.0
    start = 1 if text.startswith("+") else 0
    total_s, position = Decimal(0), start
    while match := _DURATION_PART.match(text, position):
        part_s = _EXACT.multiply(Decimal(match[1]), _SECONDS[match[2]])
        total_s = _EXACT.add(total_s, part_s)
        position = match.end()
    if position == start or position != len(text):
        raise InvalidRequest(f"{text!r} is not a duration", hint="write it as 30s, 1m30s or 500ms")
    if total_s > Decimal(DURATION_S_MAX):
        raise InvalidRequest(f"{text!r} is longer than 292 years")
    return float(total_s.quantize(_NANOSECOND, ROUND_FLOOR))


def format_duration(duration_s: float) -> str:
    """Return a duration as text that `parse_duration` reads back: 90.0 is "1m30s".

    Rounded to the nanosecond; what `parse_duration` returned comes back exactly.
    """
    assert 0 <= duration_s <= DURATION_S_MAX, duration_s
    rest_ns = round(Decimal(repr(duration_s)) * 1_000_000_000)
    parts: list[str] = []
    for unit, unit_ns in _SHOWN_UNITS:
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
