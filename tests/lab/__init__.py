"""Several hosts with Docker engines on one machine, for tests: see `Lab`."""

from tests.lab.errors import LabError, LabUnavailable
from tests.lab.host import Host
from tests.lab.images import BUSYBOX, WEB, Image, image_archive
from tests.lab.lab import Lab
from tests.lab.network import Direction
from tests.lab.process import MACHINE, Place, Process, run, spawn
from tests.lab.wait import wait_for

__all__ = [
    "BUSYBOX",
    "MACHINE",
    "WEB",
    "Direction",
    "Host",
    "Image",
    "Lab",
    "LabError",
    "LabUnavailable",
    "Place",
    "Process",
    "image_archive",
    "run",
    "spawn",
    "wait_for",
]
