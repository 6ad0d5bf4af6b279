"""Where do a daemon's settings come from, and what may they be?

One frozen object a program, built once from four sources, each overriding the ones before it:

    defaults < TOML file < DRAY_<PROGRAM>_… variables < flags

Nothing else reads the environment. Keys that no setting has are errors in every source, so that a
misspelt one never goes unnoticed. Every message names the setting, the value, where it came from
and what is allowed; all that is wrong is reported at once.

pydantic-settings checks types and bounds. Its own readers are not used: they cannot say which
source a bad value came from, read the environment of whoever merely constructs the class, and want
lists as JSON. The command line has settings of its own (`cli.settings`), without pydantic.
"""

from __future__ import annotations

import argparse
import difflib
import enum
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, NoReturn, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dray.addresses import (
    HostPort,
    ServiceUrl,
    parse_host,
    parse_host_port,
    parse_host_ports,
    parse_service_urls,
)
from dray.errors import DrayError, InvalidRequest
from dray.log import LogFormat, LogLevel
from dray.model import StringMap, string_map
from dray.tls import TlsFiles
from dray.units import format_bytes, format_duration, parse_bytes, parse_duration

__all__ = [
    "CONFIG_BYTES_MAX",
    "Address",
    "AddressAndPort",
    "AddressesAndPorts",
    "DaemonSettings",
    "DurationS",
    "EffectiveSetting",
    "FilePath",
    "Flag",
    "Labels",
    "SizeBytes",
    "Urls",
    "relation_error",
]

CONFIG_BYTES_MAX: Final = 1_048_576
LABELS_MAX: Final = 100  # labels of one node
_HIDDEN: Final = "<hidden>"


@dataclass(frozen=True, slots=True)
class Flag:
    """How a setting is written on the command line, where its name does not say.

    Attributes:
        name: The flag; empty: `--` and the setting's name with hyphens.
        metavar: What stands for the value in the help; empty: the name in capitals.
        is_repeated: Whether each use adds a value.
    """

    name: str = ""
    metavar: str = ""
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """One setting as it came out.

    Attributes:
        name: Its name, as the file has it.
        value: Its value as text, in the unit that suits it; secrets are hidden.
        source: "default", a file's path, a variable's name or a flag.
        doc: What it does.
    """

    name: str
    value: str
    source: str
    doc: str


def relation_error(fields: Iterable[str], text: str) -> PydanticCustomError:
    """Return what a validator raises when settings contradict each other.

    Args:
        fields: The settings; the message says where each came from.
        text: What is wrong with them together.
    """
    return PydanticCustomError("relation", "{text}", {"text": text, "fields": tuple(fields)})


def _reader(read: Callable[[Any], object]) -> Callable[[Any], object]:
    """Let pydantic see a `DrayError` as what it is: a value that does not do."""

    def checked(value: Any) -> object:
        try:
            return read(value)
        except DrayError as error:
            raise ValueError(str(error)) from error

    return checked


def _texts(value: object) -> str:
    """Return one text of a list of texts, or of a text."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)


def _duration_s(value: object) -> object:
    """Read "1m30s"; a plain number is a number of seconds, as the setting's name says."""
    text = value.strip() if isinstance(value, str) else ""
    return parse_duration(text) if text and not _is_number(text) else value


def _size_bytes(value: object) -> object:
    return parse_bytes(value.strip()) if isinstance(value, str) else value


def _path(value: object) -> Path:
    text = str(value)
    if not text.strip() or "\0" in text:
        raise InvalidRequest("a path must not be empty")
    return Path(text).absolute()


def _labels(value: object) -> StringMap:
    """Read a table, a list of "key=value", or such a list with commas."""
    if isinstance(value, Mapping):
        pairs = [(str(key), str(text)) for key, text in value.items()]
    else:
        parts = value.split(",") if isinstance(value, str) else _as_list(value)
        pairs = [_pair(str(part)) for part in parts if str(part).strip()]
    if len({key for key, _ in pairs}) != len(pairs):
        raise InvalidRequest("a label is there twice")
    if len(pairs) > LABELS_MAX:
        raise InvalidRequest(f"{len(pairs)} labels; {LABELS_MAX} are the most")
    return string_map(dict(pairs))


def _as_list(value: object) -> list[object]:
    if not isinstance(value, list | tuple):
        raise InvalidRequest("must be a table or a list of KEY=VALUE")
    # A `StringMap` is what an earlier reading left.
    return ["=".join(item) if isinstance(item, tuple) else item for item in value]


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.strip().partition("=")
    if not separator or not key:
        raise InvalidRequest(f"{text!r} is not KEY=VALUE")
    return key, value


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


def _address_and_port(value: object) -> HostPort:
    return value if isinstance(value, HostPort) else parse_host_port(str(value))


Address = Annotated[str, BeforeValidator(_reader(lambda value: parse_host(str(value))))]
"""An IP address or host name."""

AddressAndPort = Annotated[
    HostPort, PlainValidator(_reader(_address_and_port)), Flag(metavar="ADDR:PORT")
]
"""An address with its port."""

AddressesAndPorts = Annotated[
    tuple[HostPort, ...],
    PlainValidator(_reader(lambda value: parse_host_ports(_texts(value)))),
    Flag(metavar="ADDR:PORT[,…]"),
]
"""A list of addresses with their ports."""

Urls = Annotated[
    tuple[ServiceUrl, ...],
    PlainValidator(_reader(lambda value: parse_service_urls(_texts(value)))),
    Flag(metavar="URL[,URL…]"),
]
"""A list of http or https URLs of one service."""

DurationS = Annotated[
    float, BeforeValidator(_reader(_duration_s)), Field(allow_inf_nan=False), Flag(metavar="TIME")
]
"""Seconds; text may have a unit: "500ms"."""

SizeBytes = Annotated[int, BeforeValidator(_reader(_size_bytes)), Flag(metavar="SIZE")]
"""Bytes; text may have a unit: "64m"."""

FilePath = Annotated[Path, PlainValidator(_reader(_path)), Flag(metavar="PATH")]
"""A file or folder; a relative one is taken from the working directory at the start."""

Labels = Annotated[
    StringMap, PlainValidator(_reader(_labels)), Flag("--label", "K=V", is_repeated=True)
]
"""Keys and values."""


class DaemonSettings(BaseSettings):
    """What the daemons' settings share: the reading, the log and TLS.

    A subclass sets `program`; its fields are the settings. A field's `description` says what it
    does, the trade-off and the danger. Secrets (`SecretStr`) have no flag: other users of the
    machine see command lines.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=True)

    program: ClassVar[str] = ""
    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    log_level: LogLevel = Field(
        LogLevel.INFO,
        description="Least level of log lines: debug, info, warning or error.",
    )
    log_format: LogFormat = Field(
        LogFormat.AUTO,
        description="json, pretty (for people), or auto: pretty on a terminal, else json.",
    )
    tls_cert: FilePath | None = Field(
        None, description="Certificate of this daemon (PEM). With tls_key and tls_ca, or none."
    )
    tls_key: FilePath | None = Field(None, description="Private key of tls_cert (PEM).")
    tls_ca: FilePath | None = Field(
        None, description="Authority that the other side's certificate must come from (PEM)."
    )
    insecure: bool = Field(
        False,
        description="Allow gRPC without TLS beyond this machine. Danger: whoever reaches the port "
        "controls the cluster. Only for a network that you trust.",
    )

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        fields = ("tls_cert", "tls_key", "tls_ca")
        given = [getattr(self, field) is not None for field in fields]
        if any(given) and not all(given):
            raise relation_error(fields, "TLS needs certificate, key and authority, all three")
        return self

    @property
    def tls_files(self) -> TlsFiles | None:
        """The files for `dray.tls`, or None for plain text."""
        if self.tls_cert is None or self.tls_key is None or self.tls_ca is None:
            return None
        return TlsFiles(self.tls_cert, self.tls_key, self.tls_ca)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the constructor only; `load` gathers them."""
        return (init_settings,)

    @classmethod
    def load(
        cls,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        default_file: Path | None = None,
    ) -> Self:
        """Return the settings of this process.

        Args:
            arguments: The command line after the program's name.
            environment: The environment; None: that of the process.
            default_file: Read when no other file is named, if it exists; None:
                `/etc/dray/<program>.toml`.

        Raises:
            InvalidRequest: With everything that is wrong.
            SystemExit: After printing the help that `--help` asked for.
        """
        environ = os.environ if environment is None else environment
        flags = vars(cls._parser().parse_args(list(arguments)))
        variables = cls._read_variables(environ)
        named = flags.pop("config", None) or variables.pop("config", None)
        fallback = default_file or Path(f"/etc/dray/{cls.program}.toml")
        file = Path(named) if named else (fallback if fallback.is_file() else None)
        layers: list[tuple[Mapping[str, Any], Callable[[str], str]]] = [
            (cls._read_file(file) if file else {}, lambda _field: str(file)),
            (variables, cls.variable_of),
            (flags, cls.flag_of),
        ]
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for layer, source_of in layers:
            values |= layer
            sources |= {field: source_of(field) for field in layer}
        return cls._checked(values, sources)

    @classmethod
    def _checked(cls, values: dict[str, Any], sources: dict[str, str]) -> Self:
        try:
            settings = cls(**values)
        except ValidationError as error:
            raise _refused(cls, error, values, sources) from None
        settings._sources.update(sources)
        return settings

    def describe(self) -> tuple[EffectiveSetting, ...]:
        """Return every setting with its value and where it came from, secrets hidden."""
        return tuple(
            EffectiveSetting(
                name,
                _shown(name, getattr(self, name)),
                self._sources.get(name, "default"),
                field.description or "",
            )
            for name, field in type(self).model_fields.items()
        )

    @classmethod
    def variable_of(cls, field: str) -> str:
        """Return the environment variable of a setting."""
        return f"DRAY_{cls.program}_{field}".upper()

    @classmethod
    def flag_of(cls, field: str) -> str:
        """Return the flag of a setting."""
        return _flag(cls.model_fields[field]).name or "--" + field.replace("_", "-")

    @classmethod
    def _read_variables(cls, environ: Mapping[str, str]) -> dict[str, Any]:
        known = {cls.variable_of(field): field for field in (*cls.model_fields, "config")}
        prefix = cls.variable_of("")
        given = [name for name in environ if name.startswith(prefix)]
        _refuse_unknown(given, known, "the environment")
        return {known[name]: environ[name] for name in given}

    @classmethod
    def _read_file(cls, path: Path) -> dict[str, Any]:
        try:
            with path.open("rb") as file:
                content = file.read(CONFIG_BYTES_MAX + 1)
        except OSError as error:
            raise InvalidRequest(f"cannot read {path}: {error.strerror}") from error
        if len(content) > CONFIG_BYTES_MAX:
            raise InvalidRequest(f"{path} is larger than {CONFIG_BYTES_MAX} bytes")
        try:
            values = tomllib.loads(content.decode("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{path} is not TOML: {error}") from error
        _refuse_unknown(values, cls.model_fields, str(path))
        return values

    @classmethod
    def _parser(cls) -> argparse.ArgumentParser:
        parser = _Parser(
            prog=f"dray {cls.program} run",
            description=(cls.__doc__ or "").partition("\n")[0],
            epilog=f"Every setting may also be in the TOML file, or in a variable such as "
            f"{cls.variable_of('log_level')}. Flags win over variables, they over the file.",
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )
        parser.add_argument(
            "--config", metavar="FILE", help=f"TOML file; default /etc/dray/{cls.program}.toml"
        )
        for name, field in cls.model_fields.items():
            if not _is_secret(field):
                _add_flag(parser, cls.flag_of(name), name, field)
        return parser


class _Parser(argparse.ArgumentParser):
    """A parser that raises what is wrong instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the command line."""
        raise InvalidRequest(message, hint=f"see `{self.prog} --help`")


def _add_flag(parser: argparse.ArgumentParser, flag: str, name: str, field: FieldInfo) -> None:
    given = _flag(field)
    text = (field.description or "").replace("%", "%%")
    if field.is_required():
        text += " Required."
    elif field.default not in (None, (), False, ""):
        text += f" Default {_shown(name, field.default)}."
    if field.annotation is bool:
        parser.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, help=text)
        return
    action = "append" if given.is_repeated else "store"
    metavar = given.metavar or name.rpartition("_")[2].upper()
    parser.add_argument(flag, dest=name, action=action, metavar=metavar, help=text)


def _flag(field: FieldInfo) -> Flag:
    """Return the field's own `Flag`, else the one of its type."""
    flags = [item for item in field.metadata if isinstance(item, Flag)]
    own = Flag()
    for flag in flags:  # the type's comes first
        own = Flag(
            flag.name or own.name, flag.metavar or own.metavar, flag.is_repeated or own.is_repeated
        )
    return own


def _is_secret(field: FieldInfo) -> bool:
    return "SecretStr" in str(field.annotation)


def _refuse_unknown(given: Iterable[str], known: Iterable[str], source: str) -> None:
    names = list(known)
    unknown = [name for name in given if name not in names]
    if not unknown:
        return
    close = difflib.get_close_matches(unknown[0], names, n=1)
    raise InvalidRequest(
        f"{source}: {', '.join(sorted(unknown))}: no such setting",
        hint=f"did you mean {close[0]}?" if close else "see --help for all settings",
        context={"field": unknown[0]},
    )


def _refused(
    settings: type[DaemonSettings],
    error: ValidationError,
    values: Mapping[str, object],
    sources: Mapping[str, str],
) -> InvalidRequest:
    """Return what is wrong, one phrase for each setting, in the order of the settings."""
    problems: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        field = str(detail["loc"][0]) if detail["loc"] else ""
        problems.setdefault(field, _problem(settings, field, detail, values.get(field), sources))
    return InvalidRequest("; ".join(problems.values()), context={"field": ",".join(problems)})


def _problem(
    settings: type[DaemonSettings],
    field: str,
    detail: ErrorDetails,
    given: object,
    sources: Mapping[str, str],
) -> str:
    context = detail.get("ctx", {})
    if detail["type"] == "relation":
        places = [f"{name} from {sources.get(name, 'default')}" for name in context["fields"]]
        return f"{context['text']} ({', '.join(places)})"
    if detail["type"] == "missing":
        return f"{field} is not set: give {settings.flag_of(field)}, {settings.variable_of(field)}"
    is_hidden = _is_secret(settings.model_fields[field])
    value = _HIDDEN if is_hidden else _shortened(repr(given))
    return f"{field}: {_reason(field, detail)} ({value} from {sources.get(field, 'default')})"


def _reason(field: str, detail: ErrorDetails) -> str:
    """Return what is wrong with a value, with the bound in the setting's own unit."""
    context = detail.get("ctx", {})
    words = {"ge": "at least", "le": "at most", "gt": "more than", "lt": "less than"}
    for key, word in words.items():
        if key in context:
            return f"must be {word} {_shown(field, context[key])}"
    if "error" in context:
        return str(context["error"])
    message = detail["msg"]
    return message[:1].lower() + message[1:]


def _shortened(text: str) -> str:
    return text if len(text) <= 100 else text[:99] + "…"


def _shown(name: str, value: object) -> str:
    """Return a value as text; what its name ends with says which unit it has."""
    match value:
        case None:
            return ""
        case SecretStr():
            return _HIDDEN
        case bool():
            return "true" if value else "false"
        case enum.Enum():
            return str(value.value)
        case int() | float() if name.endswith("_s"):
            return format_duration(float(value))
        case int() if name.endswith("_bytes"):
            return format_bytes(value)
        case tuple():
            return ",".join("=".join(i) if isinstance(i, tuple) else str(i) for i in value)
        case _:
            return str(value)
