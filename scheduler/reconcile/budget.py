"""Which slots may planned work take from their nodes now? The disruption budget of a service.

`unavailable_max` bounds the slots of a service that are disturbed at once: those that do not serve,
for whatever reason, and those that are being moved. Without it a drain moves all of them, since
each one's successor runs before it ends. Nodes that are down or isolated are no planned work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from scheduler.reconcile.held import Held
from scheduler.reconcile.situation import Situation

__all__ = ["held_back"]


def held_back(
    situation: Situation,
    unavailable_max: int | None,
    wanted: Iterable[int],
    held: Mapping[int, list[Held]],
) -> frozenset[int]:
    """Return the slots that must stay on nodes that are being drained.

    Args:
        situation: What the plan is made from.
        unavailable_max: The service's budget; None: it has none.
        wanted: Its slots.
        held: Its tasks by slot.
    """
    if unavailable_max is None:
        return frozenset()
    leaving: list[int] = []
    disturbed = 0
    for number in wanted:
        live = [item for item in held.get(number, []) if not item.task.stop]
        if len(live) != 1 or not situation.serves(live[0]):
            disturbed += 1
        elif situation.is_drained(live[0].node_id):
            leaving.append(number)
    return frozenset(sorted(leaving)[max(0, unavailable_max - disturbed) :])
