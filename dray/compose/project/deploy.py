"""How many tasks of a service run, where, and how are they restarted and replaced?"""

from __future__ import annotations

import re
from typing import Final

from dray.compose.place import Place
from dray.model import (
    ConstraintOp,
    EndpointMode,
    FailureAction,
    Placement,
    PlacementConstraint,
    RestartCondition,
    RestartPolicy,
    ServiceMode,
    ServiceModeKind,
    UpdateOrder,
    UpdatePolicy,
)

__all__ = ["endpoint_mode", "mode", "placement", "restart", "update"]

REPLICAS_MAX: Final = 2_000_000  # tasks of one cluster: what the scheduler is built for
_MODES: Final = {
    "replicated": ServiceModeKind.REPLICATED,
    "global": ServiceModeKind.GLOBAL,
    "replicated-job": ServiceModeKind.REPLICATED_JOB,
    "global-job": ServiceModeKind.GLOBAL_JOB,
}
_GLOBAL: Final = (ServiceModeKind.GLOBAL, ServiceModeKind.GLOBAL_JOB)
_JOBS: Final = (ServiceModeKind.REPLICATED_JOB, ServiceModeKind.GLOBAL_JOB)
_ENDPOINT_MODES: Final = {
    "": EndpointMode.VIP,
    "vip": EndpointMode.VIP,
    "dnsrr": EndpointMode.DNSRR,
}
_CONDITIONS: Final = {
    "any": RestartCondition.ANY,
    "on-failure": RestartCondition.ON_FAILURE,
    "none": RestartCondition.NONE,
    "unless-stopped": RestartCondition.UNLESS_STOPPED,
}
_OLDER_CONDITIONS: Final = {
    "no": RestartCondition.NONE,
    "always": RestartCondition.ANY,
    "on-failure": RestartCondition.ON_FAILURE,
    "unless-stopped": RestartCondition.UNLESS_STOPPED,
}
_ACTIONS: Final = {
    "": FailureAction.PAUSE,
    "pause": FailureAction.PAUSE,
    "continue": FailureAction.CONTINUE,
    "rollback": FailureAction.ROLLBACK,
}
_ORDERS: Final = {
    "": UpdateOrder.STOP_FIRST,
    "stop-first": UpdateOrder.STOP_FIRST,
    "start-first": UpdateOrder.START_FIRST,
}
_CONSTRAINT: Final = re.compile(r"([^\s=!]+)\s*(==|!=)\s*(.*)")
_NODE_KEYS: Final = (
    "node.id",
    "node.hostname",
    "node.name",
    "node.role",
    "node.platform.os",
    "node.platform.arch",
)
_LABEL_PREFIX: Final = "node.labels."


def mode(service: Place, *, is_scheduled: bool = False) -> ServiceMode:
    """Return how the tasks of a service are counted; what `x-dray` schedules is a job."""
    place = service.at("deploy", "mode")
    told = place.text() or ("replicated-job" if is_scheduled else "replicated")
    kind = _MODES.get(told)
    if kind is None:
        place.fault(f"{told!r} is no mode", f"write {', '.join(_MODES)}")
        kind = ServiceModeKind.REPLICATED
    if is_scheduled and kind not in _JOBS:
        place.fault(
            f"a service with x-dray.schedule is a job, not {told}", "write mode: replicated-job"
        )
    replicas = _replicas(service)
    if kind in _GLOBAL:
        if replicas is not None:
            _replicas_place(service).fault(
                f"a {told} service has one task a node, and no number of replicas",
                "remove replicas, or write mode: replicated",
            )
        return ServiceMode(kind, replicas=0)
    return ServiceMode(kind, replicas=1 if replicas is None else replicas)


def _replicas_place(service: Place) -> Place:
    newer = service.at("deploy", "replicas")
    return newer if newer.is_given else service.at("scale")


def _replicas(service: Place) -> int | None:
    service.at("scale").maybe_whole()
    place = _replicas_place(service)
    replicas = place.maybe_whole()
    if replicas is not None and not 0 <= replicas <= REPLICAS_MAX:
        place.fault(f"{replicas} is not a number of replicas", f"0 to {REPLICAS_MAX} are possible")
        return 1
    return replicas


def endpoint_mode(place: Place) -> EndpointMode:
    """Return what the service's name answers."""
    told = place.text()
    if told not in _ENDPOINT_MODES:
        place.fault(f"{told!r} is no endpoint mode", "write vip or dnsrr")
    return _ENDPOINT_MODES.get(told, EndpointMode.VIP)


# ---- where --------------------------------------------------------------------------------------


def placement(service: Place) -> Placement:
    """Return where tasks may run."""
    place = service.at("deploy", "placement")
    constraints = [_constraint(item) for item in place.at("constraints").items()]
    spread = [_spread(item.at("spread")) for item in place.at("preferences").items()]
    per_node = place.at("max_replicas_per_node")
    replicas_max = per_node.whole()
    if replicas_max < 0:
        per_node.fault(f"{replicas_max} is not a number of replicas", "0 is no limit")
    return Placement(
        constraints=tuple(each for each in constraints if each is not None),
        spread_over=tuple(each for each in spread if each),
        replicas_per_node_max=max(replicas_max, 0),
    )


def _constraint(place: Place) -> PlacementConstraint | None:
    told = place.text()
    match = _CONSTRAINT.fullmatch(told.strip())
    if match is None:
        place.fault(f"{told!r} is not a constraint", "write it as node.labels.disk == ssd")
        return None
    key, sign, value = match.groups()
    if not is_node_attribute(key):
        place.fault(f"nodes have no attribute {key!r}", attribute_hint(key))
        return None
    if not value:
        place.fault(f"{told!r} compares with nothing", f"write it as {key} {sign} value")
        return None
    operator = ConstraintOp.EQUAL if sign == "==" else ConstraintOp.NOT_EQUAL
    return PlacementConstraint(key, operator, value)


def is_node_attribute(key: str) -> bool:
    """Return whether constraints and preferences can name it."""
    return key in _NODE_KEYS or (key.startswith(_LABEL_PREFIX) and key != _LABEL_PREFIX)


def attribute_hint(key: str) -> str:
    """Return which attributes there are, the likely one first."""
    for prefix in ("node.label.", "labels.", "label."):
        if key.startswith(prefix):
            return f"did you mean {_LABEL_PREFIX}{key.removeprefix(prefix)}?"
    if key.startswith("engine.labels."):
        label = key.removeprefix("engine.labels.")
        return f"give the nodes the label {label} and write {_LABEL_PREFIX}{label}"
    if key in ("node", "hostname", "id", "role"):
        return f"did you mean node.{'id' if key == 'node' else key}?"
    return "there are node.labels.…, " + ", ".join(_NODE_KEYS)


def _spread(place: Place) -> str:
    key = place.text()
    if not is_node_attribute(key):
        place.fault(f"nodes have no attribute {key!r}", attribute_hint(key))
        return ""
    return key


# ---- restart and update --------------------------------------------------------------------------


def restart(service: Place, *, is_job: bool) -> RestartPolicy:
    """Return the restart rule: `deploy.restart_policy`, else `restart`, else Swarm's default."""
    older = _older_restart(service.at("restart"))
    place = service.at("deploy", "restart_policy")
    default = RestartCondition.ON_FAILURE if is_job else RestartCondition.ANY
    if place.value is None:
        policy = older or RestartPolicy(default)
    else:
        policy = RestartPolicy(
            condition=_condition(place.at("condition"), default),
            delay_s=place.at("delay").duration(5.0),
            attempts_max=_attempts(place.at("max_attempts")),
            window_s=place.at("window").duration(),
        )
    endless = (RestartCondition.ANY, RestartCondition.UNLESS_STOPPED)
    if is_job and policy.condition in endless:
        told = place.at("condition") if place.is_given else service.at("restart")
        told.fault("a job that is always restarted never ends", "write on-failure or none")
    return policy


def _condition(place: Place, default: RestartCondition) -> RestartCondition:
    told = place.text()
    if not told:
        return default
    if told not in _CONDITIONS:
        place.fault(f"{told!r} is no condition", "write any, on-failure or none")
    return _CONDITIONS.get(told, default)


def _attempts(place: Place) -> int | None:
    attempts = place.maybe_whole()
    if attempts is not None and attempts < 0:
        place.fault(f"{attempts} is not a number of attempts")
        return None
    return attempts


def _older_restart(place: Place) -> RestartPolicy | None:
    told = "no" if place.value is False else place.text()
    if not told:
        place.mark()
        return None
    word, colon, count = told.partition(":")
    condition = _OLDER_CONDITIONS.get(word)
    is_count = count.isascii() and count.isdecimal() and len(count) <= 9
    if condition is None or (colon and not (word == "on-failure" and is_count)):
        place.fault(
            f"{told!r} is no restart policy", "write no, always, on-failure[:3] or unless-stopped"
        )
        return None
    return RestartPolicy(condition, attempts_max=int(count) if colon else None)


def update(place: Place, *, is_rollback: bool = False) -> UpdatePolicy:
    """Return `update_config` or `rollback_config` with Swarm's defaults."""
    default = UpdatePolicy()
    if not place.value:
        return default
    action = place.at("failure_action").text()
    if action not in _ACTIONS or (is_rollback and action == "rollback"):
        known = "pause or continue" if is_rollback else "pause, continue or rollback"
        place.at("failure_action").fault(f"{action!r} is no action here", f"write {known}")
    order = place.at("order").text()
    if order not in _ORDERS:
        place.at("order").fault(f"{order!r} is no order", "write stop-first or start-first")
    parallelism = place.at("parallelism").whole(default.parallelism)
    if parallelism < 0:
        place.at("parallelism").fault(f"{parallelism} is not a number of tasks", "0 is all at once")
    ratio = place.at("max_failure_ratio").ratio()
    if not 0 <= ratio <= 1:
        place.at("max_failure_ratio").fault(f"{ratio:g} is not a share", "write 0 to 1")
    return UpdatePolicy(
        parallelism=max(parallelism, 0),
        delay_s=place.at("delay").duration(default.delay_s),
        failure_action=_ACTIONS.get(action, default.failure_action),
        monitor_s=place.at("monitor").duration(default.monitor_s),
        failure_ratio_max=ratio if 0 <= ratio <= 1 else 0.0,
        order=_ORDERS.get(order, default.order),
    )
