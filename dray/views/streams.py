"""What passes in logs, commands, copies and explanations of names?"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dray.model import Endpoint, SlotKey
from dray.names import NodeId, TaskId
from dray.views.header import NO_HEADER, ResponseHeader

__all__ = [
    "CopyOptions",
    "CopyToTaskResponse",
    "DnsAnswer",
    "DnsEndpoint",
    "DnsQuery",
    "ExecInput",
    "ExecOutput",
    "ExecStart",
    "ExplainDnsResponse",
    "LogLine",
    "LogLines",
    "LogNotice",
    "LogPosition",
    "LogQuery",
    "LogStream",
    "StreamLogsResponse",
    "TaskTarget",
    "TerminalSize",
]


@dataclass(frozen=True, slots=True)
class TaskTarget:
    """Which running container: of a task, or of a slot of a service (0: the lowest that runs)."""

    task_id: TaskId | None = None
    project: str = ""
    service: str = ""
    slot: int = 0


@dataclass(frozen=True, slots=True)
class LogPosition:
    """How far the lines of one attempt were read.

    Attributes:
        task_id: The task that wrote them.
        attempt: The attempt that wrote them.
        unix_ns: When the last one that was read was written.
        lines: How many lines of that very time were read: the parts of a long line have one time.
    """

    task_id: TaskId
    attempt: int = 0
    unix_ns: int = 0
    lines: int = 0


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which log lines are wanted.

    Attributes:
        project: The project; must be set.
        services: Names of services; empty: all of the project.
        slots: Slots of the one service named; empty: all.
        tail: Last lines of each task to begin with, 0 to 100,000; None: all that are kept.
        since_unix_s: Lines at or after this time only; None: no bound.
        until_unix_s: Lines before this time only; None: no bound.
        follow: Go on with new lines, and with tasks that replace those that end.
        read_to: How far earlier streams of the same query came, at most 65,536 attempts: what they
            brought is left out. `tail` does not count for these attempts.
    """

    project: str
    services: tuple[str, ...] = ()
    slots: tuple[int, ...] = ()
    tail: int | None = None
    since_unix_s: float | None = None
    until_unix_s: float | None = None
    follow: bool = False
    read_to: tuple[LogPosition, ...] = ()


class LogStream(enum.Enum):
    """Where a line was written."""

    STDOUT = 1
    STDERR = 2


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a container's output.

    Attributes:
        task_id: The task that wrote it.
        slot: Its slot.
        attempt: The attempt that wrote it.
        unix_ns: When, by the node's clock. Lines of one attempt never go back.
        stream: Where it was written; None: not known.
        line: The line without its end, at most 64 KiB. Any bytes, not always UTF-8.
        is_partial: More parts of this line follow.
    """

    task_id: TaskId
    slot: SlotKey | None = None
    attempt: int = 0
    unix_ns: int = 0
    stream: LogStream | None = None
    line: bytes = b""
    is_partial: bool = False


@dataclass(frozen=True, slots=True)
class LogLines:
    """Lines of one message."""

    lines: tuple[LogLine, ...] = ()


@dataclass(frozen=True, slots=True)
class LogNotice:
    """That lines are missing and why: about a task, a node, or (both None) the whole query."""

    task_id: TaskId | None = None
    node_id: NodeId | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class StreamLogsResponse:
    """Lines in time order as far as one pass over the nodes allows, and what to know of them."""

    header: ResponseHeader | None = None
    lines: tuple[LogLine, ...] = ()
    notices: tuple[LogNotice, ...] = ()


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """Size of a terminal, 1 to 10,000 each."""

    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class ExecStart:
    """Begins a command in a running container.

    Attributes:
        target: The container.
        command: The command and its arguments; not empty.
        user: User that runs it; empty: the container's.
        working_dir: Folder to run it in; empty: the container's.
        environment: Further variables as NAME=value.
        tty: Give it a terminal: stderr comes as stdout.
        stdin: Standard input will be sent.
        privileged: All privileges.
        size: Size of the terminal to begin with; None: 80 × 24.
    """

    target: TaskTarget
    command: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    environment: tuple[str, ...] = ()
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    size: TerminalSize | None = None


@dataclass(frozen=True, slots=True)
class ExecInput:
    """What goes to a command: exactly one field is set."""

    stdin: bytes | None = None
    stdin_end: bool | None = None
    resize: TerminalSize | None = None
    signal: str | None = None


@dataclass(frozen=True, slots=True)
class ExecOutput:
    """What comes from a command: exactly one field is set; `exit_code` comes last."""

    stdout: bytes | None = None
    stderr: bytes | None = None
    exit_code: int | None = None
    started: bool | None = None


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """What is copied into or out of a container, as a tar archive.

    Attributes:
        target: The container.
        path: Absolute path in the container: the folder to unpack into, or what to pack.
        keep_owner: Keep owner and group of the archive.
        follow_links: Pack what a symbolic link points at, not the link.
    """

    target: TaskTarget
    path: str = ""
    keep_owner: bool = False
    follow_links: bool = False


@dataclass(frozen=True, slots=True)
class CopyToTaskResponse:
    """The copy is done: bytes of content that were written."""

    header: ResponseHeader = NO_HEADER
    copied_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DnsQuery:
    """Asks what a node's DNS answers.

    Attributes:
        name: The name, absolute or as a container of `project` would ask it.
        type: Type of record: "A", "AAAA", "SRV", "PTR"; empty: "A".
        project: Ask as a container of this project; empty: as the node itself.
        service: … and of this service, whose networks decide what it may see; empty: all.
    """

    name: str
    type: str = ""
    project: str = ""
    service: str = ""


@dataclass(frozen=True, slots=True)
class DnsEndpoint:
    """One endpoint that a DNS answer considered, its node, whether it is used, and why."""

    endpoint: Endpoint
    node_id: NodeId | None = None
    node_name: str = ""
    is_used: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """What a node's DNS answers, and why.

    Attributes:
        name: The name as it was understood, absolute.
        code: "NOERROR", "NXDOMAIN", "SERVFAIL" …
        records: In presentation form.
        endpoints: Every endpoint that was considered.
        source: Where the answer comes from: "endpoints", "node", "upstream 192.0.2.1", "cache".
        is_last_resort: Nothing usable was left: the last running endpoints are served.
    """

    name: str
    code: str = ""
    records: tuple[str, ...] = ()
    endpoints: tuple[DnsEndpoint, ...] = ()
    source: str = ""
    is_last_resort: bool = False


@dataclass(frozen=True, slots=True)
class ExplainDnsResponse:
    """What a node's DNS answers: the node that was asked, and its answer."""

    header: ResponseHeader = NO_HEADER
    node: str = ""
    answer: DnsAnswer | None = None
