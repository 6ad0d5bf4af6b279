"""Did a test block the event loop, or leave anything behind? A pytest plugin that fails it if so.

Three guards work for every test:

1. *Blocked loop.* Calls that block (sleep, file and socket I/O, locks, subprocesses) raise where
   they are made while an event loop runs in the same thread.
2. *Orphans.* A coroutine test runs under asyncio's debug mode; tasks that outlive it, and
   exceptions that nobody retrieved, fail it. An own runner of a few lines does this, because a
   plugin's loop is closed before one can look at it.
3. *Leftovers.* Processes and threads, and in the layers that touch the machine also containers,
   namespaces, interfaces, mounts and control groups, are compared before and after. Fixtures of a
   higher scope are set up before the first look, so what they own is not a test's leftover; the
   whole session is compared once more at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import secrets
import signal
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from blockbuster import BlockBuster, BlockingError

from tests import machine
from tests.lab.cgroups import PREFIX as LAB_CGROUP_PREFIX
from tests.lab.errors import LabError
from tests.lab.state import State

GRACE_S: Final = 2.0  # what is ending when its test ends may still end
ORPHAN_GRACE_S: Final = 0.5
LOOK_AGAIN_S: Final = 0.02
# Layers whose tests touch the machine, by folder below tests/.
MACHINE_LAYERS: Final = frozenset({"contract", "integration", "e2e", "lab"})
MACHINE_SOCKET: Final = "/run/docker.sock"
_TOP: Final = f"{Path(__file__).resolve().parents[1]}/"

Exempt = Callable[[machine.Thing], bool]


class Guard:
    """What belongs to this pytest run, and what its tests may leave alone.

    Attributes:
        sockets: Engines whose containers are watched. Fixtures that start an engine add its socket.
        exempt: Predicates of things that a longer-lived fixture owns although they appeared during
            a test, such as the processes of a host that a test booted again.
    """

    def __init__(self, mark: str, machine_socket: str) -> None:
        self.processes = machine.Processes(mark)
        self.sockets = {machine_socket}
        self.exempt: list[Exempt] = []

    def look(self, *, with_machine: bool) -> set[machine.Thing]:
        """Return what there is now."""
        found = self.processes.things() | machine.threads()
        if with_machine:
            found |= machine.interfaces() | machine.namespaces() | machine.mounts()
            found |= machine.cgroups() | machine.containers(self.sockets)
        return found

    def leftovers(
        self, before: set[machine.Thing], *, with_machine: bool, grace_s: float = GRACE_S
    ) -> list[machine.Thing]:
        """Return what is there now and was not before, once it had time to end."""
        deadline_s = time.monotonic() + grace_s
        while True:
            new = self.look(with_machine=with_machine) - before
            left = [thing for thing in new if not self._is_allowed(thing)]
            if not left or time.monotonic() > deadline_s:
                return sorted(left, key=str)
            time.sleep(LOOK_AGAIN_S)

    def _is_allowed(self, thing: machine.Thing) -> bool:
        """Return whether a new thing belongs to a longer-lived fixture, or to another run."""
        if thing.kind == "cgroup" and not self._is_our_cgroup(Path(thing.identity)):
            return True
        return any(rule(thing) for rule in self.exempt)

    def _is_our_cgroup(self, path: Path) -> bool:
        """Return whether a control group is of this run; others may run labs at the same time.

        A lab's group is its owner's, as its record says. Whose processes are in it would say
        nothing in a PID namespace, which shows none of those outside.
        """
        if not path.name.startswith(LAB_CGROUP_PREFIX):
            return True
        ours = {int(thing.identity.partition(":")[0]) for thing in self.processes.things()}
        try:
            owner = State().read(path.name.removeprefix(LAB_CGROUP_PREFIX)).owner
        except LabError:
            return False  # a lab that goes checks by itself that its groups are gone
        if owner is None:
            return bool(machine.cgroup_processes(path) & ours)
        return owner.pid in ours | {os.getpid()}


GUARD_KEY: Final = pytest.StashKey[Guard]()
_BEFORE_KEY: Final = pytest.StashKey[set[machine.Thing]]()


def pytest_configure(config: pytest.Config) -> None:
    """Mark this run, so that every process that it starts can be recognised."""
    mark = f"{os.getpid()}-{secrets.token_hex(4)}"
    os.environ[machine.SESSION_VARIABLE] = mark
    host = os.environ.get("DOCKER_HOST", "")
    engine = host.removeprefix("unix://") if host.startswith("unix://") else MACHINE_SOCKET
    config.stash[GUARD_KEY] = Guard(mark, engine)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Take the first look, before any fixture."""
    session.config.stash[_BEFORE_KEY] = session.config.stash[GUARD_KEY].look(with_machine=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Compare the end of the session with its start, after every fixture."""
    guard = session.config.stash[GUARD_KEY]
    before = session.config.stash.get(_BEFORE_KEY, None)
    if before is None:
        return
    touched = {_layer(item.path) for item in session.items} & MACHINE_LAYERS
    left = guard.leftovers(before, with_machine=bool(touched))
    if left:
        _end(left)
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            for thing in left:
                reporter.write_line(f"left over by the session: {thing}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def nothing_left_over(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test that leaves a process, thread or part of the machine's state behind."""
    guard = request.config.stash[GUARD_KEY]
    with_machine = _layer(request.path) in MACHINE_LAYERS
    before = guard.look(with_machine=with_machine)
    yield
    left = guard.leftovers(before, with_machine=with_machine)
    if left:
        _end(left)
        path, line, _ = request.node.location
        place = f"{path}:{(line or 0) + 1}"
        pytest.fail("\n".join(f"{place}: left over: {thing}" for thing in left), pytrace=False)


@pytest.fixture(autouse=True, scope="session")
def nothing_blocks_the_loop() -> Iterator[None]:
    """Make blocking calls raise while an event loop runs in the calling thread."""
    blockbuster = BlockBuster()
    _allow_imports(blockbuster)
    blockbuster.activate()
    yield
    blockbuster.deactivate()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test to its end on a loop of its own."""
    test = pyfuncitem.obj
    drawn = getattr(test, "hypothesis", None)
    if drawn is not None and inspect.iscoroutinefunction(drawn.inner_test):
        drawn.inner_test = _runs(drawn.inner_test)
        return None
    if not inspect.iscoroutinefunction(test):
        return None
    # The names of the test's parameters are not in pytest's public interface.
    names = pyfuncitem._fixtureinfo.argnames
    _run(test(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


def _runs(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        _run(test(*args, **kwargs))

    return run


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine; fail for tasks that outlive it and errors that nobody took."""
    unseen: list[str] = []

    def note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        unseen.append(f"{_raised_at(error)}: {context['message']}: {error!r}")

    with asyncio.Runner(debug=True) as runner:
        runner.get_loop().set_exception_handler(note)
        try:
            runner.run(_without_orphans(coroutine))
        except Exception as error:
            _add_places(error)
            raise
    if unseen:
        pytest.fail("\n".join(unseen), pytrace=False)


async def _without_orphans(coroutine: Coroutine[Any, Any, None]) -> None:
    await coroutine
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + ORPHAN_GRACE_S
    while orphans := asyncio.all_tasks() - {asyncio.current_task()}:
        if loop.time() > deadline_s:
            texts = sorted(_task_text(task) for task in orphans if task is not None)
            pytest.fail("\n".join(texts), pytrace=False)
        await asyncio.sleep(LOOK_AGAIN_S)


def _task_text(task: asyncio.Task[Any]) -> str:
    """Return where a task was made and what it runs; asyncio's debug mode keeps the former."""
    frames = getattr(task, "_source_traceback", None) or []
    ours = [frame for frame in frames if "/asyncio/" not in frame.filename]
    place = f"{_short(ours[-1].filename)}:{ours[-1].lineno}" if ours else "somewhere"
    return f"{place}: this task outlives the test: {task.get_coro()!r}"


def _add_places(error: BaseException) -> None:
    """Add to every blocking call in an error, or in a group of them, where it was made."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            _add_places(inner)
    elif isinstance(error, BlockingError):
        error.add_note(f"{_raised_at(error)}: the event loop was blocked: {error}")


def _raised_at(error: BaseException | None) -> str:
    """Return `path:line` of the innermost frame, the detector's own excepted."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    ours = [frame for frame in frames if "/blockbuster/" not in frame.filename]
    return f"{_short(ours[-1].filename)}:{ours[-1].lineno}" if ours else "somewhere"


def _short(filename: str) -> str:
    """Return a path below the repository relative to it; asks the file system nothing."""
    return filename.removeprefix(_TOP)


def _allow_imports(blockbuster: BlockBuster) -> None:
    """Let lazy imports and the reports of failures read files; a daemon does neither in a loop."""
    readers = (
        ("<frozen importlib._bootstrap>", "_find_and_load"),
        ("<frozen importlib._bootstrap_external>", "get_data"),
        ("linecache.py", "updatecache"),
    )
    for function in blockbuster.functions.values():
        for filename, name in readers:
            function.can_block_in(filename, name)


def _layer(path: Path) -> str:
    """Return the folder below tests/ that a test lies in."""
    parts = path.parts
    return parts[parts.index("tests") + 1] if "tests" in parts[:-1] else ""


def _end(left: list[machine.Thing]) -> None:
    """End left-over processes, so that one test's fault does not become the next one's."""
    for thing in left:
        if thing.kind == "process":
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(thing.identity.partition(":")[0]), signal.SIGKILL)
