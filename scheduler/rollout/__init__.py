"""How far is the replacement of a service's tasks, and which slots are next? Pure."""

from scheduler.rollout.advance import GOING, RolloutStep, SlotView, advance, target_of

__all__ = ["GOING", "RolloutStep", "SlotView", "advance", "target_of"]
