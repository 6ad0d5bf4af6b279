"""How are secrets and credentials kept from whoever reads the store? Sealed with a key of ours.

The key is a file that all schedulers of a cluster have and etcd does not: a backup of etcd gives no
secret away. AES-256-GCM; what is sealed is bound to what it is for, so that no two can be swapped.
Without a key they are stored as they are.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dray.errors import FailedPrecondition
from dray.model import ContentKind
from scheduler.store.records import ContentRecord

__all__ = ["KEY_BYTES", "NO_SEALER", "Sealer", "read_key"]

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_NUMBER_BYTES: Final = 4  # of the key's digest: tells keys apart, gives nothing away
_HINT: Final = "all schedulers need the same --secrets-key"


class Sealer:
    """Seals and opens contents with one key, or leaves them as they are without one."""

    def __init__(
        self, key: bytes | None = None, random_bytes: Callable[[int], bytes] | None = None
    ) -> None:
        """Take the key.

        Args:
            key: `KEY_BYTES` bytes; None: nothing is sealed.
            random_bytes: Draws nonces; needed with a key.
        """
        assert key is None or (len(key) == KEY_BYTES and random_bytes is not None)
        self._cipher = None if key is None else AESGCM(key)
        self._random_bytes = random_bytes
        self._number = 0
        if key is not None:
            digest = hashlib.sha256(b"dray secrets key" + key).digest()
            self._number = int.from_bytes(digest[:_NUMBER_BYTES], "big") or 1

    def seal(self, record: ContentRecord) -> ContentRecord:
        """Return a record as it is stored; configs stay as they are."""
        is_open = record.ref.kind is ContentKind.CONFIG or self._cipher is None
        if is_open:
            return dataclasses.replace(record, sealed_by=0)
        assert self._random_bytes is not None
        assert self._cipher is not None
        nonce = self._random_bytes(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, record.content, _bound_to(record))
        return dataclasses.replace(record, content=nonce + sealed, sealed_by=self._number)

    def open(self, record: ContentRecord) -> ContentRecord:
        """Return a stored record with its content in the clear.

        Raises:
            FailedPrecondition: It was sealed with a key that this scheduler does not have, or was
                changed since.
        """
        if not record.sealed_by:
            return record
        name = f"the content of {record.ref.key}"
        if self._cipher is None:
            raise FailedPrecondition(f"{name} is sealed, and this scheduler has no key", hint=_HINT)
        if record.sealed_by != self._number:
            raise FailedPrecondition(f"{name} is sealed with another key", hint=_HINT)
        nonce, sealed = record.content[:_NONCE_BYTES], record.content[_NONCE_BYTES:]
        try:
            content = self._cipher.decrypt(nonce, sealed, _bound_to(record))
        except (InvalidTag, ValueError) as error:
            raise FailedPrecondition(
                f"{name} was changed in the store", hint="apply the project again"
            ) from error
        return dataclasses.replace(record, content=content)


NO_SEALER: Final = Sealer()


def read_key(path: Path) -> bytes:
    """Return the key in a file. Blocks on the disk: call it before the event loop runs.

    Raises:
        FailedPrecondition: The file cannot be read, or is no key.
    """
    try:
        with path.open("rb") as file:
            key = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise FailedPrecondition(f"cannot read {path}: {error.strerror}") from error
    if len(key) != KEY_BYTES:
        raise FailedPrecondition(
            f"{path} is no key: it must have {KEY_BYTES} bytes",
            hint=f"make one with `head -c {KEY_BYTES} /dev/urandom`",
        )
    return key


def _bound_to(record: ContentRecord) -> bytes:
    return f"{record.ref.kind.name}/{record.ref.key}/".encode() + record.ref.digest
