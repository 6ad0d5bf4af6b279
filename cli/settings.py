"""Which settings does the command line have, and where do they come from?

    defaults < ~/.config/dray/cli.toml < DRAY_… variables < flags

A frozen dataclass, read with the standard library: the daemons' way (pydantic) costs more time to
import than a whole command may take.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.exits import UsageError
from dray.addresses import HostPort, parse_host_ports
from dray.errors import DrayError

if TYPE_CHECKING:
    from dray.tls import TlsFiles

__all__ = ["API_PORT", "CliSettings", "OutputFormat"]

API_PORT: Final = 7400  # where a scheduler is taken to serve when no port is given
DEFAULT_HOSTS: Final = (HostPort("127.0.0.1", API_PORT),)
CONFIG_BYTES_MAX: Final = 1_048_576
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off", ""})

# Setting, and the variable that sets it.
_VARIABLES: Final[Mapping[str, str]] = {
    "host": "DRAY_HOST",
    "format": "DRAY_FORMAT",
    "insecure": "DRAY_INSECURE",
    "tls_cert": "DRAY_TLS_CERT",
    "tls_key": "DRAY_TLS_KEY",
    "tls_ca": "DRAY_TLS_CA",
}


class OutputFormat(enum.Enum):
    """How results are written."""

    TABLE = "table"
    """For people; the layout may change."""
    JSON = "json"
    """For programs; names and types are kept."""
    YAML = "yaml"
    """For programs and people; names and types are kept."""


@dataclass(frozen=True, slots=True)
class CliSettings:
    """The settings of one command.

    Attributes:
        hosts: Schedulers to talk to, tried in turn; any serves the whole API.
        output_format: How results are written; None: what suits the verb.
        is_color: Whether output may have colours where it goes to a terminal.
        insecure: Whether other machines may be talked to without TLS.
        tls_cert: Certificate to show (PEM). With the next two, or none of them.
        tls_key: Its private key (PEM).
        tls_ca: Authority of the schedulers' certificates (PEM).
        environment: The whole environment, for the interpolation of Compose files.
    """

    hosts: tuple[HostPort, ...] = DEFAULT_HOSTS
    output_format: OutputFormat | None = None
    is_color: bool = True
    insecure: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    environment: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        """Return the settings without the environment, which may hold secrets."""
        return f"CliSettings(hosts={self.hosts}, output_format={self.output_format})"

    @property
    def tls_files(self) -> TlsFiles | None:
        """The files for `dray.tls`, or None for plain text."""
        if self.tls_cert is None or self.tls_key is None or self.tls_ca is None:
            return None
        from dray.tls import TlsFiles

        return TlsFiles(self.tls_cert, self.tls_key, self.tls_ca)

    @classmethod
    def load(
        cls, flags: Mapping[str, object], environment: Mapping[str, str] | None = None
    ) -> CliSettings:
        """Return the settings of this command.

        Args:
            flags: Parsed flags by name; others and those that are None do not count.
            environment: The environment; None: that of the process.

        Raises:
            UsageError: A value is wrong; the message says which and where it came from.
        """
        environ = os.environ if environment is None else environment
        values = _file_values(environ)
        for name, variable in _VARIABLES.items():
            if environ.get(variable, ""):
                values[name] = (environ[variable], variable)
        for name in _VARIABLES:
            if flags.get(name) is not None:
                values[name] = (flags[name], f"--{name}")
        return _checked(values, environ)


def _checked(values: Mapping[str, tuple[Any, str]], environ: Mapping[str, str]) -> CliSettings:
    files = {name: _path(values.get(name)) for name in ("tls_cert", "tls_key", "tls_ca")}
    if any(files.values()) and not all(files.values()):
        missing = ", ".join(name for name, path in files.items() if path is None)
        raise UsageError(
            f"TLS needs certificate, key and authority: {missing} is not set",
            hint="set DRAY_TLS_CERT, DRAY_TLS_KEY and DRAY_TLS_CA",
        )
    return CliSettings(
        hosts=_hosts(values.get("host")),
        output_format=_format(values.get("format")),
        is_color=not environ.get("NO_COLOR"),
        insecure=_switch("insecure", values.get("insecure")),
        environment=tuple(sorted(environ.items())),
        **files,
    )


def _hosts(given: tuple[Any, str] | None) -> tuple[HostPort, ...]:
    if given is None:
        return DEFAULT_HOSTS
    value, source = given
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    try:
        return parse_host_ports(text, API_PORT)
    except DrayError as error:
        raise UsageError(f"{source}: {error.message}", hint=error.hint) from error


def _format(given: tuple[Any, str] | None) -> OutputFormat | None:
    if given is None:
        return None
    value, source = given
    try:
        return OutputFormat(value)
    except ValueError:
        names = ", ".join(each.value for each in OutputFormat)
        raise UsageError(f"{source}: {value!r} is not a format", hint=f"one of {names}") from None


def _switch(name: str, given: tuple[Any, str] | None) -> bool:
    if given is None or isinstance(given[0], bool):
        return given is not None and given[0]
    value, source = given
    text = str(value).lower()
    if text not in _TRUE | _FALSE:
        raise UsageError(f"{source}: {value!r} is neither true nor false", hint=f"{name}=true")
    return text in _TRUE


def _path(given: tuple[Any, str] | None) -> Path | None:
    return Path(str(given[0])).expanduser().absolute() if given and given[0] else None


def _file_values(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Return what the file sets, with the file's path; nothing when there is no file."""
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "/")) / ".config")
    path = Path(environ.get("DRAY_CONFIG") or f"{home}/dray/cli.toml")
    try:
        with path.open("rb") as file:
            content = file.read(CONFIG_BYTES_MAX + 1)
    except FileNotFoundError:
        if environ.get("DRAY_CONFIG"):
            raise UsageError(f"DRAY_CONFIG: there is no file {path}") from None
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > CONFIG_BYTES_MAX:
        raise UsageError(f"{path} is larger than {CONFIG_BYTES_MAX} bytes")
    values = _parsed(path, content)
    unknown = sorted(values.keys() - _VARIABLES.keys())
    if unknown:
        known = ", ".join(_VARIABLES)
        raise UsageError(f"{path}: {', '.join(unknown)}: no such setting", hint=f"one of {known}")
    return {name: (value, str(path)) for name, value in values.items()}


def _parsed(path: Path, content: bytes) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
