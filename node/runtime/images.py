"""What does a runtime say of images and their registries? Values of the port in `base.py`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PullProgress", "Pulled", "RegistryCredentials"]


@dataclass(frozen=True, slots=True)
class Pulled:
    """The image is on the node.

    Attributes:
        image_digest: Its id.
        fetched: Whether it was fetched now, or was there.
        platform: What it is made for, "linux/amd64"; empty: it does not say.
    """

    image_digest: str
    fetched: bool
    platform: str = ""


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull has come, summed over layers; totals grow while layers become known."""

    layers_done: int
    layers_total: int
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class RegistryCredentials:
    """How to log in to a registry; the password never shows in `repr` or logs."""

    username: str
    password: str

    def __repr__(self) -> str:
        """Return the user's name, never the password."""
        return f"RegistryCredentials(username={self.username!r}, password=<hidden>)"
