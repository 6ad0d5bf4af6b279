"""Do clients notice when a service's replicas are replaced, added and taken away? Prints JSON.

`python -m benchmarks.rolling [--hosts N] [--operations N]` (as root) brings up a cluster on hosts
of the lab with a service of 10 replicas, and changes it again and again through the command:
rolling replacement, 12 replicas, 10, 8, 10. Its program ends at once when it is told to, with
whatever it is doing. Three clients in a container never pause, and no request may fail:

- names: 200 requests a second, each on a connection of its own, to one of the addresses of
  `tasks.web`; an answer of the name server is used for as long as it says that it holds (1 s).
- vip: 200 requests a second, each on a connection of its own, to the address of `web`.
- held: 3 requests a second to the address of `web` that take up to 4 s to be answered; the
  service's `stop_grace_period` is 5 s.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.name_watch import gateway
from benchmarks.told import about
from tests.e2e.cluster import Cluster, cluster_on
from tests.lab import BUSYBOX, WEB, Lab
from tests.lab.etcd import EtcdCluster
from tests.lab.process import Process

REPLICAS: Final = 10
COMPOSE: Final = f"""
name: roll
services:
  web:
    image: {WEB.reference}
    stop_grace_period: 5s
    healthcheck:
      {{test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"], interval: 3s}}
    deploy:
      replicas: {REPLICAS}
      update_config: {{parallelism: 5, order: start-first, monitor: 0s}}
  client:
    image: {BUSYBOX.reference}
    command: ["sleep", "100000"]
    stop_grace_period: 1s
    deploy: {{placement: {{constraints: ["node.hostname == host1"]}}}}
"""
CLIENT: Final = r"""
import asyncio, json, random, signal, socket, struct, sys, time
server, kind, name, rate, path = sys.argv[1:6]
LIMIT_S, LATE_S = 15.0, 0.02
counts = {"asked": 0, "failed": 0, "unresolved": 0}
failures, times = [], []
cache = ((), 0.0)
rng = random.Random(1)

def query():
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.connect((server, 53))
        bound.settimeout(1.0)
        head = struct.pack("!6H", rng.getrandbits(16), 0x100, 1, 0, 0, 0)
        bound.send(head + labels + b"\0\0\1\0\1")
        data = bound.recv(65536)
    count = struct.unpack_from("!H", data, 6)[0]
    at, ttl_s, found = 12 + len(labels) + 5, 0, []
    for _ in range(count):
        ttl_s = struct.unpack_from("!I", data, at + 6)[0]
        found.append(socket.inet_ntoa(data[at + 12:at + 16]))
        at += 16
    return tuple(found), time.monotonic() + ttl_s

def resolved():
    global cache
    if not cache[0] or time.monotonic() >= cache[1]:
        for _ in range(3):
            try:
                cache = query()
                break
            except OSError:
                counts["unresolved"] += 1
    return rng.choice(cache[0])

async def request():
    began_s = time.monotonic()
    address = "nowhere"
    counts["asked"] += 1
    wanted = b"done" if kind == "held" else b"200 OK"
    where = path + (f"?{rng.random() * 4:.1f}" if kind == "held" else "")
    try:
        async with asyncio.timeout(LIMIT_S):
            address = resolved()
            reader, writer = await asyncio.open_connection(address, 80)
            writer.write(f"GET {where} HTTP/1.0\r\n\r\n".encode())
            data = await reader.read(-1)
            writer.close()
            if wanted not in data:
                raise ValueError(f"an answer of {len(data)} bytes: {data[:40]!r}")
        times.append(time.monotonic() - began_s)
    except (OSError, ValueError, IndexError, TimeoutError) as error:
        counts["failed"] += 1
        took_s = time.monotonic() - began_s
        failures.append([round(began_s, 2), round(took_s, 3), address, repr(error)[:120]])

async def main():
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    at = began_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        while not stop.is_set():
            group.create_task(request())
            # Who could not run for a while does not make up for it: the servers take few at once.
            at = max(at + 1 / float(rate), time.monotonic() - LATE_S)
            await asyncio.sleep(max(0.0, at - time.monotonic()))
    times.sort()
    per_s = round(counts["asked"] / (time.monotonic() - began_s), 1)
    figures = {**counts, "per_s": per_s, "failures": failures[:50]}
    for what, part in (("p50_ms", 0.5), ("p99_ms", 0.99)):
        figures[what] = round(times[int(len(times) * part)] * 1000, 1) if times else None
    print(json.dumps(figures))

asyncio.run(main())
"""
CLIENTS: Final = {
    "names": ("tasks.web.roll.dray.internal", "200", "/"),
    "vip": ("web.roll.dray.internal", "200", "/"),
    "held": ("web.roll.dray.internal", "3", "/cgi-bin/slow"),
}


@contextlib.contextmanager
def clients(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """Run all clients while the block does; what they counted is given after it."""
    host = cluster.lab.hosts[0]  # as the Compose file says
    [container] = host.docker.containers.list(filters={"label": "dray.service=client"})
    enter = ["nsenter", "--net", "--target", str(container.attrs["State"]["Pid"])]
    running: dict[str, Process] = {}
    found: dict[str, Any] = {}
    try:
        for kind, (name, rate, path) in CLIENTS.items():
            command = [sys.executable, "-c", CLIENT, gateway(host), kind, name, rate, path]
            running[kind] = host.popen([*enter, *command], stdout=subprocess.PIPE)
        yield found
    finally:
        for each in running.values():
            each.terminate()
        found |= {kind: json.loads(each.communicate()[0] or "{}") for kind, each in running.items()}


def operate(cluster: Cluster, number: int) -> None:
    """Replace all replicas, or change how many there are; wait until it is done."""
    wait = ("--timeout", "120s")
    replicas = (0, REPLICAS + 2, REPLICAS, REPLICAS - 2, REPLICAS)[number % 5]
    began_s = time.monotonic()
    if replicas:
        cluster.dray("scale", f"roll/web={replicas}", *wait, limit_s=130.0)
    else:
        cluster.dray("restart", "-p", "roll", "web", *wait, limit_s=130.0)
    what = f"{replicas} replicas" if replicas else "replaced"
    took_s = time.monotonic() - began_s
    print(f"{began_s:.1f} {what} in {took_s:.1f} s", file=sys.stderr, flush=True)


def measure(hosts: int, operations: int, limit_s: float) -> dict[str, Any]:
    """Return what the clients counted, and how many operations there was time for."""
    with Lab.up(hosts) as lab, tempfile.TemporaryDirectory() as folder:
        first = lab.hosts[0]
        with (
            EtcdCluster(1, Path(folder), hosts=[first]) as etcd,
            cluster_on(lab, etcd, [first], lab.hosts) as cluster,
        ):
            cluster.up(COMPOSE, "--timeout", "120s", limit_s=130.0)
            time.sleep(2.0)
            with clients(cluster) as found:
                ends_at_s = time.monotonic() + limit_s
                done = 0
                while done < operations and time.monotonic() < ends_at_s:
                    operate(cluster, done)
                    done += 1
                time.sleep(2.0)
            return {"operations": done, **found}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--operations", type=int, default=50)
    parser.add_argument("--limit-s", type=float, default=3_600.0, help="stop after this time")
    given = parser.parse_args()
    told = {
        **about("rolling"),
        "figures": measure(given.hosts, given.operations, given.limit_s),
    }
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
