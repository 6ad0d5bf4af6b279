"""Which of the known endpoints may be served? Rules that DNS and load balancing share."""

from node.discovery.usable import Judgement, Selection, Standing, has_ready, select, standing

__all__ = ["Judgement", "Selection", "Standing", "has_ready", "select", "standing"]
