"""What does a project look like once it is normalised? The shape that the official tool prints.

Loading it again gives the same project and the same shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from dray.model import ContainerSpec, ImageOptions, ProjectSpec, ServiceSpec
from dray.units import format_cpus, format_duration

__all__ = ["project_config"]

_Value: TypeAlias = "str | int | list[_Value] | dict[str, _Value] | None"
_Write: TypeAlias = Callable[[str], _Value]

_DEFAULTS = ContainerSpec(ImageOptions(""))


def project_config(project: ProjectSpec, interpolate: bool) -> dict[str, object]:
    """Return a project as plain dicts, lists and scalars, without what was not said.

    Args:
        project: The project.
        interpolate: Whether it is to be read with variables replaced, so that `$` is written `$$`.
    """
    write: _Write = (lambda text: text.replace("$", "$$")) if interpolate else (lambda text: text)
    services = {service.name: _service(service, write) for service in project.services}
    return {"name": project.name, "services": services}


def _service(service: ServiceSpec, write: _Write) -> dict[str, _Value]:
    container = service.task.container
    variables: dict[str, _Value] = {
        variable.name: None if variable.value is None else write(variable.value)
        for variable in container.environment
    }
    shown: dict[str, _Value] = {
        "command": _words(container.command, write),
        "deploy": _deploy(service, write),
        "entrypoint": _words(container.entrypoint, write),
        "environment": variables or None,
        "hostname": None if container.hostname is None else write(container.hostname),
        "image": write(container.image.reference),
        "labels": {key: write(value) for key, value in container.labels} or None,
        "stop_signal": write(container.stop_signal) or None,
        "user": write(container.user) or None,
        "working_dir": write(container.working_dir) or None,
    }
    if container.stop_grace_s != _DEFAULTS.stop_grace_s:
        shown["stop_grace_period"] = format_duration(container.stop_grace_s)
    return {key: value for key, value in sorted(shown.items()) if value is not None}


def _words(words: tuple[str, ...] | None, write: _Write) -> _Value:
    """Return a command; the empty one clears the image's, None keeps it."""
    return None if words is None else [write(word) for word in words]


def _deploy(service: ServiceSpec, write: _Write) -> dict[str, _Value]:
    reservations = service.task.reservations
    amounts: dict[str, _Value] = {}
    if reservations.cpu_millis:
        amounts["cpus"] = format_cpus(reservations.cpu_millis)
    if reservations.memory_bytes:
        amounts["memory"] = str(reservations.memory_bytes)
    deploy: dict[str, _Value] = {}
    if service.labels:
        deploy["labels"] = {key: write(value) for key, value in service.labels}
    deploy["replicas"] = service.mode.replicas
    if amounts:
        deploy["resources"] = {"reservations": amounts}
    return deploy
