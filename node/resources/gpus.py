"""Which GPUs does the machine have? NVIDIA's, which Docker hands to containers by their id.

`nvidia-smi` is asked, which also says how much memory each has; a machine that has the driver but
not the tool is read from the driver's own files. A machine without the driver costs two looks at
the file system.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from dray.model import Gpu

__all__ = [
    "GPUS_MAX",
    "GpuReading",
    "GpuSource",
    "NvidiaGpus",
    "gpu_from_information",
    "gpus_from_smi",
]

GPUS_MAX: Final = 64  # of one node
SMI_WITHIN_S: Final = 20.0  # without persistence mode the driver is loaded first, which takes 3-5 s
_OUTPUT_BYTES_MAX: Final = 65_536
_MIB: Final = 1024**2
_FOLDER: Final = Path("/proc/driver/nvidia/gpus")
_QUERY: Final = ("--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits")
_UUID: Final = re.compile(r"GPU-[0-9a-fA-F-]+")


@dataclass(frozen=True, slots=True)
class GpuReading:
    """The GPUs that were found, by id, and what kept from finding all; empty: nothing did."""

    gpus: tuple[Gpu, ...] = ()
    problem: str = ""


class GpuSource(Protocol):
    """Who looks for GPUs."""

    async def glance(self) -> GpuReading:
        """Return what can be seen at once: ids and models."""
        ...

    async def read(self) -> GpuReading:
        """Return the machine's GPUs now. Takes up to 20 s, and blocks nothing."""
        ...


class NvidiaGpus:
    """NVIDIA's GPUs, by its tool or its driver's files; a `GpuSource`."""

    def __init__(self, tool: str = "nvidia-smi", folder: Path = _FOLDER) -> None:
        """Ask this tool, found on PATH, and read this folder of the driver's."""
        self._tool = tool
        self._folder = folder

    async def glance(self) -> GpuReading:
        """Return what the driver's files say."""
        return GpuReading(await asyncio.to_thread(self._from_files))

    async def read(self) -> GpuReading:
        """Return the machine's GPUs now."""
        tool = await asyncio.to_thread(shutil.which, self._tool)
        files = await self.glance()
        if tool is None:
            return files
        asked = await self._asked(tool)
        if asked.problem and files.gpus:
            return GpuReading(files.gpus, asked.problem)
        return asked

    def _from_files(self) -> tuple[Gpu, ...]:
        found = []
        with contextlib.suppress(OSError):
            for path in sorted(self._folder.glob("*/information"))[:GPUS_MAX]:
                gpu = gpu_from_information(path.read_text(encoding="ascii", errors="replace"))
                if gpu is not None:
                    found.append(gpu)
        return tuple(sorted(found, key=lambda gpu: gpu.id))

    async def _asked(self, tool: str) -> GpuReading:
        try:
            process = await asyncio.create_subprocess_exec(
                tool,
                *_QUERY,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        except OSError as error:
            return GpuReading(problem=f"{tool} cannot be run: {error.strerror}")
        assert process.stdout is not None
        try:
            async with asyncio.timeout(SMI_WITHIN_S):
                output = await process.stdout.read(_OUTPUT_BYTES_MAX)
                while await process.stdout.read(_OUTPUT_BYTES_MAX):
                    continue
                status = await process.wait()
        except TimeoutError:
            return GpuReading(problem=f"{tool} does not answer: see dmesg for errors of the driver")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = output.decode(errors="replace")
        if status != 0:
            words = " ".join(text.split())[:200]
            return GpuReading(problem=f"{tool} ended with {status}: {words}")
        return GpuReading(gpus_from_smi(text))


def gpus_from_smi(text: str) -> tuple[Gpu, ...]:
    """Return the GPUs that `nvidia-smi` lists as `uuid, name, MiB`; lines of another form none."""
    found = {}
    for line in text.splitlines():
        uuid, _, rest = line.partition(",")
        name, _, memory = rest.rpartition(",")
        if _UUID.fullmatch(uuid.strip()) and name.strip():
            size = memory.strip()
            memory_bytes = int(size) * _MIB if size.isdecimal() else 0
            found[uuid.strip()] = Gpu(uuid.strip(), name.strip(), memory_bytes)
    return tuple(found[uuid] for uuid in sorted(found))[:GPUS_MAX]


def gpu_from_information(text: str) -> Gpu | None:
    """Return the GPU of one `information` file of the driver; None: it names none."""
    fields = {}
    for line in text.splitlines():
        name, separator, value = line.partition(":")
        if separator:
            fields[name.strip()] = value.strip()
    uuid = fields.get("GPU UUID", "")
    if not _UUID.fullmatch(uuid):
        return None
    return Gpu(uuid, fields.get("Model", "") or "GPU")
