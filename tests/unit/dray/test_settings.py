"""Do settings come from the right source, and does a wrong one say which, where and why?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dray.addresses import HostPort, ServiceUrl
from dray.errors import InvalidRequest
from dray.log import LogLevel
from dray.settings import DaemonSettings
from dray.tls import TlsFiles
from node.settings import NodeSettings
from scheduler.settings import SchedulerSettings

_SCHEDULER = (
    *("--etcd", "http://127.0.0.1:2379"),
    *("--listen", "127.0.0.1:7400"),
    *("--advertise", "127.0.0.1:7400"),
)
_NODE = ("--scheduler", "10.0.0.1:7400", "--name", "n1", "--advertise", "10.0.0.9")


def _scheduler(*arguments: str, **environment: str) -> SchedulerSettings:
    return SchedulerSettings.load([*_SCHEDULER, *arguments], environment)


def _node(*arguments: str, **environment: str) -> NodeSettings:
    return NodeSettings.load([*_NODE, *arguments], environment)


def _file(folder: Path, content: str) -> str:
    path = folder / "dray.toml"
    path.write_text(content)
    return str(path)


def test_the_flags_that_scripts_rely_on() -> None:
    """The fixed command lines of both daemons are read as they are written down."""
    line = "--etcd http://10.0.0.1:2379,http://10.0.0.2:2379 --listen 127.0.0.1:7400 "
    line += "--advertise 10.0.0.1:7400 --data /data"
    scheduler = SchedulerSettings.load(line.split(" "), {})
    assert scheduler.etcd == tuple(
        ServiceUrl(HostPort(host, 2379)) for host in ("10.0.0.1", "10.0.0.2")
    )
    assert scheduler.listen == HostPort("127.0.0.1", 7400)
    assert scheduler.advertise == HostPort("10.0.0.1", 7400)
    assert scheduler.data_dir == Path("/data")
    line = "--scheduler 10.0.0.1:7400,10.0.0.2:7400 --name n1 --advertise 10.0.0.9 --data /data "
    line += "--label zone=a --label disk=ssd"
    node = NodeSettings.load(line.split(" "), {})
    assert node.scheduler == (HostPort("10.0.0.1", 7400), HostPort("10.0.0.2", 7400))
    assert (node.name, node.advertise, node.data_dir) == ("n1", "10.0.0.9", Path("/data"))
    assert node.labels == (("disk", "ssd"), ("zone", "a"))


def test_later_sources_win(tmp_path: Path) -> None:
    """Defaults give way to the file, the file to variables, variables to flags, one by one."""
    file = _file(
        tmp_path, 'restart_wait_s = "1m"\ngossip_port = 1\ndocker_host = "unix:///a"\nname = "f"\n'
    )
    settings = NodeSettings.load(
        ["--config", file, *_NODE, "--gossip-port", "3"],
        {"DRAY_NODE_GOSSIP_PORT": "2", "DRAY_NODE_DOCKER_HOST": "unix:///b", "OTHER": "x"},
    )
    shown = {each.name: (each.value, each.source) for each in settings.describe()}
    assert shown["restart_wait_s"] == ("1m", file)
    assert shown["docker_host"] == ("unix:///b", "DRAY_NODE_DOCKER_HOST")
    assert shown["gossip_port"] == ("3", "--gossip-port")
    assert shown["name"] == ("n1", "--name")
    assert shown["log_level"] == ("info", "default")
    assert shown["scheduler"] == ("10.0.0.1:7400", "--scheduler")


def test_a_file_may_hold_everything(tmp_path: Path) -> None:
    """Lists, tables, numbers and times are read in TOML's own types as well."""
    file = _file(
        tmp_path,
        "\n".join(
            (
                'scheduler = ["10.0.0.1:7400", "[::1]:7400"]',
                'name = "n1"',
                'advertise = "10.0.0.9"',
                "restart_wait_s = 2.5",
                "insecure = true",
                'log_level = "debug"',
                "[labels]",
                'zone = "a,b"',
                "rack = 7",
            )
        ),
    )
    settings = NodeSettings.load([], {"DRAY_NODE_CONFIG": file})
    assert settings.scheduler[1] == HostPort("::1", 7400)
    assert (settings.restart_wait_s, settings.insecure) == (2.5, True)
    assert settings.log_level is LogLevel.DEBUG
    assert settings.labels == (("rack", "7"), ("zone", "a,b"))


def test_the_default_file_may_be_missing_and_a_named_one_may_not(tmp_path: Path) -> None:
    """Without a name the usual file is read if it is there; a named one must be."""
    usual = tmp_path / "usual.toml"
    assert NodeSettings.load(_NODE, {}, default_file=usual).gossip_port == 7401
    usual.write_text("gossip_port = 9\n")
    assert NodeSettings.load(_NODE, {}, default_file=usual).gossip_port == 9
    with pytest.raises(InvalidRequest, match=r"cannot read .*missing.toml: No such file"):
        _node("--config", str(tmp_path / "missing.toml"))


def test_flags_can_undo_a_switch() -> None:
    """What a variable switched on, a flag switches off."""
    assert _node(DRAY_NODE_INSECURE="1").insecure
    assert not _node("--no-insecure", DRAY_NODE_INSECURE="1").insecure


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ((), {"DRAY_NODE_GOSIP_PORT": "1"}, "DRAY_NODE_GOSIP_PORT: no such setting (did you mean"),
        (("--gosip-port", "1"), {}, "unrecognized arguments: --gosip-port 1"),
        (("--gossip", "1"), {}, "unrecognized arguments: --gossip 1"),
        (("--gossip-port",), {}, "--gossip-port: expected one argument"),
        (
            ("--gossip-port", "0"),
            {},
            "gossip_port: must be at least 1 ('0' from --gossip-port)",
        ),
        ((), {"DRAY_NODE_GOSSIP_PORT": "x"}, "('x' from DRAY_NODE_GOSSIP_PORT)"),
        (("--restart-wait-s", "11m"), {}, "restart_wait_s: must be at most 10m ('11m' from"),
        (("--restart-wait-s", "nan"), {}, "restart_wait_s: "),
        (("--restart-wait-s", "soon"), {}, "'soon' is not a duration"),
        (("--name", "N 1"), {}, "('n-1' would do) ('N 1' from --name)"),
        (("--advertise", "node1"), {}, "'node1' is not an IP address (advertise from --advertise)"),
        (("--advertise", "::"), {}, "nobody can connect to ::"),
        (("--scheduler", "10.0.0.1"), {}, "scheduler: '10.0.0.1' has no port"),
        (("--label", "zone"), {}, "labels: 'zone' is not KEY=VALUE"),
        (("--label", "a=1", "--label", "a=2"), {}, "labels: a label is there twice"),
        (("--docker-host", "tcp://x"), {}, "docker_host: "),
        (("--data", ""), {}, "data_dir: a path must not be empty ('' from --data)"),
        (("--log-level", "loud"), {}, "'debug', 'info', 'warning' or 'error' ('loud' from --log"),
        (("--insecure", "maybe"), {}, "unrecognized arguments: maybe"),
        ((), {"DRAY_NODE_INSECURE": "maybe"}, "('maybe' from DRAY_NODE_INSECURE)"),
        (
            ("--tls-cert", "/a"),
            {"DRAY_NODE_TLS_KEY": "/b"},
            "all three (tls_cert from --tls-cert, tls_key from DRAY_NODE_TLS_KEY, tls_ca from def",
        ),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named_with_its_source(
    arguments: tuple[str, ...], environment: dict[str, str], message: str
) -> None:
    """Each message has the setting, what is allowed, the value and where it came from."""
    with pytest.raises(InvalidRequest) as caught:
        _node(*arguments, **environment)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nmae = 'x'", "dray.toml: nmae: no such setting (did you mean name?)"),
        ("[node]\nname = 'x'", "dray.toml: node: no such setting"),
        ("name = ", "dray.toml is not TOML: Invalid value (at end of document)"),
        ("a = 1\nb = [", "is not TOML: "),
        ("gossip_port = 'x'", "gossip_port: input should be a valid integer"),
        ("gossip_port = 1.5", "gossip_port: input should be a valid integer"),
        ("scheduler = 5", "scheduler: '5' has no port"),
        ("labels = 5", "labels: must be a table or a list of KEY=VALUE (5 from "),
        ("restart_wait_s = inf", "restart_wait_s: "),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    """Unknown keys, bad syntax and wrong types in the file are told with the file."""
    with pytest.raises(InvalidRequest) as caught:
        NodeSettings.load(["--config", _file(tmp_path, content)], {"DRAY_NODE_NAME": "n1"})
    assert message in str(caught.value)
    assert "dray.toml" in str(caught.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    """What is missing and what is out of bounds come in one message, with how to give it."""
    with pytest.raises(InvalidRequest) as caught:
        SchedulerSettings.load(["--lease-ttl-s", "1s"], {})
    assert caught.value.message.split("; ") == [
        "etcd is not set: give --etcd, DRAY_SCHEDULER_ETCD",
        "listen is not set: give --listen, DRAY_SCHEDULER_LISTEN",
        "advertise is not set: give --advertise, DRAY_SCHEDULER_ADVERTISE",
        "lease_ttl_s: must be at least 2s ('1s' from --lease-ttl-s)",
    ]
    assert caught.value.context["field"] == "etcd,listen,advertise,lease_ttl_s"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--advertise", "0.0.0.0:7400"), "nobody can connect to 0.0.0.0:7400"),
        (("--advertise", "10.0.0.1:0"), "advertise needs the port"),
        (("--etcd", "https://127.0.0.1:2379"), "https URLs and etcd_ca go together"),
        (("--etcd-ca", "/ca"), "https URLs and etcd_ca go together"),
        (("--etcd-cert", "/c"), "etcd_cert and etcd_key go together"),
        (("--etcd-cert", "/c", "--etcd-key", "/k"), "etcd with TLS needs its authority, etcd_ca"),
        (("--etcd-user", "root"), "etcd_user and etcd_password go together"),
        (("--etcd-password", "x"), "unrecognized arguments: --etcd-password"),
    ],
)
def test_settings_of_the_scheduler_that_contradict(
    arguments: tuple[str, ...], message: str
) -> None:
    """What cannot hold together is refused before anything starts."""
    with pytest.raises(InvalidRequest) as caught:
        _scheduler(*arguments)
    assert message in str(caught.value)


def test_secrets_do_not_show() -> None:
    """A password is read, and neither described, printed nor echoed in an error."""
    variables = {"DRAY_SCHEDULER_ETCD_PASSWORD": "hunter2", "DRAY_SCHEDULER_ETCD_USER": "root"}
    settings = _scheduler(**variables)
    assert settings.etcd_password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings) + str(settings) + str(settings.describe())
    assert {each.name: each.value for each in settings.describe()}["etcd_password"] == "<hidden>"
    with pytest.raises(InvalidRequest) as caught:
        _scheduler("--lease-ttl-s", "1s", DRAY_SCHEDULER_ETCD_PASSWORD="hunter2")
    assert "hunter2" not in str(caught.value)


def test_tls_files_come_together() -> None:
    """Three files make mutual TLS, none makes plain text."""
    assert _node().tls_files is None
    settings = _node("--tls-cert", "/c", "--tls-key", "/k", "--tls-ca", "/a")
    assert settings.tls_files == TlsFiles(Path("/c"), Path("/k"), Path("/a"))


def test_settings_do_not_change_and_read_nothing_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The object is frozen, and constructing it looks at no environment."""
    monkeypatch.setenv("NAME", "evil")
    monkeypatch.setenv("GOSSIP_PORT", "9")
    with pytest.raises(ValidationError):
        NodeSettings()  # type: ignore[call-arg]
    settings = _node()
    assert settings.gossip_port == 7401
    with pytest.raises(ValidationError):
        settings.gossip_port = 1


@pytest.mark.parametrize("settings", [SchedulerSettings, NodeSettings])
def test_every_setting_is_explained(settings: type[DaemonSettings]) -> None:
    """Each has a sentence, and the help shows every flag with it."""
    text = settings._parser().format_help()
    flat = " ".join(text.split())
    for name, field in settings.model_fields.items():
        assert field.description
        assert field.description.endswith(".")
        if name != "etcd_password":
            assert settings.flag_of(name) in flat


def test_help_ends_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` prints and ends with 0, also while required flags are missing."""
    with pytest.raises(SystemExit) as caught:
        SchedulerSettings.load(["--help"], {})
    assert caught.value.code == 0
    assert "usage: dray scheduler run" in capsys.readouterr().out


@pytest.mark.parametrize("seconds", ["3", "3.0", " 3s ", "3000ms"])
def test_times_have_a_unit_or_the_one_of_their_name(seconds: str) -> None:
    """A plain number is in the unit that the setting's name ends with."""
    settings: Any = _node(DRAY_NODE_RESTART_WAIT_S=seconds)
    assert settings.restart_wait_s == 3.0
