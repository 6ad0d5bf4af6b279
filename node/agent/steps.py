"""How are the commands of a task's machine carried out? Each step does one and returns what came.

Steps may be made again at any moment: by the machine, after the engine was away, and by the next
daemon, after this one was killed. So each looks before it acts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, Protocol

from dray.clock import Clock
from dray.errors import DrayError, NotFound
from dray.model import Hook, ServiceKey
from node.agent.adoption import ended_event
from node.agent.contents import ContentFiles
from node.agent.platforms import Platforms
from node.agent.requests import (
    Work,
    container_name,
    container_request,
    file_requests,
    lenders_needed,
    own_network,
)
from node.agent.tasks import (
    ContainerCreated,
    ContainerGone,
    ContainerStarted,
    ContainerStopped,
    Event,
    HookFailed,
    ImageReady,
    StepRefused,
    StopCause,
    TaskState,
)
from node.ports import Attached, AttachRefused, NodeNetwork
from node.runtime.base import (
    Container,
    ContainerState,
    Created,
    ExecRequest,
    Pulled,
    PullProgress,
    Refusal,
    Refused,
    Runtime,
    Started,
)
from node.volumes.plan import VolumePlan, volume_plan

__all__ = ["HOOK_OUTPUT_BYTES_MAX", "Lenders", "Steps", "Withdrawing"]

DRAIN_LOOK_S: Final = 0.25  # between two looks at a draining container's connections
FIRST_S: Final = 5.0  # what cannot run ends at once; later ends are the program's own
HOOK_OUTPUT_BYTES_MAX: Final = 300  # bytes of a failed hook's last output that its reason shows


class Lenders(Protocol):
    """Who knows the running containers of other services on this node."""

    def lender(self, service: ServiceKey) -> str | None:
        """Return the container id of a running task of a service, or None if there is none."""
        ...


class Withdrawing(Protocol):
    """Who publishes the node's endpoints."""

    async def withdrawn(self, service: ServiceKey) -> bool:
        """Return when nobody sends new work any more; False: nobody else could do it."""
        ...

    def process_ended(self, container_id: str) -> None:
        """Publish at once that a container serves nothing any more; the engine will say so too."""
        ...


class Steps:
    """The steps of all tasks of one node."""

    def __init__(
        self,
        runtime: Runtime,
        network: NodeNetwork,
        contents: ContentFiles,
        lenders: Lenders,
        withdrawing: Withdrawing,
        clock: Clock,
        volume_made: Callable[[], None],
        read_out: Callable[[str], Awaitable[None]],
        platforms: Platforms,
    ) -> None:
        """Carry out steps on a runtime, a network and the files of configs and secrets."""
        self._volume_made = volume_made
        self._read_out = read_out
        self._platforms = platforms
        self._runtime = runtime
        self._network = network
        self._contents = contents
        self._lenders = lenders
        self._withdrawing = withdrawing
        self._clock = clock

    async def pull(self, work: Work, progress: Callable[[PullProgress], None]) -> Event:
        """Bring the image to the node."""
        image = work.entry.template.container.image
        if not image.reference:  # a container was found that no assignment has explained yet
            return StepRefused(
                Refused(Refusal.OTHER, "its service is not known yet", retryable=True)
            )
        credentials = await self._contents.credentials(image.reference, work.parts)
        if isinstance(credentials, Refused):
            return StepRefused(credentials)
        done = await self._runtime.pull(image, credentials=credentials, progress=progress)
        if isinstance(done, Pulled):
            refused = await self._platforms.refusal(image, done)
            return ImageReady(done.image_digest) if refused is None else StepRefused(refused)
        if image.reference in done.message:
            return StepRefused(done)
        return StepRefused(replace(done, message=f"image {image.reference}: {done.message}"))

    # ---- create ----------------------------------------------------------------------------------

    async def create(self, work: Work) -> Event:
        """Make volumes, files, addresses and the container; find the one that is there already."""
        volumes = await self._volumes(work)
        if isinstance(volumes, Refused):
            return StepRefused(volumes)
        requests = file_requests(work)
        if isinstance(requests, Refused):
            return StepRefused(requests)
        files = await self._contents.files(work.task.task_id, work.task.slot.project, requests)
        if isinstance(files, Refused):
            return StepRefused(files)
        lenders = {}
        for service in lenders_needed(work):
            lender = self._lenders.lender(service)
            if lender is None:
                text = f"no container of {service.service} runs on this node"
                return StepRefused(Refused(Refusal.NETWORK_MISSING, text, retryable=True))
            lenders[service] = lender
        attached = await self._attach(work, lenders)
        if isinstance(attached, AttachRefused):
            refused = Refused(Refusal.ADDRESS_TAKEN, attached.message, attached.retryable)
            return StepRefused(refused)
        request = container_request(
            work, attached.network, mounts=volumes.mounts, files=files, lenders=lenders
        )
        made = await self._runtime.create(request)
        if isinstance(made, Refused) and made.refusal is Refusal.NAME_TAKEN:
            found = await self.find(work)
            made = Created(found.container_id) if found is not None else made
        if isinstance(made, Refused):
            return StepRefused(made)
        return ContainerCreated(made.container_id, attached.address, attached.address6)

    async def _volumes(self, work: Work) -> VolumePlan | Refused:
        plan = volume_plan(work.entry.template.container.mounts, work.parts, work.cluster_id)
        if isinstance(plan, Refused):
            return plan
        for name in plan.need:
            if not await self._runtime.volume_exists(name):
                return Refused(
                    Refusal.VOLUME_MISSING,
                    f"volume {name} is not on this node, and an empty one in its place would hide "
                    "that: restore it, or make it with `docker volume create`",
                )
        for request in plan.make:
            refused = await self._runtime.ensure_volume(request)
            if refused is not None:
                return refused
        if plan.make:
            self._volume_made()
        return plan

    async def _attach(self, work: Work, lenders: dict[ServiceKey, str]) -> Attached | AttachRefused:
        own = own_network(work, lenders)
        if own is not None:
            return Attached(own)
        return await self._network.attach(
            work.task, work.entry.template, work.parts, work.entry.ports
        )

    async def find(self, work: Work) -> Container | None:
        """Return the attempt's container, if it exists: by its name and its labels."""
        found = await self._runtime.inspect(container_name(work))
        return found if found is not None and found.identity == work.identity else None

    # ---- start -----------------------------------------------------------------------------------

    async def start(self, work: Work, state: TaskState) -> Event:
        """Start the container and run the commands that belong after its start."""
        done = await self._runtime.start(state.container_id)
        if isinstance(done, Refused):
            remark = self._platforms.remark(state.image_digest)
            if remark and done.refusal is Refusal.COMMAND_NOT_EXECUTABLE:
                done = replace(done, message=f"{remark}: {done.message}")
            return StepRefused(done)
        assert isinstance(done, Started)
        for hook in work.entry.template.container.post_start:
            failure = await self._hook(state.container_id, hook)
            if failure:
                return HookFailed(f"post_start `{' '.join(hook.command)}` {failure}")
        found = await self._runtime.inspect(state.container_id)
        if found is None:
            return ContainerGone()
        return ContainerStarted(found.started_unix_s or self._clock.unix_s(), found.health)

    async def _hook(self, container_id: str, hook: Hook) -> str:
        """Run a hook; return how it failed, or an empty string."""
        request = ExecRequest(
            hook.command,
            user=hook.user,
            working_dir=hook.working_dir,
            environment=tuple((each.name, each.value or "") for each in hook.environment),
            privileged=hook.privileged,
        )
        output = b""
        try:
            async with self._runtime.exec(container_id, request) as session:
                async for _, data in session.output():
                    output = (output + data)[-HOOK_OUTPUT_BYTES_MAX:]
                status = await session.exit_code()
        except NotFound:
            return ""  # the container has ended: that is the news, and watching it tells
        if status == 0:
            return ""
        words = output.decode(errors="replace").strip()
        return f"ended with exit code {status}" + (f": {words}" if words else "")

    # ---- watch -----------------------------------------------------------------------------------

    async def watch(self, state: TaskState) -> Event:
        """Wait for the container's end."""
        container_id = state.container_id
        found = await self._runtime.wait(
            container_id, lambda: self._withdrawing.process_ended(container_id)
        )
        if found is None:
            return ContainerGone()
        ended = ended_event(found)
        if ended.exit_code and found.finished_unix_s - found.started_unix_s < FIRST_S:
            return replace(ended, remark=self._platforms.remark(state.image_digest))
        return ended

    # ---- stop ------------------------------------------------------------------------------------

    async def stop(self, work: Work, state: TaskState) -> Event:
        """Withdraw its endpoint, let work drain, run its stop hooks, send the signal, kill it."""
        container_id = state.container_id
        if not container_id:
            found = await self.find(work)
            if found is None:
                return ContainerStopped()
            container_id = found.container_id
        found = await self._runtime.inspect(container_id)
        if found is None or found.state is not ContainerState.RUNNING:
            return ContainerStopped()
        spec = work.entry.template.container
        has_others = False
        if state.started_unix_s:
            has_others = await self._withdrawing.withdrawn(work.task.slot.service_key)
        if has_others and state.stop_cause is StopCause.ORDERED:
            await self._drain(state.address, spec.stop_grace_s)
        began_at_s = self._clock.monotonic_s()
        if state.stop_cause is StopCause.ORDERED:
            await self._before_stop(container_id, spec.pre_stop, spec.stop_grace_s)
        spent_s = self._clock.monotonic_s() - began_at_s if spec.pre_stop else 0.0
        await self._runtime.stop(
            container_id, signal="", grace_s=max(0.0, spec.stop_grace_s - spent_s)
        )
        return ContainerStopped()

    async def _drain(self, address: str, grace_s: float) -> None:
        """Wait until nobody is connected to a container any more, or its grace is over."""
        if not address:
            return
        ends_at_s = self._clock.monotonic_s() + grace_s
        with contextlib.suppress(DrayError):  # a machine that does not tell delays nobody
            while await self._network.connections(address):
                left_s = ends_at_s - self._clock.monotonic_s()
                if left_s <= 0:
                    return
                await self._clock.sleep(min(left_s, DRAIN_LOOK_S))

    async def _before_stop(
        self, container_id: str, hooks: tuple[Hook, ...], grace_s: float
    ) -> None:
        """Run the stop hooks within the grace period; a failure stops nobody from stopping."""
        with contextlib.suppress(TimeoutError, DrayError):
            async with asyncio.timeout(grace_s):
                for hook in hooks:
                    await self._hook(container_id, hook)

    # ---- tidy ------------------------------------------------------------------------------------

    async def clean_former(self, work: Work) -> None:
        """Remove the container of the attempt before the last: only the last one's output stays."""
        former = replace(work, attempt=work.attempt - 2)
        if former.attempt >= 1 and (found := await self.find(former)) is not None:
            await self._remove(found.container_id)

    async def forget(self, work: Work, state: TaskState) -> None:
        """Remove all that a task leaves on the node: containers, address, files. Volumes stay."""
        for attempt in range(max(1, state.attempt - 1), state.attempt + 1):
            found = await self.find(replace(work, attempt=attempt))
            if found is not None:
                await self._remove(found.container_id)
        await self._network.release(state.task_id)
        await self._contents.remove(state.task_id)

    async def _remove(self, container_id: str) -> None:
        """Remove a container, once those who follow its output have all of it."""
        await self._read_out(container_id)
        await self._runtime.remove(container_id)
