"""How is a service's health tested, and which commands run beside its life?"""

from __future__ import annotations

from dray.compose.place import Place
from dray.model import EnvVar, Healthcheck, HealthcheckKind, Hook

__all__ = ["environment", "healthcheck", "hooks"]


def healthcheck(place: Place) -> Healthcheck | None:
    """Return the health check of a service; None: the image's own."""
    if not place.is_given:
        return None
    kind, command = _test(place)
    return Healthcheck(
        kind=kind,
        command=command,
        interval_s=place.at("interval").maybe_duration(),
        timeout_s=place.at("timeout").maybe_duration(),
        start_period_s=place.at("start_period").maybe_duration(),
        start_interval_s=place.at("start_interval").maybe_duration(),
        retries=_retries(place.at("retries")),
    )


def _test(place: Place) -> tuple[HealthcheckKind, tuple[str, ...]]:
    test = place.at("test")
    words = test.texts()
    if isinstance(test.value, str):
        words = ("CMD-SHELL", *words)
    if place.at("disable").flag():
        if words and words != ("NONE",):
            place.at("disable").fault("the check is disabled, and there is a test")
        return HealthcheckKind.DISABLED, ()
    if not words:
        return HealthcheckKind.INHERIT, ()
    first, *rest = words
    if first == "NONE":
        return HealthcheckKind.DISABLED, ()
    if first == "CMD" and rest:
        return HealthcheckKind.EXEC, tuple(rest)
    if first == "CMD-SHELL" and len(rest) == 1:
        return HealthcheckKind.SHELL, tuple(rest)
    if first == "CMD":
        test.fault("CMD is followed by no command")
    elif first == "CMD-SHELL":
        test.fault(f"CMD-SHELL is followed by {len(rest)} texts", "write the command as one text")
    else:
        test.fault(f"starts with {first!r}", "start it with CMD, CMD-SHELL or NONE")
    return HealthcheckKind.INHERIT, ()


def _retries(place: Place) -> int | None:
    retries = place.maybe_whole()
    if retries is not None and retries < 0:
        place.fault(f"{retries} is not a number of retries")
        return None
    return retries


def hooks(place: Place) -> tuple[Hook, ...]:
    """Return the commands of `post_start` or `pre_stop`, in order."""
    return tuple(_hook(item) for item in place.items())


def _hook(place: Place) -> Hook:
    command = place.at("command").texts()
    if not command:
        place.fault("has no command")
    return Hook(
        command=command,
        user=place.at("user").text(),
        privileged=place.at("privileged").flag(),
        working_dir=place.at("working_dir").text(),
        environment=environment(place.at("environment")),
    )


def environment(place: Place) -> tuple[EnvVar, ...]:
    """Return the variables of an `environment`; null removes one that the image sets."""
    if isinstance(place.value, list):
        told = (text.partition("=") for text in place.texts())
        values = {name: value if equals else None for name, equals, value in told}
    else:
        values = {name: each.text() if each.is_given else None for name, each in place.entries()}
    place.mark()
    return tuple(EnvVar(name, value) for name, value in sorted(values.items()))
