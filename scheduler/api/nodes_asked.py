"""What does a node say of its gossip and its DNS? Calls that ask one node through a relay."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeVar

from dray.api.v1 import cluster_pb2
from dray.convert import from_proto
from dray.errors import DeadlineExceeded, InvalidRequest, PeerMisbehaved, Unavailable
from dray.model import NodeRecord
from dray.views import (
    DnsAnswer,
    DnsQuery,
    ExplainDnsResponse,
    GossipMember,
    ListMembersResponse,
    MembersAnswer,
)
from scheduler.api.environment import Answer, Environment, States
from scheduler.api.node_writes import find_node
from scheduler.api.ports import MembersQuery
from scheduler.api.views import State

__all__ = ["NodeQuestions"]

ANSWER_S: Final = 8.0  # for a node's whole answer: 5 s to open the relay, and what it reads
MEMBERS_MAX: Final = 10_000

T = TypeVar("T")


class NodeQuestions:
    """The calls that ask one node."""

    def __init__(self, environment: Environment, states: States) -> None:
        """Ask through the environment's relays."""
        self._environment = environment
        self._states = states

    async def list_members(self, request: cluster_pb2.ListMembersRequest) -> Answer:
        """Return the members of gossip as one node sees them, by name."""
        state = self._states.current()
        record = find_node(state.snapshot, request.node)
        answers = await self._ask(record, MembersQuery(), MembersAnswer)
        members: list[GossipMember] = [each for answer in answers for each in answer.members]
        members.sort(key=lambda member: (member.name, member.node_id))
        return Answer(ListMembersResponse(members=tuple(members[:MEMBERS_MAX])), state)

    async def explain_dns(self, request: cluster_pb2.ExplainDnsRequest) -> Answer:
        """Say what a node's DNS answers for a name, and why."""
        query = from_proto(request.query, DnsQuery, name="query")
        if not query.name:
            raise InvalidRequest("no name is asked for", context={"field": "query.name"})
        state = self._states.current()
        record = find_node(state.snapshot, request.node) if request.node else _any_ready(state)
        answers = await self._ask(record, query, DnsAnswer)
        return Answer(ExplainDnsResponse(node=record.name, answer=answers[-1]), state)

    async def _ask(self, record: NodeRecord, purpose: Any, kind: type[T]) -> list[T]:
        """Return what a node answers, at least one message."""
        found: list[T] = []
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self._environment.relays.open(record.node_id, purpose) as relay,
            ):
                async for message in relay.output():
                    if not isinstance(message, kind):
                        raise PeerMisbehaved(f"node {record.name} sent something else")
                    found.append(message)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"node {record.name} did not answer within {ANSWER_S:g} s", retryable=False
            ) from error
        except Unavailable as error:  # nobody else could ask it: what is wrong is the node
            raise Unavailable(
                f"node {record.name} cannot be asked: {error.message}",
                retryable=False,
                hint="see `dray node ls`",
            ) from error
        if not found:
            raise PeerMisbehaved(f"node {record.name} sent no answer")
        return found


def _any_ready(state: State) -> NodeRecord:
    record = next(state.ready_nodes(), None)
    if record is None:
        raise Unavailable("no node is ready to be asked", hint="see `dray node ls`")
    return record
