"""How late does gossip run on its thread, beside others that burn Python's lock?

Two `GossipService`s on loopback probe each other for some seconds while so many threads of the
process compute; the figure is how late the gossip loop's 50 ms ticks came, and nobody must be
suspected.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import sys
import threading
import time

import structlog

from dray.addresses import HostPort
from dray.log import get_logger
from dray.names import ClusterId, NodeId, id_text
from node.gossip.core import Address
from node.gossip.identity import Identity
from node.gossip.service import GossipConfig, GossipService

__all__ = ["lateness"]

BURNERS = (0, 1, 4, 16)
RUN_S = 15.0
SAMPLE_S = 0.5


def _service(name: str) -> tuple[GossipService, int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
    node_id = NodeId(id_text(hashlib.sha256(name.encode()).digest()[:16]))
    address = Address("127.0.0.1", port)
    identity = Identity(ClusterId(id_text(bytes(16))), node_id, name, address, 1)
    return GossipService(
        GossipConfig(identity), rng=random.Random(name), log=get_logger("gossip")
    ), port


def _burn(stop: threading.Event) -> None:
    while not stop.is_set():
        sum(range(1_000))


async def _beside(burners: int) -> dict[str, object]:
    (a, a_port), (b, _) = _service("a"), _service("b")
    stop = threading.Event()
    threads = [threading.Thread(target=_burn, args=(stop,)) for _ in range(burners)]
    runs = [asyncio.get_running_loop().create_task(one.run()) for one in (a, b)]
    for one in (a, b):
        one.join([HostPort("127.0.0.1", a_port)])
    await asyncio.sleep(3.0)
    for thread in threads:
        thread.start()
    late_ms: list[float] = []
    end_s = time.monotonic() + RUN_S
    a.traffic.late_s = 0.0
    while time.monotonic() < end_s:
        await asyncio.sleep(SAMPLE_S)
        late_ms.append(1_000.0 * a.traffic.late_s)
        a.traffic.late_s = 0.0
    stop.set()
    counted = a.counted()
    for run in runs:
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run
    late_ms.sort()
    return {
        "burning_threads": burners,
        "late_ms_median_of_half_seconds": round(late_ms[len(late_ms) // 2], 1),
        "late_ms_max": round(late_ms[-1], 1),
        "suspicions": counted["suspicions"],
    }


def lateness() -> list[dict[str, object]]:
    """Return the figures for several numbers of threads. Log lines go to standard error."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    return [asyncio.run(_beside(burners)) for burners in BURNERS]
