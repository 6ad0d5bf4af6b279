"""How long do people wait for a prompt in a container, and for a copy of 50 MiB?"""

from __future__ import annotations

import hashlib
import os
import pty
import statistics
import time
from typing import Any, Final

from tests.e2e.cluster import DRAY, Cluster
from tests.lab import Host

__all__ = ["measure"]

PROMPTS: Final = 7
PROMPT: Final = b"# "
COPY_BYTES: Final = 50 * 1024**2
READ_BYTES: Final = 4096


def prompt_s(cluster: Cluster, host: Host, target: str) -> float:
    """Run `dray exec TARGET sh` on a terminal; return the seconds until its prompt is there."""
    outer, inner = pty.openpty()
    try:
        began_s = time.perf_counter()
        process = host.popen(
            [*DRAY, "exec", target, "sh"],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            environment={"DRAY_HOST": cluster.all_api, "DRAY_INSECURE": "1", "TERM": "xterm"},
        )
        seen = b""
        while PROMPT not in seen:
            seen += os.read(outer, READ_BYTES)
        took_s = time.perf_counter() - began_s
        os.write(outer, b"exit\n")
        process.wait(30)
        return took_s
    finally:
        os.close(outer)
        os.close(inner)


def copies(cluster: Cluster, host: Host, target: str) -> dict[str, Any]:
    """Copy noise into a container and out again; return the seconds, and whether it is intact."""
    data = os.urandom(COPY_BYTES)
    source, back = (host.outside_path(f"/var/lib/dray/{name}") for name in ("noise", "back"))
    source.write_bytes(data)
    began_s = time.perf_counter()
    cluster.dray("cp", "/var/lib/dray/noise", f"{target}:/root/noise", on=host, limit_s=120.0)
    into_s = time.perf_counter() - began_s
    cluster.dray("cp", f"{target}:/root/noise", "/var/lib/dray/back", on=host, limit_s=120.0)
    out_s = time.perf_counter() - began_s - into_s
    is_intact = hashlib.sha256(back.read_bytes()).digest() == hashlib.sha256(data).digest()
    source.unlink()
    back.unlink()
    return {
        "copy_50_mib_into_s": round(into_s, 2),
        "copy_50_mib_out_s": round(out_s, 2),
        "is_intact": is_intact,
    }


def measure(cluster: Cluster, host: Host, target: str) -> dict[str, Any]:
    """Measure what people wait for, the command's own start included.

    Args:
        cluster: Where the target runs.
        host: Where the command is typed.
        target: A running task, `PROJECT/SERVICE.SLOT`.
    """
    prompts = [prompt_s(cluster, host, target) for _ in range(PROMPTS)]
    return {
        "exec_prompt_s": {
            "median": round(statistics.median(prompts), 3),
            "max": round(max(prompts), 3),
        },
        **copies(cluster, host, target),
    }
