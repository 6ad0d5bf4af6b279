"""How is a Docker engine configured in the lab, and does it answer?"""

import http.client
import socket
from collections.abc import Mapping
from pathlib import Path

PING_TIMEOUT_S = 2.0

# Settings every host's engine starts with. `live-restore`: containers outlive their engine.
DEFAULTS: Mapping[str, object] = {
    "exec-opts": ["native.cgroupdriver=cgroupfs"],
    "hosts": ["unix:///run/docker.sock"],
    "live-restore": True,
    "shutdown-timeout": 5,
    "storage-driver": "overlay2",
    "userland-proxy": False,
}


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("docker", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def answers(path: Path) -> bool:
    """Return whether an engine answers on this socket."""
    connection = _UnixConnection(path, PING_TIMEOUT_S)
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
