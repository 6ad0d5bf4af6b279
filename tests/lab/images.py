"""Which images do tests run, and how are they made without a network and without an engine?

An image archive (what `docker load` reads) is a tar of layers, a configuration and a manifest: it
is written here directly, byte for byte the same each time, so every host gets the same image ids,
no builder is needed, and no engine has to run on the machine.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.errors import LabUnavailable
from tests.lab.process import program_path

CACHE_DIRECTORY = Path("/var/cache/dray-lab")
FORMAT = "1"  # part of the cache's key: raise it when the writing below changes

_WEB_START = """#!/bin/sh
# PID 1 has no default signal handlers: without the trap every stop would wait out its whole grace
# period.
trap 'kill $server; exit 0' TERM INT
hostname > /www/index.html
httpd -f -p "${PORT:-80}" -h /www &
server=$!
wait $server
"""
_WEB_WHO = """#!/bin/sh
client=${REMOTE_ADDR#[}
client=${client%]}
printf 'Content-Type: text/plain\\r\\n\\r\\n%s %s\\n' "$(hostname)" "${client#::ffff:}"
"""
_WEB_SLOW = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
sleep "$QUERY_STRING"
echo done
"""
_APPLETS = (
    "ash cat chmod cp cut date dd df du echo env false find grep head hostname httpd id ifconfig "
    "ip kill ln ls mkdir mount mv nc netstat nslookup ping printf ps pwd rm route sed seq sh sleep "
    "sort stat sync tail tar tee test timeout top touch tr traceroute true umount uname vi wc wget "
    "which xargs yes"
)


@dataclass(frozen=True, slots=True)
class Image:
    """One image: its name, its files on top of busybox, and its configuration.

    Attributes:
        reference: Its name and tag.
        files: Absolute paths and contents of executable files added to busybox.
        config: The `config` object of the image (Cmd, ExposedPorts, ...).
        architecture: What it says that it is made for; empty: this machine's.
    """

    reference: str
    files: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    architecture: str = ""


BUSYBOX = Image("dray-test/busybox:1", config={"Cmd": ["sh"]})
# Answers `/` with its host name, `/cgi-bin/who` with that and the client's address as it sees it,
# and `/cgi-bin/slow?SECONDS` with "done" after so long. It ends at once when it is told to.
WEB = Image(
    "dray-test/web:1",
    files={
        "/web": _WEB_START,
        "/www/cgi-bin/who": _WEB_WHO,
        "/www/cgi-bin/slow": _WEB_SLOW,
    },
    config={"Cmd": ["/web"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGTERM"},
)
ALL = (BUSYBOX, WEB)


def _add(
    archive: tarfile.TarFile,
    path: str,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o755,
    link: str = "",
) -> None:
    """Add one entry with fixed owner and time."""
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.type, entry.mode, entry.linkname, entry.size = kind, mode, link, len(content)
    archive.addfile(entry, io.BytesIO(content))


def _layer(
    directories: Sequence[str], files: Mapping[str, bytes], links: Mapping[str, str]
) -> bytes:
    """Return one layer as the bytes of a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in directories:
            _add(archive, path, kind=tarfile.DIRTYPE, mode=0o755)
        for path, content in files.items():
            _add(archive, path, content, mode=0o644 if path.startswith("/etc/") else 0o755)
        for path, target in links.items():
            _add(archive, path, kind=tarfile.SYMTYPE, link=target)
    return buffer.getvalue()


def _busybox_layer(program: bytes) -> bytes:
    return _layer(
        (
            "/bin",
            "/dev",
            "/etc",
            "/proc",
            "/root",
            "/sys",
            "/tmp",  # noqa: S108 - a path in the image
            "/var",
            "/www",
            "/www/cgi-bin",
        ),
        {
            "/bin/busybox": program,
            "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
            "/etc/group": b"root:x:0:\nnogroup:x:65534:\n",
        },
        {f"/bin/{name}": "busybox" for name in _APPLETS.split()},
    )


def _archive(images: Sequence[Image], program: bytes) -> bytes:
    """Return an archive for `docker load` with all images; layers they share are in it once."""
    blobs: dict[str, bytes] = {}
    manifest = []
    base = _busybox_layer(program)
    for image in images:
        layers = [base]
        if image.files:
            layers.append(
                _layer((), {path: text.encode() for path, text in image.files.items()}, {})
            )
        digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
        config = json.dumps(
            {
                "architecture": image.architecture
                or {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "amd64"),
                "os": "linux",
                "created": "2000-01-01T00:00:00Z",
                "config": {"Env": ["PATH=/bin"], **image.config},
                "rootfs": {
                    "type": "layers",
                    "diff_ids": [f"sha256:{digest}" for digest in digests],
                },
                "history": [
                    {"created": "2000-01-01T00:00:00Z", "created_by": "dray tests"} for _ in layers
                ],
            },
            sort_keys=True,
        ).encode()
        config_name = f"{hashlib.sha256(config).hexdigest()}.json"
        blobs[config_name] = config
        blobs.update(
            {f"{digest}/layer.tar": layer for digest, layer in zip(digests, layers, strict=True)}
        )
        manifest.append(
            {
                "Config": config_name,
                "RepoTags": [image.reference],
                "Layers": [f"{digest}/layer.tar" for digest in digests],
            }
        )
    blobs["manifest.json"] = json.dumps(manifest).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in blobs.items():
            _add(archive, name, content, mode=0o644)
    return buffer.getvalue()


def image_archive(images: Sequence[Image] = ALL, cache: Path = CACHE_DIRECTORY) -> Path:
    """Return the path of an archive of these images, made now or found in the cache.

    Raises:
        LabUnavailable: The machine has no static busybox.
    """
    found = shutil.which("busybox", path=program_path())
    if found is None:
        raise LabUnavailable("busybox is missing: install the package busybox-static")
    program = Path(found).read_bytes()
    key = hashlib.sha256(FORMAT.encode() + repr(images).encode() + program).hexdigest()[:20]
    path = cache / f"images-{key}.tar"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=cache)
        with open(descriptor, "wb") as file:
            file.write(_archive(images, program))
        Path(temporary).rename(path)
    return path
