"""Does text such as "512m", "1m30s" or "0.5" become the numbers that Docker makes of it?"""

from __future__ import annotations

import pytest

from dray.errors import ErrorCode, InvalidRequest
from dray.units import (
    CPU_MILLIS_MAX,
    DURATION_S_MAX,
    SIZE_BYTES_MAX,
    UNIT_TEXT_LENGTH_MAX,
    format_bytes,
    format_cpus,
    format_duration,
    parse_bytes,
    parse_cpus,
    parse_duration,
)

_KIB, _MIB, _GIB, _TIB, _PIB = (1024**power for power in range(1, 6))

# What docker/go-units 0.5.0 `RAMInBytes` returned for each text.
_SIZES = {
    "0": 0,
    "00": 0,
    "32": 32,
    "+32": 32,
    "32b": 32,
    "32 ": 32,
    "32B": 32,
    "32k": 32 * _KIB,
    "32K": 32 * _KIB,
    "32kb": 32 * _KIB,
    "32 Kb": 32 * _KIB,
    "32KiB": 32 * _KIB,
    "32m": 32 * _MIB,
    "32g": 32 * _GIB,
    "32tb": 32 * _TIB,
    "32PB": 32 * _PIB,
    "32.3": 32,
    "0.9": 0,
    "0.9kb": 921,
    "1.5GiB": 1_610_612_736,
    "32.3 mb": 33_869_004,
    "0.3MB": 314_572,
    ".3kB": 307,
    "32.": 32,
    "32.m": 32 * _MIB,
    "1e3": 1000,
    "1e3k": 1_024_000,
    "8191p": 8191 * _PIB,
}


@pytest.mark.parametrize(("text", "size_bytes"), _SIZES.items(), ids=repr)
def test_sizes_are_those_of_docker(text: str, size_bytes: int) -> None:
    """A size means the same number of bytes as in Docker, fractions cut off."""
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "b", "k", "hello", "-1", "-32", "−1", " 32", "32  mb", "32m b", "32bm"),
        *("32i", "32ib", "32ki", "1.2.3", "1,5m", "1_000", "0x10", "inf", "nan", "1e", "1e9999"),
        *("٣", "1\u212a", "1\n", "1\x00", "½m", "\uff11", "8192p", "1e400", "🐳"),
    ],
    ids=repr,
)
def test_what_is_no_size_is_refused(text: str) -> None:
    """Text that is no size of 0 to 2^63-1 bytes is refused, naming it, never misread."""
    with pytest.raises(InvalidRequest) as caught:
        parse_bytes(text)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert repr(text) in caught.value.message or "length" in caught.value.message


@pytest.mark.parametrize("size_bytes", [0, 1, SIZE_BYTES_MAX])
def test_plain_numbers_are_bytes(size_bytes: int) -> None:
    """An integer, or its text, is a number of bytes up to the last one that fits."""
    assert parse_bytes(size_bytes) == size_bytes
    assert parse_bytes(str(size_bytes)) == size_bytes


@pytest.mark.parametrize(
    "size_bytes",
    [-1, SIZE_BYTES_MAX + 1, 10**5000, -(10**5000)],
    ids=["negative", "above", "huge", "huge and negative"],
)
def test_numbers_outside_int64_are_refused(size_bytes: int) -> None:
    """An integer that does not fit is refused, also one too long for Python to print."""
    with pytest.raises(InvalidRequest, match="outside 0 to"):
        parse_bytes(size_bytes)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        *((0, "0B"), (1, "1B"), (1000, "1000B"), (1023, "1023B"), (1024, "1KiB")),
        *((1536, "1536B"), (512 * _MIB, "512MiB"), (3 * _GIB // 2, "1536MiB")),
        *((_TIB, "1TiB"), (2048 * _PIB, "2048PiB"), (SIZE_BYTES_MAX, f"{SIZE_BYTES_MAX}B")),
    ],
)
def test_sizes_are_written_exactly(size_bytes: int, text: str) -> None:
    """A size is written in the largest unit that divides it."""
    assert format_bytes(size_bytes) == text


# What go-str2duration 2.2.0 `ParseDuration` returned for each text, in nanoseconds.
_DURATIONS_NS = {
    "0": 0,
    "0s": 0,
    "+5s": 5_000_000_000,
    "5s": 5_000_000_000,
    ".5s": 500_000_000,
    "1.s": 1_000_000_000,
    "300ms": 300_000_000,
    "1m30s": 90_000_000_000,
    "1h5m": 3_900_000_000_000,
    "1.5h": 5_400_000_000_000,
    "1s1s": 2_000_000_000,
    "30s1m": 90_000_000_000,
    "1us": 1_000,
    "1µs": 1_000,
    "1μs": 1_000,
    "1ns": 1,
    "1.9ns": 1,
    "0.1ns": 0,
    "1d": 86_400_000_000_000,
    "2w": 1_209_600_000_000_000,
    "106751d": 9_223_286_400_000_000_000,
}


@pytest.mark.parametrize(("text", "duration_ns"), _DURATIONS_NS.items(), ids=repr)
def test_durations_are_those_of_compose(text: str, duration_ns: int) -> None:
    """A duration means the same time as in the official Compose loader."""
    assert parse_duration(text) == duration_ns / 1e9


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "+", "5", "120", "s", ".s", "-5s", "1S", "1 s", " 1s", "1s ", "1s 2s", "1s5"),
        *("1mo", "1y", "1e3s", "inf", "nan", "0x1s", "٣s", "1\u017f", "1s\n", "106752d"),
        *("9" * 60 + "w", "🐳"),
    ],
    ids=repr,
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Text that is no duration of up to 292 years is refused, naming it; no unit is guessed."""
    with pytest.raises(InvalidRequest) as caught:
        parse_duration(text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        *((0.0, "0s"), (1.0, "1s"), (1.5, "1.5s"), (59.999, "59.999s"), (60.0, "1m")),
        *((90.0, "1m30s"), (3600.0, "1h"), (3601.5, "1h1.5s"), (86_400.0, "24h")),
        *((0.5, "500ms"), (0.0005, "500us"), (1e-9, "1ns"), (1.5e-6, "1500ns"), (4e-10, "0s")),
        *((0.1 + 0.2, "300ms"), (DURATION_S_MAX, "2562047h47m16s")),
    ],
)
def test_durations_are_written_as_people_do(duration_s: float, text: str) -> None:
    """A duration is written in hours, minutes and seconds, a short one in its own unit."""
    assert format_duration(duration_s) == text


@pytest.mark.parametrize(
    ("given", "cpu_millis"),
    [
        *(("0", 0), ("0.5", 500), ("2", 2000), ("1.5", 1500), (".25", 250), ("1.", 1000)),
        *(("0.1", 100), (0.1, 100), (0.7, 700), (4, 4000), ("0.0001", 1), ("1e-05", 1)),
        *((1e-05, 1), ("1.0000000000000000000000000000000000000001", 1001), ("1E1", 10_000)),
        *(("100000", CPU_MILLIS_MAX), (100_000, CPU_MILLIS_MAX)),
    ],
    ids=repr,
)
def test_cpus_are_exact(given: str | int | float, cpu_millis: int) -> None:
    """A count of CPUs is read exactly and rounded up, so that nobody gets less than asked."""
    assert parse_cpus(given) == cpu_millis


@pytest.mark.parametrize(
    "given",
    [
        *("", " ", " 1", "1 ", "-1", "-0.5", "nan", "sNaN", "inf", "1_000", "٣", "0x1", "1.2.3"),
        *("100000.001", "1e9", "1e999", "1e999999999", "1e", "half", "True"),
        *(float("nan"), float("inf"), -1, -0.5, 100_001, 10**5000, 1e300, True),
    ],
    ids=lambda given: type(given).__name__ + (repr(given) if given != 10**5000 else "huge"),
)
def test_what_is_no_count_of_cpus_is_refused(given: str | int | float) -> None:
    """Anything but a decimal number from 0 to 100,000 is refused as such, never as a crash."""
    with pytest.raises(InvalidRequest, match="CPUs"):
        parse_cpus(given)


@pytest.mark.parametrize(
    ("cpu_millis", "text"), [(0, "0"), (1, "0.001"), (500, "0.5"), (1500, "1.5"), (10_000, "10")]
)
def test_cpus_are_written_as_decimals(cpu_millis: int, text: str) -> None:
    """Milli-CPUs are written as a decimal count without trailing zeros."""
    assert format_cpus(cpu_millis) == text


@pytest.mark.parametrize("parse", [parse_bytes, parse_cpus, parse_duration])
def test_long_text_is_refused_before_it_is_read(parse: object) -> None:
    """A text above the limit costs nothing and is not echoed."""
    assert callable(parse)
    with pytest.raises(InvalidRequest, match=f"{UNIT_TEXT_LENGTH_MAX} are the most") as caught:
        parse("1" * 10_000_000)
    assert len(caught.value.message) < 200
