"""Does `dray config` show what is asked for, and nothing but that?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from cli.app import main
from cli.exits import ExitCode

Capture = pytest.CaptureFixture[str]

_TEXT = """
name: shop
services:
  web:
    image: nginx:$TAG
    volumes: ["data:/data"]
    x-note: kept
  api:
    build: .
    use_api_socket: true
volumes:
  data:
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return the path of a Compose file."""
    file = tmp_path / "compose.yaml"
    file.write_text(_TEXT)
    return str(file)


def test_one_list(path: str, capsys: Capture) -> None:
    """Services, images and volumes are printed one on a line."""
    base = ["config", "-f", path]
    environment = {"TAG": "1"}
    for flag, lines in (
        ("--services", ["api", "web"]),
        ("--images", ["shop-api", "nginx:1"]),
        ("--volumes", ["data"]),
    ):
        assert main([*base, flag], environment) == ExitCode.CONVERGED
        assert capsys.readouterr().out.splitlines() == lines


def test_hashes(path: str, capsys: Capture) -> None:
    """A service's digest changes with what it is, and only then."""
    base = ["config", "-f", path, "--hash"]

    def digests(wanted: str, tag: str) -> dict[str, str]:
        assert main([*base, wanted], {"TAG": tag}) == ExitCode.CONVERGED
        return dict(line.split() for line in capsys.readouterr().out.splitlines())

    first, second = digests("*", "1"), digests("*", "2")
    assert first.keys() == {"api", "web"}
    assert first["api"] == second["api"]
    assert first["web"] != second["web"]
    assert digests("web", "1") == {"web": first["web"]}
    assert main([*base, "none"], {}) == ExitCode.USAGE
    assert "there is no service 'none'" in capsys.readouterr().err


def test_no_interpolation(path: str, capsys: Capture) -> None:
    """Variables are shown as they are written, and none is missed."""
    assert main(["config", "-f", path, "--no-interpolate"], {}) == ExitCode.CONVERGED
    shown = capsys.readouterr()
    assert yaml.safe_load(shown.out)["services"]["web"]["image"] == "nginx:$TAG"
    assert shown.err == ""


def test_both_formats(path: str, capsys: Capture) -> None:
    """JSON has the official shape; YAML keeps extensions. An unset variable is a warning."""
    assert main(["config", "-f", path, "--format", "json"], {}) == ExitCode.CONVERGED
    shown = capsys.readouterr()
    web = json.loads(shown.out)["services"]["web"]
    assert web["image"] == "nginx:"
    assert web["command"] is None
    assert "x-note" not in web
    assert "compose.yaml:5:12: TAG: is not set" in shown.err
    assert main(["config", "-f", path], {}) == ExitCode.CONVERGED
    assert yaml.safe_load(capsys.readouterr().out)["services"]["web"]["x-note"] == "kept"


def test_check_tells_what_cannot_be_carried_out(path: str, capsys: Capture) -> None:
    """`--check` prints every refusal and the status says so; showing does not mind them."""
    assert main(["config", "-f", path, "--check"], {"TAG": "1"}) == ExitCode.REFUSED
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "refused: " in shown.err
    assert "services.api.use_api_socket" in shown.err
    assert main(["config", "-f", path], {"TAG": "1"}) == ExitCode.CONVERGED
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("flags", [[], ["--check"]], ids=["shown", "checked"])
def test_mistakes_of_every_stage_are_told(
    flags: list[str], tmp_path: Path, capsys: Capture
) -> None:
    """A key, a size, a reference and a restart policy are refused in one go, by place.

    `--check` adds what could not be carried out in the mended file.
    """
    file = tmp_path / "compose.yaml"
    file.write_text(
        "name: shop\nservices:\n  web:\n    image: nginx\n    colour: red\n    mem_limit: 12x\n"
        "    networks: [back]\n    restart: sometimes\n    use_api_socket: true\n"
    )
    assert main(["config", "-f", str(file), *flags], {}) == ExitCode.REFUSED
    told = capsys.readouterr().err.splitlines()
    places = [line.partition(f"{file}:")[2].split(":")[0] for line in told]
    assert places == ["5", "6", "7", "8", *(["9"] if flags else [])]


def test_several_files(path: str, tmp_path: Path, capsys: Capture) -> None:
    """Files are merged in the order they are named."""
    other = tmp_path / "other.yaml"
    other.write_text("services: {web: {image: mine}}\n")
    assert main(["config", "-f", path, "-f", str(other), "--images"], {}) == ExitCode.CONVERGED
    assert capsys.readouterr().out.splitlines() == ["shop-api", "mine"]


def test_what_is_printed_can_be_read_again(tmp_path: Path, capsys: Capture) -> None:
    """Dollar signs and texts that look like numbers come back as they were."""
    path = tmp_path / "compose.yaml"
    path.write_text("services: {web: {image: x, command: ['$$A', '0o17', '1e3', '0440']}}\n")
    assert main(["config", "-f", str(path)], {}) == ExitCode.CONVERGED
    first = capsys.readouterr().out
    assert "$$A" in first
    path.write_text(first)
    assert main(["config", "-f", str(path)], {}) == ExitCode.CONVERGED
    assert capsys.readouterr().out == first
