"""How much is an engine asked for at once?"""

from __future__ import annotations

import pytest

from node.runtime.docker import slow_calls


@pytest.mark.parametrize(("cores", "calls"), [(1, 4), (2, 4), (3, 6), (4, 8), (6, 12), (64, 12)])
def test_starts_at_once_go_by_the_cores(cores: int, calls: int) -> None:
    """Two for each core, within limits."""
    assert slow_calls(cores) == calls
