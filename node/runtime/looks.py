"""What did the engine say of a container a moment ago, and does it still hold? Pure.

An answer is kept while the engine's events say that nothing has happened to its container since.
Events can get lost, so an answer is also too old after a while: whoever takes one says how old it
may be.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from node.runtime.base import Container, ContainerState, RuntimeEvent, RuntimeEventKind

__all__ = ["KEPT_MAX", "Looks"]

KEPT_MAX: Final = 1_024  # containers: twice as many as a node has addresses for
_EVENTS_MAX: Final = 4_096  # that an answer under way is compared with; more than a second's


class Looks:
    """The last answers about containers, as long as they hold."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._kept: OrderedDict[str, tuple[float, Container]] = OrderedDict()
        self._events: deque[tuple[int, RuntimeEvent]] = deque(maxlen=_EVENTS_MAX)
        self._number = 0
        self._unheard = 0  # everything before this number may have been changed in silence

    def asked(self) -> int:
        """Return the moment at which a question is put; `answered` is told it."""
        return self._number

    def answered(self, asked: int, at_s: float, container: Container) -> None:
        """Keep an answer, unless something happened to the container meanwhile.

        Args:
            asked: What `asked` returned before.
            at_s: When the question was put, monotonic seconds.
            container: What the engine said.
        """
        oldest = self._events[0][0] if self._events else self._number
        if asked < self._unheard or asked < oldest - 1:
            return
        for number, event in reversed(self._events):
            if number <= asked:
                break
            if event.container_id == container.container_id and _is_news(event, container):
                return
        self._kept[container.container_id] = (at_s, container)
        self._kept.move_to_end(container.container_id)
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

    def happened(self, event: RuntimeEvent) -> None:
        """Take in an event: what was said of its container before holds no longer."""
        self._number += 1
        self._events.append((self._number, event))
        kept = self._kept.get(event.container_id)
        if kept is not None and _is_news(event, kept[1]):
            del self._kept[event.container_id]

    def deaf(self) -> None:
        """Forget everything: events were not heard for a while, or are not heard from now on."""
        self._number += 1
        self._unheard = self._number
        self._kept.clear()

    def recent(self, container_id: str, since_s: float) -> Container | None:
        """Return what holds of a container and was asked since a moment; None: nothing does."""
        at_s, container = self._kept.get(container_id, (0.0, None))
        return container if container is not None and at_s >= since_s else None


def _is_news(event: RuntimeEvent, container: Container) -> bool:
    """Return whether an event says more than is known: a start is none of what runs."""
    is_old = event.kind in (RuntimeEventKind.CREATED, RuntimeEventKind.STARTED)
    return not (is_old and container.state is ContainerState.RUNNING)
