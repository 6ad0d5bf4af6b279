"""How does one entry of `services:` become a `ServiceSpec`?"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from dray.compose import xdray
from dray.compose.place import Place
from dray.compose.project.container import container
from dray.compose.project.deploy import endpoint_mode, mode, placement, restart, update
from dray.compose.project.limits import reservations
from dray.compose.project.networks import attachments, links, network_mode, ports
from dray.errors import DrayError
from dray.model import (
    Dependency,
    DependencyCondition,
    NetworkAttachment,
    ServiceModeKind,
    ServiceSpec,
    TaskTemplate,
)
from dray.names import check_service_name

__all__ = ["service_spec"]

_JOBS: Final = (ServiceModeKind.REPLICATED_JOB, ServiceModeKind.GLOBAL_JOB)
_READ_BY_LOADER: Final = ("extends", "profiles", "label_file", "env_file")
_OWN_LABELS: Final = "dray."
_CONDITIONS: Final = {
    "": DependencyCondition.STARTED,
    "service_started": DependencyCondition.STARTED,
    "service_healthy": DependencyCondition.HEALTHY,
    "service_completed_successfully": DependencyCondition.COMPLETED,
}


def service_spec(place: Place, project: str) -> ServiceSpec:
    """Return one service as the cluster stores it; what is wrong is noted in the place's sheet."""
    name = place.name
    try:
        check_service_name(name)
    except DrayError as error:
        place.fault(error.message, error.hint)
    for key in _READ_BY_LOADER:
        place.at(key).mark()
    extensions = xdray.service_extensions(place)
    service_mode = mode(place, is_scheduled=bool(extensions.schedule))
    return ServiceSpec(
        name=name,
        task=_task(place, project, is_job=service_mode.kind in _JOBS),
        mode=service_mode,
        placement=placement(place),
        update=update(place.at("deploy", "update_config")),
        rollback=update(place.at("deploy", "rollback_config"), is_rollback=True),
        endpoint_mode=endpoint_mode(place.at("deploy", "endpoint_mode")),
        ports=ports(place),
        depends_on=tuple(_dependency(*each) for each in place.at("depends_on").entries()),
        labels=place.at("deploy", "labels").pairs(),
        dray=extensions,
    )


def _task(place: Place, project: str, *, is_job: bool) -> TaskTemplate:
    stack, target = network_mode(place)
    for key in ("labels", "annotations"):
        for label, value in place.at(key).entries():
            if label.startswith(_OWN_LABELS):
                value.fault(f"names that start with {_OWN_LABELS} are dray's own", "rename it")
    return TaskTemplate(
        container=container(place, project),
        reservations=xdray.reservations(place, reservations(place)),
        restart=restart(place, is_job=is_job),
        networks=_with_mac_address(place.at("mac_address"), attachments(place)),
        network_mode=stack,
        network_mode_target=target,
        container_name=place.at("container_name").text(),
        expose=place.at("expose").texts(),
        links=links(place.at("links")),
    )


def _with_mac_address(
    place: Place, found: tuple[NetworkAttachment, ...]
) -> tuple[NetworkAttachment, ...]:
    """Return the attachments with the service's own `mac_address` on the first network."""
    address = place.text()
    if not address:
        return found
    if not found:
        place.fault("the service is on no network", "remove it")
        return found
    first = min(found, key=lambda each: (-each.priority, each.network))
    if first.mac_address and first.mac_address != address:
        place.fault(f"its network {first.network} has {first.mac_address}", "keep one of them")
        return found
    return tuple(replace(each, mac_address=address) if each is first else each for each in found)


def _dependency(name: str, place: Place) -> Dependency:
    told = place.at("condition").text()
    condition = _CONDITIONS.get(told)
    if condition is None:
        known = ", ".join(each for each in _CONDITIONS if each)
        place.at("condition").fault(f"{told!r} is no condition", f"write {known}")
    return Dependency(
        service=name,
        condition=condition or DependencyCondition.STARTED,
        restart=place.at("restart").flag(),
        required=place.at("required").flag(default=True),
    )
