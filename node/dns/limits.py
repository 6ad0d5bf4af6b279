"""How many queries that are not answered from the ready ones may one client make?

A token bucket for each client: whoever asks for ever new names pays with its own queries, which are
dropped, and not with the time of others.
"""

from __future__ import annotations

import collections
from typing import Final

__all__ = ["BURST", "CLIENTS_MAX", "RATE_PER_S", "ClientRates"]

RATE_PER_S: Final = 2_000.0  # a few hundredths of a processor's time
BURST: Final = 5_000.0  # a client that starts and looks thousands of names up
CLIENTS_MAX: Final = 4_096  # buckets; the one unused for longest goes first, and so is full again


class ClientRates:
    """The buckets, by the clients' addresses."""

    def __init__(
        self,
        *,
        rate_per_s: float = RATE_PER_S,
        burst: float = BURST,
        clients_max: int = CLIENTS_MAX,
    ) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clients_max = clients_max
        self._buckets: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

    def allows(self, client: str, now_s: float) -> bool:
        """Return whether a client may make one more query now, and count it if so."""
        level, at_s = self._buckets.pop(client, (self._burst, now_s))
        level = min(self._burst, level + (now_s - at_s) * self._rate_per_s)
        is_allowed = level >= 1.0
        self._buckets[client] = (level - 1.0 if is_allowed else level, now_s)
        if len(self._buckets) > self._clients_max:
            self._buckets.popitem(last=False)
        return is_allowed
