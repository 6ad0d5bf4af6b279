"""What is wrong with this machine's network, and what repairs it? `dray node doctor`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from dray.errors import DrayError, FailedPrecondition
from node.agent.disk import Disk
from node.network import kernel
from node.network.engine import EngineNetworks
from node.network.plan import plan
from node.settings import NodeSettings

__all__ = ["diagnose"]


async def diagnose(settings: NodeSettings, out: TextIO) -> int:
    """Print what is wrong and what repairs it, changing nothing; return 1 if anything is.

    Raises:
        FailedPrecondition: The node has no network yet.
        DrayError: The machine cannot be looked at.
    """
    config = await asyncio.to_thread(Disk(settings.data_dir).read_network)
    if config is None:
        raise FailedPrecondition(
            f"the node in {settings.data_dir} has no network yet",
            hint="name its folder with --data, or run `dray node run` first",
        )
    engine = EngineNetworks(Path(settings.docker_host.removeprefix("unix://")))
    observed = await asyncio.to_thread(kernel.observe)
    try:
        observed = replace(observed, docker_network=await engine.find())
    except DrayError as error:
        observed = replace(observed, is_engine_there=False)
        print(f"problem  {error}", file=out)
    found = plan(config, observed)
    for text in (*found.blocked, *found.waiting):
        print(f"problem  {text}", file=out)
    for step in found.steps:
        print(f"problem  {step.problem}\nrepair   {step.command}", file=out)
    count = len(found.blocked) + len(found.waiting) + len(found.steps)
    print(f"{count} problems" if count else "nothing is wrong", file=out)
    return 1 if count else 0
