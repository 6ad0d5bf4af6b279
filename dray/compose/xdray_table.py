"""Which words are there under `x-dray`, what do they take and what do they mean?

The one table that the reader, the JSON Schema and the generated document follow. The vocabulary is
versioned: a file may say `x-dray: {version: 1}` at its top, and a meaning never changes within a
version.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from dray.compose.treatment_kinds import Executor

__all__ = [
    "AFFINITY_WORDS",
    "AUTOSCALE_WORDS",
    "GPU_WORDS",
    "LISTS_MAX",
    "PRIORITY_MAX",
    "PROJECT_WORDS",
    "SCHEDULE_WORDS",
    "SERVICE_WORDS",
    "TOLERATION_WORDS",
    "VERSION",
    "Kind",
    "Word",
]

VERSION: Final = 1  # of the vocabulary
PRIORITY_MAX: Final = 1000  # either side of zero
LISTS_MAX: Final = 64  # rules in one list: each costs a pass over the nodes


class Kind(enum.Enum):
    """What a word takes."""

    FLAG = 1
    WHOLE = 2
    NUMBER = 3
    TEXT = 4
    CHOICE = 5
    SIZE = 6
    TEXTS = 7
    LABELS = 8
    MAPPING = 9
    TEXT_OR_MAPPING = 10
    RULES = 11
    """A list of texts and mappings."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word of the vocabulary.

    Attributes:
        name: The key.
        kind: What it takes.
        means: One sentence for people.
        executor: What carries it out; None: that of the word around it.
        low: Least number (WHOLE, NUMBER).
        high: Greatest number.
        choices: What may be written (CHOICE).
        words: The words inside (MAPPING, TEXT_OR_MAPPING, RULES).
        required: Whether the mapping around it must have it.
    """

    name: str
    kind: Kind
    means: str
    executor: Executor | None = None
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()
    words: tuple[Word, ...] = ()
    required: bool = False


SCHEDULE_WORDS: Final = (
    Word("cron", Kind.TEXT, "Five cron fields, or @hourly, @daily …", required=True),
    Word("timezone", Kind.TEXT, "Name of the zone that the fields are read in; UTC by default."),
)

AFFINITY_WORDS: Final = (
    Word("service", Kind.TEXT, 'Tasks of this service; "shop/web" for one of another project.'),
    Word("service_label", Kind.TEXT, 'Tasks of services with this label: "tier=backend".'),
    Word("node_label", Kind.TEXT, 'Nodes with this label: "disk=ssd".'),
    Word("required", Kind.FLAG, "Refuse other nodes; by default they are only less preferred."),
    Word("topology", Kind.TEXT, "Node label within which things are near; by default the node."),
    Word("weight", Kind.WHOLE, "Strength of a preference; 50 by default.", low=1, high=100),
)

TOLERATION_WORDS: Final = (
    Word("key", Kind.TEXT, "Key of the taint.", required=True),
    Word("value", Kind.TEXT, "Its value; any value by default."),
    Word(
        "effect",
        Kind.CHOICE,
        "Which taints: those that keep new tasks away, or also those that end running ones.",
        choices=("no_schedule", "no_execute"),
    ),
)

AUTOSCALE_WORDS: Final = (
    Word("min", Kind.WHOLE, "Fewest replicas.", low=0, high=1_000_000, required=True),
    Word("max", Kind.WHOLE, "Most replicas.", low=1, high=1_000_000, required=True),
    Word(
        "cpu_percent",
        Kind.WHOLE,
        "Share of the CPU reservation to aim at, per cent.",
        low=1,
        high=1000,
        required=True,
    ),
)

GPU_WORDS: Final = (
    Word("count", Kind.WHOLE, "GPUs; else what gpus or devices say, or 1.", low=1, high=64),
    Word("fraction", Kind.NUMBER, "Share of one GPU, in thousandths.", low=0.001, high=1),
    Word("models", Kind.TEXTS, "Models that will do; any by default."),
)

SERVICE_WORDS: Final = (
    Word(
        "schedule",
        Kind.TEXT_OR_MAPPING,
        "When a job runs: cron fields, or a mapping with a time zone.",
        Executor.CRON,
        words=SCHEDULE_WORDS,
    ),
    Word("singleton", Kind.FLAG, "At most one copy at any time.", Executor.SINGLETON),
    Word(
        "affinity",
        Kind.RULES,
        "Run near these: names of services, or mappings.",
        Executor.PLACEMENT_AFFINITY,
        words=AFFINITY_WORDS,
    ),
    Word(
        "anti_affinity",
        Kind.RULES,
        "Run away from these.",
        Executor.PLACEMENT_AFFINITY,
        words=AFFINITY_WORDS,
    ),
    Word(
        "priority",
        Kind.WHOLE,
        "Higher displaces lower when there is no room.",
        Executor.PLACEMENT_PRIORITY,
        low=-PRIORITY_MAX,
        high=PRIORITY_MAX,
    ),
    Word(
        "preempt",
        Kind.FLAG,
        "Whether it may displace tasks of lower priority.",
        Executor.PLACEMENT_PRIORITY,
    ),
    Word(
        "policy",
        Kind.CHOICE,
        "Fill nodes one after another, or use all of them evenly.",
        Executor.PLACEMENT,
        choices=("binpack", "spread"),
    ),
    Word(
        "tolerations",
        Kind.RULES,
        'Taints of nodes that it bears: "key", "key=value", or mappings.',
        Executor.PLACEMENT,
        words=TOLERATION_WORDS,
    ),
    Word(
        "volume_loss",
        Kind.CHOICE,
        "When the node with its volume is gone: wait, or accept the loss and start empty.",
        Executor.VOLUMES,
        choices=("wait", "accept"),
    ),
    Word(
        "session_affinity",
        Kind.CHOICE,
        "Whether one client's connections go to one replica.",
        Executor.ROUTING,
        choices=("none", "client_ip"),
    ),
    Word(
        "unavailable_max",
        Kind.WHOLE,
        "Disruption budget: replicas that may be away or on the move at once in a drain; else all.",
        Executor.DISRUPTION,
        low=0,
        high=1_000_000,
    ),
    Word(
        "autoscale",
        Kind.MAPPING,
        "Bounds of automatic scaling.",
        Executor.AUTOSCALE,
        words=AUTOSCALE_WORDS,
    ),
    Word("disk", Kind.SIZE, "Space set aside in Docker's data folder.", Executor.PLACEMENT),
    Word(
        "gpu",
        Kind.MAPPING,
        "Which GPUs, and how much of one.",
        Executor.GPU_CHOICE,
        words=GPU_WORDS,
    ),
)

PROJECT_WORDS: Final = (
    Word(
        "version",
        Kind.WHOLE,
        "Version of this vocabulary.",
        Executor.LOADER,
        low=VERSION,
        high=VERSION,
    ),
    Word(
        "policy",
        Kind.CHOICE,
        "Policy of services that name none.",
        Executor.PLACEMENT,
        choices=("binpack", "spread"),
    ),
    Word("gang", Kind.FLAG, "Place all of the project or nothing.", Executor.PLACEMENT_GANG),
    Word("labels", Kind.LABELS, "Labels of the project.", Executor.STORE),
)
