"""What survives a restart of the daemon, and how is it kept? The node's data folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from dray.names import NodeId
from node.agent.assign import Share
from node.agent.files import lock_folder, make_folder, read_file, write_file
from node.agent.stored import (
    Identity,
    NodeConfig,
    TaskFile,
    pack_config,
    pack_identity,
    pack_network,
    pack_share,
    unpack_config,
    unpack_identity,
    unpack_network,
    unpack_share,
    unpack_tasks,
)
from node.ports import NetworkConfig

__all__ = ["Disk"]

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_Value = TypeVar("_Value")


class Disk:
    """The node's data folder. Its methods block: daemons call them in a thread.

    Every write is atomic and on the disk when the method returns. Files are of mode 0600: the
    configuration holds the keys of gossip.

    Every method raises `DrayError` when the disk does not do as it should; what was there stands.
    """

    def __init__(self, folder: Path) -> None:
        """Refer to a folder; nothing is read or made yet."""
        self.folder = folder
        self._lock = -1

    def open(self, new_id: Callable[[], str], unix_s: float) -> Identity:
        """Make the folder if need be, lock it, and begin a new life.

        Args:
            new_id: Called at the very first start.
            unix_s: Now, on the wall clock.

        Returns:
            Who the node is, with its new life: max(former + 1, seconds since 1970), on the disk.
        """
        make_folder(self.folder)
        if self._lock < 0:
            self._lock = lock_folder(self.folder)
        found = self._read("identity.json", unpack_identity)
        if found is None:
            found = Identity(NodeId(new_id()), 0)
        identity = replace(found, life=max(found.life + 1, int(unix_s)))
        self.write_identity(identity)
        return identity

    def close(self) -> None:
        """Give the folder back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def write_identity(self, identity: Identity) -> None:
        """Keep who the node is."""
        write_file(self.folder / "identity.json", pack_identity(identity))

    def read_config(self) -> NodeConfig | None:
        """Return what the leader last told the node about itself; None: it never joined."""
        return self._read("config.json", unpack_config)

    def write_config(self, config: NodeConfig) -> None:
        """Keep what the leader told the node about itself."""
        write_file(self.folder / "config.json", pack_config(config))

    def read_network(self) -> NetworkConfig | None:
        """Return what the machine's network was last made of; None: nothing yet."""
        return self._read("network.json", unpack_network)

    def write_network(self, config: NetworkConfig) -> None:
        """Keep what the machine's network is made of, for whoever looks at it from outside."""
        write_file(self.folder / "network.json", pack_network(config))

    def read_share(self) -> Share | None:
        """Return what the node should run, as last accepted; None: *unknown*."""
        return self._read("assignment.json", unpack_share)

    def write_share(self, share: Share) -> None:
        """Keep what the node should run."""
        write_file(self.folder / "assignment.json", pack_share(share))

    def read_tasks(self) -> TaskFile:
        """Return what was known of the node's tasks."""
        return self._read("tasks.json", unpack_tasks) or TaskFile()

    def write_tasks(self, data: bytes) -> None:
        """Keep what is known of the tasks, as `pack_tasks` made it."""
        write_file(self.folder / "tasks.json", data)

    def boot_id(self) -> str:
        """Return the kernel's boot id: another one after every start of the machine."""
        return _BOOT_ID.read_text(encoding="ascii").strip()

    def _read(self, name: str, unpack: Callable[[bytes], _Value]) -> _Value | None:
        data = read_file(self.folder / name)
        return None if data is None else unpack(data)
