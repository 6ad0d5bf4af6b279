"""How do configs and secrets become files of a container, and credentials reach the registry?

Configs lie in the data folder, secrets in the run folder, which is in memory and gone with the
machine; both in a folder a task that nobody else may enter. Content is fetched from the leader when
a task needs it and its file is not there; what was fetched is checked against its digest.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dray.convert import CONTENT_BYTES_MAX
from dray.errors import DrayError, PeerMisbehaved, Unavailable
from dray.model import ContentKind, ContentRef, ProjectParts
from dray.names import TaskId
from node.agent.files import make_folder
from node.agent.requests import FileRequest, registry_of
from node.runtime.base import Refusal, Refused, RegistryCredentials

__all__ = ["Content", "ContentFiles", "ContentSource"]


@dataclass(frozen=True, slots=True)
class Content:
    """A piece of content; never shown.

    Attributes:
        content: The bytes.
        salt: What its digest was made with; empty for configs.
    """

    content: bytes
    salt: bytes = b""

    def __repr__(self) -> str:
        """Return its size, never the bytes."""
        return f"Content(<{len(self.content)} bytes>)"


class ContentSource(Protocol):
    """Where content comes from: the leader."""

    async def fetch(self, project: str, ref: ContentRef) -> Content:
        """Return a piece of content.

        Raises:
            Unavailable: There is no leader at the moment.
            DrayError: It was refused.
        """
        ...


class ContentFiles:
    """The files of the node's tasks."""

    def __init__(self, source: ContentSource, data_folder: Path, run_folder: Path) -> None:
        """Keep configs below one folder and secrets below another.

        Args:
            source: Where content comes from.
            data_folder: On the disk.
            run_folder: In memory.
        """
        self._source = source
        self._folders = {
            ContentKind.CONFIG: data_folder / "configs",
            ContentKind.SECRET: run_folder / "secrets",
        }

    async def files(
        self, task_id: TaskId, project: str, requests: Iterable[FileRequest]
    ) -> tuple[tuple[str, str], ...] | Refused:
        """Make the files of a task; return (path on the node, path in the container) of each.

        Raises:
            Unavailable: There is no leader to fetch from.
        """
        made = []
        for number, request in enumerate(requests):
            path = self._folders[request.content.kind] / task_id / f"{number}"
            if not await asyncio.to_thread(_is_there, path, request):
                content = await self._fetch(project, request.content)
                if isinstance(content, Refused):
                    return content
                refused = await asyncio.to_thread(_write, path, content, request)
                if refused is not None:
                    return refused
            made.append((str(path), request.mount.target))
        return tuple(made)

    async def _fetch(self, project: str, ref: ContentRef) -> bytes | Refused:
        what = f"{ref.kind.name.lower()} {ref.key}"
        try:
            found = await self._source.fetch(project, ref)
        except DrayError as error:
            if error.retryable:
                raise Unavailable(f"the {what} cannot be fetched now: {error.message}") from error
            return Refused(Refusal.MOUNT_MISSING, f"the {what} was refused: {error}")
        is_too_long = len(found.content) > CONTENT_BYTES_MAX
        if is_too_long or hashlib.sha256(found.salt + found.content).digest() != ref.digest:
            raise PeerMisbehaved(f"the {what} that came is another one", retryable=True)
        return found.content

    async def credentials(
        self, image: str, parts: ProjectParts
    ) -> RegistryCredentials | Refused | None:
        """Return how to log in to an image's registry; None: nobody gave credentials for it.

        Raises:
            Unavailable: There is no leader to fetch from.
        """
        registry = registry_of(image)
        for ref in parts.contents:
            if ref.kind is ContentKind.REGISTRY_AUTH and ref.key == registry:
                found = await self._fetch(parts.project, ref)
                return found if isinstance(found, Refused) else _credentials(found, registry)
        return None

    async def remove(self, task_id: TaskId) -> None:
        """Remove the files of a task that is forgotten."""
        for folder in self._folders.values():
            await asyncio.to_thread(shutil.rmtree, folder / task_id, ignore_errors=True)

    async def keep_only(self, task_ids: frozenset[TaskId]) -> None:
        """Remove the files of all other tasks."""
        await asyncio.to_thread(self._keep_only, task_ids)

    def _keep_only(self, task_ids: frozenset[TaskId]) -> None:
        for folder in self._folders.values():
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(folder):
                    if name not in task_ids:
                        shutil.rmtree(folder / name, ignore_errors=True)


def _digest_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.digest")


def _is_there(path: Path, request: FileRequest) -> bool:
    """Return whether the file of this very content was written before."""
    with contextlib.suppress(OSError):
        return path.exists() and _digest_file(path).read_bytes() == request.content.digest
    return False


def _write(path: Path, content: bytes, request: FileRequest) -> Refused | None:
    """Write a file with its owner and mode; the digest beside it says that it is whole."""
    mount = request.mount
    try:
        owner = (int(mount.uid or "0"), int(mount.gid or "0"))
    except ValueError:
        what = f"{request.content.kind.name.lower()} {mount.source}"
        return Refused(
            Refusal.INVALID, f"the {what} has the owner {mount.uid}:{mount.gid}: write numbers"
        )
    try:
        make_folder(path.parent)
        _digest_file(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mount.mode)
        _digest_file(path).write_bytes(request.content.digest)
    except OSError as error:
        raise Unavailable(f"cannot write {path}: {error.strerror}") from error
    return None


def _credentials(content: bytes, registry: str) -> RegistryCredentials | Refused:
    """Return the user and password that an entry of Docker's `auths` holds."""
    try:
        entry = json.loads(content)
        if entry.get("auth"):
            text = base64.b64decode(entry["auth"], validate=True).decode()
            username, _, password = text.partition(":")
            return RegistryCredentials(username, password)
        return RegistryCredentials(str(entry["username"]), str(entry["password"]))
    except (ValueError, KeyError, AttributeError, binascii.Error):
        return Refused(
            Refusal.IMAGE_DENIED,
            f"the credentials for {registry} are no entry of Docker's `auths`",
        )
