"""What does each writing call do? One function a call: draft, commit once, answer."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final

from google.protobuf.message import Message

from dray.api.v1 import cluster_pb2, types_pb2
from dray.convert import from_proto, parse, refuse_unknown_fields, to_proto
from dray.errors import InvalidRequest, NotLeader, RevisionConflict
from dray.model import (
    Availability,
    ContentKind,
    ContentRef,
    NodeCondition,
    ProjectSpec,
    ServiceKey,
    StoreRevision,
    Taint,
)
from dray.names import ID_BYTES, NodeId, RequestId, TaskId, id_text
from dray.views import (
    ApplyProjectResponse,
    Orphan,
    RemoveNodeResponse,
    RemoveOrphansResponse,
    RemoveProjectResponse,
    RestartServicesResponse,
    RevertServiceResponse,
    RotateGossipKeyResponse,
    ScaleServicesResponse,
    UpdateNodeResponse,
)
from scheduler.api import node_writes, writes
from scheduler.api.checks import check_project
from scheduler.api.commits import Commits, Intent, Outcome
from scheduler.api.contents import ContentsChange, Known, contents_of
from scheduler.api.edit import Call, Draft
from scheduler.api.environment import Answer, Environment, States
from scheduler.api.preview import Previews
from scheduler.api.views import State
from scheduler.store.base import Txn
from scheduler.store.codec import decode_as
from scheduler.store.keys import Kind, content_key, prefix_of
from scheduler.store.records import ContentRecord
from scheduler.store.snapshot import Snapshot

__all__ = ["Writing"]

_CONTENTS_ATTEMPTS_MAX: Final = 5
_SHOWN_FOR_S: Final = 2.0  # how long a reply waits for this scheduler's own view of its write


class _ContentsChangedError(RevisionConflict):
    """Contents were compared with some that are not the project's any more."""


class Writing:
    """The writing calls of one scheduler."""

    def __init__(
        self, environment: Environment, states: States, commits: Commits, previews: Previews
    ) -> None:
        """Write through `commits`; plan without writing by `previews`."""
        self._previews = previews
        self._environment = environment
        self._states = states
        self._commits = commits

    # --- projects ---

    async def apply_project(self, request: cluster_pb2.ApplyProjectRequest) -> Answer:
        """Make a project what the given one says, or say what that would do."""
        if not request.HasField("project"):
            raise InvalidRequest("project is missing", context={"field": "project"})
        refuse_unknown_fields(request.project, name="project")
        spec = from_proto(request.project, ProjectSpec, name="project")
        check_project(spec)
        credentials = {each.registry: each.auth for each in request.registry_credentials}
        for _ in range(_CONTENTS_ATTEMPTS_MAX):
            try:
                return await self._apply(request, spec, credentials)
            except _ContentsChangedError:
                continue  # another call changed them meanwhile: compare with what is there now
        raise RevisionConflict(
            f"others keep changing the contents of project {spec.name}", hint="try again"
        )

    async def _apply(
        self,
        request: cluster_pb2.ApplyProjectRequest,
        spec: ProjectSpec,
        credentials: dict[str, bytes],
    ) -> Answer:
        """Apply a project, compared with the contents that it has now."""
        known_of = _contents_in(self._environment.source.snapshot, spec.name)
        contents = await self._contents(spec, credentials)
        wanted = writes.Wanted(
            spec, contents.refs, request.remove_absent_services, request.force_replace
        )
        call = self._call(request.write)
        stored: dict[str, StoreRevision] = {}

        def draft(snapshot: Snapshot) -> Draft:
            is_kept = all(
                key in snapshot.contents or stored_at > snapshot.revision
                for key, stored_at in stored.items()
            )
            if _contents_in(snapshot, spec.name) != known_of or not is_kept:
                raise _ContentsChangedError("the project's contents have changed")
            return writes.apply_project(snapshot, wanted, call)

        if request.write.dry_run:
            return await self._planned(draft, ApplyProjectResponse, with_unplaced=True)
        stored.update(await self._store_contents(contents))
        outcome = await self._write(request, draft, ApplyProjectResponse)
        return await self._answer(outcome, ApplyProjectResponse)

    async def remove_project(self, request: cluster_pb2.RemoveProjectRequest) -> Answer:
        """Stop and remove all of a project."""
        call = self._call(request.write)
        told = _removal(self._states.current(), request)

        def draft(snapshot: Snapshot) -> Draft:
            return writes.remove_project(
                snapshot, request.project, call, remove_volumes=request.remove_volumes
            )

        if request.write.dry_run:
            draft(self._environment.source.snapshot)
            return Answer(told, self._states.current())
        while True:
            outcome = await self._write(request, draft, RemoveProjectResponse, base=told)
            if outcome.draft is None or outcome.draft.is_complete:
                return await self._answer(outcome, RemoveProjectResponse, base=told)
            # The rest of very many services is a write of its own, after the first one.
            await self._commits.catch_up(outcome.revision)
            call = dataclasses.replace(call, if_revision=None)
            request.write.request_id = bytes(self._environment.random_bytes(ID_BYTES))

    async def scale_services(self, request: cluster_pb2.ScaleServicesRequest) -> Answer:
        """Change the number of replicas of services."""
        replicas: dict[str, int] = {}
        for scale in request.scales:
            if scale.service in replicas:
                raise InvalidRequest(f"service {scale.service} is named twice")
            replicas[scale.service] = scale.replicas
        call = self._call(request.write)

        def draft(snapshot: Snapshot) -> Draft:
            return writes.scale_services(snapshot, request.project, replicas, call)

        if request.write.dry_run:
            return await self._planned(draft, ScaleServicesResponse)
        outcome = await self._write(request, draft, ScaleServicesResponse)
        return await self._answer(outcome, ScaleServicesResponse)

    async def restart_services(self, request: cluster_pb2.RestartServicesRequest) -> Answer:
        """Replace all tasks of services by new ones of the same spec."""
        call = self._call(request.write)

        def draft(snapshot: Snapshot) -> Draft:
            return writes.restart_services(snapshot, request.project, tuple(request.services), call)

        if request.write.dry_run:
            made = draft(self._environment.source.snapshot)
            reply = RestartServicesResponse(services=made.changes)
            return Answer(reply, self._states.current())
        outcome = await self._write(request, draft, RestartServicesResponse)
        return await self._answer(outcome, RestartServicesResponse)

    async def revert_service(self, request: cluster_pb2.RevertServiceRequest) -> Answer:
        """Make a new revision of a service with the content of an older one."""
        call = self._call(request.write)
        to_revision = request.to_revision if request.HasField("to_revision") else None

        def draft(snapshot: Snapshot) -> Draft:
            return writes.revert_service(
                snapshot, request.project, request.service, to_revision, call
            )

        if request.write.dry_run:
            return await self._planned(draft, RevertServiceResponse)
        outcome = await self._write(request, draft, RevertServiceResponse)
        return await self._answer(outcome, RevertServiceResponse)

    # --- nodes and the cluster ---

    async def update_node(self, request: cluster_pb2.UpdateNodeRequest) -> Answer:
        """Change a node's labels, taints or availability."""
        change = _node_change(request)
        call = self._call(request.write)

        def draft(snapshot: Snapshot) -> Draft:
            return node_writes.update_node(snapshot, request.node, change, call)

        if request.write.dry_run:
            state = self._states.current()
            made = draft(state.snapshot)
            planned = await self._previews.of(state.memory, made.after)
            after = dataclasses.replace(state, snapshot=made.after)
            node = after.node(node_writes.find_node(made.after, request.node))
            reply = UpdateNodeResponse(node=node, actions=planned.actions)
            return Answer(reply, state, planned.warnings)
        outcome = await self._write(request, draft, UpdateNodeResponse)
        await self._seen(outcome.revision)
        state = self._states.current()
        node = state.node(node_writes.find_node(state.snapshot, request.node))
        return Answer(UpdateNodeResponse(node=node), state)

    async def remove_node(self, request: cluster_pb2.RemoveNodeRequest) -> Answer:
        """Remove a node for good."""
        call = self._call(request.write)
        state = self._states.current()
        moved = RemoveNodeResponse()

        def draft(snapshot: Snapshot) -> Draft:
            nonlocal moved
            record = node_writes.find_node(snapshot, request.node)
            moved = RemoveNodeResponse(moved=node_writes.slots_on(snapshot, record.node_id))
            condition = _condition(state, record.node_id)
            return node_writes.remove_node(
                snapshot, request.node, condition, call, force=request.force
            )

        if request.write.dry_run:
            draft(state.snapshot)
            return Answer(moved, state)
        outcome = await self._write(request, draft, RemoveNodeResponse, base_of=lambda: moved)
        return await self._answer(outcome, RemoveNodeResponse, base=moved)

    async def remove_orphans(self, request: cluster_pb2.RemoveOrphansRequest) -> Answer:
        """Accept the loss of containers that no assignment explains. Only the leader can."""
        self._call(request.write)
        state = self._states.current()
        if state.memory is None:
            raise NotLeader(
                "only the leader knows of orphans, and there is none", hint="try again in a moment"
            )
        only = node_writes.find_node(state.snapshot, request.node).node_id if request.node else None
        wanted = {_task_id(raw) for raw in request.task_ids}
        ended: list[Orphan] = []
        for node_id, orphans in sorted(state.memory.orphans.items()):
            chosen = [each for each in orphans if not wanted or each.task_id in wanted]
            if not chosen or (only is not None and node_id != only):
                continue
            ended += chosen
            if not request.write.dry_run:
                ids = tuple(each.task_id for each in chosen)
                await self._environment.leadership.remove_orphans(node_id, ids)
        return Answer(RemoveOrphansResponse(orphans=tuple(ended)), state)

    async def rotate_gossip_key(self, request: cluster_pb2.RotateGossipKeyRequest) -> Answer:
        """Replace the primary key of gossip by a new one."""
        call = self._call(request.write)
        told = RotateGossipKeyResponse()

        def draft(snapshot: Snapshot) -> Draft:
            nonlocal told
            made = node_writes.rotate_gossip_key(snapshot, call, self._environment.random_bytes)
            ids = tuple(key.key_id for key in made.after.keyring)
            told = RotateGossipKeyResponse(key_id=ids[0], key_ids=ids)
            return made

        if request.write.dry_run:
            draft(self._environment.source.snapshot)
            return Answer(told, self._states.current())
        outcome = await self._write(request, draft, RotateGossipKeyResponse, base_of=lambda: told)
        return await self._answer(outcome, RotateGossipKeyResponse, base=told)

    # --- inside ---

    def _call(self, options: types_pb2.WriteOptions) -> Call:
        if len(options.request_id) != ID_BYTES:
            raise InvalidRequest(
                "write.request_id has 16 bytes, new for every intent",
                context={"field": "write.request_id"},
            )
        if_revision = options.if_revision if options.HasField("if_revision") else None
        request_id = RequestId(id_text(options.request_id))
        return Call(request_id, self._environment.clock.unix_s(), if_revision, self._in_use)

    def _in_use(self, key: ServiceKey) -> set[int]:
        """Return the revisions of a service that its tasks run."""
        index = self._states.current().index
        return {held.task.service_revision for held in index.of_service(key)}

    async def _write(
        self,
        request: Any,
        draft_of: Callable[[Snapshot], Draft],
        reply_class: type[Any],
        *,
        base: Any = None,
        base_of: Callable[[], Any] | None = None,
    ) -> Outcome:
        """Carry out a write; the reply that is kept with it is `base` with the draft's changes."""
        method = request.DESCRIPTOR.name.removesuffix("Request")
        message_type: type[Message] = getattr(cluster_pb2, f"{method}Response")
        request_id = RequestId(id_text(request.write.request_id))
        intent = Intent.of(request_id, method, request)

        def answer_of(draft: Draft) -> Message:
            made = base_of() if base_of else base or reply_class()
            return to_proto(_filled(made, draft.changes, draft.revision), message_type)

        return await self._commits.write(intent, draft_of, answer_of)

    async def _answer(self, outcome: Outcome, reply_class: type[Any], base: Any = None) -> Answer:
        """Return the reply of a write that was made now or, with `is_repeated`, before."""
        await self._seen(outcome.revision)
        state = self._states.current()
        if outcome.draft is not None:
            draft = outcome.draft
            revision = outcome.revision if draft.operations else draft.revision
            reply = _filled(base or reply_class(), draft.changes, revision)
            return Answer(reply, state, draft.warnings)
        message_type: type[Message] = getattr(cluster_pb2, reply_class.__name__)
        reply = from_proto(parse(outcome.reply, message_type), reply_class)
        names = {field.name for field in dataclasses.fields(reply_class)}
        if "revision" in names and not reply.revision:
            reply = dataclasses.replace(reply, revision=outcome.revision)
        if "is_repeated" in names:
            reply = dataclasses.replace(reply, is_repeated=True)
        return Answer(reply, state)

    async def _planned(
        self,
        draft_of: Callable[[Snapshot], Draft],
        reply_class: type[Any],
        *,
        with_unplaced: bool = False,
    ) -> Answer:
        """Return the reply of a write that is only planned."""
        state = self._states.current()
        draft = draft_of(state.snapshot)
        planned = await self._previews.of(state.memory, draft.after)
        reply = _filled(reply_class(), draft.changes, draft.revision)
        reply = dataclasses.replace(reply, actions=planned.actions)
        if with_unplaced:
            reply = dataclasses.replace(reply, unplaced=planned.unplaced)
        return Answer(reply, state, (*draft.warnings, *planned.warnings))

    async def _seen(self, revision: StoreRevision) -> None:
        """Wait for the own view of a write, but not long: the write is done in any case."""
        try:
            async with asyncio.timeout(_SHOWN_FOR_S):
                await self._environment.source.wait_revision(revision)
        except TimeoutError:
            return

    # --- contents ---

    async def _contents(self, spec: ProjectSpec, credentials: dict[str, bytes]) -> ContentsChange:
        known = await self._known_contents(spec)
        return contents_of(
            spec,
            credentials,
            known,
            now_unix_s=self._environment.clock.unix_s(),
            random_bytes=self._environment.random_bytes,
            seal=self._environment.sealer.seal,
        )

    async def _known_contents(self, spec: ProjectSpec) -> Known:
        """Read what the project has, and what of other projects it names by `external`."""
        snapshot = self._environment.source.snapshot
        record = snapshot.projects.get(spec.name)
        keys = {
            (ref.kind, ref.key): content_key(spec.name, ref.kind, ref.key, ref.digest)
            for ref in (record.contents if record else ())
        }
        external = {
            *((ContentKind.CONFIG, each.name) for each in spec.configs if each.external),
            *((ContentKind.SECRET, each.name) for each in spec.secrets if each.external),
        }
        own = prefix_of(Kind.CONTENT, spec.name) if spec.name else ""
        for key, ref in sorted(snapshot.contents.items()):
            if (ref.kind, ref.name) in external and not key.startswith(own):
                keys[ref.kind, f"name:{ref.name}"] = key
        known: dict[tuple[ContentKind, str], ContentRecord] = {}
        for place, key in keys.items():
            reading = await self._environment.store.get(key)
            if reading.item is not None:
                stored = decode_as(reading.item, ContentRecord)
                known[place] = self._environment.sealer.open(stored)
        return known

    async def _store_contents(self, contents: ContentsChange) -> dict[str, StoreRevision]:
        """Store contents one by one, and return when each was stored, by key.

        Until a project refers to them they have no effect.
        """
        stored = {}
        for put in contents.puts:
            outcome = await self._environment.store.commit(Txn((), (put,)))
            stored[put.key] = outcome.revision
        return stored


def _contents_in(snapshot: Snapshot, project: str) -> tuple[ContentRef, ...]:
    record = snapshot.projects.get(project)
    return record.contents if record else ()


def _filled(reply: Any, changes: Sequence[Any], revision: int) -> Any:
    """Return a reply with what a draft says, as far as it has fields for it."""
    names = {field.name for field in dataclasses.fields(reply)}
    found: dict[str, Any] = {}
    if "services" in names:
        found["services"] = tuple(changes)
    if "service" in names and changes:
        found["service"] = changes[0]
    if "revision" in names:
        found["revision"] = revision
    return dataclasses.replace(reply, **found)


def _removal(state: State, request: cluster_pb2.RemoveProjectRequest) -> RemoveProjectResponse:
    """Return what the removal of a project ends, as of now."""
    record = state.snapshot.projects.get(request.project)
    keys = state.keys_of(request.project) if request.project else []
    tasks = sum(not each.task.stop for key in keys for each in state.index.of_service(key))
    volumes = record.spec.volumes if record and request.remove_volumes else ()
    names = sorted(volume.name for volume in volumes if not volume.external)
    return RemoveProjectResponse(tasks=tasks, volumes=tuple(names))


def _condition(state: State, node_id: NodeId) -> NodeCondition:
    observation = state.memory.observed.nodes.get(node_id) if state.memory else None
    return observation.condition if observation else NodeCondition.UNKNOWN


def _node_change(request: cluster_pb2.UpdateNodeRequest) -> node_writes.NodeChange:
    availability = None
    if request.HasField("availability"):
        try:
            availability = Availability(request.availability)
        except ValueError as error:
            raise InvalidRequest(
                f"availability {request.availability} is not known to this version of dray",
                context={"field": "availability"},
            ) from error
    labels = {pair.key: pair.value for pair in request.labels}
    return node_writes.NodeChange(
        tuple(sorted(labels.items())),
        tuple(request.labels_removed),
        tuple(from_proto(taint, Taint, name="taints") for taint in request.taints),
        tuple(request.taints_removed),
        availability,
    )


def _task_id(raw: bytes) -> TaskId:
    if len(raw) != ID_BYTES:
        raise InvalidRequest("a task id has 16 bytes", context={"field": "task_ids"})
    return TaskId(id_text(raw))
