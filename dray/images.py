"""What does an image reference say about where the image is? Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["DOCKER_HUB", "names_registry", "registry_of"]

DOCKER_HUB: Final = "docker.io"  # the registry of references that name none


def names_registry(reference: str) -> bool:
    """Return whether a reference begins with the host of a registry, as Docker tells it."""
    first, separator, _ = reference.partition("/")
    return bool(separator) and ("." in first or ":" in first or first == "localhost")


def registry_of(reference: str) -> str:
    """Return the host of the registry that a reference means, as credentials are keyed."""
    return reference.partition("/")[0] if names_registry(reference) else DOCKER_HUB
