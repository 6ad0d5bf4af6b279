"""Which implementations of the gossip `Core` are there? A new one is added here and must pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from node.gossip.core import Core, Rng
from node.gossip.identity import Identity
from node.gossip.parameters import Parameters
from node.gossip.swim import SwimCore

__all__ = ["CORES", "MakeCore"]

MakeCore: TypeAlias = Callable[[Identity, Rng], Core]

CORES: dict[str, MakeCore] = {"swim": lambda identity, rng: SwimCore(identity, Parameters(), rng)}
