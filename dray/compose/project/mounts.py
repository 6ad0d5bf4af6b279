"""Which file systems and files does a service's container get?"""

from __future__ import annotations

import posixpath
from typing import Final

from dray.compose.place import Place
from dray.model import (
    BindOptions,
    FileMount,
    Mount,
    MountKind,
    TmpfsOptions,
    VolumeOptions,
)

__all__ = ["file_mounts", "mounts"]

_KINDS: Final = {kind.name.lower(): kind for kind in MountKind}
_OPTION_KEYS: Final = ("bind", "volume", "tmpfs", "image")
_FILE_MODE_MAX: Final = 0o7777


def mounts(service: Place) -> tuple[Mount, ...]:
    """Return `volumes`, then `tmpfs`, in the file's order."""
    listed = [_mount(item) for item in service.at("volumes").items()]
    temporary = [_tmpfs(item) for item in _tmpfs_items(service.at("tmpfs"))]
    found = (*(mount for mount in listed if mount is not None), *temporary)
    _check_targets(service, found)
    return found


def _check_targets(service: Place, found: tuple[Mount, ...]) -> None:
    seen: set[str] = set()
    for mount in found:
        target = posixpath.normpath(mount.target) if mount.target else ""
        if target in seen:
            service.at("volumes").fault(f"two file systems are mounted on {target}")
        seen.add(target)


def _mount(place: Place) -> Mount | None:
    told = place.at("type").text()
    kind = _KINDS.get(told)
    if kind is None:
        place.at("type").fault(
            f"{told!r} is not a type of mount", "write volume, bind, tmpfs or image"
        )
        place.mark()
        return None
    target = place.at("target")
    if not target.text().startswith("/"):
        target.fault(f"{target.text()!r} is not an absolute path")
    for key in _OPTION_KEYS:
        options = place.at(key)
        if options.value and key != told and not (key == "volume" and told == "cluster"):
            options.fault(f"options of a {key} mount on a {told} mount")
            options.mark()
    source = place.at("source").text()
    if not source and kind in (MountKind.BIND, MountKind.IMAGE):
        place.fault(f"a {told} mount has a source", "name it with source:")
    if source and kind is MountKind.TMPFS:
        place.at("source").fault("a tmpfs mount has no source")
    return Mount(
        kind=kind,
        source=source,
        target=target.text(),
        read_only=place.at("read_only").flag(),
        consistency=place.at("consistency").text(),
        bind=_bind(place.at("bind")) if kind is MountKind.BIND else None,
        volume=_volume(place.at("volume"))
        if kind in (MountKind.VOLUME, MountKind.CLUSTER)
        else None,
        tmpfs=_tmpfs_options(place.at("tmpfs")) if kind is MountKind.TMPFS else None,
        image_subpath=place.at("image", "subpath").text() if kind is MountKind.IMAGE else "",
    )


def _bind(place: Place) -> BindOptions:
    selinux = place.at("selinux").text()
    if selinux not in ("", "z", "Z"):
        place.at("selinux").fault(f"{selinux!r} is not an SELinux label", "write z or Z")
    return BindOptions(
        propagation=place.at("propagation").text(),
        create_host_path=place.at("create_host_path").flag(default=True),
        selinux=selinux,
        recursive=place.at("recursive").text(),
    )


def _volume(place: Place) -> VolumeOptions | None:
    if not place.value:
        return None
    return VolumeOptions(
        nocopy=place.at("nocopy").flag(),
        subpath=place.at("subpath").text(),
        labels=place.at("labels").pairs(),
    )


def _tmpfs_options(place: Place) -> TmpfsOptions | None:
    if not place.value:
        return None
    return TmpfsOptions(size_bytes=place.at("size").maybe_size(), mode=_mode(place.at("mode")))


def _tmpfs_items(place: Place) -> list[Place]:
    return [place] if isinstance(place.value, str) else place.items()


def _tmpfs(place: Place) -> Mount:
    """Return the mount of `/run` or `/run:size=64m,mode=1770`."""
    target, _, options = place.text().partition(":")
    if not target.startswith("/"):
        place.fault(f"{target!r} is not an absolute path")
    words = tuple(word for word in options.split(",") if word)
    tmpfs = TmpfsOptions(options=words) if words else None
    return Mount(MountKind.TMPFS, "", target, tmpfs=tmpfs)


def _mode(place: Place) -> int | None:
    """Return permissions: text is octal, as the official tool prints them; a number is itself."""
    if not place.is_given:
        return None
    value = place.value
    place.mark()
    if isinstance(value, str):
        digits = value.removeprefix("0o")
        mode = int(digits, 8) if digits and not set(digits) - set("01234567") else -1
    else:
        mode = place.whole(-1)
    if not 0 <= mode <= _FILE_MODE_MAX:
        place.fault(f"{value!r} is not a file mode", 'write it as "0440"')
        return None
    return mode


def file_mounts(place: Place, folder: str) -> tuple[FileMount, ...]:
    """Return configs or secrets as files; a target without a folder is placed in `folder`."""
    return tuple(_file_mount(item, folder) for item in place.items())


def _file_mount(place: Place, folder: str) -> FileMount:
    source = place.at("source").text()
    mode = _mode(place.at("mode"))
    return FileMount(
        source=source,
        target=posixpath.join(folder, place.at("target").text() or source),
        uid=place.at("uid").text(),
        gid=place.at("gid").text(),
        mode=0o444 if mode is None else mode,
    )
