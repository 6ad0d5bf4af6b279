"""Do the units for systemd start what there is, where its settings say, and end it cleanly?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from configparser import RawConfigParser
from pathlib import Path
from typing import Final

import pytest

from dray.settings import DaemonSettings
from dray.tasks import STOP_GRACE_S
from node.settings import NodeSettings
from scheduler.settings import SchedulerSettings
from tests.house import tree

FOLDER: Final = tree.TOP / "packaging" / "systemd"
SETTINGS: Final[Mapping[str, type[DaemonSettings]]] = {
    "node": NodeSettings,
    "scheduler": SchedulerSettings,
}
README: Final = (tree.TOP / "README.md").read_text()


def unit(program: str) -> RawConfigParser:
    """Return the unit of a program."""
    parser = RawConfigParser(delimiters=("=",), comment_prefixes=("#",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((FOLDER / f"dray-{program}.service").read_text())
    return parser


def settings(program: str) -> DaemonSettings:
    """Return a program's settings from the file that the README makes for its unit."""
    text = re.search(rf"cat >(/etc/dray/{program}\.env) <<'END'\n(.*?)\n *END", README, re.DOTALL)
    assert text is not None
    assert unit(program)["Service"]["EnvironmentFile"] == text[1]
    lines = (line.strip().partition("=") for line in text[2].splitlines())
    return SETTINGS[program].load([], {name: value for name, _, value in lines})


def test_there_is_a_unit_for_each_daemon() -> None:
    """And the README installs them all."""
    found = {path.name for path in FOLDER.iterdir()}
    assert found == {f"dray-{program}.service" for program in SETTINGS}
    assert "packaging/systemd/*.service" in README


@pytest.mark.parametrize("program", SETTINGS)
def test_a_unit_starts_its_daemon_again_and_lets_it_end(program: str) -> None:
    """Its command is the one of the README's installation; systemd waits longer than it does."""
    service = unit(program)["Service"]
    command, *arguments = shlex.split(service["ExecStart"])
    assert arguments == [program, "run"]
    assert command.startswith("/opt/dray/")
    assert "/opt/dray" in README
    assert service["Restart"] == "always"
    assert float(service["TimeoutStopSec"]) >= STOP_GRACE_S + 30.0


@pytest.mark.parametrize("program", SETTINGS)
def test_a_unit_makes_the_folders_that_its_daemon_uses(program: str) -> None:
    """Where the defaults of its settings put them, for nobody else to read."""
    service, found = unit(program)["Service"], settings(program)
    assert isinstance(found, NodeSettings | SchedulerSettings)
    assert Path("/var/lib", service["StateDirectory"]) == found.data_dir
    assert service["StateDirectoryMode"] == "0700"


def test_containers_and_their_secrets_outlive_the_nodes_daemon() -> None:
    """A stop ends the daemon alone, and what containers have mounted stays where it is."""
    service, found = unit("node")["Service"], settings("node")
    assert isinstance(found, NodeSettings)
    assert service["KillMode"] == "mixed"
    assert Path("/run", service["RuntimeDirectory"]) == found.run_dir
    assert service["RuntimeDirectoryPreserve"] == "yes"
    assert "docker.service" in unit("node")["Unit"]["After"]
    assert not unit("node").has_option("Unit", "Requires")  # an engine's restart is not its end
    assert not unit("node").has_option("Unit", "BindsTo")
