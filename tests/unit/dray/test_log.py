"""Are log lines JSON with the fields they should have, and never a secret?"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from dray.clock import ManualClock
from dray.errors import InternalError, Unavailable
from dray.log import (
    FIELDS,
    LogFormat,
    LogLevel,
    bound,
    canonical_line,
    configure,
    get_logger,
    redact,
)
from dray.model import AttemptState, GossipKey, NodeCondition


class _Output(io.StringIO):
    """What was logged; a terminal or not."""

    is_terminal = False

    def isatty(self) -> bool:
        return self.is_terminal

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def output() -> Iterator[_Output]:
    """Logging into a buffer, in JSON; put back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = _Output()
    configure(level=LogLevel.DEBUG, stream=stream)
    yield stream
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_is_json_with_component_level_and_time(output: _Output) -> None:
    """Where nobody watches, every line is one JSON object."""
    get_logger("leader").info("plan committed", revision=7, created=2)
    (line,) = output.lines()
    assert line.pop("at").endswith("Z")
    assert line == {
        "event": "plan committed",
        "level": "info",
        "component": "leader",
        "revision": 7,
        "created": 2,
    }


def test_a_terminal_gets_text() -> None:
    """On a terminal the line is for people."""
    stream = _Output()
    stream.is_terminal = True
    configure(stream=stream)
    get_logger("leader").warning("lease late", delay_ms=1200)
    structlog.reset_defaults()
    logging.getLogger().handlers.clear()
    assert "lease late" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_lines_below_the_level_are_not_written() -> None:
    """The level is the least that is written."""
    stream = _Output()
    configure(level=LogLevel.WARNING, log_format=LogFormat.JSON, stream=stream)
    log = get_logger("x")
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    structlog.reset_defaults()
    logging.getLogger().handlers.clear()
    assert [line["event"] for line in stream.lines()] == ["c", "d"]


async def test_bound_fields_reach_tasks_and_end_with_the_block(output: _Output) -> None:
    """Ids bound once are on every line inside, also of tasks started there, and not after it."""
    log = get_logger("x")

    async def child() -> None:
        log.info("inner")

    with bound(node_id="n1"):
        await asyncio.create_task(child())
    log.info("outer")
    inner, outer = output.lines()
    assert inner["node_id"] == "n1"
    assert "node_id" not in outer


def test_libraries_write_the_same_lines(output: _Output) -> None:
    """What a library logs from WARNING on comes out as JSON, redacted; the rest does not."""
    logging.getLogger("urllib3").warning("retrying %s", "http://u:hunter2@h/")
    logging.getLogger("urllib3").info("chatter")
    (line,) = output.lines()
    assert line["level"] == "warning"
    assert line["event"] == "retrying http://u:<hidden>@h/"


def test_a_traceback_shows_no_variables(output: _Output) -> None:
    """A logged exception is one field of text, without the values of local variables."""

    def fail() -> None:
        password = "hunter" + "2"
        raise ValueError(len(password))

    with pytest.raises(ValueError, match="7") as caught:
        fail()
    get_logger("x").error("loop has a bug", exc_info=caught.value)
    (line,) = output.lines()
    assert "in fail" in line["exception"]
    assert "hunter2" not in output.getvalue()


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("password", "hunter2", "<hidden>"),
        ("etcd_password", "hunter2", "<hidden>"),
        ("join_token", "hunter2", "<hidden>"),
        ("password", None, None),
        ("address", "https://root:hunter2@10.0.0.1:2379", "https://root:<hidden>@10.0.0.1:2379"),
        ("address", "https://10.0.0.1:2379", "https://10.0.0.1:2379"),
        ("fields", {"a": {"secret": "x", "b": 1}}, {"a": {"secret": "<hidden>", "b": 1}}),
        ("fields", [("token", b"xyz")], [["token", "<3 bytes>"]]),
        ("key", GossipKey(1, b"k" * 32), "GossipKey(key_id=1, material=<32 bytes>, primary=False)"),
        ("condition", NodeCondition.READY, "ready"),
        ("state", AttemptState.RUNNING, 50),
        ("count", 3, 3),
        ("deep", [[[[[[["x"]]]]]]], [[[[[["…"]]]]]]),
    ],
    ids=str,
)
def test_secrets_are_hidden(name: str, value: object, shown: object) -> None:
    """Secret names, passwords in URLs, raw bytes and secret types never show."""
    assert redact(value, name) == shown


def test_a_line_is_redacted(output: _Output) -> None:
    """Redaction is part of every line, bound fields included."""
    with bound(token="hunter2"):
        get_logger("x").info("login", key=GossipKey(1, b"hunter2"))
    assert "hunter2" not in output.getvalue()
    assert output.lines()[0]["token"] == "<hidden>"


async def test_a_unit_of_work_is_one_line(output: _Output) -> None:
    """What was gathered is logged once, at the end, with the outcome and the duration."""
    clock = ManualClock()
    with canonical_line(get_logger("api"), "call served", clock, method="Apply") as line:
        await clock.advance(0.25)
        line.add(revision=9)
    (logged,) = output.lines()
    assert (logged["event"], logged["level"], logged["outcome"]) == ("call served", "info", "ok")
    assert (logged["method"], logged["revision"]) == ("Apply", 9)
    assert logged["duration_ms"] == pytest.approx(250.0)


@pytest.mark.parametrize(
    ("error", "level", "code"),
    [
        (Unavailable("etcd is away"), "warning", "UNAVAILABLE"),
        (InternalError("broken"), "error", "INTERNAL"),
        (KeyError("x"), "error", "INTERNAL"),
    ],
    ids=repr,
)
def test_a_failed_unit_of_work_is_logged_and_raised(
    output: _Output, error: Exception, level: str, code: str
) -> None:
    """A failure is in the line with its code, as grave as it is, and reaches the caller."""
    with (
        pytest.raises(type(error)) as caught,
        canonical_line(get_logger("api"), "call served", ManualClock()),
    ):
        raise error
    assert caught.value is error
    (line,) = output.lines()
    assert (line["level"], line["outcome"], line["error_code"]) == (level, "failed", code)


def test_a_cancelled_unit_of_work_is_no_failure(output: _Output) -> None:
    """A cancellation is logged as such, and goes on to the caller."""
    with (
        pytest.raises(asyncio.CancelledError),
        canonical_line(get_logger("api"), "call served", ManualClock()),
    ):
        raise asyncio.CancelledError
    (line,) = output.lines()
    assert (line["outcome"], line["level"]) == ("cancelled", "info")


def test_success_while_another_error_is_handled_is_success(output: _Output) -> None:
    """A unit of work inside an `except` block is judged by its own end."""
    try:
        raise KeyError("outer")
    except KeyError:
        with canonical_line(get_logger("api"), "call served", ManualClock()):
            pass
    assert output.lines()[0]["outcome"] == "ok"


def test_every_field_is_explained() -> None:
    """Field names are lower case with underscores, sorted, and each says what it means."""
    assert list(FIELDS) == sorted(FIELDS)
    assert all(name.replace("_", "").islower() and meaning for name, meaning in FIELDS.items())


def test_the_library_is_imported_without_structlog() -> None:
    """A client that imports dray, and even this module, does not pay for structlog."""
    code = "import sys, dray, dray.log; raise SystemExit('structlog' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
