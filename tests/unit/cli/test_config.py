"""Does `dray config` find the file that is meant, and tell everything that is wrong with it?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import yaml

from cli.app import main
from cli.arguments import add_compose
from cli.compose_files import load_request
from cli.exits import ExitCode, UsageError
from dray.compose import LoadRequest

Capture = pytest.CaptureFixture[str]

_GOOD = "name: shop\nservices:\n  web:\n    image: nginx\n    deploy: {replicas: 3}\n"
_BAD = "name: shop\nservices:\n  web:\n    image: nginx\n    colour: red\n    shape: round\n"


def _request(
    *arguments: str, files: tuple[str, ...] = (), folder: str = "/a/b", **environment: str
) -> LoadRequest:
    parser = argparse.ArgumentParser()
    add_compose(parser)
    return load_request(
        parser.parse_args(list(arguments)), environment, folder, set(files).__contains__
    )


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (("/a/b/compose.yaml",), ("/a/b/compose.yaml",)),
        (("/a/compose.yml",), ("/a/compose.yml",)),
        (("/docker-compose.yaml",), ("/docker-compose.yaml",)),
        (("/a/b/compose.yaml", "/a/b/docker-compose.yml"), ("/a/b/compose.yaml",)),
        (("/a/compose.yaml", "/a/b/docker-compose.yml"), ("/a/b/docker-compose.yml",)),
        (
            ("/a/b/compose.yaml", "/a/b/compose.override.yaml"),
            ("/a/b/compose.yaml", "/a/b/compose.override.yaml"),
        ),
    ],
    ids=str,
)
def test_the_usual_file_is_found(files: tuple[str, ...], found: tuple[str, ...]) -> None:
    """The nearest folder with a file of a usual name is meant, with its override file."""
    assert _request(files=files).files == found


def test_no_file_is_a_usage_error() -> None:
    """Where nothing is found, the folder and the flag are named."""
    with pytest.raises(UsageError, match=r"no compose\.yaml in /a/b or above it") as caught:
        _request()
    assert "-f" in caught.value.hint


def test_named_files_win() -> None:
    """Flags win over the variable, and it over what lies about; relative paths are completed."""
    lying = ("/a/b/compose.yaml",)
    variable = {"COMPOSE_FILE": "x.yaml:/y.yaml"}
    assert _request(files=lying, **variable).files == ("/a/b/x.yaml", "/y.yaml")
    named = _request("-f", "../z.yaml", "-f", "/w.yaml", files=lying, **variable)
    assert named.files == ("/a/z.yaml", "/w.yaml")
    other = _request(COMPOSE_FILE="x;y", COMPOSE_PATH_SEPARATOR=";")
    assert other.files == ("/a/b/x", "/a/b/y")


def test_the_rest_of_the_request() -> None:
    """Names, folders, profiles and env files come from flags, or from Compose's variables."""
    request = _request(
        *("-f", "c", "-p", "shop", "--project-directory", "d", "--profile", "x"),
        *("--profile", "y", "--env-file", "e", "--allow-ignored"),
        COMPOSE_PROJECT_NAME="other",
        COMPOSE_PROFILES="z",
    )
    assert request == LoadRequest(
        ("/a/b/c",),
        project_name="shop",
        project_directory="/a/b/d",
        profiles=("x", "y"),
        environment=(("COMPOSE_PROFILES", "z"), ("COMPOSE_PROJECT_NAME", "other")),
        env_files=("/a/b/e",),
        allow_ignored=True,
    )
    request = _request("-f", "c", COMPOSE_PROJECT_NAME="other", COMPOSE_PROFILES="z, w")
    assert (request.project_name, request.profiles) == ("other", ("z", "w"))
    assert (request.project_directory, request.env_files) == (None, None)


def test_a_good_file_is_shown(capsys: Capture, tmp_path: Path) -> None:
    """The project is printed as YAML, as JSON, as names, or not at all."""
    path = tmp_path / "compose.yaml"
    path.write_text(_GOOD)
    base = ["config", "-f", str(path)]
    assert main(base, {}) == ExitCode.CONVERGED
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["name"] == "shop"
    assert shown["services"]["web"]["image"] == "nginx"
    assert main([*base, "--format", "json"], {}) == 0
    as_json = json.loads(capsys.readouterr().out)
    assert as_json["services"]["web"].pop("command") is None
    assert as_json["services"]["web"].pop("entrypoint") is None
    assert as_json["services"]["web"]["deploy"].pop("resources") == {}
    assert as_json["services"]["web"]["deploy"].pop("placement") == {}
    assert as_json["networks"]["default"].pop("ipam") == {}
    assert as_json == shown
    assert main([*base, "--services"], {}) == 0
    assert capsys.readouterr().out == "web\n"
    assert main([*base, "--quiet", "-p", "other"], {}) == 0
    assert capsys.readouterr().out == ""


def test_everything_wrong_is_told_with_its_place(capsys: Capture, tmp_path: Path) -> None:
    """Each problem is a line on standard error with file, line and column; the status is 1."""
    path = tmp_path / "compose.yaml"
    path.write_text(_BAD)
    assert main(["config", "-f", str(path)], {}) == ExitCode.REFUSED
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"dray: {path}:5:")
    assert lines[1].startswith(f"dray: {path}:6:")


def test_a_missing_file_is_refused(capsys: Capture, tmp_path: Path) -> None:
    """A file that was named and is not there is named."""
    assert main(["config", "-f", str(tmp_path / "none.yaml")], {}) == ExitCode.REFUSED
    assert f"there is no file {tmp_path / 'none.yaml'}" in capsys.readouterr().err
