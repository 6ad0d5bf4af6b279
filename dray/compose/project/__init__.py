"""From the canonical config to what the cluster is asked for: `to_project`."""

from dray.compose.place import CanonicalView
from dray.compose.project.projected import Projected
from dray.compose.project.whole import to_project

__all__ = ["CanonicalView", "Projected", "to_project"]
