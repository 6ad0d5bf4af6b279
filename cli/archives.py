"""How do files of this machine become a tar archive, and an archive files? For `dray cp`."""

from __future__ import annotations

import asyncio
import io
import os
import posixpath
import tarfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from queue import Queue
from typing import IO, TYPE_CHECKING, Any, Final, TypeAlias

from cli.exits import UsageError
from dray.errors import DrayError, ErrorCode, FailedPrecondition

if TYPE_CHECKING:
    from dray.client import Client
    from dray.views import TaskTarget

__all__ = ["packed", "place_in_container", "unpack"]

PIECE_BYTES: Final = 65_536
PIECES_MAX: Final = 16  # packed ahead of the network
HEADER_BYTES: Final = 512  # of one entry
_PERMISSIONS: Final = 0o777  # no set-user-id bit of a container counts here

_Queue: TypeAlias = "Queue[bytes | BaseException | None]"


async def place_in_container(
    client: Client, target: TaskTarget, path: str, name: str
) -> tuple[str, str]:
    """Return the folder to unpack into and the name of the entry, by the rules of `docker cp`.

    Into a folder that exists goes an entry of its own name; else the entry gets the path's name.
    """
    if path.endswith("/") or await _is_folder(client, target, path):
        return path, name
    return posixpath.dirname(path) or "/", posixpath.basename(path)


async def _is_folder(client: Client, target: TaskTarget, path: str) -> bool:
    from dray.views import CopyOptions

    head = b""
    try:
        async for piece in client.copy_from_task(CopyOptions(target, path, follow_links=True)):
            head += piece
            if len(head) >= HEADER_BYTES:
                break
    except DrayError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise
    if len(head) < HEADER_BYTES:
        return False
    return tarfile.TarInfo.frombuf(head[:HEADER_BYTES], "utf-8", "surrogateescape").isdir()


class _Pieces(io.RawIOBase):
    """A file whose content is read elsewhere, in order, through a bounded queue."""

    def __init__(
        self, queue: Queue[bytes | BaseException | None], is_over: threading.Event
    ) -> None:
        super().__init__()
        self._queue = queue
        self._is_over = is_over

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        if self._is_over.is_set():
            raise BrokenPipeError
        self._queue.put(piece)
        return len(piece)


async def packed(source: Path, entry: str, *, follow_links: bool) -> AsyncIterator[bytes]:
    """Yield a tar archive of a file or folder, packed as it is read.

    Args:
        source: What to pack.
        entry: Its name in the archive.
        follow_links: Pack what symbolic links point at.

    Raises:
        OSError: It cannot be read.
    """
    queue: _Queue = Queue(maxsize=PIECES_MAX)
    is_over = threading.Event()

    def pack() -> None:
        try:
            with (
                io.BufferedWriter(_Pieces(queue, is_over), PIECE_BYTES) as file,
                tarfile.open(fileobj=file, mode="w|", dereference=follow_links) as archive,
            ):
                archive.add(source, entry)
            queue.put(None)
        except (OSError, tarfile.TarError) as error:
            queue.put(error)

    packing = asyncio.create_task(asyncio.to_thread(pack), name="packing")
    try:
        while (piece := await asyncio.to_thread(queue.get)) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        is_over.set()
        while not packing.done():
            while not queue.empty():
                queue.get_nowait()
            await asyncio.wait({packing}, timeout=0.05)


def unpack(file: IO[bytes], place: Path, *, keep_owner: bool) -> int:
    """Unpack an archive of one file or folder, by the rules of `docker cp`; return the bytes.

    Nothing outside of `place` is written: an archive from a container is not trusted.

    Args:
        file: The archive.
        place: An existing folder to put it into, or the new name of what is unpacked.
        keep_owner: Keep owner and group, as root.
    """
    total = 0
    with tarfile.open(fileobj=file, mode="r") as archive:
        members = archive.getmembers()
        if not members:
            raise UsageError("nothing was copied: the archive is empty")
        top = members[0].name.split("/")[0]
        folder, name = (place, top) if place.is_dir() else (place.parent, place.name)
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder} here")
        for member in members:
            member.name = _renamed(member.name, top, name)
            if member.islnk():
                member.linkname = _renamed(member.linkname, top, name)
            if not keep_owner:
                member.uid, member.gid = os.getuid(), os.getgid()
                member.uname = member.gname = ""
                member.mode &= _PERMISSIONS
            _extract(archive, member, folder.resolve())
            total += member.size if member.isfile() else 0
    return total


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Unpack one entry below a folder; devices and the like are left out.

    Not the library's filters: Python 3.11.2, which Debian 12 has, lacks them.

    Raises:
        FailedPrecondition: The entry would be written elsewhere, also by way of a link.
    """
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        return
    places = [folder / member.name]
    if member.islnk():
        places.append(folder / member.linkname)
    for place in places:
        if ".." in place.parts or not place.parent.resolve().is_relative_to(folder):
            raise FailedPrecondition(
                f"the archive from the container names {member.name}, which is outside of {folder}",
                hint="copy what you need of it by its own path",
            )
    trusted: dict[str, Any] = (
        {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
    )
    archive.extract(member, folder, **trusted)


def _renamed(path: str, top: str, name: str) -> str:
    return name + path.removeprefix(top) if path.split("/")[0] == top else path
