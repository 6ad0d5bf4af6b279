"""What does `x-dray` become?"""

from __future__ import annotations

import pytest

from dray.compose.treatment import ROWS
from dray.compose.xdray import cron_problem
from dray.compose.xdray_table import PROJECT_WORDS, SERVICE_WORDS
from dray.model import (
    Affinity,
    AffinityTarget,
    Autoscale,
    GpuRequest,
    PackingPolicy,
    ServiceExtensions,
    ServiceMode,
    ServiceModeKind,
    SessionAffinity,
    TaintEffect,
    Toleration,
    VolumeLoss,
)
from tests.compose_views import a_config, project_of, service_of


def test_every_word_of_a_service() -> None:
    """Each word arrives in the model."""
    spec = service_of(
        {
            "x-dray": {
                "affinity": [
                    "web",
                    {"node_label": "disk=ssd", "required": True},
                    {"service": "shop/db", "topology": "zone", "weight": 80},
                ],
                "anti_affinity": [{"service_label": "tier=batch"}],
                "priority": 100,
                "preempt": True,
                "policy": "spread",
                "tolerations": ["batch", "gpu=a100", {"key": "old", "effect": "no_execute"}],
                "volume_loss": "accept",
                "session_affinity": "client_ip",
                "unavailable_max": 2,
                "autoscale": {"min": 2, "max": 8, "cpu_percent": 70},
                "disk": "10g",
                "gpu": {"fraction": 0.25, "models": ["a100", "h100"]},
            }
        }
    )
    assert spec.dray == ServiceExtensions(
        priority=100,
        preempt=True,
        policy=PackingPolicy.SPREAD,
        affinities=(
            Affinity(AffinityTarget.SERVICE, "web"),
            Affinity(AffinityTarget.NODE_LABEL, "disk", "ssd", required=True),
            Affinity(AffinityTarget.SERVICE, "shop/db", topology="zone", weight=80),
            Affinity(AffinityTarget.SERVICE_LABEL, "tier", "batch", anti=True),
        ),
        tolerations=(
            Toleration("batch"),
            Toleration("gpu", "a100"),
            Toleration("old", effect=TaintEffect.NO_EXECUTE),
        ),
        volume_loss=VolumeLoss.ACCEPT,
        session_affinity=SessionAffinity.CLIENT_IP,
        unavailable_max=2,
        autoscale=Autoscale(2, 8, 70),
    )
    assert spec.task.reservations.disk_bytes == 10 * 1024**3
    assert spec.task.reservations.gpu == GpuRequest(1, 250, ("a100", "h100"))


def test_a_schedule_makes_a_job() -> None:
    """A scheduled service is a job without being told so; names stand for fields."""
    spec = service_of({"x-dray": {"schedule": {"cron": "@daily", "timezone": "Europe/Berlin"}}})
    assert spec.mode == ServiceMode(ServiceModeKind.REPLICATED_JOB, 1)
    assert (spec.dray.schedule, spec.dray.schedule_timezone) == ("0 0 * * *", "Europe/Berlin")
    short = service_of({"x-dray": {"schedule": " */5  * * * * "}, "deploy": {"mode": "global-job"}})
    assert short.mode.kind is ServiceModeKind.GLOBAL_JOB
    assert (short.dray.schedule, short.dray.schedule_timezone) == ("*/5 * * * *", "")


def test_a_singleton() -> None:
    """It is one copy, and takes no more."""
    assert service_of({"x-dray": {"singleton": True}}).dray.singleton


def test_the_project() -> None:
    """Policy, gang and labels are the project's."""
    config = a_config({}, **{"x-dray": {"version": 1, "policy": "spread", "gang": True}})
    project = project_of(config).project
    assert (project.policy, project.gang) == (PackingPolicy.SPREAD, True)
    labelled = a_config({}, **{"x-dray": {"labels": {"team": "a", "n": 1}}})
    assert project_of(labelled).project.labels == (("n", "1"), ("team", "a"))


def test_what_a_variable_is_replaced_by_is_text_and_taken() -> None:
    """Numbers and flags may come from variables."""
    spec = service_of(
        {"x-dray": {"priority": "-5", "singleton": "true", "gpu": {"fraction": "0.5"}}}
    )
    assert (spec.dray.priority, spec.dray.singleton) == (-5, True)
    assert spec.task.reservations.gpu == GpuRequest(1, 500)


def test_nothing_of_a_wrong_x_dray_is_taken() -> None:
    """One mistake leaves the defaults, and no exception."""
    result = project_of(a_config({"x-dray": {"priority": 3, "disk": "1g", "polcy": "spread"}}))
    assert result.project.services[0].dray == ServiceExtensions()
    assert result.project.services[0].task.reservations.disk_bytes == 0
    assert len(result.problems) == 1


def test_allow_ignored_does_not_hide_a_typo() -> None:
    """A word that nobody knows is a mistake, and not something to go without."""
    result = project_of(a_config({"x-dray": {"singelton": True}}), allow_ignored=True)
    assert [each.path for each in result.problems] == ["services.web.x-dray.singelton"]
    assert result.ignored == ()


@pytest.mark.parametrize(
    "text",
    [
        "* * * * *",
        "0 0 1 1 0",
        "59 23 31 12 7",
        "*/15 0-6,18-23 * jan-mar mon-fri",
        "0 4/2 * * sun",
        "1-30/2 * * * *",
    ],
)
def test_good_cron_fields(text: str) -> None:
    """Stars, numbers, names, ranges, steps and lists are understood."""
    assert cron_problem(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "5-1 * * * *",
        "*/0 * * * *",
        "*/x * * * *",
        "mon * * * *",
        "1,,2 * * * *",
        "-1 * * * *",
        "1- * * * *",
        "² * * * *",
        "* " * 200,
    ],
)
def test_bad_cron_fields(text: str) -> None:
    """What is out of range, backwards or malformed is told."""
    assert cron_problem(text) != ""


def test_every_word_has_a_treatment() -> None:
    """The table of treatments holds every word, at the top and in services."""
    rows = {row.path for row in ROWS}
    assert {f"x-dray.{word.name}" for word in PROJECT_WORDS} <= rows
    assert {f"services.*.x-dray.{word.name}" for word in SERVICE_WORDS} <= rows
