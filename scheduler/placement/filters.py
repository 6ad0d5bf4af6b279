"""Which nodes may a service run on at all? One mask a condition, with the reason it stands for.

These conditions hang on the nodes' attributes alone, so they are computed once for all services
that state the same ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dray.model import (
    ConstraintOp,
    PlacementConstraint,
    Platform,
    ServiceSpec,
    Taint,
    TaintEffect,
    Toleration,
)
from scheduler.placement.ask import Ask
from scheduler.placement.lineage import Attributes
from scheduler.placement.node import PlacementNode
from scheduler.placement.result import RefusalReason

__all__ = ["FixedMasks", "Mask", "fixed_masks"]

Mask: TypeAlias = tuple[RefusalReason, NDArray[np.bool_]]
"""A reason, and bool[n_nodes]: True where the condition holds."""


@dataclass(frozen=True, slots=True)
class FixedMasks:
    """Conditions on nodes' attributes.

    Attributes:
        masks: One by one.
        all: bool[n_nodes], where all of them hold.
    """

    masks: tuple[Mask, ...]
    all: NDArray[np.bool_]


def fixed_masks(attributes: Attributes, ask: Ask) -> FixedMasks:
    """Return the conditions that hang on labels, platforms and taints."""
    found: FixedMasks | None = attributes.masks.get(ask.fixed)
    if found is None:
        masks = tuple(_masks(attributes, ask.spec, ask.refused))
        everywhere = np.ones(len(attributes.nodes), dtype=np.bool_)
        for _, mask in masks:
            everywhere &= mask
        found = FixedMasks(masks, everywhere)
        attributes.keep(ask.fixed, found)
    return found


def _masks(
    attributes: Attributes, spec: ServiceSpec, refused: tuple[RefusalReason, ...]
) -> list[Mask]:
    masks = [
        (RefusalReason.CONSTRAINT, _constraint(attributes, constraint))
        for constraint in spec.placement.constraints
    ]
    masks += [
        (RefusalReason.PLATFORM, attributes.mask(("platform", wanted), _platform_test(wanted)))
        for wanted in _wanted_platforms(spec)
    ]
    if not attributes.mask("untainted", lambda node: not node.taints).all():
        tolerations = spec.dray.tolerations
        tolerated = attributes.mask(
            ("taints", tolerations), lambda node: _tolerated(node.taints, tolerations)
        )
        masks.append((RefusalReason.TAINT, tolerated))
    nowhere = np.zeros(len(attributes.nodes), dtype=np.bool_)
    masks += [(reason, nowhere) for reason in refused]
    return masks


def _constraint(attributes: Attributes, constraint: PlacementConstraint) -> NDArray[np.bool_]:
    """Return where a constraint holds; one about an unknown attribute holds nowhere."""
    found = attributes.codes(constraint.key)
    if found is None:
        return np.zeros(len(attributes.nodes), dtype=np.bool_)
    codes, numbers = found
    is_equal: NDArray[np.bool_] = codes == numbers.get(constraint.value, -1)
    return is_equal if constraint.op is ConstraintOp.EQUAL else ~is_equal


def _wanted_platforms(spec: ServiceSpec) -> list[tuple[str, ...]]:
    """Return lists of platforms; a node must be one of each list."""
    image_platform = spec.task.container.image.platform
    asked = [spec.placement.platforms, (image_platform,) if image_platform else ()]
    return [each for each in asked if each]


def _platform_test(wanted: tuple[str, ...]) -> Callable[[PlacementNode], bool]:
    return lambda node: _platform_fits(node.platform, wanted)


def _platform_fits(platform: Platform, wanted: tuple[str, ...]) -> bool:
    names = {
        f"{platform.os}/{platform.architecture}",
        f"{platform.os}/{platform.architecture}/{platform.variant}",
    }
    return any(name in names for name in wanted)


def _tolerated(taints: tuple[Taint, ...], tolerations: tuple[Toleration, ...]) -> bool:
    return all(any(_tolerates(each, taint) for each in tolerations) for taint in taints)


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    covers = taint.effect is TaintEffect.NO_SCHEDULE or toleration.effect is taint.effect
    return covers and toleration.key == taint.key and toleration.value in ("", taint.value)
