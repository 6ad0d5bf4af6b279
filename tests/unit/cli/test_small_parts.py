"""Do names, selections, log lines, texts and archives come out as people expect?"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
from pathlib import Path

import pytest

from cli.archives import packed, unpack
from cli.commands.cp import _in_container
from cli.context import Context
from cli.exits import UsageError
from cli.loglines import LinePrinter
from cli.naming import Named, named, services_of
from cli.selection import select
from cli.settings import CliSettings
from cli.standing import ExplainView
from cli.texts import age, bytes_text, counted, cpus, instant
from cli.topview import TaskOrder, TopState
from dray.errors import FailedPrecondition
from dray.model import Dependency, NodeCondition, ProjectSpec
from dray.views import ExplainServiceResponse, LogLine, ObjectChange, SlotState
from tests.builders import a_service, a_slot, task_id
from tests.unit.cli.views_builders import NOW_S, a_node_view, a_service_view, a_task_view


def _given(project: str | None = None, files: list[str] | None = None) -> argparse.Namespace:
    return argparse.Namespace(project_name=project, files=files)


def _context(**environment: str) -> Context:
    return Context(
        CliSettings(environment=tuple(sorted(environment.items()))), sys.stdout, sys.stderr
    )


@pytest.mark.parametrize(
    ("text", "project", "meant"),
    [
        ("shop/web", None, Named("shop", "web")),
        ("shop/web.2", None, Named("shop", "web", 2)),
        ("web.12", "shop", Named("shop", "web", 12)),
        ("my.web", "shop", Named("shop", "my.web")),
        ("other/web", "shop", Named("other", "web")),
    ],
)
def test_names(text: str, project: str | None, meant: Named) -> None:
    """A name in full wins; what it lacks comes from -p."""
    assert named(text, _given(project), _context()) == meant


def test_services_of_one_project() -> None:
    """Each may be named in full; several projects at once are a mistake."""
    found = services_of(["shop/web", "db"], _given("shop"), _context())
    assert found == ("shop", ["web", "db"])
    assert services_of([], _given("shop"), _context()) == ("shop", [])
    with pytest.raises(UsageError, match="services of 2 projects at once"):
        services_of(["shop/web", "other/db"], _given(), _context())


def test_a_project_is_named_by_the_environment_or_a_file(tmp_path: Path) -> None:
    """As with Compose: the variable, then the file's own name."""
    assert named("web", _given(), _context(COMPOSE_PROJECT_NAME="shop")) == Named("shop", "web")
    file = tmp_path / "compose.yaml"
    file.write_text("name: mine\nservices: {web: {image: x}}\n")
    assert named("web", _given(files=[str(file)]), _context()) == Named("mine", "web")


@pytest.mark.parametrize("text", ["", "shop/", "/web"])
def test_malformed_names_are_refused(text: str) -> None:
    """The message shows the form."""
    with pytest.raises(UsageError, match="names no service"):
        named(text, _given("shop"), _context())


def test_a_selection_brings_what_it_depends_on() -> None:
    """Named services, those they depend on, and nothing else."""
    import dataclasses

    web = dataclasses.replace(a_service("web"), depends_on=(Dependency("db"),))
    project = ProjectSpec("shop", (a_service("db"), a_service("job"), web))
    assert [each.name for each in select(project, ["web"]).services] == ["db", "web"]
    with pytest.raises(UsageError, match="no service 'nope' in project shop"):
        select(project, ["nope"])


def _line(text: bytes, *, is_partial: bool = False, number: int = 1) -> LogLine:
    return LogLine(
        task_id(number), a_slot(number), 1, 1_700_000_000_000_000_000, None, text, is_partial
    )


def test_log_lines_say_who_and_when() -> None:
    """Parts of one line follow one another; bytes that are no text do not stop it."""
    printer = LinePrinter(has_prefix=True, has_time=False, is_color=False)
    assert printer.text(_line(b"one")) == "web.1        | one\n"
    assert printer.text(_line(b"lo", is_partial=True)) == "web.1        | lo"
    assert printer.text(_line(b"ng")) == "ng\n"
    assert printer.text(_line(b"\xff")) == "web.1        | �\n"
    timed = LinePrinter(has_prefix=False, has_time=True, is_color=True)
    assert timed.text(_line(b"one")) == "2023-11-14T22:13:20.000Z one\n"


def test_texts() -> None:
    """Amounts are short and exact enough."""
    assert [bytes_text(size) for size in (0, 999, 1024, 10 * 1024**2, 3 * 1024**4)] == [
        "0 B",
        "999 B",
        "1.0 KiB",
        "10.0 MiB",
        "3.0 TiB",
    ]
    assert [cpus(millis) for millis in (0, 500, 1000, 1250)] == ["0", "0.5", "1", "1.25"]
    assert [age(NOW_S - passed_s, NOW_S) for passed_s in (0.2, 59, 61, 7200, 90_000)] == [
        "0 s",
        "59 s",
        "1 min",
        "2 h",
        "1 d",
    ]
    assert (instant(0), age(0, NOW_S)) == ("", "")


def test_top_shows_first_what_is_not_well() -> None:
    """Nodes that are not ready and tasks that do not run come first, then the busiest."""
    state = TopState()
    tasks = [
        a_task_view(1, cpu_millis=100),
        a_task_view(2, cpu_millis=900),
        a_task_view(3, state=SlotState.FAILED),
    ]
    nodes = [a_node_view(1), a_node_view(2, condition=NodeCondition.DOWN)]
    state.fold(
        [*(ObjectChange(task=task) for task in tasks), *(ObjectChange(node=n) for n in nodes)]
    )
    assert [row[0] for row in state.tasks(9, NOW_S).rows] == [
        "shop/web.3",
        "shop/web.2",
        "shop/web.1",
    ]
    assert [row[0] for row in state.nodes(9).rows] == ["n2", "n1"]
    state.order = TaskOrder.SLOT
    assert [row[0] for row in state.tasks(2, NOW_S).rows] == ["shop/web.3", "shop/web.1"]
    assert state.use().startswith("CPU █████░░░░░ 4 of 8   memory ")
    assert state.headline() == "1 of 2 nodes ready · 1 failed, 2 running"
    state.fold([ObjectChange(is_deleted=True, task=tasks[0])])
    assert len(state.tasks(9, NOW_S).rows) == 2
    state.fold([], is_reset=True)
    assert state.headline() == "0 of 0 nodes ready · no tasks"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("web:/srv", ("web", "/srv")),
        ("shop/web.1:/srv/", ("shop/web.1", "/srv/")),
        ("./web:/srv", None),
        ("/srv/a:b", None),
        ("file", None),
        ("web:srv", None),
    ],
)
def test_which_side_of_a_copy_is_in_a_container(text: str, place: tuple[str, str] | None) -> None:
    """An absolute path after a name is; all else is a file here."""
    assert _in_container(text) == place


async def _archive(source: Path, entry: str) -> io.BytesIO:
    file = io.BytesIO()
    async for piece in packed(source, entry, follow_links=False):
        file.write(piece)
    file.seek(0)
    return file


async def test_a_folder_is_packed_and_unpacked_under_another_name(tmp_path: Path) -> None:
    """What comes out is what went in, under the name that was asked for."""
    import asyncio

    def make() -> None:
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "b" / "c").write_bytes(b"x" * 200_000)

    await asyncio.to_thread(make)
    file = await _archive(tmp_path / "a", "a")
    copied = await asyncio.to_thread(unpack, file, tmp_path / "d", keep_owner=False)
    assert copied == 200_000
    read = await asyncio.to_thread((tmp_path / "d" / "b" / "c").read_bytes)
    assert read == b"x" * 200_000


def _link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize(
    "members",
    [
        [tarfile.TarInfo("a"), tarfile.TarInfo("../evil")],
        [tarfile.TarInfo("a"), tarfile.TarInfo("b/../../evil")],
        [_link("a", ".."), tarfile.TarInfo("a/evil")],
    ],
    ids=["above", "around", "through a link"],
)
def test_an_archive_cannot_write_elsewhere(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    """A path that leaves the place is refused, also one through a link."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for member in members:
            archive.addfile(member)
    file.seek(0)
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(FailedPrecondition, match="outside of"):
        unpack(file, inside, keep_owner=False)
    assert not (tmp_path / "evil").exists()


def test_an_explanation_leaves_no_problem_out() -> None:
    """What neither waits nor restarts, and is not well, is told as well; nothing twice."""
    problem = "not published on node n1: port 80/tcp is taken by another program"
    service = a_service_view(problems=(problem,))
    lines = ExplainView(ExplainServiceResponse(service=service)).lines()
    assert lines == ["shop/web: 1 starting of 1", problem]


def test_nouns_are_counted() -> None:
    """One of them is not several."""
    assert [counted(number, "task") for number in (0, 1, 2)] == ["0 tasks", "1 task", "2 tasks"]
