"""Which volumes, configs and secrets does the project have?"""

from __future__ import annotations

from typing import Final

from dray.compose.place import Place
from dray.compose.project.networks import is_external
from dray.model import ConfigSpec, SecretSpec, VolumeSpec

__all__ = ["FILE_BYTES_MAX", "config", "secret", "volume"]

FILE_BYTES_MAX: Final = 512_000  # bytes: Docker's limit of a config or secret is 500 kB
_SOURCES: Final = ("file", "environment", "content")


def volume(key: str, place: Place, project: str) -> VolumeSpec:
    """Return one named volume of the project."""
    return VolumeSpec(
        key=key,
        name=place.at("name").text() or f"{project}_{key}",
        external=is_external(place),
        driver=place.at("driver").text(),
        driver_opts=place.at("driver_opts").pairs(),
        labels=place.at("labels").pairs(),
    )


def config(key: str, place: Place, project: str) -> ConfigSpec:
    """Return one config of the project with its content."""
    return ConfigSpec(
        key=key,
        name=place.at("name").text() or f"{project}_{key}",
        external=is_external(place),
        content=_content("config", place),
        labels=place.at("labels").pairs(),
        template_driver=_template_driver(place.at("template_driver")),
    )


def secret(key: str, place: Place, project: str) -> SecretSpec:
    """Return one secret of the project with its content."""
    return SecretSpec(
        key=key,
        name=place.at("name").text() or f"{project}_{key}",
        external=is_external(place),
        content=_content("secret", place),
        labels=place.at("labels").pairs(),
        driver=place.at("driver").text(),
        driver_opts=place.at("driver_opts").pairs(),
        template_driver=_template_driver(place.at("template_driver")),
    )


def _content(what: str, place: Place) -> bytes:
    """Return the content that the loader has read; what it could not read is a fault."""
    told = [key for key in _SOURCES if place.at(key).is_given]
    for key in _SOURCES:
        place.at(key).text()
    if is_external(place) or (what == "secret" and place.at("driver").is_given):
        return b""
    content = place.sheet.view.contents.get(place.path)
    if content is None:
        content = _inline(place.at("content"))
    if content is None:
        place.at(*told[:1]).fault(*_missing(place, told))
        return b""
    if len(content) > FILE_BYTES_MAX:
        place.fault(f"the {what} has {len(content)} bytes, {FILE_BYTES_MAX} are the most")
        return b""
    return content


def _inline(place: Place) -> bytes | None:
    return place.text().encode() if place.is_given else None


def _missing(place: Place, told: list[str]) -> tuple[str, str]:
    if not told:
        return "has no content", "add file:, environment: or content:, or external: true"
    named = place.at(told[0]).text()
    if told[0] == "environment":
        return f"the variable {named} is not set", f"set {named} where you run dray"
    return f"there is no file {named}", "make it, or name another one"


def _template_driver(place: Place) -> str:
    told = place.text()
    if told not in ("", "golang"):
        place.fault(f"{told!r} is not a template driver", "write golang")
    return told
