"""The `etcd3` package (0.12.0, 2020) as a peer: made importable for a moment, and driven.

    python -m benchmarks.etcd3_peer speed HOST PORT
    python -m benchmarks.etcd3_peer watch HOST PORT PREFIX

Its generated stubs cannot be imported beside protobuf 4 or later. `installed` puts the package into
a folder for temporary files and generates them again, from the descriptions that they carry. The
programs print JSON lines; they run in processes of their own, with that folder on their path.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import itertools
import json
import re
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

PACKAGES: Final = ("etcd3==0.12.0", "tenacity", "six")
STUBS: Final = ("kv", "auth", "rpc")
PUTS: Final = 5_000
IN_FLIGHT: Final = 64
TXNS: Final = 300
TXN_PUTS: Final = 100
TXNS_IN_FLIGHT: Final = 4
LISTED_KEYS: Final = 50_000
WATCHED: Final = 1_000
VALUE: Final = b"v" * 100


def installed(folder: Path) -> dict[str, str]:
    """Install the package into a folder; return the environment in which it can be imported.

    Raises:
        subprocess.CalledProcessError: It could not be fetched, or its stubs not generated.
    """
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, *PACKAGES], check=True, stdout=subprocess.DEVNULL)
    stubs = folder / "etcd3" / "etcdrpc"
    files = FileDescriptorSet(file=[_description(stubs / f"{name}_pb2.py") for name in STUBS])
    (folder / "etcd.binpb").write_bytes(files.SerializeToString())
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            f"--descriptor_set_in={folder / 'etcd.binpb'}",
            *(f"--python_out={stubs}", f"--grpc_python_out={stubs}"),
            *(f"{name}.proto" for name in STUBS),
        ],
        check=True,
    )
    for path in stubs.glob("*_pb2*.py"):
        text = re.sub(
            r"^import (\w+_pb2) as",
            r"from etcd3.etcdrpc import \1 as",
            path.read_text(),
            flags=re.M,
        )
        path.write_text(text)
    return {"PYTHONPATH": str(folder)}


def _description(path: Path) -> FileDescriptorProto:
    """Return what a generated module of old describes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "serialized_pb":
            assert isinstance(node.value, ast.Call)
            text = ast.literal_eval(node.value.args[0])
            return FileDescriptorProto.FromString(text.encode("latin-1"))
    raise AssertionError(f"no description in {path}")


def client(host: str, port: int) -> Any:
    """Return a client of one server: it knows no others."""
    return importlib.import_module("etcd3").client(host=host, port=port)


def cpu_s() -> float:
    """Return the processor time of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def together(call: Callable[[int], object], count: int, at_once: int) -> tuple[float, float]:
    """Make calls in threads, so many at once; return seconds and seconds of the processor."""
    begin_s, begin_cpu_s = time.perf_counter(), cpu_s()
    with ThreadPoolExecutor(at_once) as pool:
        for _ in pool.map(call, range(count)):
            pass
    return time.perf_counter() - begin_s, cpu_s() - begin_cpu_s


def speed(host: str, port: int) -> dict[str, dict[str, float]]:
    """Measure what `benchmarks.store` measures."""
    etcd = client(host, port)
    took_s, used_s = together(lambda n: etcd.put(f"/peer/puts/{n}", VALUE), PUTS, IN_FLIGHT)
    found = {"puts": {"puts_per_s": PUTS / took_s, "cpu_us_per_put": used_s / PUTS * 1e6}}

    def txn(number: int) -> None:
        puts = [etcd.transactions.put(f"/peer/txns/{number}/{n}", VALUE) for n in range(TXN_PUTS)]
        etcd.transaction(compare=[], success=puts, failure=[])

    took_s, used_s = together(txn, TXNS, TXNS_IN_FLIGHT)
    keys = TXNS * TXN_PUTS
    found["transactions"] = {
        "txns_per_s": TXNS / took_s,
        "keys_per_s": keys / took_s,
        "cpu_us_per_key": used_s / keys * 1e6,
    }
    found["list"] = _listing(host, port)
    found["watch"] = _watching(etcd)
    return found


def _listing(host: str, port: int) -> dict[str, float]:
    """List 50,000 keys, which are larger than the 4 MiB that its channel takes by default."""
    module = importlib.import_module("etcd3")
    options = {"grpc.max_receive_message_length": 256 * 1_048_576}.items()
    etcd = module.client(host=host, port=port, grpc_options=options)
    begin_s = time.perf_counter()
    count = sum(1 for _ in etcd.get_prefix("/list/"))
    assert count == LISTED_KEYS, count
    return {"seconds": time.perf_counter() - begin_s}


def _watching(etcd: Any) -> dict[str, float]:
    """Return from when a write is sent until the watch has it."""
    events, cancel = etcd.watch_prefix("/peer/watch/")
    seen = []
    for number in range(WATCHED):
        sent_s = time.perf_counter()
        writing = threading.Thread(target=etcd.put, args=(f"/peer/watch/{number % 50}", VALUE))
        writing.start()
        next(events)
        seen.append(time.perf_counter() - sent_s)
        writing.join()
    cancel()
    return {
        "seen_p50_ms": statistics.median(seen) * 1e3,
        "seen_p99_ms": statistics.quantiles(seen, n=100)[98] * 1e3,
    }


def watch(host: str, port: int, prefix: str) -> None:
    """Say what a watch brings, a line an event, until the process is ended."""
    events, _ = client(host, port).watch_prefix(prefix)
    print(json.dumps({"ready": True}), flush=True)
    for number in itertools.count():
        try:
            event = next(events)
        except Exception as error:  # noqa: BLE001 # whatever a peer's library raises ends its watch
            print(json.dumps({"ended": f"{type(error).__name__} after {number}"}), flush=True)
            return
        print(json.dumps({"key": event.key.decode(), "at": event.mod_revision}), flush=True)


def main() -> None:
    """Measure or watch."""
    parser = argparse.ArgumentParser(prog="benchmarks.etcd3_peer")
    parser.add_argument("what", choices=["speed", "watch"])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("prefix", nargs="?", default="/")
    given = parser.parse_args()
    if given.what == "speed":
        print(json.dumps(speed(given.host, given.port)))
    else:
        watch(given.host, given.port, given.prefix)


if __name__ == "__main__":
    main()
