"""How does an image come to the node?

Equal pulls at the same time share one flight: the image is fetched once, and everybody hears of its
progress. The flight ends when the last one who waits for it is cancelled.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, TypeVar
from urllib.parse import urlencode

import docker
from docker.utils import parse_repository_tag

from dray.errors import DeadlineExceeded, PeerMisbehaved, Unavailable
from dray.model import ImageOptions, PullPolicy
from node.runtime.base import (
    Pulled,
    PullProgress,
    Refusal,
    Refused,
    RegistryCredentials,
)
from node.runtime.docker_calls import image_of, was_cancelled
from node.runtime.docker_errors import refused_pull
from node.runtime.docker_http import EngineSocket, EngineStream
from node.runtime.docker_view import Answer, unix_ns_from_text

__all__ = ["PULLS_MAX", "SILENCE_MAX_S", "Ask", "LayerProgress", "Puller"]

PULLS_MAX: Final = 4  # the engine itself fetches three layers at a time
SILENCE_MAX_S: Final = 120.0  # a registry that says nothing for so long hangs

_NANOSECONDS: Final = 1_000_000_000

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Progress: TypeAlias = Callable[[PullProgress], None]


class Ask(Protocol):
    """Puts a question to the engine through the SDK; see `EngineCalls.call`."""

    def __call__(self, function: Callable[[docker.APIClient], T], /) -> Awaitable[T]:
        """Return what the function returns for the client."""
        ...


class LayerProgress:
    """Sums what the engine says about single layers."""

    def __init__(self) -> None:
        self._bytes: dict[str, tuple[int, int]] = {}
        self._done: set[str] = set()

    def take(self, said: Answer) -> PullProgress | None:
        """Take one line of the engine's; return the sums if it was about a layer."""
        layer, status = said.get("id", ""), str(said.get("status", ""))
        if not layer or status.startswith("Pulling from"):
            return None
        done, total = self._bytes.setdefault(layer, (0, 0))
        detail = said.get("progressDetail") or {}
        if status == "Downloading":
            done = max(done, int(detail.get("current", 0)))
            total = max(total, int(detail.get("total", 0)), done)
        elif status in ("Download complete", "Verifying Checksum", "Pull complete"):
            done = total
        if status in ("Pull complete", "Already exists"):
            self._done.add(layer)
        self._bytes[layer] = (done, total)
        return PullProgress(
            layers_done=len(self._done),
            layers_total=len(self._bytes),
            bytes_done=sum(done for done, _ in self._bytes.values()),
            bytes_total=sum(total for _, total in self._bytes.values()),
        )


@dataclass(slots=True, eq=False)
class _Flight:
    """One pull under way, and who waits for it."""

    task: asyncio.Task[Pulled | Refused] | None = None
    listeners: list[Progress] = field(default_factory=list)
    waiting: int = 0

    def tell(self, progress: PullProgress) -> None:
        for listener in tuple(self.listeners):
            listener(progress)


_Key: TypeAlias = tuple[ImageOptions, RegistryCredentials | None]


class Puller:
    """Brings images to the engine, each once at a time."""

    def __init__(self, ask: Ask, socket: EngineSocket, *, silence_max_s: float) -> None:
        self._ask = ask
        self._socket = socket
        self._silence_max_s = silence_max_s
        self._room = asyncio.Semaphore(PULLS_MAX)
        self._flights: dict[_Key, _Flight] = {}

    async def pull(
        self,
        image: ImageOptions,
        credentials: RegistryCredentials | None,
        progress: Progress | None,
    ) -> Pulled | Refused:
        """Bring an image to the node as its policy says; see `Runtime.pull`."""
        key = (image, credentials)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            flight.task = asyncio.create_task(self._fly(key, flight), name="docker-pull")
        assert flight.task is not None
        flight.waiting += 1
        if progress is not None:
            flight.listeners.append(progress)
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError as err:
            if was_cancelled():
                raise
            raise Unavailable("the runtime was closed", retryable=False) from err
        finally:
            flight.waiting -= 1
            if progress is not None:
                flight.listeners.remove(progress)
            if flight.waiting == 0:
                await self._end(key, flight)

    async def close(self) -> None:
        """End all pulls; who waits for one gets `Unavailable`."""
        for key, flight in tuple(self._flights.items()):
            await self._end(key, flight)

    async def _end(self, key: _Key, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if flight.task is not None and not flight.task.done():
            flight.task.cancel()
            await asyncio.gather(flight.task, return_exceptions=True)

    async def _fly(self, key: _Key, flight: _Flight) -> Pulled | Refused:
        image, credentials = key
        async with self._room:
            local = await self._local(image.reference)
            fits = local is not None and _fits(local, image.platform)
            if image.pull_policy is PullPolicy.NEVER and not fits:
                return _absent(image, local)
            if local is not None and fits and not await self._is_due(image, local):
                return Pulled(local["Id"], fetched=False, platform=_platform(local))
            failure = await self._fetch(image, credentials, flight.tell)
            if failure is not None:
                return failure
            fetched = await self._local(image.reference)
            if fetched is None:
                text = f"{image.reference} was removed while it was being fetched"
                return Refused(Refusal.IMAGE_NOT_FOUND, text, retryable=True)
            await self._note_time(image)
            is_new = local is None or local["Id"] != fetched["Id"]
            return Pulled(fetched["Id"], fetched=is_new, platform=_platform(fetched))

    async def _local(self, reference: str) -> Answer | None:
        try:
            return await self._ask(lambda client: image_of(client, reference))
        except docker.errors.NotFound:
            return None

    async def _is_due(self, image: ImageOptions, local: Answer) -> bool:
        """Return whether the policy wants the image fetched although it is here."""
        if image.pull_policy is not PullPolicy.REFRESH:
            return image.pull_policy is PullPolicy.ALWAYS
        tagged_ns = unix_ns_from_text((local.get("Metadata") or {}).get("LastTagTime", ""))
        info: dict[str, Any] = await self._ask(lambda client: client.info())
        now_ns = unix_ns_from_text(info["SystemTime"])
        if tagged_ns is None or now_ns is None:
            return True
        return now_ns - tagged_ns > image.pull_refresh_after_s * _NANOSECONDS

    async def _note_time(self, image: ImageOptions) -> None:
        """Have the engine keep when REFRESH fetched it: it notes tags, not pulls."""
        if image.pull_policy is not PullPolicy.REFRESH or "@" in image.reference:
            return
        name, tag = parse_repository_tag(image.reference)
        await self._ask(lambda client: client.tag(image.reference, name, tag or "latest"))

    async def _fetch(
        self, image: ImageOptions, credentials: RegistryCredentials | None, tell: Progress
    ) -> Refused | None:
        api = await self._ask(lambda client: client.api_version)
        name, tag = parse_repository_tag(image.reference)
        # Without a tag the engine would fetch all of them.
        query = {"fromImage": name, "tag": tag or "latest"}
        if image.platform:
            query["platform"] = image.platform
        try:
            async with self._socket.stream(
                "POST",
                f"/v{api}/images/create?{urlencode(query)}",
                headers=_auth_header(credentials),
                answer_timeout_s=self._silence_max_s,
            ) as stream:
                if stream.status >= 400:
                    return refused_pull(stream.status, await stream.refusal())
                return await self._follow(stream, tell)
        except (DeadlineExceeded, TimeoutError):
            # Who is silent? This raises if it is the engine.
            await self._ask(lambda client: client.ping())
            text = f"{image.reference}: no word from the registry for {self._silence_max_s:g} s"
            return Refused(Refusal.REGISTRY_UNREACHABLE, text, retryable=True)

    async def _follow(self, stream: EngineStream, tell: Progress) -> Refused | None:
        layers = LayerProgress()
        while True:
            async with asyncio.timeout(self._silence_max_s):
                line = await stream.line()
            if not line:
                return None
            try:
                said = json.loads(line)
            except ValueError as err:
                raise PeerMisbehaved("the Docker Engine sent progress that is no JSON") from err
            if "error" in said:
                return refused_pull(0, str(said["error"]))
            if (progress := layers.take(said)) is not None:
                tell(progress)


def _fits(local: Answer, platform: str) -> bool:
    """Return whether a local image is of the platform that is asked for, if one is."""
    if not platform:
        return True
    own = (local.get("Os", ""), local.get("Architecture", ""), local.get("Variant", ""))
    wanted = platform.split("/")
    return all(want == have for want, have in zip(wanted, own, strict=False) if have)


def _platform(local: Answer) -> str:
    """Return what an image is made for; empty if it does not say."""
    system, architecture = local.get("Os", ""), local.get("Architecture", "")
    return f"{system}/{architecture}" if system and architecture else ""


def _absent(image: ImageOptions, local: Answer | None) -> Refused:
    if local is None:
        text = f"{image.reference} is not on this node, and its pull policy is never"
        return Refused(Refusal.IMAGE_NOT_FOUND, text)
    have = f"{local.get('Os')}/{local.get('Architecture')}"
    text = f"{image.reference} is here for {have}, not {image.platform}; its pull policy is never"
    return Refused(Refusal.WRONG_PLATFORM, text)


def _auth_header(credentials: RegistryCredentials | None) -> dict[str, str]:
    if credentials is None:
        return {}
    fields = {"username": credentials.username, "password": credentials.password}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()}
