"""Does the command line say what is wrong in one line, and end with the documented status?"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from cli import session
from cli.app import VERBS, main
from cli.context import Context
from cli.exits import ExitCode, UsageError, exit_code_of
from cli.settings import CliSettings
from dray import __version__
from dray.addresses import HostPort
from dray.client import Client
from dray.errors import (
    DeadlineExceeded,
    DrayError,
    FailedPrecondition,
    InternalError,
    InvalidRequest,
    Unavailable,
)

Capture = pytest.CaptureFixture[str]


class _Failing(Mapping[str, str]):
    """An environment that fails when it is read, with whatever a verb may run into."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getitem__(self, name: str) -> str:
        raise self.error

    def __iter__(self) -> Iterator[str]:
        raise self.error

    def __len__(self) -> int:
        return 1


def test_version_is_shown_to_people_and_programs(capsys: Capture) -> None:
    """`version` prints a table, or the same facts as JSON or YAML."""
    assert main(["version"], {}) == ExitCode.CONVERGED
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == ["COMPONENT", "VERSION", "PYTHON", "PLATFORM"]
    assert __version__ in table
    assert main(["version", "--format", "json"], {}) == 0
    (client,) = json.loads(capsys.readouterr().out)
    assert (client["component"], client["version"]) == ("client", __version__)
    assert main(["version"], {"DRAY_FORMAT": "yaml"}) == 0
    assert capsys.readouterr().out.startswith("- component: client\n")


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_shown(capsys: Capture, verb: str) -> None:
    """Every verb explains itself and ends with 0."""
    with pytest.raises(SystemExit) as caught:
        main([*verb.split(), "--help"], {})
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: dray {verb}".rstrip())
    if not verb:
        assert all(f"    {name} " in shown and text in shown for name, text in VERBS.items())


def test_no_verb_shows_the_help(capsys: Capture) -> None:
    """`dray` alone shows what there is, and is no success."""
    assert main([], {}) == ExitCode.USAGE
    assert "commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["versio"], "dray: argument COMMAND: invalid choice: 'versio'"),
        (["version", "--nope"], "dray: unrecognized arguments: --nope (see `dray version --help`)"),
        (["version", "--form", "json"], "dray: unrecognized arguments: --form json"),
        (["version", "--format", "xml"], "invalid choice: 'xml'"),
        (["--host", "a:b", "version"], "dray: --host: 'a:b': the port is not a number"),
        (["version", "--host", ""], "dray: --host: '' holds an empty address"),
        (["version", "--host"], "(see `dray version --help`)"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_a_usage_error(
    capsys: Capture, arguments: list[str], message: str
) -> None:
    """What is wrong with the command line is one line on standard error, with status 2."""
    assert main(arguments, {}) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_common_options_stand_before_and_after_the_verb() -> None:
    """`--host` works on either side; the one after the verb wins."""
    assert main(["--host", "10.0.0.1", "version", "--host", "a:1,b:2"], {}) == 0
    assert main(["--insecure", "version"], {}) == 0


_FAILURES: list[tuple[BaseException, int, str]] = [
    (UsageError("bad", hint="see x"), 2, "dray: bad (see x)\n"),
    (InvalidRequest("no such service"), 1, "dray: no such service\n"),
    (Unavailable("no scheduler", hint="start one"), 1, "dray: no scheduler (start one)\n"),
    (DeadlineExceeded("not yet"), 4, "dray: not yet\n"),
    (InternalError("broken"), 1, "dray: broken\n"),
    (KeyboardInterrupt(), 130, "dray: interrupted\n"),
    (BrokenPipeError(), 141, ""),
    (OSError(28, "No space left on device", "/x"), 1, "dray: /x: No space left on device\n"),
]


def print_ends() -> None:
    """Run a verb into each failure and print the statuses and what was said, as JSON."""
    ends = []
    for error, _, _ in _FAILURES:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            status = main(["version"], _Failing(error))
        ends.append([int(status), said.getvalue()])
    print(json.dumps(ends), file=sys.stderr)


def test_failures_end_with_their_status_and_no_traceback() -> None:
    """Each kind of failure has its status and one line; Ctrl-C and a closed pipe have theirs."""
    # A process of its own: some failures give up its standard output.
    code = "from tests.unit.cli.test_app import print_ends; print_ends()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr) == [[status, line] for _, status, line in _FAILURES]
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FailedPrecondition("x"), ExitCode.REFUSED),
        (DeadlineExceeded("x"), ExitCode.TIMED_OUT),
        (UsageError("x"), ExitCode.USAGE),
        (DrayError("x"), ExitCode.REFUSED),
    ],
    ids=repr,
)
def test_statuses_follow_from_errors(error: DrayError, status: ExitCode) -> None:
    """What a failure means to a script follows from its code."""
    assert exit_code_of(error) is status


def test_the_documented_statuses() -> None:
    """The numbers that scripts rely on do not move."""
    assert {code.name: code.value for code in ExitCode} == {
        "CONVERGED": 0,
        "REFUSED": 1,
        "USAGE": 2,
        "ROLLED_BACK": 3,
        "TIMED_OUT": 4,
        "INTERRUPTED": 130,
        "OUTPUT_CLOSED": 141,
    }


def _dray(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", "cli", *arguments], text=True, check=False, **options
    )


def test_a_closed_pipe_is_no_error() -> None:
    """When the reader has gone, nothing is said, and the status is that of SIGPIPE."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = _dray("version", stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (ExitCode.OUTPUT_CLOSED, "")


def test_a_full_disk_is_told() -> None:
    """When the output cannot be written, the status is not success."""
    with Path("/dev/full").open("w") as full:
        done = _dray("version", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == ExitCode.REFUSED
    assert done.stderr == "dray: cannot write the output: No space left on device\n"


def test_a_terminal_without_utf_8_gets_what_it_can_show() -> None:
    """Help has characters beyond ASCII, and is shown all the same."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = _dray("--help", env=environment, capture_output=True)
    assert done.returncode == 0
    assert "HOST:PORT[,?]" in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_have_the_two_functions(verb: str) -> None:
    """Each verb's module has arguments and something to run, and a sentence for the help."""
    module = importlib.import_module(f"cli.commands.{verb}")
    assert callable(module.add_arguments)
    assert callable(module.run)
    assert module.__doc__
    assert module.__doc__.strip().endswith(".")


def test_there_is_a_verb_for_every_module() -> None:
    """No module of `cli.commands` is unreachable."""
    folder = Path(importlib.import_module("cli.commands").__path__[0])
    assert {path.stem for path in folder.glob("[a-z]*.py")} == set(VERBS)


def test_help_imports_little() -> None:
    """The help needs neither rich nor gRPC, YAML, sockets or archivers: it has 150 ms."""
    code = (
        "import sys; from cli.app import main\n"
        "try:\n    main(['--help'], {})\n"
        "except SystemExit: pass\n"
        "heavy = {'rich', 'grpc', 'yaml', 'ssl', 'asyncio', 'shutil', 'inspect', 'dataclasses'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, '.')\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("heavy: []\n")


def test_ps_imports_what_it_shows() -> None:
    """Listing tasks into a pipe needs neither rich nor Compose, nor what containers are made of."""
    code = (
        "import sys; import cli.session\n"
        "from cli.app import main; from dray.views import ListTasksResponse\n"
        "cli.session.ask = lambda *_: ListTasksResponse()\n"
        "status = main(['ps', '-p', 'shop'], {})\n"
        "heavy = {'rich', 'yaml', 'dray.compose', 'dray.model.container', 'dray.model.node'}\n"
        "print(f'{status} heavy:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("SLOT")
    assert done.stdout.endswith("0 heavy: []\n")


def test_an_answer_is_not_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes the `repr` of an answer, which for 2,000 tasks is as slow as the call."""

    class Answer:
        def __repr__(self) -> str:
            raise AssertionError("an answer was written out")

    @contextlib.asynccontextmanager
    async def connected(context: Context) -> AsyncIterator[Client]:
        async with Client([HostPort("127.0.0.1", 1)]) as client:
            yield client

    async def question(client: Client) -> Answer:
        return answer

    answer = Answer()
    monkeypatch.setattr(session, "connected", connected)
    context = Context(CliSettings(), sys.stdout, sys.stderr)
    assert session.ask(context, question) is answer
