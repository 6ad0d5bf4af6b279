"""How fast is the store on one real etcd? Prints JSON.

`python -m benchmarks.store [--repeats N] [--without-peers]`

The server is a fresh one on loopback with its data in the folder for temporary files. Lists are
read beside `etcdctl get --prefix`, which does the same work in Go. `etcd3` (see
`benchmarks.etcd3_peer`) does the same on the same server after each repeat, in threads;
`etcdctl check perf` writes with a fixed load for a minute at the end and says whether that held.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.etcd3_peer import installed
from benchmarks.told import about, etcd_version
from dray.addresses import parse_host_port
from dray.model import StoreRevision
from scheduler.store.base import Committed, Put, Txn
from scheduler.store.etcd import EtcdStore
from tests.lab.etcd import EtcdCluster

PUTS: Final = 5_000
IN_FLIGHT: Final = 64
TXNS: Final = 300
TXN_PUTS: Final = 100
TXNS_IN_FLIGHT: Final = 4
ASSIGNMENTS: Final = 1_000
ASSIGNMENT_BYTES: Final = 30_000
ASSIGNMENTS_IN_TXN: Final = 30
LISTED_KEYS: Final = 50_000
WATCHED: Final = 1_000
VALUE: Final = b"v" * 100

Figures = dict[str, float]


async def put(store: EtcdStore, *puts: Put) -> StoreRevision:
    """Commit writes; return the revision."""
    outcome = await store.commit(Txn((), puts))
    assert isinstance(outcome, Committed)
    return outcome.revision


async def in_flight(limit: int, calls: Sequence[Callable[[], Awaitable[object]]]) -> Figures:
    """Make calls, so many at once; return the time and the processor's share of it."""
    waiting = iter(calls)

    async def work() -> None:
        for call in waiting:
            await call()

    begin_s, begin_cpu_s = time.perf_counter(), cpu_s()
    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(work())
    return {"seconds": time.perf_counter() - begin_s, "cpu_seconds": cpu_s() - begin_cpu_s}


def cpu_s() -> float:
    """Return the processor time of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def puts(store: EtcdStore) -> Figures:
    """Single writes, many at once."""
    calls = [partial(put, store, Put(f"/puts/{n}", VALUE)) for n in range(PUTS)]
    took = await in_flight(IN_FLIGHT, calls)
    return {
        "puts_per_s": PUTS / took["seconds"],
        "cpu_us_per_put": took["cpu_seconds"] / PUTS * 1e6,
    }


async def txns(store: EtcdStore) -> Figures:
    """Transactions of 100 small writes."""
    bodies = [[Put(f"/txns/{t}/{n}", VALUE) for n in range(TXN_PUTS)] for t in range(TXNS)]
    took = await in_flight(TXNS_IN_FLIGHT, [partial(put, store, *body) for body in bodies])
    return {
        "txns_per_s": TXNS / took["seconds"],
        "keys_per_s": TXNS * TXN_PUTS / took["seconds"],
        "cpu_us_per_key": took["cpu_seconds"] / TXNS / TXN_PUTS * 1e6,
    }


async def assignments(store: EtcdStore) -> Figures:
    """Values of 30 kB, 30 in a transaction: what a large round commits."""
    value = os.urandom(ASSIGNMENT_BYTES)
    every = [Put(f"/assignments/{n}", value) for n in range(ASSIGNMENTS)]
    bodies = [
        every[at : at + ASSIGNMENTS_IN_TXN] for at in range(0, ASSIGNMENTS, ASSIGNMENTS_IN_TXN)
    ]
    took = await in_flight(TXNS_IN_FLIGHT, [partial(put, store, *body) for body in bodies])
    return {
        "values_per_s": ASSIGNMENTS / took["seconds"],
        "mib_per_s": ASSIGNMENTS * ASSIGNMENT_BYTES / took["seconds"] / 2**20,
    }


async def listing(store: EtcdStore, cluster: EtcdCluster) -> Figures:
    """50,000 keys, and the longest the event loop works on it at a stretch; beside etcdctl."""
    for at in range(0, LISTED_KEYS, TXN_PUTS):
        if (await store.get(f"/list/{at:06}")).item is None:
            await put(store, *(Put(f"/list/{at + n:06}", VALUE) for n in range(TXN_PUTS)))
    stretches_s = [0.0]

    async def tick() -> None:
        last_s = time.thread_time()  # the wall clock would count other programs' turns
        while True:
            await asyncio.sleep(0)
            now_s = time.thread_time()
            stretches_s.append(now_s - last_s)
            last_s = now_s

    begin_s = time.perf_counter()
    items = (await store.list("/list/")).items
    took_s = time.perf_counter() - begin_s
    assert len(items) == LISTED_KEYS
    ticking = asyncio.create_task(tick())
    await store.list("/list/")
    ticking.cancel()
    begin_s = time.perf_counter()
    out = await asyncio.to_thread(cluster.etcdctl, "get", "--prefix", "/list/")
    etcdctl_s = time.perf_counter() - begin_s
    assert out.stdout.count("\n") == 2 * LISTED_KEYS
    return {
        "seconds": took_s,
        "longest_stretch_cpu_ms": max(stretches_s) * 1e3,
        "etcdctl_seconds": etcdctl_s,
    }


async def watching(store: EtcdStore, other: EtcdStore) -> Figures:
    """From the moment a write is sent until a watch has it, and until the writer is told."""
    seen: list[float] = []
    told: list[float] = []
    start = (await store.list("/watch/")).revision
    async with store.watch("/watch/", after=start) as watch:
        for number in range(WATCHED):
            sent_s = time.perf_counter()
            writing = asyncio.create_task(put(other, Put(f"/watch/{number % 50}", VALUE)))
            changes = await anext(watch)
            seen.append(time.perf_counter() - sent_s)
            assert changes.revision == await writing
            told.append(time.perf_counter() - sent_s)
    return {
        "seen_p50_ms": statistics.median(seen) * 1e3,
        "seen_p99_ms": statistics.quantiles(seen, n=100)[98] * 1e3,
        "told_p50_ms": statistics.median(told) * 1e3,
        "told_p99_ms": statistics.quantiles(told, n=100)[98] * 1e3,
    }


async def measure(cluster: EtcdCluster) -> dict[str, Figures]:
    """Measure everything once."""
    addresses = [parse_host_port(endpoint) for endpoint in cluster.endpoints]
    store, other = EtcdStore(addresses, None), EtcdStore(addresses, None)
    try:
        return {
            f"{PUTS} puts, {IN_FLIGHT} in flight": await puts(store),
            f"{TXNS} transactions of {TXN_PUTS} puts, {TXNS_IN_FLIGHT} in flight": await txns(
                store
            ),
            f"{ASSIGNMENTS} values of {ASSIGNMENT_BYTES} bytes": await assignments(store),
            f"list of {LISTED_KEYS} keys": await listing(store, cluster),
            f"watch, {WATCHED} writes one by one": await watching(store, other),
        }
    finally:
        await store.close()
        await other.close()


def etcd3_figures(cluster: EtcdCluster, peer: dict[str, str]) -> dict[str, Figures]:
    """Measure the peer in a process of its own."""
    host, port = cluster.endpoints[0].rsplit(":", 1)
    argv = [sys.executable, "-m", "benchmarks.etcd3_peer", "speed", host, port]
    done = subprocess.run(argv, env={**os.environ, **peer}, capture_output=True, check=True)
    found: dict[str, Figures] = json.loads(done.stdout)
    return found


def check_perf(cluster: EtcdCluster) -> list[str]:
    """Return what `etcdctl check perf` says, whether the server passes or not."""
    done = cluster.etcdctl("check", "perf", check=False, timeout_s=180.0)
    text = done.stdout + done.stderr
    return [line for line in text.splitlines() if line.startswith(("PASS", "FAIL"))]


def report(
    runs: Sequence[dict[str, Figures]], peers: Sequence[dict[str, Figures]], perf: list[str]
) -> dict[str, object]:
    """Return the median and both ends of every figure."""
    return {
        **about("store"),
        "etcd": etcd_version(),
        "repeats": len(runs),
        "figures": _table(runs),
        "etcd3 0.12.0, stubs generated again": _table(peers),
        "etcdctl check perf": perf,
    }


def _table(runs: Sequence[dict[str, Figures]]) -> dict[str, dict[str, Figures]]:
    return {
        name: {figure: _spread([run[name][figure] for run in runs]) for figure in runs[0][name]}
        for name in (runs[0] if runs else ())
    }


def _spread(values: Sequence[float]) -> Figures:
    return {
        "median": float(f"{statistics.median(values):.4g}"),
        "min": float(f"{min(values):.4g}"),
        "max": float(f"{max(values):.4g}"),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="runs, each on the same server")
    parser.add_argument("--without-peers", action="store_true", help="measure ours alone")
    given = parser.parse_args()
    runs, peers, perf = [], [], []
    with tempfile.TemporaryDirectory() as folder, EtcdCluster(1, Path(folder)) as cluster:
        peer = None if given.without_peers else installed(Path(folder) / "etcd3")
        for _ in range(max(1, given.repeats)):
            runs.append(asyncio.run(measure(cluster)))
            if peer is not None:
                peers.append(etcd3_figures(cluster, peer))
        if peer is not None:
            perf = check_perf(cluster)
    print(json.dumps(report(runs, peers, perf), indent=2))


if __name__ == "__main__":
    main()
