"""What makes a service's container: image, command, environment, identity, security and logging?"""

from __future__ import annotations

import re
from typing import Final

from dray.compose.place import Place
from dray.compose.project.health import environment, healthcheck, hooks
from dray.compose.project.limits import devices, limits
from dray.compose.project.mounts import file_mounts, mounts
from dray.model import (
    ContainerSpec,
    CredentialSpec,
    EnvVar,
    ImageOptions,
    Logging,
    PullPolicy,
    Security,
)

__all__ = ["container", "default_image"]

STOP_GRACE_S: Final = 10.0  # Docker's and Compose's default
_PULL_POLICIES: Final = {
    "": PullPolicy.MISSING,
    "missing": PullPolicy.MISSING,
    "if_not_present": PullPolicy.MISSING,
    "always": PullPolicy.ALWAYS,
    "never": PullPolicy.NEVER,
    # What the client built and pushed is a new reference each time: fetched when it is not there.
    "build": PullPolicy.MISSING,
}
_REFRESH_AFTER: Final = {"refresh": "1d", "daily": "1d", "weekly": "1w"}
_SECURITY_KEYS: Final = frozenset(
    {
        "privileged",
        "read_only",
        "cap_add",
        "cap_drop",
        "security_opt",
        "userns_mode",
        "pid",
        "ipc",
        "uts",
        "cgroup",
        "cgroup_parent",
        "device_cgroup_rules",
        "sysctls",
        "use_api_socket",
        "credential_spec",
    }
)
_SIGNAL: Final = re.compile(r"(SIG)?[A-Z][A-Z0-9+-]{1,15}|[1-9][0-9]?")


def default_image(project: str, service: str) -> str:
    """Return how Compose names the image of a service that is only built."""
    return f"{project}-{service}"


def container(service: Place, project: str) -> ContainerSpec:
    """Return the container of one service."""
    name = service.name
    return ContainerSpec(
        image=_image(service, default_image(project, name)),
        entrypoint=service.at("entrypoint").maybe_texts(),
        command=service.at("command").maybe_texts(),
        environment=_service_environment(service),
        user=service.at("user").text(),
        group_add=service.at("group_add").texts(),
        working_dir=service.at("working_dir").text(),
        hostname=service.at("hostname").text() or None,
        domainname=service.at("domainname").text(),
        labels=service.at("labels").pairs(),
        annotations=service.at("annotations").pairs(),
        init=service.at("init").maybe_flag(),
        tty=service.at("tty").flag(),
        stdin_open=service.at("stdin_open").flag(),
        stop_signal=_stop_signal(service.at("stop_signal")),
        stop_grace_s=service.at("stop_grace_period").duration(STOP_GRACE_S),
        mounts=mounts(service),
        configs=file_mounts(service.at("configs"), "/"),
        secrets=file_mounts(service.at("secrets"), "/run/secrets/"),
        devices=devices(service.at("devices")),
        healthcheck=healthcheck(service.at("healthcheck")),
        post_start=hooks(service.at("post_start")),
        pre_stop=hooks(service.at("pre_stop")),
        logging=_logging(service.at("logging")),
        dns=service.at("dns").texts(),
        dns_search=service.at("dns_search").texts(),
        dns_opt=service.at("dns_opt").texts(),
        extra_hosts=_extra_hosts(service.at("extra_hosts")),
        security=_security(service),
        limits=limits(service),
        runtime=service.at("runtime").text(),
        isolation=service.at("isolation").text(),
    )


def _service_environment(service: Place) -> tuple[EnvVar, ...]:
    """Return what the files of `env_file` say, and `environment` over it."""
    service.at("env_file").mark()  # their content comes with the view
    told = service.sheet.view.environments.get(service.name, {})
    values = dict(told) | {
        variable.name: variable.value for variable in environment(service.at("environment"))
    }
    return tuple(EnvVar(name, value) for name, value in sorted(values.items()))


def _image(service: Place, default: str) -> ImageOptions:
    policy, refresh_after_s = _pull_policy(service.at("pull_policy"))
    after = service.at("pull_refresh_after")
    if after.is_given:
        policy, refresh_after_s = PullPolicy.REFRESH, after.duration()
    return ImageOptions(
        reference=service.at("image").text() or default,
        platform=service.at("platform").text(),
        pull_policy=policy,
        pull_refresh_after_s=refresh_after_s,
    )


def _pull_policy(place: Place) -> tuple[PullPolicy, float]:
    told = place.text()
    if (policy := _PULL_POLICIES.get(told)) is not None:
        return policy, 0.0
    age = _REFRESH_AFTER.get(told, told.removeprefix("every_"))
    if told in _REFRESH_AFTER or told.startswith("every_"):
        after = place.read_as(age).duration()
        return PullPolicy.REFRESH, after
    place.fault(
        f"{told!r} is not a pull policy",
        "write always, missing, never, daily, weekly, every_12h or build",
    )
    return PullPolicy.MISSING, 0.0


def _stop_signal(place: Place) -> str:
    told = place.text()
    if told and _SIGNAL.fullmatch(told) is None:
        place.fault(f"{told!r} is not a signal", "write it as SIGTERM or 15")
    return told


def _extra_hosts(place: Place) -> tuple[tuple[str, str], ...]:
    """Return (name, address) of `name=address`, `name:address` or a mapping."""
    if not isinstance(place.value, list):
        return tuple(
            (name, address)
            for name, told in place.entries()
            for address in (told.texts() if isinstance(told.value, list) else (told.text(),))
        )
    pairs: list[tuple[str, str]] = []
    for item in place.items():
        text = item.text()
        name, separator, address = text.partition("=" if "=" in text else ":")
        if not separator:
            item.fault(f"{text!r} names no address", "write it as name=address")
            continue
        pairs.append((name, address.removeprefix("[").removesuffix("]")))
    return tuple(pairs)


def _logging(place: Place) -> Logging:
    return Logging(place.at("driver").text(), place.at("options").pairs())


def _security(service: Place) -> Security:
    if not service.has_any(_SECURITY_KEYS):
        return Security()
    return Security(
        privileged=service.at("privileged").flag(),
        read_only=service.at("read_only").flag(),
        cap_add=service.at("cap_add").texts(),
        cap_drop=service.at("cap_drop").texts(),
        security_opt=service.at("security_opt").texts(),
        userns_mode=service.at("userns_mode").text(),
        pid_mode=service.at("pid").text(),
        ipc_mode=service.at("ipc").text(),
        uts_mode=service.at("uts").text(),
        cgroup_mode=service.at("cgroup").text(),
        cgroup_parent=service.at("cgroup_parent").text(),
        device_cgroup_rules=service.at("device_cgroup_rules").texts(),
        sysctls=service.at("sysctls").pairs(),
        use_api_socket=service.at("use_api_socket").flag(),
        credential_spec=_credential_spec(service.at("credential_spec")),
    )


def _credential_spec(place: Place) -> CredentialSpec | None:
    if not place.is_given:
        return None
    return CredentialSpec(
        config=place.at("config").text(),
        file=place.at("file").text(),
        registry=place.at("registry").text(),
    )
