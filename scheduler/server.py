"""What is a scheduler made of, and how does it start and stop? The composition root."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from prometheus_client import start_http_server

from dray import __version__
from dray.addresses import HostPort
from dray.clock import Clock, SystemClock
from dray.errors import FailedPrecondition, NotFound
from dray.log import Logger
from dray.model import ContentRef
from dray.names import RandomIds
from dray.tasks import Supervisor
from dray.tls import (
    Tls,
    TlsFiles,
    add_health_and_reflection,
    client_channel,
    read_authority,
    server,
)
from dray.views import RoundStatus
from scheduler.api.environment import Environment
from scheduler.api.sealing import NO_SEALER, Sealer, read_key
from scheduler.api.service import SERVICE_NAME, ClusterService
from scheduler.collector import look_at_all_again
from scheduler.election.election import Candidate, Election, LeaderTerm
from scheduler.election.hearsay import Hearsay
from scheduler.election.memory import EpochMemory
from scheduler.election.prober import watch_leader
from scheduler.leadership import SchedulerLeadership
from scheduler.loops.compact import keep_small
from scheduler.loops.round import Rounds
from scheduler.metrics import Metrics
from scheduler.nodes.service import NodeService, SchedulerIdentity
from scheduler.settings import SchedulerSettings
from scheduler.store.base import Store
from scheduler.store.codec import decode_as
from scheduler.store.etcd import EtcdLimits, EtcdStore, Login
from scheduler.store.keys import content_key
from scheduler.store.mirror import Mirror
from scheduler.store.records import ContentRecord

__all__ = ["Server"]

NODE_SERVICE_NAME: Final = "dray.api.v1.NodeService"
STOP_GRACE_S: Final = 2.0  # for calls that are being answered when the scheduler stops
NEWS_EVERY_S: Final = 1.0  # how often the API's view of nodes is renewed in any case
# Of the election's own client: a renewal must have failed twice before the lease is in danger.
ELECTION_CALL_S: Final = 0.4  # of the lease's time


@dataclass(frozen=True, slots=True)
class _Parts:
    """What lives as long as the scheduler."""

    store: Store
    mirror: Mirror
    election: Election
    leadership: SchedulerLeadership
    nodes: NodeService
    executor: ThreadPoolExecutor
    sealer: Sealer


class Server:
    """One scheduler. `run` is called once."""

    def __init__(self, settings: SchedulerSettings, *, log: Logger) -> None:
        """Describe a scheduler; nothing is opened before `run`."""
        self._settings = settings
        self._log = log
        self._clock: Clock = SystemClock()
        self._rng = random.Random()
        self._ids = RandomIds(secrets.randbits)
        self._metrics = Metrics()

    async def run(self) -> None:
        """Serve, campaign and lead until cancelled.

        Raises:
            FailedPrecondition: A port, folder or file cannot be used, or the store holds no
                cluster.
            DrayError: Something that a restart does not mend; the message says what to do.
        """
        settings = self._settings
        tls = await _read_tls(settings.tls_files)
        etcd_tls = await asyncio.to_thread(self._etcd_tls)
        memory = await asyncio.to_thread(EpochMemory.open, settings.data_dir, self._ids)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(memory.close)
            parts = await stack.enter_async_context(self._parts(memory, etcd_tls))
            await stack.enter_async_context(self._serving(parts, memory, tls))
            stack.callback(self._serve_metrics())
            self._log.info(
                "scheduler started",
                scheduler_id=memory.scheduler_id,
                address=str(settings.advertise),
                version=__version__,
            )
            await self._supervise(parts, memory)

    def _etcd_tls(self) -> Tls | None:
        settings = self._settings
        if settings.etcd_ca is None:
            return None
        if settings.etcd_cert is None or settings.etcd_key is None:
            return read_authority(settings.etcd_ca)
        return TlsFiles(settings.etcd_cert, settings.etcd_key, settings.etcd_ca).read()

    @contextlib.asynccontextmanager
    async def _parts(self, memory: EpochMemory, tls: Tls | None) -> AsyncIterator[_Parts]:
        """Make what lives as long as the scheduler."""
        sealer = await _read_sealer(self._settings.secrets_key)
        ttl_s = math.ceil(self._settings.lease_ttl_s)
        call_s = ttl_s * ELECTION_CALL_S
        quick = EtcdLimits(call_s, attempt_s=call_s / 2, write_s=call_s, connect_s=call_s / 2)
        store, election_store = self._store(tls, None), self._store(tls, quick)
        executor = ThreadPoolExecutor(1, thread_name_prefix="plan")
        mirror = Mirror(store, clock=self._clock, rng=self._rng, log=self._log)
        candidate = Candidate(memory.scheduler_id, self._settings.advertise, __version__)
        election = Election(
            candidate,
            store=election_store,
            mirror=mirror,
            memory=memory,
            ttl_s=ttl_s,
            clock=self._clock,
            log=self._log,
        )
        leadership = SchedulerLeadership(mirror, memory.scheduler_id)
        nodes = NodeService(
            SchedulerIdentity(memory.scheduler_id, __version__),
            store=store,
            snapshot=lambda: mirror.snapshot,
            wait_revision=mirror.wait_revision,
            leadership=leadership,
            read_content=_content_reader(store, sealer),
            hear_of_leader=Hearsay(election, mirror).hear,
            random_bits=secrets.randbits,
            clock=self._clock,
            log=self._log,
        )
        try:
            yield _Parts(store, mirror, election, leadership, nodes, executor, sealer)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
            await election_store.close()
            await store.close()

    def _store(self, tls: Tls | None, limits: EtcdLimits | None) -> EtcdStore:
        password = self._settings.etcd_password.get_secret_value()
        return EtcdStore(
            [url.address for url in self._settings.etcd],
            tls,
            insecure=self._settings.insecure,
            rng=self._rng,
            limits=limits,
            log=self._log,
            login=Login(user, password) if (user := self._settings.etcd_user) else None,
        )

    @contextlib.asynccontextmanager
    async def _serving(
        self, parts: _Parts, memory: EpochMemory, tls: Tls | None
    ) -> AsyncIterator[None]:
        """Answer users and nodes until the block ends."""
        settings = self._settings
        bound = server(settings.listen, tls, insecure=settings.insecure)

        def channel_to(address: HostPort) -> grpc.aio.Channel:
            return client_channel(address, tls, insecure=settings.insecure)

        environment = Environment(
            memory.scheduler_id,
            __version__,
            parts.store,
            parts.mirror,
            parts.leadership,
            parts.nodes.relays,
            self._clock,
            self._log,
            self._ids,
            secrets.token_bytes,
            parts.sealer,
            settings.placement_rules,
        )
        api = ClusterService(environment, channel_to)
        api.add_to(bound.server)
        parts.nodes.add_to(bound.server)
        add_health_and_reflection(bound, (SERVICE_NAME, NODE_SERVICE_NAME))
        await bound.server.start()
        try:
            yield
        finally:
            await bound.server.stop(STOP_GRACE_S)
            await api.close()

    def _serve_metrics(self) -> Callable[[], None]:
        where = self._settings.metrics_listen
        try:
            web, thread = start_http_server(where.port, where.host, self._metrics.registry)
        except OSError as error:
            raise FailedPrecondition(
                f"cannot listen on {where} for metrics: {error.strerror}",
                hint="name another address with --metrics-listen",
            ) from error

        def stop() -> None:
            web.shutdown()
            web.server_close()
            thread.join()

        return stop

    async def _supervise(self, parts: _Parts, memory: EpochMemory) -> None:
        supervisor = Supervisor(clock=self._clock, rng=self._rng, log=self._log)
        supervisor.add("mirror", parts.mirror.run)
        supervisor.add("election", lambda: parts.election.run(lambda term: self._lead(parts, term)))
        supervisor.add(
            "leader watch",
            lambda: watch_leader(
                parts.mirror, memory.scheduler_id, parts.election.prove_death, self._clock
            ),
        )
        supervisor.add("news", lambda: self._renew_news(parts))
        await supervisor.run()

    async def _lead(self, parts: _Parts, term: LeaderTerm) -> None:
        """Do what a leader does until the term ends."""
        streams = parts.nodes.begin(term.epoch)
        parts.leadership.begin(streams)
        self._metrics.set_leading(True)

        current: Rounds | None = None

        def on_news(status: RoundStatus | None) -> None:
            if current is None:
                parts.leadership.refresh(status)
            else:
                parts.leadership.refresh(status, current.pending, current.notes)

        def rounds() -> Rounds:
            nonlocal current
            current = Rounds(
                term,
                store=parts.store,
                mirror=parts.mirror,
                streams=streams,
                executor=parts.executor,
                ids=self._ids,
                rules=self._settings.placement_rules,
                leader_name=str(self._settings.advertise),
                on_news=on_news,
                metrics=self._metrics,
                clock=self._clock,
                log=self._log,
            )
            return current

        supervisor = Supervisor(clock=self._clock, rng=self._rng, log=self._log)
        supervisor.add("nodes", lambda: parts.nodes.run(streams))
        supervisor.add("rounds", lambda: rounds().run())
        supervisor.add(
            "compaction",
            lambda: keep_small(
                parts.store,
                parts.mirror,
                metrics=self._metrics,
                clock=self._clock,
                log=self._log,
            ),
        )
        try:
            await supervisor.run()
        finally:
            self._metrics.set_leading(False)
            parts.leadership.end()
            parts.nodes.end()
            look_at_all_again()

    async def _renew_news(self, parts: _Parts) -> None:
        """Keep the API's view of nodes, and the metrics, fresh."""
        while True:
            parts.leadership.refresh()
            self._metrics.observe_nodes(parts.leadership.conditions())
            self._metrics.set_revision(parts.mirror.revision)
            await self._clock.sleep(NEWS_EVERY_S)


async def _read_sealer(path: Path | None) -> Sealer:
    if path is None:
        return NO_SEALER
    return Sealer(await asyncio.to_thread(read_key, path), secrets.token_bytes)


def _content_reader(
    store: Store, sealer: Sealer
) -> Callable[[str, ContentRef], Awaitable[ContentRecord]]:
    """Return what reads configs, secrets and credentials for nodes."""

    async def read(project: str, ref: ContentRef) -> ContentRecord:
        item = (await store.get(content_key(project, ref.kind, ref.key, ref.digest))).item
        if item is None:
            raise NotFound(f"the content of {ref.key} in {project} is no longer kept")
        return sealer.open(decode_as(item, ContentRecord))

    return read


async def _read_tls(files: TlsFiles | None) -> Tls | None:
    return None if files is None else await asyncio.to_thread(files.read)
