"""What does a runtime say of named volumes? Values of the port in `base.py`."""

from __future__ import annotations

from dataclasses import dataclass

from dray.model import StringMap

__all__ = ["Volume", "VolumeRequest"]


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """A named volume to make: full Docker name, driver, its options, labels."""

    name: str
    driver: str = "local"
    driver_opts: StringMap = ()
    labels: StringMap = ()


@dataclass(frozen=True, slots=True)
class Volume:
    """A named volume of the engine: name, driver, labels, and when it was made (0: not known)."""

    name: str
    driver: str = "local"
    labels: StringMap = ()
    created_unix_s: float = 0.0
