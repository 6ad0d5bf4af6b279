"""What does `x-dray` say of a service, and of the project?

Read strictly: an unknown word, a value of the wrong type or out of bounds, and words that
contradict each other or the service are problems with a position.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from dray.compose.place import Path, Place
from dray.compose.xdray_table import LISTS_MAX, PROJECT_WORDS, SERVICE_WORDS, Kind, Word
from dray.errors import DrayError
from dray.model import (
    GPU_MILLIS_WHOLE,
    Affinity,
    AffinityTarget,
    Autoscale,
    GpuRequest,
    PackingPolicy,
    ResourceReservations,
    ServiceExtensions,
    SessionAffinity,
    StringMap,
    TaintEffect,
    Toleration,
    VolumeLoss,
)
from dray.units import parse_bytes

__all__ = [
    "KEY",
    "ProjectExtensions",
    "check",
    "cron_problem",
    "project_extensions",
    "reservations",
    "service_extensions",
    "suggestion",
]

KEY: Final = "x-dray"
_MONTHS: Final = (
    *("jan", "feb", "mar", "apr", "may", "jun"),
    *("jul", "aug", "sep", "oct", "nov", "dec"),
)
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_CRON_FIELDS: Final = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
_CRON_NAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_CRON_LENGTH_MAX: Final = 256
_NUMBER: Final = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")
_POLICIES: Final = {"binpack": PackingPolicy.BINPACK, "spread": PackingPolicy.SPREAD}
_EFFECTS: Final = {
    "": TaintEffect.NO_SCHEDULE,
    "no_schedule": TaintEffect.NO_SCHEDULE,
    "no_execute": TaintEffect.NO_EXECUTE,
}
_TARGETS: Final = {
    "service": AffinityTarget.SERVICE,
    "service_label": AffinityTarget.SERVICE_LABEL,
    "node_label": AffinityTarget.NODE_LABEL,
}


@dataclass(frozen=True, slots=True)
class ProjectExtensions:
    """`x-dray` of the project: how it is packed, whether all of it or nothing, its labels."""

    policy: PackingPolicy = PackingPolicy.INHERIT
    gang: bool = False
    labels: StringMap = ()


def project_extensions(place: Place) -> ProjectExtensions:
    """Return what `x-dray` at the top of the file says."""
    place.mark()
    if not check(place, PROJECT_WORDS):
        return ProjectExtensions()
    return ProjectExtensions(
        policy=_POLICIES.get(place.at("policy").text(), PackingPolicy.INHERIT),
        gang=place.at("gang").flag(),
        labels=place.at("labels").pairs(),
    )


def service_extensions(service: Place) -> ServiceExtensions:
    """Return what `x-dray` of a service says; nothing of it when a part is wrong."""
    place = service.at(KEY)
    place.mark()
    if not place.is_given or not check(place, SERVICE_WORDS):
        return ServiceExtensions()
    schedule, timezone = _schedule(place.at("schedule"))
    extensions = ServiceExtensions(
        singleton=place.at("singleton").flag(),
        priority=place.at("priority").whole(),
        preempt=place.at("preempt").flag(),
        policy=_POLICIES.get(place.at("policy").text(), PackingPolicy.INHERIT),
        affinities=(
            *_affinities(place.at("affinity"), is_anti=False),
            *_affinities(place.at("anti_affinity"), is_anti=True),
        ),
        tolerations=tuple(_toleration(item) for item in place.at("tolerations").items()),
        volume_loss=VolumeLoss[(place.at("volume_loss").text() or "wait").upper()],
        session_affinity=SessionAffinity[(place.at("session_affinity").text() or "none").upper()],
        schedule=schedule,
        schedule_timezone=timezone,
        unavailable_max=place.at("unavailable_max").maybe_whole(),
        autoscale=_autoscale(place.at("autoscale")),
    )
    _check_together(service, place, extensions)
    return extensions


def reservations(service: Place, told: ResourceReservations) -> ResourceReservations:
    """Return the reservations with what `x-dray` adds: disk, and which GPUs.

    To be called after `service_extensions`, which has checked the words; nothing is added when one
    is wrong.
    """
    place = service.at(KEY)
    if not place.is_given or any(_is_below(path, place.path) for path in place.sheet.noted):
        return told
    disk, gpu = place.at("disk"), place.at("gpu")
    result = replace(told, disk_bytes=_size(disk) or 0) if disk.is_given else told
    if not gpu.is_given:
        return result
    known = told.gpu.count if told.gpu is not None else None
    count = gpu.at("count").whole(known or 1)
    if known is not None and count != known:
        gpu.at("count").problem(f"gpus and devices ask for {known}", "keep one of them")
    fraction = gpu.at("fraction")
    millis = round(fraction.ratio(1.0) * GPU_MILLIS_WHOLE)
    if count > 1 and millis < GPU_MILLIS_WHOLE:
        fraction.problem("a part of a GPU is a part of one", "ask for one GPU, or for whole ones")
    return replace(result, gpu=GpuRequest(count, millis, gpu.at("models").texts()))


def _is_below(path: Path, above: Path) -> bool:
    return path[: len(above)] == above


# ---- the words -----------------------------------------------------------------------------------


def check(place: Place, words: tuple[Word, ...]) -> bool:
    """Return whether a mapping holds only these words with values they take; note what is wrong."""
    before = len(place.sheet.problems)
    if not place.is_given:
        return True
    if not isinstance(place.value, Mapping):
        place.problem("must be a mapping")
        return False
    known = {word.name: word for word in words}
    for key, value in place.entries():
        if place.sheet.is_full:
            return False  # what to suggest takes time to find
        word = known.get(key)
        if word is None:
            value.problem("is not a word of x-dray", suggestion(key, known))
        elif value.is_given:
            _check_value(value, word)
        else:
            value.problem("has no value", "write one, or remove the line")
    for word in words:
        if word.required and not place.at(word.name).is_given:
            place.problem(f"has no {word.name}", word.means)
    return len(place.sheet.problems) == before


def suggestion(key: str, known: Mapping[str, object]) -> str:
    """Return "did you mean …?", or which words there are."""
    near = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else "there are " + ", ".join(known)


def _check_value(place: Place, word: Word) -> None:
    value = place.value
    match word.kind:
        case Kind.FLAG:
            if not isinstance(value, bool) and value not in ("true", "false"):
                place.problem(f"must be true or false, not {value!r}")
        case Kind.WHOLE | Kind.NUMBER:
            _check_number(place, word)
        case Kind.CHOICE:
            if value not in word.choices:
                place.problem(f"{value!r} is not a choice", f"write {' or '.join(word.choices)}")
        case Kind.TEXT:
            if not isinstance(value, str) or not value:
                place.problem(f"must be text, not {value!r}")
        case Kind.SIZE:
            _size(place)
        case Kind.TEXTS:
            _check_texts(place)
        case Kind.LABELS:
            _check_labels(place)
        case Kind.MAPPING:
            check(place, word.words)
        case Kind.TEXT_OR_MAPPING:
            if isinstance(value, Mapping):
                check(place, word.words)
            elif not isinstance(value, str):
                place.problem(f"must be text or a mapping, not {value!r}")
        case Kind.RULES:
            _check_rules(place, word)


def _check_number(place: Place, word: Word) -> None:
    value = _interpolated(place.value)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole and (word.kind is Kind.WHOLE or not isinstance(value, float)):
        kind = "a whole number" if word.kind is Kind.WHOLE else "a number"
        place.problem(f"must be {kind}, not {place.value!r}")
    elif not word.low <= value <= word.high:  # type: ignore[operator]
        place.problem(f"{value} is outside {word.low:g} to {word.high:g}")


def _interpolated(value: object) -> object:
    """Return the number of a text: what a variable is replaced by is always text."""
    if not isinstance(value, str) or _NUMBER.fullmatch(value) is None:
        return value
    return float(value) if "." in value else int(value)


def _size(place: Place) -> int | None:
    value = place.value
    if isinstance(value, bool) or not isinstance(value, int | str):
        place.problem(f"must be a size, not {value!r}", "write it as 512m, 1.5g or 1024")
        return None
    try:
        return parse_bytes(value)
    except DrayError as error:
        place.problem(error.message, error.hint)
        return None


def _check_texts(place: Place) -> None:
    if not isinstance(place.value, list):
        place.problem("must be a list")
        return
    if len(place.value) > LISTS_MAX:
        place.problem(f"has {len(place.value)} entries, {LISTS_MAX} are the most")
    for item in place.items():
        if not isinstance(item.value, str) or not item.value:
            item.problem(f"must be text, not {item.value!r}")


def _check_labels(place: Place) -> None:
    if not isinstance(place.value, Mapping):
        place.problem("must be a mapping")
        return
    for _, value in place.entries():
        if not isinstance(value.value, str | int | float):
            value.problem(f"must be text, not {value.value!r}")


def _check_rules(place: Place, word: Word) -> None:
    if not isinstance(place.value, list):
        place.problem("must be a list", f"write {word.name}: [{place.value}]"[:80])
        return
    if len(place.value) > LISTS_MAX:
        place.problem(f"has {len(place.value)} entries, {LISTS_MAX} are the most")
    for item in place.items():
        if isinstance(item.value, Mapping):
            check(item, word.words)
        elif not isinstance(item.value, str) or not item.value:
            item.problem(f"must be text or a mapping, not {item.value!r}")


# ---- their values --------------------------------------------------------------------------------


def _affinities(place: Place, *, is_anti: bool) -> list[Affinity]:
    found = [_affinity(item, is_anti=is_anti) for item in place.items()]
    return [each for each in found if each is not None]


def _affinity(place: Place, *, is_anti: bool) -> Affinity | None:
    if isinstance(place.value, str):
        return Affinity(AffinityTarget.SERVICE, place.text(), anti=is_anti)
    named = [word for word in _TARGETS if place.at(word).is_given]
    if len(named) != 1:
        told = " and ".join(named) or "nothing"
        place.problem(f"names {told}", f"name one of {', '.join(_TARGETS)}")
        return None
    target = _TARGETS[named[0]]
    key, value = place.at(named[0]).text(), ""
    if target is not AffinityTarget.SERVICE:
        key, equals, value = key.partition("=")
        if not (key and equals and value):
            place.at(named[0]).problem("is not a label with a value", "write it as key=value")
            return None
    return Affinity(
        target=target,
        key=key,
        value=value,
        anti=is_anti,
        required=place.at("required").flag(),
        topology=place.at("topology").text(),
        weight=place.at("weight").whole(50),
    )


def _toleration(place: Place) -> Toleration:
    if isinstance(place.value, str):
        key, _, value = place.text().partition("=")
        return Toleration(key, value)
    effect = _EFFECTS[place.at("effect").text()]
    return Toleration(place.at("key").text(), place.at("value").text(), effect)


def _autoscale(place: Place) -> Autoscale | None:
    if not place.is_given:
        return None
    low, high = place.at("min").whole(), place.at("max").whole()
    if low > high:
        place.problem(f"min {low} is above max {high}")
    return Autoscale(low, high, place.at("cpu_percent").whole())


def _schedule(place: Place) -> tuple[str, str]:
    """Return five cron fields and the zone they are read in (empty: UTC)."""
    if not place.is_given:
        return "", ""
    is_text = isinstance(place.value, str)
    cron = place if is_text else place.at("cron")
    text = " ".join(_CRON_NAMES.get(cron.text().strip().lower(), cron.text()).split())
    wrong = cron_problem(text)
    if wrong:
        cron.problem(wrong, "write minute hour day month weekday, as in 30 4 * * mon-fri")
    zone = "" if is_text else place.at("timezone").text()
    if zone and _ZONE.fullmatch(zone) is None:
        place.at("timezone").problem(f"{zone!r} is not a time zone", "write it as Europe/Berlin")
    return text, "" if zone == "UTC" else zone


def cron_problem(text: str) -> str:
    """Return what is wrong with five cron fields; the empty text when nothing is."""
    if len(text) > _CRON_LENGTH_MAX:
        return f"has {len(text)} characters, {_CRON_LENGTH_MAX} are the most"
    fields = text.split()
    if len(fields) != len(_CRON_FIELDS):
        return f"{text!r} has {len(fields)} fields, and cron has five"
    for field, (name, low, high, names) in zip(fields, _CRON_FIELDS, strict=True):
        for part in field.split(","):
            if not _is_cron_part(part, low, high, names):
                return f"{part!r} is not a {name} ({low} to {high})"
    return ""


def _is_cron_part(part: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    """Return whether a part is `*`, `5`, `mon` or `1-5`, with a step (`*/15`) or without."""
    span, slash, step = part.partition("/")
    if slash and not (_is_number(step) and 1 <= int(step) <= high):
        return False
    if span == "*":
        return True
    first, dash, last = span.partition("-")
    ends = [_cron_value(first, low, names)] + ([_cron_value(last, low, names)] if dash else [])
    numbers = [end for end in ends if end is not None]
    return len(numbers) == len(ends) and low <= numbers[0] <= numbers[-1] <= high


def _cron_value(text: str, low: int, names: tuple[str, ...]) -> int | None:
    if text.lower() in names:
        return names.index(text.lower()) + low
    return int(text) if _is_number(text) else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 4


def _check_together(service: Place, place: Place, extensions: ServiceExtensions) -> None:
    """Note words that contradict each other or what Compose says of the service."""
    replicas = service.at("deploy", "replicas").value
    mode = service.at("deploy", "mode").value or "replicated"
    if extensions.singleton and isinstance(replicas, int) and replicas > 1:
        place.at("singleton").problem(
            f"a singleton has one copy, and deploy.replicas is {replicas}", "write replicas: 1"
        )
    if extensions.singleton and str(mode).startswith("global"):
        place.at("singleton").problem(f"a singleton is not {mode}", "remove deploy.mode")
    if extensions.autoscale is not None:
        if mode != "replicated" or extensions.schedule:
            place.at("autoscale").problem("only a replicated service is scaled")
        if extensions.singleton:
            place.at("autoscale").problem("a singleton is not scaled", "remove one of them")
    if extensions.preempt and not place.at("priority").is_given:
        place.at("preempt").problem("displaces lower priorities, and has none", "add priority:")
