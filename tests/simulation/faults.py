"""What goes wrong in a run, and when? Drawn from a seed, or written down.

A fault names machines by address and knows nothing of what they do. `draw` makes a plan that ends:
after its last second links are whole and good, nothing is paused, and what crashed has either been
started again or stays dead.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tests.simulation.world import LinkQuality, World

__all__ = [
    "BadLinks",
    "Crash",
    "Cut",
    "Fault",
    "Freeze",
    "Heal",
    "Jump",
    "Kill",
    "Pause",
    "Restart",
    "Resume",
    "draw",
    "schedule",
    "touched",
]


@dataclass(frozen=True, slots=True)
class BadLinks:
    """From now on every link is of this quality."""

    quality: LinkQuality


@dataclass(frozen=True, slots=True)
class Cut:
    """From now on nothing passes from `senders` to `receivers`, or between them."""

    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    is_two_way: bool


@dataclass(frozen=True, slots=True)
class Heal:
    """All cuts end."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A machine stops handling anything."""

    address: str


@dataclass(frozen=True, slots=True)
class Freeze:
    """A machine and its kernel stand still, as a suspended VM does."""

    address: str


@dataclass(frozen=True, slots=True)
class Jump:
    """A machine's clock is set ahead."""

    address: str
    by_s: float


@dataclass(frozen=True, slots=True)
class Resume:
    """It goes on, late."""

    address: str


@dataclass(frozen=True, slots=True)
class Crash:
    """A machine is gone without a word."""

    address: str


@dataclass(frozen=True, slots=True)
class Kill:
    """A machine's process is gone; its kernel says so to who connects."""

    address: str


@dataclass(frozen=True, slots=True)
class Restart:
    """It is started again, with a new life."""

    address: str


Fault: TypeAlias = BadLinks | Cut | Heal | Pause | Freeze | Jump | Resume | Crash | Kill | Restart


def draw(
    rng: random.Random, addresses: Sequence[str], from_s: float, until_s: float
) -> list[tuple[float, Fault]]:
    """Return a plan of faults between two times, by time. At least one machine stays untouched."""
    plan: list[tuple[float, Fault]] = []

    def span() -> tuple[float, float]:
        start_s = rng.uniform(from_s, until_s)
        return start_s, min(until_s, start_s + rng.uniform(0.1, (until_s - from_s) / 2))

    if rng.random() < 0.7:
        start_s, end_s = span()
        delay_s = rng.choice((0.002, 0.05, 0.4))
        quality = LinkQuality(rng.uniform(0.0, 0.4), rng.uniform(0.0, 0.3), 0.0, delay_s)
        plan += [(start_s, BadLinks(quality)), (end_s, BadLinks(LinkQuality()))]
    if rng.random() < 0.6:
        start_s, end_s = span()
        side = tuple(rng.sample(addresses, rng.randint(1, max(1, len(addresses) // 2))))
        others = tuple(address for address in addresses if address not in side)
        plan += [(start_s, Cut(side, others, rng.random() < 0.6)), (end_s, Heal())]
    victims = rng.sample(addresses, rng.randint(0, len(addresses) - 1))
    for address in victims:
        start_s, end_s = span()
        kind = rng.random()
        if kind < 0.2:
            plan += [(start_s, Pause(address)), (end_s, Resume(address))]
        elif kind < 0.3:
            plan += [(start_s, Freeze(address)), (end_s, Resume(address))]
        elif kind < 0.4:
            plan += _starved(rng, address, start_s, end_s)
        else:
            plan.append((start_s, rng.choice((Crash, Kill))(address)))
            if rng.random() < 0.6:
                plan.append((end_s, Restart(address)))
    if rng.random() < 0.3:
        jumping = rng.choice(addresses)  # also one that is otherwise well
        plan.append((rng.uniform(from_s, until_s), Jump(jumping, rng.choice((0.5, 3.0, 600.0)))))
    return sorted(plan, key=lambda item: item[0])


def _starved(
    rng: random.Random, address: str, from_s: float, until_s: float
) -> list[tuple[float, Fault]]:
    """Return the plan of a machine that gets the processor for moments only."""
    plan: list[tuple[float, Fault]] = []
    at_s = from_s
    while at_s < until_s:
        resumes_s = min(until_s, at_s + rng.uniform(0.05, 3.0))
        plan += [(at_s, Pause(address)), (resumes_s, Resume(address))]
        at_s = resumes_s + rng.uniform(0.001, 0.3)
    return plan


def touched(plan: Sequence[tuple[float, Fault]]) -> set[str]:
    """Return which machines a plan crashes or pauses."""
    return {fault.address for _, fault in plan if isinstance(fault, Crash | Kill | Pause | Freeze)}


def schedule(
    world: World, plan: Sequence[tuple[float, Fault]], restart: Callable[[str], None]
) -> None:
    """Let a plan happen in a world; `restart(address)` starts a machine anew."""
    for at_s, fault in plan:
        world.at(at_s, lambda fault=fault: _apply(world, fault, restart))  # type: ignore[misc]


def _apply(world: World, fault: Fault, restart: Callable[[str], None]) -> None:
    match fault:
        case BadLinks():
            world.quality = fault.quality
        case Cut():
            world.cut(fault.senders, fault.receivers)
            if fault.is_two_way:
                world.cut(fault.receivers, fault.senders)
        case Heal():
            world.heal()
        case Pause():
            world.pause(fault.address)
        case Freeze():
            world.freeze(fault.address)
        case Jump():
            world.jump(fault.address, fault.by_s)
        case Resume():
            world.resume(fault.address)
        case Crash():
            world.crash(fault.address)
        case Kill():
            world.kill(fault.address)
        case Restart():
            restart(fault.address)
