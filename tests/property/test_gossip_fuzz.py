"""Does anything that a stranger or an insider sends hurt a sealed core? See the fuzzer."""

from __future__ import annotations

import pytest

from benchmarks.gossip.fuzz import ALLOCATED_MAX_BYTES, fuzz

INPUTS = 2_500  # `python -m benchmarks.gossip fuzz` gives it a million


@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_inputs_do_no_harm(seed: int) -> None:
    """Strangers' inputs never open; an insider's raise nothing and keep every limit."""
    found = fuzz(INPUTS, seed)
    inputs, opened = found["inputs"], found["opened"]
    assert isinstance(inputs, dict)
    assert isinstance(opened, dict)
    assert len(inputs) == 8, "every kind was drawn"
    assert set(opened) == {"insider"}
    kib = found["allocated_kib_max"]
    assert isinstance(kib, int)
    assert kib * 1_024 <= ALLOCATED_MAX_BYTES
