"""Are a machine's GPUs found, by the tool and by the driver's files, and is trouble told?"""

from __future__ import annotations

from pathlib import Path

import pytest

from dray.model import Gpu
from node.resources.gpus import GpuReading, GpuSource, NvidiaGpus, gpus_from_smi

A = "GPU-11111111-2222-3333-4444-555555555555"
B = "GPU-66666666-7777-8888-9999-000000000000"
A100 = Gpu(A, "NVIDIA A100-SXM4-80GB", 81_920 * 1024**2)
T4 = Gpu(B, "Tesla T4", 15_360 * 1024**2)
LISTED = f"{B}, Tesla T4, 15360\n{A}, NVIDIA A100-SXM4-80GB, 81920\n"
INFORMATION = f"Model: \t\t Tesla T4\nIRQ:   \t\t 32\nGPU UUID: \t {B}\nVideo BIOS: \t 90.04\n"


class FakeGpus:
    """A `GpuSource` that finds what a test says."""

    def __init__(self, *readings: GpuReading) -> None:
        self._left = list(readings)

    async def glance(self) -> GpuReading:
        """See nothing at once."""
        return GpuReading()

    async def read(self) -> GpuReading:
        """Return the next reading; the last one for ever."""
        return self._left.pop(0) if len(self._left) > 1 else self._left[0]


def tool(folder: Path, script: str) -> str:
    """Return a program that does what NVIDIA's would."""
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    """Return the driver's folder of a machine with one GPU."""
    gpu = tmp_path / "gpus" / "0000:3b:00.0"
    gpu.mkdir(parents=True)
    (gpu / "information").write_text(INFORMATION)
    return tmp_path / "gpus"


@pytest.fixture
def failing(tmp_path: Path) -> str:
    """Return a program that fails as NVIDIA's does when a GPU has fallen off the bus."""
    return tool(tmp_path, "echo 'Unable to determine the device handle'; exit 15")


@pytest.fixture(params=["fake", "tool"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> GpuSource:
    """Return a source of two GPUs: the fake must be like the real one."""
    if request.param == "fake":
        return FakeGpus(GpuReading((A100, T4)))
    return NvidiaGpus(tool(tmp_path, f"printf '{LISTED}'"), tmp_path / "absent")


async def test_gpus_are_found_in_the_order_of_their_ids(source: GpuSource) -> None:
    """The same ones every time, with model and memory."""
    assert await source.read() == GpuReading((A100, T4))
    assert await source.read() == GpuReading((A100, T4))


async def test_without_the_tool_the_drivers_files_are_read(driver: Path) -> None:
    """They say id and model; their memory is not known."""
    found = await NvidiaGpus("no-such-tool", driver).read()
    assert found == GpuReading((Gpu(B, "Tesla T4"),))


async def test_a_machine_without_the_driver_has_none(tmp_path: Path) -> None:
    """And that is no trouble."""
    assert await NvidiaGpus("no-such-tool", tmp_path / "absent").read() == GpuReading()


async def test_a_tool_in_trouble_is_told_and_the_files_count(driver: Path, failing: str) -> None:
    """Its words are kept; what the driver shows is still there."""
    found = await NvidiaGpus(failing, driver).read()
    assert found.gpus == (Gpu(B, "Tesla T4"),)
    assert "ended with 15: Unable to determine" in found.problem


def test_lines_that_are_no_gpu_are_left_out() -> None:
    """Memory that is not told is 0; a warning between the lines is not a GPU."""
    text = f"Warning: persistence mode is off\n{A}, H100, [N/A]\n{A}\n,,\n"
    assert gpus_from_smi(text) == (Gpu(A, "H100"),)
