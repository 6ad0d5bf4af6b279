"""Is an answer of the engine kept exactly for as long as it holds?"""

from __future__ import annotations

from typing import Final

import pytest

from node.runtime.base import Container, ContainerState, RuntimeEvent, RuntimeEventKind
from node.runtime.looks import KEPT_MAX, Looks

K: Final = RuntimeEventKind
CHANGES: Final = (K.DIED, K.OOM, K.HEALTH, K.REMOVED)
ALL: Final = (K.CREATED, K.STARTED, *CHANGES)


def container(state: ContainerState = ContainerState.RUNNING, container_id: str = "a") -> Container:
    """Return a container in a state."""
    return Container(container_id, "web", None, state)


def event(kind: RuntimeEventKind, container_id: str = "a") -> RuntimeEvent:
    """Return an event of a container."""
    return RuntimeEvent(kind, container_id, None, 1.0)


def seen(looks: Looks, what: Container) -> None:
    """Let a question be asked and answered."""
    looks.answered(looks.asked(), 10.0, what)


def test_an_answer_is_taken_while_it_is_young() -> None:
    """How old it may be is said by whoever takes it."""
    looks = Looks()
    assert looks.recent("a", 0.0) is None
    seen(looks, container())
    assert looks.recent("a", 10.0) == container()
    assert looks.recent("a", 10.1) is None
    assert looks.recent("b", 0.0) is None


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("is_under_way", [False, True])
def test_what_happens_to_a_container_ends_what_was_said_of_it(
    kind: RuntimeEventKind, is_under_way: bool
) -> None:
    """Whether the event comes after the answer or while it is under way; others' events do not."""
    looks = Looks()
    asked = looks.asked()
    looks.happened(event(kind, "b"))
    if is_under_way:
        looks.happened(event(kind))
    looks.answered(asked, 10.0, container())
    if not is_under_way:
        assert looks.recent("a", 0.0) == container()
        looks.happened(event(kind))
    assert looks.recent("a", 0.0) is None
    seen(looks, container())
    assert looks.recent("a", 0.0) == container()


@pytest.mark.parametrize("kind", [K.CREATED, K.STARTED])
def test_a_start_is_no_news_of_what_runs(kind: RuntimeEventKind) -> None:
    """The event of a start comes after the answer to it; of what does not run yet it is news."""
    looks = Looks()
    seen(looks, container())
    looks.happened(event(kind))
    assert looks.recent("a", 0.0) == container()
    seen(looks, container(ContainerState.CREATED))
    looks.happened(event(kind))
    assert looks.recent("a", 0.0) is None


def test_who_was_deaf_knows_nothing() -> None:
    """Neither what was said before events were lost, nor what was asked before, holds."""
    looks = Looks()
    seen(looks, container())
    asked = looks.asked()
    looks.deaf()
    assert looks.recent("a", 0.0) is None
    looks.answered(asked, 10.0, container())
    assert looks.recent("a", 0.0) is None
    seen(looks, container())
    assert looks.recent("a", 0.0) == container()


def test_only_so_many_are_kept() -> None:
    """The oldest answers go, and an answer that took very long is not trusted."""
    looks = Looks()
    for number in range(KEPT_MAX + 1):
        seen(looks, container(container_id=str(number)))
    assert looks.recent("0", 0.0) is None
    assert looks.recent(str(KEPT_MAX), 0.0) is not None
    asked = looks.asked()
    looks.happened(event(K.DIED))
    for _ in range(10_000):
        looks.happened(event(K.STARTED, "b"))
    looks.answered(asked, 10.0, container())
    assert looks.recent("a", 0.0) is None
