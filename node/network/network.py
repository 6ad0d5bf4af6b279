"""How does this machine become part of the cluster's network, and stay so?

`MachineNetwork` is the node's `NodeNetwork`. It decides nothing by itself: addresses come from
`ipam`, repairs from `plan`, the table from `Balancer`; here they are put in order, carried out in
threads, and what goes wrong becomes a fault. Two loops belong to it: `follow` keeps the table in
step with gossip, `keep` repairs the machine's network when something changed it, and every
`REPAIR_PERIOD_S` in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

from dray.clock import Clock
from dray.errors import DrayError, FailedPrecondition, Unavailable
from dray.log import Logger
from dray.model import (
    FactView,
    Fault,
    FaultKind,
    NetworkMode,
    ProjectParts,
    PublishedPort,
    TaskAssignment,
    TaskTemplate,
)
from dray.names import TaskId
from node.agent.files import make_folder, read_file, write_file
from node.network import kernel
from node.network.attachments import (
    AttachedTask,
    Attachments,
    adopted,
    pack,
    released,
    unpack,
)
from node.network.balance import HeldPort
from node.network.balancer import Balancer
from node.network.changes import NetworkChanges
from node.network.claims import Claims
from node.network.commands import CommandFailed
from node.network.echo import silent_gateways
from node.network.engine import EngineNetworks
from node.network.firewall import Firewall, open_connections
from node.network.handover import HANDOVER_MAX_S, Handover
from node.network.hostports import HostPorts
from node.network.ipam import NoAddress, allocate, gateway
from node.network.isolation import local_task
from node.network.observed import Observed, loose_ends, strays
from node.network.pauses import REPAIR_PAUSE_S, LookPauses
from node.network.plan import (
    DOCKER_NETWORK,
    Plan,
    StepKind,
    docker_network,
    machine_routes,
    peer_steps,
    plan,
)
from node.network.ranges import static_conflicts
from node.network.ruleset import TUNNEL_PORT
from node.network.together import Together
from node.ports import Attached, AttachRefused, NetworkConfig
from node.runtime.base import ContainerNetwork

__all__ = ["REPAIR_PERIOD_S", "MachineNetwork", "ResolvConf", "ViewSource"]

REPAIR_PERIOD_S: Final = 30.0
ECHO_AGAIN_S: Final = 5.0  # after somebody was not heard through the tunnel
WRITE_PAUSE_S: Final = 0.05  # between two writes of the table, however often gossip changes
WRITE_PAUSE_MAX_S: Final = 0.25  # well below what who withdraws an endpoint waits for
WRITE_SHARE_MAX: Final = 0.1  # of the time that is spent writing while gossip keeps changing
LOOSE_S: Final = 0.5  # a start on a busy machine has put its interface into the bridge by then
PASSES_MAX: Final = 4  # of observing and repairing: a later one sees what an earlier one made
FAULTS_MAX: Final = 32  # sentences that are reported at once

ResolvConf = Callable[[TaskAssignment, TaskTemplate, str], str]
"""Content of a task's /etc/resolv.conf; the last argument is its resolver's address."""

_T = TypeVar("_T")


class ViewSource(Protocol):
    """Where views of gossip come from; `node.ports.Discovery` is one."""

    async def wait_view(self, after_sequence: int) -> FactView:
        """Return a view with a higher sequence, once there is one."""
        ...


class MachineNetwork:
    """The machine's part of the cluster's network; see `node.ports.NodeNetwork`."""

    def __init__(
        self,
        folder: Path,
        engine: EngineNetworks,
        *,
        clock: Clock,
        log: Logger,
        resolv_conf: ResolvConf | None = None,
        handover_max_s: float = HANDOVER_MAX_S,
    ) -> None:
        """Refer to the machine; nothing is read or changed yet.

        Args:
            folder: Where addresses and the containers' resolv.conf files are kept.
            engine: The Docker Engine's networks.
            clock: For rests of addresses, faults and the loops.
            log: Gets a line for every repair.
            resolv_conf: Makes the containers' resolv.conf; None: Docker's own is used.
            handover_max_s: How long at most an earlier daemon's table is served as well.
        """
        self._folder = folder
        self._engine = engine
        self._clock = clock
        self._log = log
        self._resolv_conf = resolv_conf
        self._handover_max_s = handover_max_s
        self._firewall = Firewall()
        self._claims = Claims()
        self._host_ports = HostPorts(self._claims)
        self._config: NetworkConfig | None = None
        self._attachments: Attachments | None = None
        self._balancer: Balancer | None = None
        self._was_whole = False
        self._repairs = 0  # looks that found something amiss
        self._rested_s = 0.0  # in looks that waited for a start, which is no work
        self._unheard: list[str] = []
        self._echo_at_s = clock.monotonic_s() + REPAIR_PERIOD_S / 6  # peers start together
        self._early: dict[TaskId, str] = {}  # adopted before the node knew its subnet
        self._handover: Handover | None = None  # while an earlier table is served as well
        self._view: FactView | None = None
        self._faults: dict[str, Fault] = {}
        # One thread each: what a cancelled caller has begun ends before the next begins.
        self._machine_thread = ThreadPoolExecutor(1, thread_name_prefix="network-machine")
        self._table_thread = ThreadPoolExecutor(1, thread_name_prefix="network-table")
        self._repairing = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._changes: deque[Callable[[Balancer], None]] = deque()  # that were not written yet
        self._table = Together(self._write_changes, self._writing)
        self._addresses = Together(self._write_addresses, asyncio.Lock())
        self._is_closed = False

    # ---- the machine -----------------------------------------------------------------------------

    async def ensure(self, config: NetworkConfig) -> None:
        """Make and repair what the machine needs; see `NodeNetwork.ensure`."""
        async with self._repairing:
            before = self._config
            await self._take_over(config)
            try:
                if before is None or not await self._move_peers(before, config):
                    await self._repair(config)
            except DrayError as error:
                self._set_faults("repair", (str(error),))
                raise
            self._set_faults("repair", ())
            self._was_whole = True

    async def _move_peers(self, before: NetworkConfig, config: NetworkConfig) -> bool:
        """Change what only a change of peers needs; return whether that was all.

        It does not look at the machine, which takes many times as long. `keep` does: soon, if
        routes have changed and wake it, and in its turn.
        """
        if not self._is_well() or config == before:
            return False
        steps = await self._of_machine(peer_steps, before, config)
        if steps is None:
            return False
        try:
            await self._of_machine(kernel.carry_out, steps, "")
        except CommandFailed:
            return False  # the machine is not what it was
        await self._write(lambda _: None)
        return True

    async def diagnose(self) -> Plan:
        """Return what is wrong with the machine's network now, repairing nothing.

        Raises:
            FailedPrecondition: The node has not been told of its network yet.
            DrayError: The machine cannot be looked at: a tool is missing …
        """
        if self._config is None:
            raise FailedPrecondition(
                "the node does not know its network yet", hint="it learns it from the leader"
            )
        return plan(self._config, await self._observe())

    async def keep(self) -> None:
        """Repair whenever the machine's network changes, and from time to time; runs for ever."""
        pauses = LookPauses()
        with NetworkChanges(self._firewall.is_own) as changes:
            while True:
                is_calm = not changes.are_there
                await changes.wait(self._next_look_s())
                begin_s, repairs = self._clock.monotonic_s() - self._rested_s, self._repairs
                if self._config is not None:
                    await self._look(self._config)
                took_s = self._clock.monotonic_s() - self._rested_s - begin_s
                is_well = self._is_well() and self._repairs == repairs
                await self._clock.sleep(pauses.after(took_s, is_calm=is_calm, is_well=is_well))

    def _is_well(self) -> bool:
        """Return whether the last look left nothing amiss."""
        return self._was_whole and not any(key.startswith("repair ") for key in self._faults)

    def _next_look_s(self) -> float:
        now_s = self._clock.monotonic_s()
        waits_s = (self._echo_at_s - now_s, REPAIR_PERIOD_S)
        return min(wait_s for wait_s in waits_s if wait_s > 0)

    async def _look(self, config: NetworkConfig) -> None:
        """Repair; a failure is a fault, and the next look tries again."""
        with contextlib.suppress(DrayError):
            await self.ensure(config)
        with contextlib.suppress(DrayError):
            await self._write(Balancer.try_ports_again)
        if self._clock.monotonic_s() >= self._echo_at_s:
            await self._ask_for_echoes()

    async def _ask_for_echoes(self) -> None:
        """Report peers that did not answer twice in a row; ask again soon if any did not."""
        unheard: list[str] = []
        with contextlib.suppress(DrayError):
            unheard = await self.unheard_peers()
        self._set_faults("tunnel", tuple(each for each in unheard if each in self._unheard))
        self._unheard = unheard
        again_s = ECHO_AGAIN_S if unheard else REPAIR_PERIOD_S
        self._echo_at_s = self._clock.monotonic_s() + again_s

    async def unheard_peers(self) -> list[str]:
        """Return a sentence for every living peer that does not answer through the tunnel."""
        config, balancer = self._config, self._balancer
        if config is None or balancer is None or not self._was_whole:
            return []
        living = balancer.living_peers(config)
        silent = await silent_gateways([gateway(peer.subnet) for peer in living])
        return [
            f"nothing comes back from {peer.address} through the tunnel, although gossip hears it: "
            f"open UDP port {TUNNEL_PORT} between all nodes"
            for peer in living
            if gateway(peer.subnet) in silent
        ]

    async def _take_over(self, config: NetworkConfig) -> None:
        """Adopt a configuration; the table follows with the repair."""
        if self._attachments is None or self._attachments.pool.subnet != config.subnet:
            attachments = await self._of_table(self._read_attachments, config.subnet)
            for task_id, address in self._early.items():
                attachments = adopted(attachments, task_id, address)
            self._attachments, self._early, self._was_whole = attachments, {}, False
            self._balancer = None
        is_new = self._balancer is None
        if self._balancer is None:
            listing = await self._of_table(self._firewall.listing)
            self._balancer = Balancer(config, self._firewall, self._claims)
            for task_id, task in self._attachments.tasks.items():
                self._balancer.set_task(task_id, task)
                self._host_ports.take_again(task)
            if listing:
                await self._of_table(self._balancer.take_over, listing)
                now_s = self._clock.monotonic_s()
                self._handover = Handover(now_s, longest_s=self._handover_max_s)
        elif config != self._config:
            balancer = self._balancer
            async with self._writing:
                await self._of_table(balancer.configure, config)
        self._config = config
        if is_new and self._view is not None:
            await self._take_view(self._view)

    async def _repair(self, config: NetworkConfig) -> None:
        for _ in range(PASSES_MAX):
            observed = await self._observe()
            found = await self._of_machine(plan, config, observed)
            if found.blocked:
                raise FailedPrecondition("; ".join(found.blocked))
            if not found.steps:
                break
            self._repairs += 1
            for step in found.steps[:FAULTS_MAX]:
                self._log.info("network is repaired", reason=step.problem)
            await self._carry_out(config, found, observed)
        else:
            raise CommandFailed(f"{found.steps[0].problem}, and repairing it did not help")
        if found.waiting:
            raise Unavailable("; ".join(found.waiting))
        await self._write(lambda _: None)

    async def _carry_out(self, config: NetworkConfig, found: Plan, observed: Observed) -> None:
        for step in found.steps:
            if step.kind is StepKind.REMOVE_DOCKER_NETWORK:
                await self._engine.remove()
            elif step.kind is StepKind.DOCKER_NETWORK:
                await self._engine.create(docker_network(config, int(step.command)))
        await self._of_machine(kernel.carry_out, found.steps, observed.forward_chain)
        if any(step.kind is StepKind.TABLE for step in found.steps):
            async with self._writing:
                await self._of_table(self._required().rebuild)

    async def _observe(self) -> Observed:
        observed = await self._of_machine(kernel.observe)
        is_whole = self._balancer is None or await self._of_table(self._balancer.is_whole)
        try:
            network = await self._engine.find()
            loose = strays(observed.links, await self._ends(observed)) if network else ()
        except DrayError:
            return replace(observed, is_engine_there=False, is_table_whole=is_whole)
        return replace(observed, docker_network=network, strays=loose, is_table_whole=is_whole)

    async def _ends(self, observed: Observed) -> Collection[int]:
        """Return whose interfaces belong to the bridge, if there are any that stay without one.

        Every start has one for a moment, and the engine would be asked for all containers then.
        """
        loose = loose_ends(observed.links)
        if loose:
            await self._clock.sleep(LOOSE_S)
            self._rested_s += LOOSE_S
            if await self._of_machine(kernel.are_still_loose, loose):
                return await self._engine.container_ends()
        return ()

    # ---- tasks -----------------------------------------------------------------------------------

    async def attach(
        self,
        task: TaskAssignment,
        template: TaskTemplate,
        parts: ProjectParts,
        ports: tuple[PublishedPort, ...] = (),
    ) -> Attached | AttachRefused:
        """Take addresses for a task; see `NodeNetwork.attach`."""
        if template.network_mode is not NetworkMode.CLUSTER:
            return _shared_stack(template)
        if self._attachments is None or not self._was_whole:
            reasons = "; ".join(fault.message for fault in self.problems())
            message = "the node's network is not ready yet"
            return AttachRefused(f"{message}: {reasons}" if reasons else message, retryable=True)
        static = [each.ipv4_address for each in template.networks if each.ipv4_address]
        if static:
            routes = machine_routes(await self._of_machine(kernel.routes))
            if taken := static_conflicts(static, routes):
                return AttachRefused("; ".join(taken))
        outcome = allocate(self._attachments.pool, task.task_id, self._clock.unix_s())
        if isinstance(outcome, NoAddress):
            return AttachRefused(outcome.message, retryable=outcome.retryable)
        before = self._attachments.tasks.get(task.task_id)
        if before is not None and before.ports:
            held: tuple[HeldPort, ...] | AttachRefused = before.ports  # it keeps those that it has
        else:
            held = self._host_ports.take(task.slot.service_key, ports, self._attachments.tasks)
        if isinstance(held, AttachRefused):
            return held
        known = AttachedTask(
            task.slot.service_key, local_task(outcome.address, template, parts), held
        )
        tasks = {**self._attachments.tasks, task.task_id: known}
        self._attachments = Attachments(outcome.pool, tasks)
        try:
            await self._addresses.done()
            await self._write(lambda balancer: balancer.set_task(task.task_id, known))
            resolv_conf = await self._write_resolv_conf(task, template)
        except DrayError:
            await self.release(task.task_id)
            raise
        filtered = known.filtered
        network = ContainerNetwork(
            DOCKER_NETWORK,
            ipv4_address=filtered.address,
            mac_address=filtered.mac_address,
            resolv_conf=resolv_conf,
        )
        return Attached(network, filtered.address)

    async def adopt(self, task_id: TaskId, address: str, address6: str) -> None:
        """Take the addresses that a running container holds; see `NodeNetwork.adopt`."""
        if self._attachments is None:
            self._early[task_id] = address
            return
        before = self._attachments
        self._attachments = adopted(before, task_id, address)
        if self._attachments is before:
            return
        changed = self._attachments.tasks
        for other in {**before.tasks, **changed}:
            if before.tasks.get(other) != changed.get(other):
                await self._set_task(other, changed.get(other))
        await self._addresses.done()

    async def release(self, task_id: TaskId) -> None:
        """Give a task's addresses back; see `NodeNetwork.release`."""
        self._early.pop(task_id, None)
        if self._attachments is None or task_id not in self._attachments.pool.held:
            return
        task = self._attachments.tasks.get(task_id)
        self._attachments = released(self._attachments, task_id, self._clock.unix_s())
        if task is not None and task.ports:
            self._host_ports.keep(task.service, self._attachments.tasks)
        with contextlib.suppress(FileNotFoundError):
            self._resolv_conf_path(task_id).unlink()
        await self._set_task(task_id, None)
        await self._addresses.done()

    async def connections(self, address: str) -> int:
        """Return how many connections are open to a container; see `NodeNetwork.connections`."""
        return await self._of_machine(open_connections, address)

    def problems(self) -> tuple[Fault, ...]:
        """Return what is wrong with the machine's network now."""
        return tuple(self._faults.values())[:FAULTS_MAX]

    def _resolv_conf_path(self, task_id: TaskId) -> Path:
        return self._folder / "resolv" / task_id

    async def _write_resolv_conf(self, task: TaskAssignment, template: TaskTemplate) -> str:
        if self._resolv_conf is None:
            return ""
        path = self._resolv_conf_path(task.task_id)
        content = self._resolv_conf(task, template, self._required().gateway).encode()

        def write() -> None:
            make_folder(path.parent, 0o755)
            # Whoever runs in the container reads it; after a power cut it is made anew.
            write_file(path, content, 0o644, is_lasting=False)

        await self._of_table(write)
        return str(path)

    # ---- the table -------------------------------------------------------------------------------

    async def follow(self, discovery: ViewSource) -> None:
        """Keep the table in step with gossip; runs for ever.

        Raises:
            DrayError: The table could not be written; start it again.
        """
        sequence = -1
        while True:
            view = await self._next_view(discovery, sequence)
            if view is None:
                await self._write(Balancer.end_handover)
                self._handover = None
                continue
            sequence, self._view = view.sequence, view
            if self._balancer is None:
                await self._clock.sleep(REPAIR_PAUSE_S)
                sequence = -1
            else:
                begin_s = self._clock.monotonic_s()
                await self._take_view(view)
                took_s = self._clock.monotonic_s() - begin_s
                pause_s = max(WRITE_PAUSE_S, took_s / WRITE_SHARE_MAX)
                await self._clock.sleep(min(pause_s, WRITE_PAUSE_MAX_S))

    async def _next_view(self, discovery: ViewSource, sequence: int) -> FactView | None:
        """Return a newer view; None: the handover is over before there is one."""
        if self._handover is None:
            return await discovery.wait_view(sequence)
        newer = asyncio.ensure_future(discovery.wait_view(sequence))
        rest_s = self._handover.ends_s - self._clock.monotonic_s()
        due = asyncio.ensure_future(self._clock.sleep(rest_s))
        try:
            await asyncio.wait({newer, due}, return_when=asyncio.FIRST_COMPLETED)
            return newer.result() if newer.done() else None
        finally:
            newer.cancel()
            due.cancel()
            await asyncio.wait({newer, due})

    async def _take_view(self, view: FactView) -> None:
        """Take over what gossip says."""
        if self._handover is not None and self._config is not None:
            own = self._config.node_id
            peers = {peer.node_id for peer in self._config.peers} - {own}
            now_s = self._clock.monotonic_s()
            self._handover = self._handover.seen(view, own, peers, now_s)
        await self._write(partial(Balancer.set_view, view=view))

    async def _set_task(self, task_id: TaskId, task: AttachedTask | None) -> None:
        await self._write(lambda balancer: balancer.set_task(task_id, task))

    async def _write(self, change: Callable[[Balancer], None]) -> None:
        """Change what the table should hold, and write it.

        Raises:
            DrayError: It was not written; the change is kept for the next time.
        """
        self._required()
        self._changes.append(change)
        await self._table.done()

    async def _write_changes(self) -> None:
        balancer = self._required()

        def write() -> None:
            while self._changes:
                self._changes.popleft()(balancer)
            balancer.write()

        try:
            await self._of_table(write)
        except DrayError as error:
            self._set_faults("table", (str(error),))
            raise
        self._set_faults("table", balancer.problems())

    def _required(self) -> Balancer:
        if self._balancer is None:
            raise FailedPrecondition("the node's network is not ready yet", retryable=True)
        return self._balancer

    # ---- files, threads and faults ---------------------------------------------------------------

    def _read_attachments(self, subnet: str) -> Attachments:
        make_folder(self._folder)
        return unpack(read_file(self._folder / "addresses.json"), subnet)

    async def _write_addresses(self) -> None:
        assert self._attachments is not None
        data = pack(self._attachments)
        await self._of_table(write_file, self._folder / "addresses.json", data)

    async def _of_machine(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Call something that looks at the machine or changes it, outside the event loop."""
        return await self._in_thread(self._machine_thread, function, arguments)

    async def _of_table(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Call something of the balancer, the firewall or the folder, outside the event loop."""
        return await self._in_thread(self._table_thread, function, arguments)

    async def _in_thread(
        self,
        thread: ThreadPoolExecutor,
        function: Callable[..., _T],
        arguments: tuple[object, ...],
    ) -> _T:
        if self._is_closed:
            raise Unavailable("the node's network is closed", retryable=False)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(thread, lambda: function(*arguments))

    def _set_faults(self, kind: str, messages: tuple[str, ...]) -> None:
        """Replace the faults of one kind; those that were there keep their time."""
        wanted = {f"{kind} {message}": message for message in messages}
        for key in [key for key in self._faults if key.startswith(f"{kind} ")]:
            if key not in wanted:
                del self._faults[key]
        for key, message in wanted.items():
            if key not in self._faults:
                since_s = self._clock.unix_s()
                self._faults[key] = Fault(FaultKind.NETWORK_BROKEN, since_s, message)
                self._log.warning("network has a fault", reason=message)

    async def close(self) -> None:
        """Let go of the machine. Containers, tunnels and the table stay as they are."""
        self._is_closed = True
        self._claims.close()
        for thread in (self._machine_thread, self._table_thread):
            thread.shutdown(wait=False, cancel_futures=True)
        await self._engine.close()


def _shared_stack(template: TaskTemplate) -> Attached | AttachRefused:
    """Return how a container without a stack in the cluster's network is attached."""
    mode = template.network_mode
    if mode is NetworkMode.HOST:
        return Attached(ContainerNetwork("host"))
    if mode is NetworkMode.NONE:
        return Attached(ContainerNetwork("none"))
    if mode is NetworkMode.CONTAINER:
        return Attached(ContainerNetwork(f"container:{template.network_mode_target}"))
    return AttachRefused(
        f"network_mode service:{template.network_mode_target}: the container that lends its "
        "network is not known to the network; the agent names it"
    )
