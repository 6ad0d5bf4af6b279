"""How far is the replacement of a service's tasks, and which slots are next? Pure."""

from scheduler.rollout.advance import RolloutStep, SlotView, advance, target_of

__all__ = ["RolloutStep", "SlotView", "advance", "target_of"]
