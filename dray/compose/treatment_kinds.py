"""What carries out a key of a file, and what else can become of it?

An executor is a part of dray. A key is honoured when all of its executors are available: nothing
can then run the service and drop the key. Whoever finishes an executor adds it to `AVAILABLE`, with
a test of the effect of its keys.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

__all__ = ["AVAILABLE", "DEFAULT_NAME", "Executor", "Row", "Treatment", "ValueRow"]


class Executor(enum.Enum):
    """A part of dray that carries out keys; the value says what it is, for people."""

    LOADER = "the loader: done when the file is read"
    CLIENT_BUILD = "the client, before it applies the project: builds and pushes images"
    STORE = "the cluster's store: kept with the service and shown"
    RECONCILE = "the leader's reconciler: slots of replicated services"
    RECONCILE_GLOBAL = "the leader's reconciler: one slot a node"
    JOBS = "the leader: jobs and their completions"
    CRON = "the leader: jobs at times"
    DEPENDENCIES = "the leader: order of start, and conditions"
    DEPENDENCY_OPTIONS = "the leader: optional dependencies, restarts that follow a replacement"
    ROLLOUT = "the leader's rollouts: updates and rollbacks"
    DISRUPTION = "the leader: disruption budgets"
    AUTOSCALE = "the leader: automatic scaling"
    SINGLETON = "the leader and the node's guard: grants of singletons"
    PLACEMENT = "the leader's placement: CPU, memory, disk, pids, constraints, spreading"
    PLACEMENT_DEVICES = "the leader's placement: GPUs, devices and generic resources"
    GPU_CHOICE = "the leader and the node: which GPU, or share of one, a task gets"
    PLACEMENT_AFFINITY = "the leader's placement: near to and away from other tasks"
    PLACEMENT_PRIORITY = "the leader's placement: priorities and displacement"
    PLACEMENT_PORTS = "the leader's placement: ports of nodes"
    PLACEMENT_GANG = "the leader's placement: all of a project or nothing"
    RUNTIME = "the node's container runtime: said to the Docker Engine"
    AGENT = "the node's agent: restarts and hooks"
    FILES = "the node: configs and secrets as files"
    TEMPLATES = "the node: placeholders in configs and secrets"
    VOLUMES = "the node: volumes and bind mounts, and the pins they make"
    NETWORK = "the node's network: addresses, networks and their isolation"
    NETWORK_STATIC = "the node's network: interfaces that a file describes"
    NETWORK_IPV6 = "the node's network: IPv6"
    DISCOVERY = "the node's DNS: names of services and containers"
    ROUTING = "the node's load balancing: published ports and service addresses"


AVAILABLE: Final[frozenset[Executor]] = frozenset(
    {
        Executor.LOADER,
        Executor.CLIENT_BUILD,
        Executor.STORE,
        Executor.RECONCILE,
        Executor.RECONCILE_GLOBAL,
        Executor.JOBS,
        Executor.DEPENDENCIES,
        Executor.DEPENDENCY_OPTIONS,
        Executor.ROLLOUT,
        Executor.DISRUPTION,
        Executor.PLACEMENT,
        Executor.PLACEMENT_DEVICES,
        Executor.GPU_CHOICE,
        Executor.PLACEMENT_AFFINITY,
        Executor.PLACEMENT_PRIORITY,
        Executor.PLACEMENT_PORTS,
        Executor.PLACEMENT_GANG,
        Executor.AGENT,
        Executor.FILES,
        Executor.VOLUMES,
        Executor.NETWORK,
        Executor.DISCOVERY,
        Executor.ROUTING,
        # The mapping of a container to the Docker Engine is whole and is held to real engines by
        # the runtime's contract tests. No container of ours is made but through it, so a key that
        # it maps is never dropped.
        Executor.RUNTIME,
    }
)
"""The executors of this version."""


class Treatment(enum.Enum):
    """What becomes of a key."""

    HONOURED = "honoured"
    """Carried out, once its executors are available; refused until then."""
    MEANINGLESS = "meaningless here"
    """Accepted, has no effect, and the reason is given."""
    REFUSED = "refused"
    """Not carried out in a cluster; the reason is given, and what to do."""


@dataclass(frozen=True, slots=True)
class Row:
    """How one key is treated.

    Attributes:
        path: Its path, with "*" for names that people choose and "[]" for items of a list.
        treatment: What becomes of it.
        executors: What carries it out (HONOURED).
        reason: Why not (MEANINGLESS, REFUSED); a remark (HONOURED).
        instead: What to do (REFUSED).
        neutral: Values that ask for nothing beyond the default, and so need no executor.
        is_vital: A refusal that cannot be ignored: without the key nothing sensible is left.
    """

    path: str
    treatment: Treatment = Treatment.HONOURED
    executors: tuple[Executor, ...] = ()
    reason: str = ""
    instead: str = ""
    neutral: tuple[object, ...] = ()
    is_vital: bool = False


@dataclass(frozen=True, slots=True)
class ValueRow:
    """How some values of a key are treated, in place of what its `Row` says.

    Attributes:
        path: As in `Row`: what is treated, with all that is below it.
        values: The values, as people write them; a trailing "*" stands for any end.
        row: The treatment of them.
        key: The key of a mapping at `path` that has the value; empty: the value is at `path`.
    """

    path: str
    values: tuple[str, ...]
    row: Row
    key: str = ""


DEFAULT_NAME: Final = "{project}_{key}"
"""Stands in `Row.neutral` for the name that a network, volume … has when the file gives none."""
