"""How does a verb talk to the cluster? One client, one event loop, and warnings for the person."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from dray.client import Client

if TYPE_CHECKING:
    from cli.context import Context
    from dray.views import ResponseHeader

__all__ = ["ask", "connected", "tell_warnings"]

T = TypeVar("T")


@contextlib.asynccontextmanager
async def connected(context: Context) -> AsyncIterator[Client]:
    """Give a client of the cluster that the settings name, and close it."""
    settings = context.settings
    files = settings.tls_files
    tls = None if files is None else await asyncio.to_thread(files.read)
    async with Client(settings.hosts, tls=tls, insecure=settings.insecure) as client:
        yield client


def ask(context: Context, question: Callable[[Client], Awaitable[T]]) -> T:
    """Run one question to its end; what the reply warns of is told.

    Raises:
        DrayError: It was refused, or nobody answered.
    """
    answers: list[T] = []  # not the task's result: `asyncio.run` takes the `repr` of that

    async def run() -> None:
        async with connected(context) as client:
            answers.append(await question(client))

    asyncio.run(run())
    (answer,) = answers
    tell_warnings(context, getattr(answer, "header", None))
    return answer


def tell_warnings(context: Context, header: ResponseHeader | None) -> None:
    """Tell the person what a reply warns of, and whether what is observed is unknown."""
    if header is None:
        return
    for warning in header.warnings:
        context.warn(f"warning: {warning}")
