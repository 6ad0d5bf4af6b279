"""How does a daemon log? One set-up, one list of field names, one canonical line per unit of work.

Standard output gets JSON lines when it is not a terminal, coloured text when it is. Event names are
constant lower-case phrases; everything that varies is a field. Levels: *error* means that someone
must act, *warning* that dray coped with less, *info* that state changed, *debug* says why. Pure
code never logs.

structlog is imported on first use: this module costs a client nothing.
"""

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO, cast

from dray.clock import Clock
from dray.errors import DrayError, ErrorCode, InternalError

if TYPE_CHECKING:
    from structlog.typing import Processor

__all__ = [
    "FIELDS",
    "CanonicalLine",
    "LogFormat",
    "LogLevel",
    "Logger",
    "bound",
    "canonical_line",
    "configure",
    "get_logger",
    "redact",
]

FIELDS: Final[Mapping[str, str]] = {
    "address": "IP address, or address and port",
    "attempt": "number of a task's container run",
    "base_revision": "revision of the store that a plan was made from",
    "before": "what it was until now",
    "cluster_id": "id of the cluster",
    "component": "loop or package that speaks",
    "condition": "what a node is held to be",
    "conflicts": "commits that found another writer",
    "count": "how many, of what the event names",
    "created": "tasks created by a round, as committed",
    "delay_ms": "how long something is put off",
    "duration_ms": "how long the unit of work took",
    "epoch": "term of the leader, `generation/create revision`",
    "error": "what went wrong, for people",
    "error_code": "name of the `ErrorCode`",
    "field": "name of a setting or of a part of a message",
    "forgotten": "tasks taken out of assignments by a round, as committed",
    "generation": "the cluster's generation",
    "hint": "the next step",
    "life": "boot number of a node daemon",
    "method": "name of an RPC",
    "moved": "tasks moved by a round, as committed",
    "node": "name of a node",
    "node_id": "id of a node",
    "outcome": "how a unit of work ended: ok, failed, cancelled",
    "path": "file or folder",
    "peer": "address of the other side",
    "planned": "actions of a plan, carried out or not",
    "project": "name of a project",
    "reason": "constant phrase that says why",
    "request_id": "id of a user's call",
    "restarts": "how often a loop was restarted",
    "revision": "revision of the store",
    "scheduler_id": "id of a scheduler",
    "service": "name of a service",
    "service_revision": "number of a service's revision",
    "signal": "name of a signal",
    "slot": "`service.number`",
    "stopped": "tasks told to stop by a round, as committed",
    "task_id": "id of a task",
    "unplaced": "slots for which there is no room",
    "verdicts": "conclusions that a plan stores",
    "version": "version of dray",
}
"""Every field name that a log line may use, and what it means. One word per thing."""

_HIDDEN: Final = "<hidden>"
_DEPTH_MAX: Final = 6  # levels of containers within a field that are looked into
_SECRET_NAME = re.compile(r"passw(or)?d|secret|token|credential|private_key|material|authorization")
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*):[^/\s@]+@")


class LogFormat(enum.Enum):
    """How log lines look."""

    AUTO = "auto"
    """PRETTY on a terminal, JSON elsewhere."""
    JSON = "json"
    PRETTY = "pretty"


class LogLevel(enum.Enum):
    """The least level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        """The level as the standard library counts it."""
        return {"debug": 10, "info": 20, "warning": 30, "error": 40}[self.value]


class Logger(Protocol):
    """What code that logs is given."""

    def debug(self, event: str, **fields: Any) -> object:
        """Say why something was done."""
        ...

    def info(self, event: str, **fields: Any) -> object:
        """Say that state changed."""
        ...

    def warning(self, event: str, **fields: Any) -> object:
        """Say that dray coped with less than it should have."""
        ...

    def error(self, event: str, **fields: Any) -> object:
        """Say that someone must act."""
        ...


def configure(
    *,
    level: LogLevel = LogLevel.INFO,
    log_format: LogFormat = LogFormat.AUTO,
    stream: TextIO | None = None,
) -> None:
    """Set up logging of this process; also that of libraries, from WARNING on.

    Args:
        level: The least level written.
        log_format: How lines look.
        stream: Where they go; standard output by default.
    """
    import structlog

    output = stream or sys.stdout
    is_pretty = log_format is LogFormat.PRETTY or (log_format is LogFormat.AUTO and output.isatty())
    shared = _shared_processors()
    renderer = _renderers(is_pretty)
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level.number),
        logger_factory=structlog.WriteLoggerFactory(output),
        cache_logger_on_first_use=False,
    )
    _route_libraries(shared, renderer, output)


def _shared_processors() -> list[Processor]:
    import structlog

    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _redact_fields,
    ]


def _renderers(is_pretty: bool) -> list[Processor]:
    """Return what turns fields into a line. Tracebacks show no local variables: they may be secret.

    Args:
        is_pretty: Whether people read it.
    """
    import structlog

    if is_pretty:
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(timestamp_key="at", exception_formatter=plain)]
    return [
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("event"),
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ]


def _route_libraries(shared: list[Processor], renderer: list[Processor], output: TextIO) -> None:
    """Make the standard library's loggers write the same lines."""
    import logging

    import structlog

    handler = logging.StreamHandler(output)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[remove_meta, *renderer]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


def get_logger(component: str) -> Logger:
    """Return a logger whose lines carry the component."""
    import structlog

    return cast("Logger", structlog.get_logger(component=component))


def bound(**fields: object) -> AbstractContextManager[None]:
    """Add fields to every line logged inside the `with` block, also by tasks started there."""
    import structlog

    return structlog.contextvars.bound_contextvars(**fields)


class CanonicalLine:
    """The one line of a unit of work, while its fields are being gathered."""

    def __init__(self, fields: dict[str, object]) -> None:
        """Start with the fields that are known at the beginning."""
        self.fields = fields

    def add(self, **fields: object) -> None:
        """Add fields, or replace those of the same name."""
        self.fields.update(fields)


@contextmanager
def canonical_line(
    log: Logger, event: str, clock: Clock, **fields: object
) -> Iterator[CanonicalLine]:
    """Log one line when the block ends: what was gathered, the outcome and the duration.

    A `DrayError` makes it a warning with its code, any other exception an error. Both go on to the
    caller; so does a cancellation, which is logged as such.
    """
    line = CanonicalLine(dict(fields))
    start_s = clock.monotonic_s()
    is_ok = False
    try:
        yield line
        is_ok = True
    finally:
        write, outcome = _outcome(log, line, None if is_ok else sys.exception())
        duration_ms = round((clock.monotonic_s() - start_s) * 1000, 3)
        write(event, **{**line.fields, "outcome": outcome, "duration_ms": duration_ms})


def _outcome(
    log: Logger, line: CanonicalLine, error: BaseException | None
) -> tuple[Callable[..., object], str]:
    """Return how a unit of work that ended so is logged; add the error's fields to its line."""
    match error:
        case None:
            return log.info, "ok"
        case DrayError():
            line.add(error=error.message, error_code=error.code.name)
            is_bug = isinstance(error, InternalError)
            return (log.error if is_bug else log.warning), "failed"
        case Exception():
            line.add(error=repr(error), error_code=ErrorCode.INTERNAL.name)
            return log.error, "failed"
        case _:
            return log.info, "cancelled"


def _redact_fields(
    _logger: object, _method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for name, value in fields.items():
        if name != "exc_info":
            fields[name] = redact(value, name)
    return fields


def redact(value: object, name: str = "", depth: int = 0) -> object:
    """Return what may be shown of a value: neither secrets nor raw bytes.

    Hidden are values under a name that speaks of a secret, and passwords within URLs. Types of
    secrets hide themselves in their `repr`, which is all that is shown of other objects.
    """
    if _SECRET_NAME.search(name.lower()) and value is not None:
        return _HIDDEN
    match value:
        case None | bool() | int() | float():
            return value
        case enum.Enum():
            return value.name.lower()
        case str():
            return _URL_PASSWORD.sub(rf"\1:{_HIDDEN}@", value)
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case _ if depth >= _DEPTH_MAX:
            return "…"
        case Mapping():
            return {str(k): redact(v, str(k), depth + 1) for k, v in value.items()}
        case list() | tuple() | set() | frozenset():
            return [redact(item, "", depth + 1) for item in value]
        case _:
            return repr(value)
