"""Which configs, secrets and credentials does a project bring, and how are they kept?

Each is stored under a digest of its content, ahead of the project that refers to it: content that
nobody refers to has no effect, and the project's own write stays one transaction. The digest of a
secret is that of a random salt and the content, so that it gives nothing away; the salt stays as
long as the content does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from dray.errors import InvalidRequest, NotFound, ResourceExhausted
from dray.model import ConfigSpec, ContentKind, ContentRef, ProjectSpec, SecretSpec
from scheduler.store.base import Put
from scheduler.store.codec import encode
from scheduler.store.keys import content_key
from scheduler.store.records import ContentRecord

__all__ = [
    "AUTH_BYTES_MAX",
    "CONTENTS_MAX",
    "ContentsChange",
    "Known",
    "contents_of",
    "without_bytes",
]

AUTH_BYTES_MAX: Final = 65_536
CONTENTS_MAX: Final = 1_000  # configs, secrets and credentials of one project
_SALT_BYTES: Final = 16
_REGISTRY: Final = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9a-fA-F:]+\](:[0-9]{1,5})?")

Known: TypeAlias = Mapping[tuple[ContentKind, str], ContentRecord]
"""What a project has already, by kind and key, and what others have, by kind and "name:…"."""


@dataclass(frozen=True, slots=True)
class ContentsChange:
    """What a project refers to afterwards, and what must be stored before it does."""

    refs: tuple[ContentRef, ...]
    puts: tuple[Put, ...]


def without_bytes(spec: ProjectSpec) -> ProjectSpec:
    """Return a project as its record keeps it: no services, no bytes of configs and secrets."""
    return dataclasses.replace(
        spec,
        services=(),
        configs=tuple(dataclasses.replace(each, content=b"") for each in spec.configs),
        secrets=tuple(dataclasses.replace(each, content=b"") for each in spec.secrets),
    )


def contents_of(
    spec: ProjectSpec,
    credentials: Mapping[str, bytes],
    known: Known,
    *,
    now_unix_s: float,
    random_bytes: Callable[[int], bytes],
    seal: Callable[[ContentRecord], ContentRecord] = lambda record: record,
) -> ContentsChange:
    """Return what a project refers to.

    Args:
        spec: The project as asked for, with its contents.
        credentials: By registry; an empty one is forgotten, one that is not named stays.
        known: What is stored.
        now_unix_s: Time of what is new.
        random_bytes: Draws salts.
        seal: Turns a record into the form that is stored.

    Raises:
        InvalidRequest: A registry's name or its credentials are malformed.
        NotFound: An external config or secret does not exist in the cluster.
    """
    refs: list[ContentRef] = []
    puts: list[Put] = []

    def keep(record: ContentRecord) -> None:
        ref = record.ref
        refs.append(ref)
        if known.get((ref.kind, ref.key)) != record:
            key = content_key(spec.name, ref.kind, ref.key, ref.digest)
            puts.append(Put(key, encode(seal(record))))

    for kind, entries in ((ContentKind.CONFIG, spec.configs), (ContentKind.SECRET, spec.secrets)):
        for entry in entries:
            wanted = ContentRef(kind, entry.key, entry.name, b"", 0, entry.template_driver)
            content = _external(entry, kind, known) if entry.external else entry.content
            keep(_record(wanted, content, known, now_unix_s, random_bytes))
    for registry, auth in sorted(_credentials(credentials, known).items()):
        wanted = ContentRef(ContentKind.REGISTRY_AUTH, registry)
        keep(_record(wanted, auth, known, now_unix_s, random_bytes))
    if len(refs) > CONTENTS_MAX:
        raise ResourceExhausted(
            f"project {spec.name} has {len(refs)} configs, secrets and credentials, "
            f"{CONTENTS_MAX} are the most"
        )
    return ContentsChange(tuple(refs), tuple(puts))


def _external(entry: ConfigSpec | SecretSpec, kind: ContentKind, known: Known) -> bytes:
    """Return the content of an entry that another project made, found by its full name."""
    record = known.get((kind, f"name:{entry.name}")) or known.get((kind, entry.key))
    if record is None:
        word = kind.name.lower()
        raise NotFound(
            f"{word}s.{entry.key} is external, and no project of the cluster has a {word} named "
            f"{entry.name!r}",
            hint=f"apply the project that makes it first, or give the {word} a content",
            context={"field": f"{word}s.{entry.key}"},
        )
    return record.content


def _credentials(given: Mapping[str, bytes], known: Known) -> dict[str, bytes]:
    found = {
        key: record.content
        for (kind, key), record in known.items()
        if kind is ContentKind.REGISTRY_AUTH
    }
    for registry, auth in given.items():
        if _REGISTRY.fullmatch(registry) is None:
            raise InvalidRequest(f"{registry[:100]!r} is not the host of a registry")
        if len(auth) > AUTH_BYTES_MAX:
            raise InvalidRequest(
                f"the credentials for {registry} have {len(auth)} bytes, {AUTH_BYTES_MAX} are the "
                "most"
            )
        found.pop(registry, None)
        if auth:
            found[registry] = auth
    return found


def _record(
    wanted: ContentRef,
    content: bytes,
    known: Known,
    now_unix_s: float,
    random_bytes: Callable[[int], bytes],
) -> ContentRecord:
    """Return a record of that content: the one that is stored, if it holds the same."""
    old = known.get((wanted.kind, wanted.key))
    if old is not None and old.content == content:
        ref = dataclasses.replace(wanted, digest=old.ref.digest, size_bytes=len(content))
        return old if ref == old.ref else dataclasses.replace(old, ref=ref)
    salt = b"" if wanted.kind is ContentKind.CONFIG else random_bytes(_SALT_BYTES)
    digest = hashlib.sha256(salt + content).digest()
    ref = dataclasses.replace(wanted, digest=digest, size_bytes=len(content))
    return ContentRecord(ref, content, salt, 0, now_unix_s)
