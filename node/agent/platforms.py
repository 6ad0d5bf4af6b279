"""Is an image made for this node's processor, and what is said when it is not?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from dray.model import ImageOptions
from node.runtime.base import Pulled, Refusal, Refused, Runtime
from node.runtime.platforms import is_foreign

__all__ = ["Platforms"]

_NOTED_MAX: Final = 1_024  # images


class Platforms:
    """What the node knows of the platforms of images that its tasks run."""

    def __init__(self, runtime: Runtime, emulated: Callable[[], frozenset[str] | None]) -> None:
        """Know of none yet.

        Args:
            runtime: The engine, asked once what it is.
            emulated: Returns whose programs the kernel emulates, None if it does not tell; blocks.
        """
        self._runtime = runtime
        self._emulated = emulated
        self._node = ""
        self._foreign: dict[str, str] = {}

    async def refusal(self, image: ImageOptions, pulled: Pulled) -> Refused | None:
        """Return why an image cannot run here, if that is certain; note it, if it is foreign.

        What the user asked for by `platform:` is tried, and so is what an emulator may run.
        """
        if not self._node:
            engine = await self._runtime.info()
            self._node = f"{engine.os}/{engine.architecture}"
        if not is_foreign(pulled.platform, self._node):
            return None
        self._foreign[pulled.image_digest] = pulled.platform
        if len(self._foreign) > _NOTED_MAX:
            del self._foreign[next(iter(self._foreign))]
        emulated = await asyncio.to_thread(self._emulated)
        architecture = pulled.platform.split("/")[1]
        if image.platform or emulated is None or architecture in emulated:
            return None
        return Refused(
            Refusal.WRONG_PLATFORM,
            f"image {image.reference} is {pulled.platform}, node is {self._node}: build it for "
            f"{self._node}, or keep the service to nodes of its own platform",
        )

    def remark(self, image_digest: str) -> str:
        """Return what is to be said of an image when its container fails; empty: nothing."""
        platform = self._foreign.get(image_digest, "")
        return f"image is {platform}, node is {self._node}" if platform else ""
