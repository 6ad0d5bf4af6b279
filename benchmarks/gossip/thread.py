"""How late does gossip run on its thread, beside others that burn Python's lock?

Two `GossipService`s on loopback probe each other for some seconds while so many threads compute: in
the same process (`thread`, as the daemon does it), or in another one (`process`, what a process of
its own for gossip would give). The figures are the greatest lateness of gossip's loop in each
second, how often it was too late to judge, and suspicions, of which there must be none.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import subprocess
import sys
import threading
from collections.abc import Iterator

import structlog

from dray.addresses import HostPort
from dray.log import get_logger
from dray.names import ClusterId, NodeId, id_text
from node.gossip.core import Address
from node.gossip.identity import Identity
from node.gossip.service import GossipConfig, GossipService
from tests.lab.ports import free_port

__all__ = ["lateness"]

BURNERS = (0, 1, 2, 4, 16)
SETTLE_S = 3.0
RUN_S = 15.0
OTHER = """
import threading
def burn():
    while True: sum(range(1000))
for _ in range({}): threading.Thread(target=burn, daemon=True).start()
threading.Event().wait()
"""


def _service(name: str) -> tuple[GossipService, int]:
    port = free_port()
    node_id = NodeId(id_text(hashlib.sha256(name.encode()).digest()[:16]))
    address = Address("127.0.0.1", port)
    identity = Identity(ClusterId(id_text(bytes(16))), node_id, name, address, 1)
    config = GossipConfig(identity)
    return GossipService(config, rng=random.Random(name), log=get_logger("gossip")), port


@contextlib.contextmanager
def _burning(count: int, *, is_here: bool) -> Iterator[None]:
    """Let so many threads compute, in this process or in another one."""
    if not is_here:
        other = subprocess.Popen([sys.executable, "-c", OTHER.format(count)])
        try:
            yield
        finally:
            other.kill()
            other.wait()
        return
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            sum(range(1_000))

    threads = [threading.Thread(target=burn) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


async def _beside(count: int, *, is_here: bool) -> dict[str, object]:
    (a, a_port), (b, _) = _service("a"), _service("b")
    runs = [asyncio.get_running_loop().create_task(one.run()) for one in (a, b)]
    for one in (a, b):
        one.join([HostPort("127.0.0.1", a_port)])
    await asyncio.sleep(SETTLE_S)
    before = a.counted()
    with _burning(count, is_here=is_here):
        await asyncio.sleep(RUN_S)
    late_ms = sorted(1_000.0 * late_s for late_s in a.latenesses_s()[-round(RUN_S) :])
    counted = a.counted()
    for run in runs:
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run
    return {
        "burning_threads": count,
        "they_burn_in": "its process" if is_here else "another process",
        "worst_of_a_second_ms_median": round(late_ms[len(late_ms) // 2], 1),
        "worst_of_a_second_ms_max": round(late_ms[-1], 1),
        "too_late_to_judge": counted["late"] - before["late"],
        "suspicions": counted["suspicions"],
    }


def lateness() -> list[dict[str, object]]:
    """Return the figures for several numbers of threads. Log lines go to standard error."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    return [
        asyncio.run(_beside(count, is_here=is_here))
        for count in BURNERS
        for is_here in (True, False)
    ]
