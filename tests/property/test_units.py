"""Is every quantity read back from its text, and every other text refused in order?"""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given, reject
from hypothesis import strategies as st

from dray.errors import DrayError, InvalidRequest
from dray.units import (
    CPU_MILLIS_MAX,
    DURATION_S_MAX,
    SIZE_BYTES_MAX,
    format_bytes,
    format_cpus,
    format_duration,
    parse_bytes,
    parse_cpus,
    parse_duration,
)

# Any text, and text made of what quantities are made of.
_TEXTS = st.text(max_size=80) | st.text("0123456789.eE+-_ kmgtpKMGTPiIbBnuµsmhdwINF\n", max_size=80)
_PARTS = st.tuples(
    st.decimals(0, 100_000, places=4), st.sampled_from(["ns", "us", "ms", "s", "m", "h", "d"])
)


@given(st.integers(0, SIZE_BYTES_MAX))
def test_a_size_is_read_back(size_bytes: int) -> None:
    """Writing and reading a size changes nothing."""
    assert parse_bytes(format_bytes(size_bytes)) == size_bytes


@given(st.integers(0, CPU_MILLIS_MAX))
def test_cpus_are_read_back(cpu_millis: int) -> None:
    """Writing and reading a count of CPUs changes nothing."""
    assert parse_cpus(format_cpus(cpu_millis)) == cpu_millis


@given(st.integers(0, 10**16))
def test_a_number_of_nanoseconds_is_read_back(duration_ns: int) -> None:
    """Writing and reading a duration changes nothing, to the nanosecond, up to 115 days."""
    duration_s = duration_ns / 1e9
    assert parse_duration(format_duration(duration_s)) == duration_s


@given(st.floats(0, DURATION_S_MAX, allow_nan=False))
def test_any_duration_is_read_back_closely(duration_s: float) -> None:
    """Writing and reading moves a duration by half a nanosecond, or a float's precision."""
    tolerance_s = 5.1e-10 + duration_s * 2**-52
    assert abs(parse_duration(format_duration(duration_s)) - duration_s) <= tolerance_s


@given(st.lists(_PARTS, min_size=1, max_size=3))
def test_what_was_read_is_written_and_read_the_same(parts: list[tuple[object, str]]) -> None:
    """Reading is stable: what a text meant, its written form means."""
    try:
        duration_s = parse_duration("".join(f"{number:f}{unit}" for number, unit in parts))
    except InvalidRequest:
        reject()  # the parts add up to more than the longest duration
    assert parse_duration(format_duration(duration_s)) == duration_s


@given(_TEXTS)
def test_no_text_crashes_a_parser(text: str) -> None:
    """Any text is a quantity within the limits or a `DrayError`, never another exception."""
    with suppress(DrayError):
        assert 0 <= parse_bytes(text) <= SIZE_BYTES_MAX
    with suppress(DrayError):
        assert 0 <= parse_cpus(text) <= CPU_MILLIS_MAX
    with suppress(DrayError):
        assert 0 <= parse_duration(text) <= DURATION_S_MAX


@given(st.integers() | st.floats())
def test_no_number_crashes_a_parser(number: int | float) -> None:
    """Any number is a quantity within the limits or a `DrayError`, never another exception."""
    with suppress(DrayError):
        assert 0 <= parse_cpus(number) <= CPU_MILLIS_MAX
    if isinstance(number, int):
        with suppress(DrayError):
            assert parse_bytes(number) == number
