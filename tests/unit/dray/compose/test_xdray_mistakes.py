"""What is said of mistakes below `x-dray`?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from tests.compose_views import a_config, project_of

Config = Mapping[str, object]


def _xdray(**words: object) -> Config:
    return a_config({"x-dray": words})


MISTAKES: Final[dict[str, tuple[Config, str]]] = {
    "word": (
        _xdray(singelton=True),
        ("services.web.x-dray.singelton: is not a word of x-dray (did you mean singleton?)"),
    ),
    "far": (
        _xdray(zzz=1),
        (
            "services.web.x-dray.zzz: is not a word of x-dray (there are schedule, "
            "singleton, affinity, anti_affinity, priority, preempt, policy, tolerations, "
            "volume_loss, session_affinity, unavailable_max, autoscale, disk, gpu)"
        ),
    ),
    "flag": (
        _xdray(singleton="yes"),
        "services.web.x-dray.singleton: must be true or false, not 'yes'",
    ),
    "number": (
        _xdray(priority=5000),
        "services.web.x-dray.priority: 5000 is outside -1000 to 1000",
    ),
    "text number": (
        _xdray(priority="high"),
        "services.web.x-dray.priority: must be a whole number, not 'high'",
    ),
    "choice": (
        _xdray(policy="pack"),
        "services.web.x-dray.policy: 'pack' is not a choice (write binpack or spread)",
    ),
    "null": (
        _xdray(singleton=None),
        "services.web.x-dray.singleton: has no value (write one, or remove the line)",
    ),
    "list": (a_config({"x-dray": [1]}), "services.web.x-dray: must be a mapping"),
    "size": (
        _xdray(disk="lots"),
        ("services.web.x-dray.disk: 'lots' is not a size (write it as 512m, 1.5g or 1024)"),
    ),
    "cron fields": (
        _xdray(schedule="* * * *"),
        (
            "services.web.x-dray.schedule: '* * * *' has 4 fields, and cron has five "
            "(write minute hour day month weekday, as in 30 4 * * mon-fri)"
        ),
    ),
    "cron": (
        _xdray(schedule="61 * * * *"),
        (
            "services.web.x-dray.schedule: '61' is not a minute (0 to 59) (write minute "
            "hour day month weekday, as in 30 4 * * mon-fri)"
        ),
    ),
    "cron zone": (
        _xdray(schedule={"cron": "@daily", "timezone": "not a zone"}),
        (
            "services.web.x-dray.schedule.timezone: 'not a zone' is not a time zone (write "
            "it as Europe/Berlin)"
        ),
    ),
    "cron missing": (
        _xdray(schedule={"timezone": "UTC"}),
        ("services.web.x-dray.schedule: has no cron (Five cron fields, or @hourly, @daily …)"),
    ),
    "affinity": (
        _xdray(affinity=[{"required": True}]),
        (
            "services.web.x-dray.affinity[0]: names nothing (name one of service, "
            "service_label, node_label)"
        ),
    ),
    "affinity two": (
        _xdray(affinity=[{"service": "web", "node_label": "a=b"}]),
        (
            "services.web.x-dray.affinity[0]: names service and node_label (name one of "
            "service, service_label, node_label)"
        ),
    ),
    "affinity text": (
        _xdray(affinity="db"),
        "services.web.x-dray.affinity: must be a list (write affinity: [db])",
    ),
    "affinity label": (
        _xdray(affinity=[{"node_label": "ssd"}]),
        (
            "services.web.x-dray.affinity[0].node_label: is not a label with a value "
            "(write it as key=value)"
        ),
    ),
    "affinity service": (
        _xdray(anti_affinity=["wep"]),
        ("services.web.x-dray.anti_affinity: there is no service 'wep' (did you mean web?)"),
    ),
    "toleration": (
        _xdray(tolerations=[{"effect": "no_execute"}]),
        "services.web.x-dray.tolerations[0]: has no key (Key of the taint.)",
    ),
    "effect": (
        _xdray(tolerations=[{"key": "a", "effect": "NoExecute"}]),
        (
            "services.web.x-dray.tolerations[0].effect: 'NoExecute' is not a choice (write "
            "no_schedule or no_execute)"
        ),
    ),
    "autoscale": (
        _xdray(autoscale={"min": 5, "max": 2, "cpu_percent": 50}),
        "services.web.x-dray.autoscale: min 5 is above max 2",
    ),
    "autoscale missing": (
        _xdray(autoscale={"min": 1, "max": 2}),
        (
            "services.web.x-dray.autoscale: has no cpu_percent (Share of the CPU "
            "reservation to aim at, per cent.)"
        ),
    ),
    "singleton": (
        a_config({"x-dray": {"singleton": True}, "deploy": {"replicas": 2}}),
        (
            "services.web.x-dray.singleton: a singleton has one copy, and deploy.replicas "
            "is 2 (write replicas: 1)"
        ),
    ),
    "singleton global": (
        a_config({"x-dray": {"singleton": True}, "deploy": {"mode": "global"}}),
        "services.web.x-dray.singleton: a singleton is not global (remove deploy.mode)",
    ),
    "singleton order": (
        a_config(
            {"x-dray": {"singleton": True}, "deploy": {"update_config": {"order": "start-first"}}}
        ),
        (
            "services.web.x-dray.singleton: a singleton is stopped first, and "
            "deploy.update_config.order is start-first (write order: stop-first)"
        ),
    ),
    "singleton scale": (
        _xdray(singleton=True, autoscale={"min": 1, "max": 2, "cpu_percent": 50}),
        "services.web.x-dray.autoscale: a singleton is not scaled (remove one of them)",
    ),
    "scale global": (
        a_config(
            {
                "x-dray": {"autoscale": {"min": 1, "max": 2, "cpu_percent": 50}},
                "deploy": {"mode": "global"},
            }
        ),
        "services.web.x-dray.autoscale: only a replicated service is scaled",
    ),
    "preempt": (
        _xdray(preempt=True),
        ("services.web.x-dray.preempt: displaces lower priorities, and has none (add priority:)"),
    ),
    "gpu": (
        _xdray(gpu={"count": 2, "fraction": 0.5}),
        (
            "services.web.x-dray.gpu.fraction: a part of a GPU is a part of one (ask for "
            "one GPU, or for whole ones)"
        ),
    ),
    "gpu zero": (
        _xdray(gpu={"fraction": 0}),
        "services.web.x-dray.gpu.fraction: 0 is outside 0.001 to 1",
    ),
    "gpu count": (
        a_config({"gpus": [{"count": 2}], "x-dray": {"gpu": {"count": 1}}}),
        "services.web.x-dray.gpu.count: gpus and devices ask for 2 (keep one of them)",
    ),
    "schedule mode": (
        a_config({"x-dray": {"schedule": "@daily"}, "deploy": {"mode": "replicated"}}),
        (
            "services.web.deploy.mode: a service with x-dray.schedule is a job, not "
            "replicated (write mode: replicated-job)"
        ),
    ),
    "version": ({**a_config({}), "x-dray": {"version": 2}}, "x-dray.version: 2 is outside 1 to 1"),
    "gang": ({**a_config({}), "x-dray": {"gang": 1}}, "x-dray.gang: must be true or false, not 1"),
    "labels": (
        {**a_config({}), "x-dray": {"labels": {"a": [1]}}},
        "x-dray.labels.a: must be text, not [1]",
    ),
    "project word": (
        {**a_config({}), "x-dray": {"priority": 1}},
        ("x-dray.priority: is not a word of x-dray (there are version, policy, gang, labels)"),
    ),
}


@pytest.mark.parametrize(("config", "message"), MISTAKES.values(), ids=MISTAKES)
def test_the_message(config: Config, message: str) -> None:
    """Each mistake is one problem with the key, what is wrong and what to do."""
    result = project_of(config, contents={})
    found = [*result.problems, *result.faults, *result.refusals]
    assert [str(each) for each in found] == [message]
    assert len(result.faults) + len(result.problems) == 1
