"""How does a fact that is too large for one datagram come together again?"""

from __future__ import annotations

from typing import Final

from dray.model import Fact, FactKey, FactVersion
from node.gossip.messages import FactPiece

__all__ = ["ASSEMBLIES_MAX", "Pieces"]

ASSEMBLIES_MAX: Final = 64  # facts that are incomplete at one time; the oldest is given up


class Pieces:
    """Facts of which some pieces have arrived."""

    def __init__(self) -> None:
        self._parts: dict[FactKey, tuple[FactVersion, int, dict[int, bytes]]] = {}

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, piece: FactPiece) -> Fact | None:
        """Take a piece; return the fact when it completes it.

        A piece of a newer version discards the pieces of an older one.
        """
        if piece.data is None or piece.count == 1:
            self._parts.pop(piece.key, None)
            return Fact(piece.key, piece.version, piece.data)
        known = self._parts.get(piece.key)
        if known is not None and known[0] > piece.version:
            return None
        if known is None or known[:2] != (piece.version, piece.count):
            self._parts.pop(piece.key, None)
            if len(self._parts) >= ASSEMBLIES_MAX:
                del self._parts[next(iter(self._parts))]
            known = (piece.version, piece.count, {})
            self._parts[piece.key] = known
        parts = known[2]
        parts[piece.index] = piece.data
        if len(parts) < piece.count:
            return None
        del self._parts[piece.key]
        return Fact(piece.key, piece.version, b"".join(parts[i] for i in range(piece.count)))
