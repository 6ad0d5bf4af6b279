"""Which values are paths, and what do they mean from where the file lies?"""

from __future__ import annotations

import posixpath
from typing import Any, Final

from dray.compose.short import is_windows_path
from dray.compose.tree import Map, Problems, Seq

__all__ = ["absolute", "resolve_paths", "resolve_service_paths"]

_REMOTE: Final = ("https://", "http://", "git://", "ssh://", "github.com/", "git@", "service:")


def absolute(path: str, folder: str, home: str) -> str:
    """Return a path as an absolute one; `~` is the home folder."""
    if path.startswith("~"):
        return posixpath.normpath(posixpath.join(home, path[1:].lstrip("/")))
    if not path or path.startswith("/"):
        return path
    return posixpath.normpath(posixpath.join(folder, path))


def _mount_path(path: str, folder: str, home: str) -> str:
    return path if is_windows_path(path) else absolute(path, folder, home) or folder


def resolve_paths(tree: Map, folder: str, home: str, problems: Problems) -> None:
    """Make the paths of a tree absolute, in place; the tree has long syntaxes only.

    Args:
        tree: A file's content.
        folder: What relative paths are resolved against.
        home: The user's home folder, what `~` stands for.
        problems: Gathers bind mounts without a source.
    """
    for name, service in _entries(tree, "services"):
        resolve_service_paths(service, name, folder, home, problems)
    for section in ("configs", "secrets"):
        for _, resource in _entries(tree, section):
            if isinstance(resource.get("file"), str):
                resource["file"] = _mount_path(resource["file"], folder, home)
    for _, volume in _entries(tree, "volumes"):
        options = volume.get("driver_opts")
        if volume.get("driver") != "local" or not isinstance(options, Map):
            continue
        if options.get("o") == "bind" and isinstance(options.get("device"), str):
            options["device"] = _mount_path(options["device"], folder, home)


def _entries(tree: Any, section: str) -> list[tuple[str, Map]]:
    entries = tree.get(section)
    if not isinstance(entries, Map):
        return []
    return [(name, each) for name, each in entries.items() if isinstance(each, Map)]


def resolve_service_paths(
    service: Map, name: str, folder: str, home: str, problems: Problems
) -> None:
    """Make the paths of one service absolute, in place."""
    build = service.get("build")
    if isinstance(build, Map):
        _resolve_build(build, folder, home)
    for key in ("env_file", "develop"):
        holder = service.get(key)
        items = holder.get("watch") if isinstance(holder, Map) else holder
        for item in items if isinstance(items, Seq) else ():
            if isinstance(item, Map) and isinstance(item.get("path"), str):
                item["path"] = absolute(item["path"], folder, home)
    labels = service.get("label_file")
    if isinstance(labels, Seq):
        labels[:] = [
            absolute(each, folder, home) if isinstance(each, str) else each for each in labels
        ]
    extends = service.get("extends")
    if isinstance(extends, Map) and isinstance(extends.get("file"), str):
        extends["file"] = absolute(extends["file"], folder, home)
    volumes = service.get("volumes")
    for index, volume in enumerate(volumes if isinstance(volumes, Seq) else ()):
        if not isinstance(volume, Map) or volume.get("type") != "bind":
            continue
        source = volume.get("source")
        if isinstance(source, str):
            volume["source"] = _mount_path(source, folder, home)
        elif source is None:
            path = ("services", name, "volumes", index)
            if problems.is_lost((*path, "source")):
                problems.refuse(path)
            else:
                problems.add(volume.mark, path, "a bind mount needs a source")


def _resolve_build(build: Map, folder: str, home: str) -> None:
    if isinstance(build.get("context"), str):
        build["context"] = _context(build["context"], folder, home)
    contexts = build.get("additional_contexts")
    if isinstance(contexts, Map):
        for name, context in contexts.items():
            if isinstance(context, str):
                contexts[name] = _context(context, folder, home)
    ssh = build.get("ssh")
    if isinstance(ssh, Map):
        for name, path in ssh.items():
            if isinstance(path, str):
                ssh[name] = _mount_path(path, folder, home)


def _context(context: str, folder: str, home: str) -> str:
    if "://" in context or context.startswith(_REMOTE):
        return context
    return absolute(context, folder, home)
