"""What do all calls of a client share? Its channels, its header, and which cluster it speaks to."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from dray import __version__, views
from dray.addresses import HostPort
from dray.api.v1 import types_pb2
from dray.client.channels import DEFAULT_LIMITS, Channels, ClientLimits
from dray.clock import Clock, SystemClock
from dray.errors import FailedPrecondition
from dray.names import ClusterId, RandomIds, id_bytes
from dray.tls import Tls

__all__ = ["ClientCore"]


class ClientCore:
    """The parts of a client that are no calls.

    Attributes:
        channels: The schedulers.
        cluster_id: The cluster that answered first; None: none has yet.
        clock: Measures the time and waits.
        rng: Draws jitter.
        ids: Makes ids of calls.
    """

    def __init__(
        self,
        hosts: Sequence[HostPort],
        *,
        tls: Tls | None = None,
        insecure: bool = False,
        limits: ClientLimits = DEFAULT_LIMITS,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Make a client; it connects on first use.

        Args:
            hosts: Schedulers, tried in turn; any of them serves everything.
            tls: Certificates, or None for plain text.
            insecure: Allow plain text beyond this machine.
            limits: How long to wait.
            clock: Measures the time and waits.
            rng: Draws the jitter of repeated calls.

        Raises:
            FailedPrecondition: Plain text to another machine without `insecure`.
        """
        self.clock = clock or SystemClock()
        self.rng = rng or random.Random(secrets.randbits(64))
        self.channels = Channels(
            hosts, tls, insecure=insecure, clock=self.clock, rng=self.rng, limits=limits
        )
        self.ids = RandomIds(secrets.randbits)
        self.cluster_id: ClusterId | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections and calls; twice is harmless."""
        await self.channels.close()

    def header(self) -> types_pb2.RequestHeader:
        """Return what every request begins with: the cluster that is meant, once it is known."""
        known = id_bytes(self.cluster_id) if self.cluster_id else b""
        return types_pb2.RequestHeader(cluster_id=known, version=__version__)

    def note(self, header: views.ResponseHeader | None) -> None:
        """Remember which cluster answered first: a later reply of another one is an error."""
        if header is None or header.cluster_id is None:
            return
        if self.cluster_id is None:
            self.cluster_id = header.cluster_id
        elif self.cluster_id != header.cluster_id:
            raise FailedPrecondition(
                f"{self.channels.host} belongs to another cluster ({header.cluster_id})",
                hint="name schedulers of one cluster",
            )
