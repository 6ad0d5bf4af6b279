"""What is wrong with the node, and since when?

Every part tells its own faults whole; this keeps since when each stands, and wakes who reports
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dray.clock import Clock
from dray.log import Logger
from dray.model import Fault, FaultKind
from node.agent.book import Signal

__all__ = ["Faults"]

MESSAGE_CHARS_MAX: Final = 2_000  # of one fault, however many sentences it has


class Faults:
    """All faults of the node, by the part that found them."""

    def __init__(self, clock: Clock, log: Logger) -> None:
        """Begin without faults."""
        self._clock = clock
        self._log = log
        self._by_part: dict[str, dict[FaultKind, Fault]] = {}
        self.changed = Signal()

    def all(self) -> tuple[Fault, ...]:
        """Return all faults, one of each kind, by kind."""
        found: dict[FaultKind, Fault] = {}
        for faults in self._by_part.values():
            for kind, fault in faults.items():
                found.setdefault(kind, fault)
        return tuple(found[kind] for kind in sorted(found, key=lambda kind: kind.value))

    def tell(self, part: str, messages: dict[FaultKind, str]) -> None:
        """Replace the faults that one part has found by these, each with its sentence."""
        before = self._by_part.get(part, {})
        unix_s = self._clock.unix_s()
        after = {
            kind: Fault(kind, before[kind].since_unix_s if kind in before else unix_s, message)
            for kind, message in messages.items()
        }
        self._put(part, before, after)

    def tell_faults(self, part: str, faults: Iterable[Fault]) -> None:
        """Replace the faults that one part has found by these; they know since when they stand.

        Several of one kind become one, as old as the oldest, with the sentences of all.
        """
        after: dict[FaultKind, Fault] = {}
        for fault in faults:
            known = after.get(fault.kind, fault)
            text = fault.message if known is fault else f"{known.message}; {fault.message}"
            since_unix_s = min(known.since_unix_s, fault.since_unix_s)
            after[fault.kind] = Fault(fault.kind, since_unix_s, text[:MESSAGE_CHARS_MAX])
        self._put(part, self._by_part.get(part, {}), after)

    def _put(
        self, part: str, before: dict[FaultKind, Fault], after: dict[FaultKind, Fault]
    ) -> None:
        for kind in after.keys() - before.keys():
            self._log.warning("fault", reason=kind.name.lower(), error=after[kind].message)
        for kind in before.keys() - after.keys():
            self._log.info("fault is gone", reason=kind.name.lower())
        self._by_part[part] = after
        if after != before:
            self.changed.send()
