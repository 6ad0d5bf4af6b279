"""From the canonical config to what the cluster is asked for: `to_project`."""

from dray.compose.place import CanonicalView
from dray.compose.project.projected import Build, Projected
from dray.compose.project.whole import to_project

__all__ = ["Build", "CanonicalView", "Projected", "to_project"]
