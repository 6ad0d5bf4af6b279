"""How long does `docker run`, eight at a time, take for so many containers? What nodes are beside.

`docker` itself is the fastest way that people have to start many containers on one machine.
"""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tests.lab import BUSYBOX, Host

__all__ = ["AT_ONCE", "by_docker_run", "clean"]

AT_ONCE: Final = 8
# Ends at once on SIGTERM, so that cleaning up is not what takes the time.
COMMAND: Final = ("sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait")
_NAME: Final = "bench-"


def by_docker_run(host: Host, count: int, network: str = "none") -> float:
    """Start containers by `docker run`, remove them; return the seconds that starting took."""

    def start(number: int) -> None:
        subprocess.run(
            [
                *("docker", "-H", host.docker_url, "run", "-d", "--network", network),
                *("--name", f"{_NAME}{number}", BUSYBOX.reference, *COMMAND),
            ],
            check=True,
            capture_output=True,
        )

    begin = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(start, range(count)))
    took_s = time.perf_counter() - begin
    clean(host, _NAME)
    return took_s


def clean(host: Host, name: str = "") -> None:
    """Remove the containers of a host whose names begin so."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        listed = host.docker.api.containers(all=True)
        found = [each["Id"] for each in listed if each["Names"][0].startswith(f"/{name}")]
        list(pool.map(lambda each: host.docker.api.remove_container(each, force=True), found))
