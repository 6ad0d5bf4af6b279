"""How do volumes go whose project was removed with its data? `down -v`, on the node.

The leader says which, again and again until the node's report shows them gone; so nothing is kept
here, and what cannot be done now is left to the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from dray.errors import DeadlineExceeded, Unavailable
from dray.log import Logger
from dray.names import ClusterId
from node.agent.book import Book, Signal
from node.runtime.base import Runtime
from node.volumes.plan import LABEL_VOLUME_CLUSTER, removable_volumes

__all__ = ["NAMES_MAX", "PROJECTS_MAX", "VolumeRemovals"]

NAMES_MAX: Final = 1_000  # volumes of one project
PROJECTS_MAX: Final = 100  # projects that wait; the leader says the others again


class VolumeRemovals:
    """Removes volumes, one project after the other. `run` beside the agent's other loops."""

    def __init__(
        self, runtime: Runtime, book: Book, log: Logger, removed: Callable[[], None]
    ) -> None:
        """Remove nothing yet; `removed` is called when some have gone."""
        self._runtime = runtime
        self._book = book
        self._log = log
        self._removed = removed
        self._asked: dict[str, tuple[str, ...]] = {}
        self._news = Signal()
        self._handled: str | None = None

    def ask(self, project: str, names: Iterable[str]) -> None:
        """Have volumes of a project removed soon; what was asked for it before is replaced."""
        if project in self._asked or len(self._asked) < PROJECTS_MAX:
            self._asked[project] = tuple(names)[:NAMES_MAX]
            self._news.send()

    @property
    def is_busy(self) -> bool:
        """Whether something that was asked for has not been looked at yet."""
        return bool(self._asked) or self._handled is not None

    async def run(self, cluster_id: ClusterId) -> None:
        """Remove what is asked for, for as long as the daemon runs."""
        number = 0
        while True:
            number = await self._news.wait(number)
            while self._asked:
                project = next(iter(self._asked))
                names = self._asked.pop(project)
                self._handled = project
                try:
                    await self._remove(project, names, cluster_id)
                except (Unavailable, DeadlineExceeded) as error:
                    self._log.warning("volumes not removed", project=project, error=str(error))
                finally:
                    self._handled = None

    async def _remove(self, project: str, names: tuple[str, ...], cluster_id: ClusterId) -> None:
        if any(state.slot.project == project for state in self._book.states.values()):
            self._log.info("volumes not removed", project=project, reason="tasks are still here")
            return
        volumes = await self._runtime.volumes((LABEL_VOLUME_CLUSTER, cluster_id))
        gone = 0
        for name in removable_volumes(names, volumes, project, cluster_id):
            refused = await self._runtime.remove_volume(name)
            if refused is None:
                gone += 1
                self._log.info("volume removed", project=project, volume=name)
            else:
                self._log.warning(
                    "volume not removed", project=project, volume=name, reason=refused.message
                )
        if gone:
            self._removed()
