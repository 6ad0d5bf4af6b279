"""How are messages sealed, so that only the cluster's nodes can read and write them?

AES-256-GCM with a key of the cluster's gossip keyring. The header (form, cluster tag, sender, its
life) stays in clear and is authenticated; what is behind it is encrypted:

    sealed = header, its form byte replaced (33) · key id (1) · sender's primary key id (1)
             · counter (8) · salt (4) · encrypted rest · tag (16)

- Key: HKDF-SHA256 over the keyring's material, salt = cluster id, info = "dray gossip v1", sender
  and life. So no two (node, life) share one, and a life is never used twice.
- Nonce: salt and counter. The counter alone never repeats within a life; the random salt keeps the
  nonce from repeating when a machine is cloned with its life.
- Associated data: cluster id, header, both key ids. Another cluster's datagrams do not open, even
  with the same material.
- Replay: a receiver drops a counter that it has seen, and one more than 1,024 behind the highest.
  What it saw is forgotten when it restarts, and of who has not been heard for long when it holds
  4,096 senders: a replay then repeats old rumours, which lose against newer ones.
- Rotation: all keys of the ring open. Every message says which key is its sender's primary one, and
  who answers seals with that, while its own ring still has it: so a ring with a new primary key
  can reach the nodes in any order, and one that was away goes on with the old key until it learns
  of the new one. Only when a key leaves the ring are those out who have no other.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dray.errors import InvalidRequest
from dray.model import GossipKey
from dray.names import ClusterId, id_bytes
from node.gossip.datagrams import FORM, HEADER_BYTES
from node.gossip.messages import cluster_tag
from node.gossip.wire import Malformed

__all__ = ["KEYS_MAX", "SALT_BYTES", "SEAL_BYTES", "Opened", "Sealer"]

KEYS_MAX: Final = 8  # of one keyring: two during a rotation, and room for a stuck one
KEY_BYTES: Final = 32
KEY_ID_MAX: Final = 255
SALT_BYTES: Final = 4
SENDERS_MAX: Final = 4_096  # whose counters and ciphers are remembered; the longest silent go first
WINDOW: Final = 1_024  # datagrams that may overtake one another

_SEALED_FORM: Final = 0xD2
_PREFIX: Final = struct.Struct(">BBQ4s")  # key id, sender's primary key id, counter, salt
_KEY_IDS_BYTES: Final = 2
_TAG_BYTES: Final = 16
SEAL_BYTES: Final = _PREFIX.size + _TAG_BYTES
_MASK: Final = (1 << WINDOW) - 1


class Opened(NamedTuple):
    """A message that opened, and the id of the key that its sender seals with by itself."""

    plain: bytes
    primary: int


@dataclass(slots=True)
class _Window:
    """Which counters of one sender were seen: bit n of `seen` is `highest` - n."""

    life: int
    highest: int = 0
    seen: int = 0

    def take(self, counter: int) -> bool:
        """Return whether a counter is new, and remember it."""
        ahead = counter - self.highest
        if ahead > 0:
            self.seen = ((self.seen << min(ahead, WINDOW)) | 1) & _MASK
            self.highest = counter
            return True
        if -ahead >= WINDOW or self.seen >> -ahead & 1:
            return False
        self.seen |= 1 << -ahead
        return True


class Sealer:
    """Seals what one node sends in one life, and opens what it receives. For one thread."""

    def __init__(self, cluster_id: ClusterId, keys: Iterable[GossipKey]) -> None:
        """Make a sealer.

        Raises:
            InvalidRequest: As `set_keyring`.
        """
        self._cluster = id_bytes(cluster_id)
        self._tag = cluster_tag(cluster_id)
        self._counter = 0
        self._keys: dict[int, bytes] = {}
        self._primary = 0
        self._ciphers: OrderedDict[tuple[int, bytes], AESGCM] = OrderedDict()
        self._windows: OrderedDict[bytes, _Window] = OrderedDict()
        self.set_keyring(keys)

    def set_keyring(self, keys: Iterable[GossipKey]) -> None:
        """Seal with the primary one of these keys from now on, and open with all of them.

        Raises:
            InvalidRequest: Not exactly one is primary, there are too many, two share an id, or one
                has not 32 bytes. The earlier keyring stays.
        """
        ring = list(keys)
        if not 0 < len(ring) <= KEYS_MAX or len({key.key_id for key in ring}) < len(ring):
            raise InvalidRequest(f"a gossip keyring has 1 to {KEYS_MAX} keys with different ids")
        primary = [key.key_id for key in ring if key.primary]
        if len(primary) != 1:
            raise InvalidRequest(f"a gossip keyring has one primary key, this has {len(primary)}")
        for key in ring:
            if len(key.material) != KEY_BYTES or not 0 <= key.key_id <= KEY_ID_MAX:
                raise InvalidRequest(
                    f"gossip key {key.key_id}: {KEY_BYTES} bytes and an id up to {KEY_ID_MAX}"
                )
        self._keys = {key.key_id: key.material for key in ring}
        self._primary = primary[0]
        self._ciphers.clear()

    def seal(self, plain: bytes, salt: bytes, key_id: int | None = None) -> bytes:
        """Return a message sealed under the next counter.

        Args:
            plain: As `messages.encode` makes it.
            salt: `SALT_BYTES` fresh random bytes.
            key_id: The receiver's primary key, if it is known; used when the keyring has it.
        """
        assert len(plain) >= HEADER_BYTES, "a message begins with its header"
        self._counter += 1
        used = key_id if key_id is not None and key_id in self._keys else self._primary
        header = bytes((_SEALED_FORM,)) + plain[1:HEADER_BYTES]
        cipher = self._cipher(used, header)
        if cipher is None:
            cipher = self._new_cipher(used, header)
            self._remember(used, header, cipher)
        nonce = salt + self._counter.to_bytes(8, "big")
        prefix = _PREFIX.pack(used, self._primary, self._counter, salt)
        sealed = cipher.encrypt(nonce, plain[HEADER_BYTES:], self._associated(header, prefix))
        return header + prefix + sealed

    def open(self, sealed: bytes) -> Opened | Malformed:
        """Return the message that was sealed, or why it is to be dropped. Never raises."""
        body_at = HEADER_BYTES + _PREFIX.size
        if len(sealed) < body_at + _TAG_BYTES or sealed[0] != _SEALED_FORM:
            return Malformed("not sealed")
        header, prefix = sealed[:HEADER_BYTES], sealed[HEADER_BYTES:body_at]
        if header[1:9] != self._tag:
            return Malformed("of another cluster")
        key_id, primary, counter, salt = _PREFIX.unpack(prefix)
        if key_id not in self._keys:
            return Malformed(f"sealed with key {key_id}, which is not in the keyring")
        known = self._cipher(key_id, header)
        cipher = known or self._new_cipher(key_id, header)
        nonce = salt + counter.to_bytes(8, "big")
        try:
            plain = cipher.decrypt(nonce, sealed[body_at:], self._associated(header, prefix))
        except InvalidTag:
            return Malformed("its seal is broken")
        if known is None:  # only now: strangers take no room
            self._remember(key_id, header, cipher)
        if not self._is_new(header, counter):
            return Malformed("it was received before")
        return Opened(bytes((FORM,)) + header[1:] + plain, primary)

    def _associated(self, header: bytes, prefix: bytes) -> bytes:
        return self._cluster + header + prefix[:_KEY_IDS_BYTES]

    def _cipher(self, key_id: int, header: bytes) -> AESGCM | None:
        key = (key_id, header)
        cipher = self._ciphers.get(key)
        if cipher is not None:
            self._ciphers.move_to_end(key)
        return cipher

    def _new_cipher(self, key_id: int, header: bytes) -> AESGCM:
        info = b"dray gossip v1" + header[9:]
        kdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=self._cluster, info=info)
        return AESGCM(kdf.derive(self._keys[key_id]))

    def _remember(self, key_id: int, header: bytes, cipher: AESGCM) -> None:
        while len(self._ciphers) >= SENDERS_MAX:
            self._ciphers.popitem(last=False)
        self._ciphers[(key_id, header)] = cipher

    def _is_new(self, header: bytes, counter: int) -> bool:
        sender, life = header[9:25], int.from_bytes(header[25:], "big")
        window = self._windows.get(sender)
        if window is None or window.life < life:
            while window is None and len(self._windows) >= SENDERS_MAX:
                self._windows.popitem(last=False)
            window = self._windows[sender] = _Window(life)
        self._windows.move_to_end(sender)
        return window.life == life and window.take(counter)
