"""Which endpoints of a service are served, and why not the others?

One rule for DNS answers, VIPs and published ports (DESIGN section 7). Every endpoint has a
*standing*; only those of the best standing that is there are served, so something is served as long
as anything is known to run:

1. ready: healthy or without a check, not draining, its node alive;
2. reserve: the same on a node that is suspect or stalled (its kernel may still answer), or whose
   daemon alone is down (containers outlive it);
3. not ready: starting, unhealthy or draining, on such a node: a last resort;
4. lost: the last known ones of a dead node: a last resort.

Of two tasks of one slot with the same standing the one with the higher (epoch, task id) is served.
A new task that is not ready yet therefore never displaces the old one that is.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Set
from dataclasses import dataclass

from dray.model import Endpoint, EndpointView, Epoch, Health, MemberState, SlotKey
from dray.names import TaskId

__all__ = ["Judgement", "Selection", "Standing", "has_ready", "select", "standing"]


class Standing(enum.IntEnum):
    """How fit an endpoint is to be served; the lowest that is there wins."""

    READY = 1
    RESERVE = 2
    """Ready, on a node that is suspect or stalled, or whose daemon is down."""
    NOT_READY = 3
    """Starting, unhealthy or draining."""
    LOST = 4
    """On a dead node."""
    GONE = 5
    """On a node that has left: never served."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Why one endpoint is served or not.

    Attributes:
        view: The endpoint.
        is_used: Whether it is served.
        reason: A constant phrase for people: "healthy", "unhealthy", "node is dead", "another
            network", "older task of the slot" …
    """

    view: EndpointView
    is_used: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What is served of one service.

    Attributes:
        used: The endpoints to serve, in the order in which they were given.
        judged: Every endpoint with the reason, in the same order.
        is_last_resort: Nothing was ready: the last known running ones are served.
    """

    used: tuple[EndpointView, ...]
    judged: tuple[Judgement, ...]
    is_last_resort: bool


def standing(view: EndpointView) -> tuple[Standing, str]:
    """Return how fit an endpoint is to be served, and the reason as a phrase."""
    if view.member_state is MemberState.LEFT:
        return Standing.GONE, "node has left"
    if view.member_state is MemberState.DEAD and not view.is_daemon_down:
        return Standing.LOST, "node is dead"
    endpoint = view.endpoint
    if endpoint.draining:
        return Standing.NOT_READY, "draining"
    if endpoint.health is Health.STARTING:
        return Standing.NOT_READY, "starting"
    if endpoint.health is Health.UNHEALTHY:
        return Standing.NOT_READY, "unhealthy"
    if view.member_state is MemberState.SUSPECT:
        return Standing.RESERVE, "node is suspect"
    if view.member_state is MemberState.STALLED:
        return Standing.RESERVE, "node is stalled"
    if view.member_state is MemberState.DEAD:
        return Standing.RESERVE, "node's daemon is down"
    return Standing.READY, "running" if endpoint.health is Health.NONE else "healthy"


def select(views: Iterable[EndpointView], networks: Set[str] | None = None) -> Selection:
    """Return which endpoints of one service are served.

    Args:
        views: All that is known of the service, as `FactView.endpoints` returns it.
        networks: Full names of the Compose networks that the asker is on: only endpoints on one of
            them count. None: all.
    """
    judged = [(view, *_seen_from(view, networks)) for view in views]
    best = min((level for _, level, _ in judged), default=Standing.GONE)
    newest: dict[SlotKey, tuple[Epoch, TaskId]] = {}
    for view, level, _ in judged:
        if level is best:
            order = _order(view.endpoint)
            newest[view.endpoint.slot] = max(order, newest.get(view.endpoint.slot, order))
    verdicts = tuple(_verdict(view, level, reason, best, newest) for view, level, reason in judged)
    return Selection(
        used=tuple(verdict.view for verdict in verdicts if verdict.is_used),
        judged=verdicts,
        is_last_resort=best in (Standing.NOT_READY, Standing.LOST),
    )


def has_ready(views: Iterable[EndpointView]) -> bool:
    """Return whether clients of a service have somewhere to go: an endpoint that takes work."""
    return any(standing(view)[0] <= Standing.RESERVE for view in views)


def _seen_from(view: EndpointView, networks: Set[str] | None) -> tuple[Standing, str]:
    if networks is not None and networks.isdisjoint(view.endpoint.networks):
        return Standing.GONE, "another network"
    return standing(view)


def _order(endpoint: Endpoint) -> tuple[Epoch, TaskId]:
    return (endpoint.epoch, endpoint.task_id)


def _verdict(
    view: EndpointView,
    level: Standing,
    reason: str,
    best: Standing,
    newest: dict[SlotKey, tuple[Epoch, TaskId]],
) -> Judgement:
    if level is not best or level is Standing.GONE:
        return Judgement(view, False, reason)
    if _order(view.endpoint) != newest[view.endpoint.slot]:
        return Judgement(view, False, "older task of the slot")
    return Judgement(view, True, reason)
