"""Do the command line's settings come from the right source, and are wrong ones named?"""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.exits import UsageError
from cli.settings import API_PORT, CliSettings, OutputFormat
from dray.addresses import HostPort
from dray.tls import TlsFiles


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment with a home of its own."""
    return {"HOME": str(tmp_path)}


def _file(home: dict[str, str], content: str) -> Path:
    path = Path(home["HOME"], ".config/dray/cli.toml")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    return path


def test_defaults(home: dict[str, str]) -> None:
    """Without anything said, this machine's scheduler is meant."""
    settings = CliSettings.load({}, home)
    assert settings.hosts == (HostPort("127.0.0.1", API_PORT),)
    assert settings.output_format is None
    assert settings.is_color
    assert not settings.insecure
    assert settings.tls_files is None


def test_later_sources_win(home: dict[str, str]) -> None:
    """The file gives way to variables, and they to flags."""
    _file(home, 'host = ["a:1", "b"]\nformat = "yaml"\ninsecure = true\n')
    settings = CliSettings.load({}, home)
    assert settings.hosts == (HostPort("a", 1), HostPort("b", API_PORT))
    assert (settings.output_format, settings.insecure) == (OutputFormat.YAML, True)
    variables = {"DRAY_HOST": "c:2", "DRAY_FORMAT": "json", "DRAY_INSECURE": "no"}
    settings = CliSettings.load({}, home | variables)
    assert settings.hosts == (HostPort("c", 2),)
    assert (settings.output_format, settings.insecure) == (OutputFormat.JSON, False)
    flags = {"host": "d:3,e:4", "format": "table", "insecure": True, "other": 1}
    settings = CliSettings.load(flags, home | variables)
    assert settings.hosts == (HostPort("d", 3), HostPort("e", 4))
    assert (settings.output_format, settings.insecure) == (OutputFormat.TABLE, True)


def test_an_empty_variable_says_nothing(home: dict[str, str]) -> None:
    """`DRAY_HOST=` is the same as none."""
    assert CliSettings.load({}, home | {"DRAY_HOST": "", "NO_COLOR": ""}).is_color


def test_no_color_is_heard(home: dict[str, str]) -> None:
    """Any value of NO_COLOR switches colours off."""
    assert not CliSettings.load({}, home | {"NO_COLOR": "0"}).is_color


def test_tls_files_come_together(home: dict[str, str]) -> None:
    """Three files make mutual TLS; fewer are an error that names what is missing."""
    variables = {"DRAY_TLS_CERT": "/c", "DRAY_TLS_KEY": "/k", "DRAY_TLS_CA": "/a"}
    settings = CliSettings.load({}, home | variables)
    assert settings.tls_files == TlsFiles(Path("/c"), Path("/k"), Path("/a"))
    del variables["DRAY_TLS_KEY"]
    with pytest.raises(UsageError, match="tls_key is not set"):
        CliSettings.load({}, home | variables)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"DRAY_HOST": "a:x"}, "DRAY_HOST: 'a:x': the port is not a number from 0 to 65535"),
        ({"DRAY_HOST": "a,a:7400"}, "DRAY_HOST: 'a,a:7400' names one address twice"),
        ({"DRAY_FORMAT": "xml"}, "DRAY_FORMAT: 'xml' is not a format (one of table, json, yaml)"),
        ({"DRAY_INSECURE": "maybe"}, "DRAY_INSECURE: 'maybe' is neither true nor false"),
        ({"DRAY_CONFIG": "/missing.toml"}, "DRAY_CONFIG: there is no file /missing.toml"),
        ({"DRAY_CONFIG": "/"}, "cannot read /: Is a directory"),
    ],
)
def test_a_wrong_variable_is_named(
    home: dict[str, str], variables: dict[str, str], message: str
) -> None:
    """A message has the variable, the value and what would do."""
    with pytest.raises(UsageError) as caught:
        CliSettings.load({}, home | variables)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hosts = 'a:1'", "hosts: no such setting (one of host, format"),
        ("host = ", "is not TOML: Invalid value"),
        ("host = 5", "'5' is not an IP address or host name"),
        ("format = 5", "5 is not a format"),
        ("insecure = 'perhaps'", "'perhaps' is neither true nor false"),
    ],
)
def test_a_wrong_file_is_named(home: dict[str, str], content: str, message: str) -> None:
    """A message has the file and what is wrong in it."""
    path = _file(home, content)
    with pytest.raises(UsageError) as caught:
        CliSettings.load({}, home)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_the_environment_is_kept_and_not_shown(home: dict[str, str]) -> None:
    """Compose files are interpolated from the environment, which never prints."""
    settings = CliSettings.load({}, home | {"PASSWORD": "hunter2"})
    assert ("PASSWORD", "hunter2") in settings.environment
    assert "hunter2" not in repr(settings)
