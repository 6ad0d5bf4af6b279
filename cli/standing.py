"""How do the cluster, one service and one name stand? Views of single things, pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.changes import pending_lines, plain_pending
from cli.texts import age, bytes_text, instant, word
from cli.views import Table

if TYPE_CHECKING:
    from dray.model import AttemptReport
    from dray.views import (
        EtcdStatus,
        ExplainDnsResponse,
        ExplainServiceResponse,
        GetStatusResponse,
        RestartExplanation,
    )

__all__ = ["DnsView", "ExplainView", "StatusView"]


@dataclass(frozen=True, slots=True)
class StatusView:
    """How the cluster is; `now_s` is the wall clock."""

    reply: GetStatusResponse
    now_s: float

    def table(self) -> Table:
        """Return one row a fact."""
        reply = self.reply
        rows = [
            ("cluster", reply.header.cluster_id or ""),
            ("leader", self._leader()),
            *(("etcd", _etcd_text(server)) for server in reply.etcd),
            ("nodes", ", ".join(f"{each.count} {word(each.condition)}" for each in reply.nodes)),
            ("slots", ", ".join(f"{each.count} {word(each.state)}" for each in reply.slots)),
            ("last round", self._round()),
        ]
        if reply.orphans:
            rows.append(("orphans", f"{reply.orphans} containers that no assignment explains"))
        return Table(("WHAT", "HOW"), tuple((name, text or "none") for name, text in rows))

    def _leader(self) -> str:
        leader = self.reply.leader
        if leader is None:
            return "none: changes wait for one; containers, restarts and DNS go on"
        since = age(leader.since_unix_s, self.now_s)
        term = f"epoch {leader.epoch.generation}.{leader.epoch.create_revision}"
        return f"{leader.address or leader.scheduler_id}, {term}, for {since or 'an unknown time'}"

    def _round(self) -> str:
        done = self.reply.last_round
        if done is None:
            return ""
        numbers = (
            f"{done.created} created, {done.stopped} stopped, {done.moved} moved, "
            f"{done.unplaced} without room"
        )
        since = age(done.unix_s, self.now_s)
        return f"{since} ago in {done.duration_s * 1000:.0f} ms ({done.reason}): {numbers}"

    def plain(self) -> object:
        """Return an object."""
        reply = self.reply
        leader, done = reply.leader, reply.last_round
        return {
            "cluster_id": reply.header.cluster_id or "",
            "generation": reply.header.generation,
            "leader": None
            if leader is None
            else {
                "scheduler_id": leader.scheduler_id,
                "address": str(leader.address or ""),
                "epoch": [leader.epoch.generation, leader.epoch.create_revision],
                "since": instant(leader.since_unix_s),
            },
            "schedulers": [
                {
                    "scheduler_id": each.scheduler_id,
                    "address": str(each.address or ""),
                    "version": each.version,
                    "is_leader": each.is_leader,
                }
                for each in reply.schedulers
            ],
            "etcd": [_etcd_plain(server) for server in reply.etcd],
            "nodes": {word(each.condition): each.count for each in reply.nodes},
            "slots": {word(each.state): each.count for each in reply.slots},
            "last_round": None
            if done is None
            else {
                "time": instant(done.unix_s),
                "duration_s": done.duration_s,
                "created": done.created,
                "stopped": done.stopped,
                "moved": done.moved,
                "unplaced": done.unplaced,
                "conflicts": done.conflicts,
                "reason": done.reason,
            },
            "orphans": reply.orphans,
        }


def _etcd_text(server: EtcdStatus) -> str:
    if not server.is_healthy:
        return f"{server.endpoint}: {'; '.join(server.problems) or 'does not answer'}"
    role = ", leads" if server.is_leader else ""
    size = bytes_text(server.db_size_bytes)
    quota = f" of {bytes_text(server.db_quota_bytes)}" if server.db_quota_bytes else ""
    problems = f"; {'; '.join(server.problems)}" if server.problems else ""
    return f"{server.endpoint}: {server.version}{role}, {size}{quota}{problems}"


def _etcd_plain(server: EtcdStatus) -> dict[str, object]:
    return {
        "endpoint": server.endpoint,
        "is_healthy": server.is_healthy,
        "is_leader": server.is_leader,
        "version": server.version,
        "db_size_bytes": server.db_size_bytes,
        "db_size_in_use_bytes": server.db_size_in_use_bytes,
        "db_quota_bytes": server.db_quota_bytes,
        "problems": list(server.problems),
    }


@dataclass(frozen=True, slots=True)
class ExplainView:
    """Why a service is not as it was asked to be."""

    reply: ExplainServiceResponse

    def lines(self) -> list[str]:
        """Return the explanation for people."""
        service = self.reply.service
        lines: list[str] = []
        if service is not None:
            counts = ", ".join(f"{each.count} {word(each.state)}" for each in service.slots)
            record = service.record
            name = f"{record.project}/{record.spec.name}"
            lines.append(f"{name}: {counts or 'no slots'} of {service.desired}")
            if service.rollout is not None and service.rollout.message:
                lines.append(f"rollout: {service.rollout.message}")
        lines += pending_lines(self.reply.pending)
        for pending in self.reply.pending:
            lines += [f"    {node.node}: {'; '.join(node.reasons)}" for node in pending.nodes]
        for restarting in self.reply.restarting:
            lines += _restart_lines(restarting)
        if service is not None:
            told = "\n".join(lines)
            lines += [problem for problem in service.problems if problem not in told]
        if service is not None and service.is_converged:
            lines.append("it is as it was asked to be")
        return lines

    def table(self) -> Table:
        """Return one row a line."""
        return Table(("EXPLANATION",), tuple((line,) for line in self.lines()))

    def plain(self) -> object:
        """Return an object with what is pending and what is restarting."""
        service = self.reply.service
        return {
            "project": service.record.project if service else "",
            "service": service.record.spec.name if service else "",
            "is_converged": service.is_converged if service else False,
            "desired": service.desired if service else 0,
            "pending": plain_pending(self.reply.pending),
            "restarting": [
                {
                    "slot": each.slot.slot,
                    "task_id": each.task_id,
                    "node": each.node,
                    "attempts": [
                        {
                            "attempt": attempt.attempt,
                            "state": word(attempt.state),
                            "exit_code": attempt.exit_code,
                            "reason": attempt.reason,
                            "since": instant(attempt.since_unix_s),
                        }
                        for attempt in each.attempts
                    ],
                    "log_lines": [line.line.decode(errors="replace") for line in each.log_lines],
                }
                for each in self.reply.restarting
            ],
        }


def _restart_lines(restarting: RestartExplanation) -> list[str]:
    slot = restarting.slot
    lines = [f"{slot.service}.{slot.slot} on {restarting.node or 'an unknown node'}:"]
    lines += [f"    {_attempt_text(attempt)}" for attempt in restarting.attempts]
    if restarting.log_lines:
        lines.append("    last lines that it wrote:")
        lines += [f"      {each.line.decode(errors='replace')}" for each in restarting.log_lines]
    return lines


def _attempt_text(attempt: AttemptReport) -> str:
    code = "" if attempt.exit_code is None else f", exit code {attempt.exit_code}"
    reason = f": {attempt.reason}" if attempt.reason else ""
    return f"attempt {attempt.attempt} {word(attempt.state)}{code}{reason}"


@dataclass(frozen=True, slots=True)
class DnsView:
    """What a node's DNS answers, and why."""

    reply: ExplainDnsResponse

    def lines(self) -> list[str]:
        """Return the answer for people; the table has the endpoints."""
        answer = self.reply.answer
        if answer is None:
            return [f"{self.reply.node} gave no answer"]
        last = "; nothing usable is left: the last running ones are served"
        note = last if answer.is_last_resort else ""
        head = f"{answer.name}: {answer.code} from {answer.source} on {self.reply.node}{note}"
        return [head, *(f"  {record}" for record in answer.records)]

    def table(self) -> Table:
        """Return one row an endpoint that was considered."""
        endpoints = self.reply.answer.endpoints if self.reply.answer else ()
        return Table(
            ("ENDPOINT", "NODE", "ADDRESS", "USED", "WHY"),
            tuple(
                (
                    f"{each.endpoint.slot.project}/{each.endpoint.slot.service}"
                    f".{each.endpoint.slot.slot}",
                    each.node_name or each.node_id or "",
                    each.endpoint.address or each.endpoint.address6,
                    "yes" if each.is_used else "no",
                    each.reason,
                )
                for each in endpoints
            ),
        )

    def plain(self) -> object:
        """Return an object with the records and the endpoints."""
        answer = self.reply.answer
        if answer is None:
            return {"node": self.reply.node, "code": "", "records": [], "endpoints": []}
        return {
            "node": self.reply.node,
            "name": answer.name,
            "code": answer.code,
            "source": answer.source,
            "is_last_resort": answer.is_last_resort,
            "records": list(answer.records),
            "endpoints": [
                {
                    "project": each.endpoint.slot.project,
                    "service": each.endpoint.slot.service,
                    "slot": each.endpoint.slot.slot,
                    "task_id": each.endpoint.task_id,
                    "node": each.node_name or each.node_id or "",
                    "address": each.endpoint.address,
                    "is_used": each.is_used,
                    "reason": each.reason,
                }
                for each in answer.endpoints
            ],
        }
