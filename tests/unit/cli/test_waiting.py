"""Does waiting end when it should, with the status that tells the truth?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from cli.progress import standing_parts
from cli.waiting import Outcome, Progress
from dray.views import ObjectChange, RolloutState, Service, SlotState
from tests.unit.cli.views_builders import NOW_S, a_service_view


def _outcome(*services: Service, wanted: dict[str, int] | None = None) -> Outcome:
    progress = Progress(wanted or {"web": 2})
    progress.fold(ObjectChange(service=service) for service in services)
    return progress.outcome()


@pytest.mark.parametrize(
    ("service", "outcome"),
    [
        (a_service_view(revision=2, is_converged=True), Outcome.CONVERGED),
        (a_service_view(revision=3, is_converged=True), Outcome.CONVERGED),
        (a_service_view(revision=1, is_converged=True), Outcome.PENDING),
        (a_service_view(revision=2), Outcome.PENDING),
        (a_service_view(revision=2, rollout=RolloutState.RUNNING), Outcome.PENDING),
        (a_service_view(revision=2, rollout=RolloutState.PAUSED), Outcome.PAUSED),
        (a_service_view(revision=2, rollout=RolloutState.ROLLING_BACK), Outcome.PENDING),
        (
            a_service_view(revision=2, rollout=RolloutState.ROLLED_BACK, state=SlotState.RUNNING),
            Outcome.ROLLED_BACK,
        ),
        # The earlier revision has yet to come up.
        (a_service_view(revision=2, rollout=RolloutState.ROLLED_BACK), Outcome.PENDING),
        # A rollout of an earlier change says nothing about this one.
        (a_service_view(revision=1, rollout=RolloutState.PAUSED), Outcome.PENDING),
        (a_service_view("db", revision=2, is_converged=True), Outcome.PENDING),
    ],
)
def test_what_becomes_of_one_service(service: Service, outcome: Outcome) -> None:
    """It is so when this revision or a newer one has converged."""
    assert _outcome(service) is outcome


def test_all_services_count() -> None:
    """One that is not there yet keeps the rest waiting; a failure tells once the others ended."""
    wanted = {"web": 1, "db": 1}
    web = a_service_view(is_converged=True)
    failed = a_service_view("db", revision=1, rollout=RolloutState.PAUSED)
    assert _outcome(web, wanted=wanted) is Outcome.PENDING
    assert _outcome(web, failed, wanted=wanted) is Outcome.PAUSED
    assert _outcome(failed, wanted=wanted) is Outcome.PENDING


def test_news_are_told_once() -> None:
    """A service that stands as before gives no line."""
    progress = Progress({"web": 1})
    change = ObjectChange(service=a_service_view())
    assert progress.fold([change]) == ["web: 1 starting of 1"]
    assert progress.fold([change]) == []
    done = ObjectChange(service=a_service_view(is_converged=True))
    assert progress.fold([done]) == ["web: converged, 1 starting"]


def test_problems_are_those_of_what_is_not_so() -> None:
    """They are what the person reads when the time is over."""
    progress = Progress({"web": 1, "db": 1})
    progress.fold(
        [
            ObjectChange(service=a_service_view(problems=("no node has a GPU",))),
            ObjectChange(service=a_service_view("db", is_converged=True)),
        ]
    )
    assert progress.problems() == ["web: no node has a GPU"]
    progress.forget()
    assert progress.problems() == []


def test_how_each_service_stands() -> None:
    """What blocks a service is in its line at once, not only when the wait is over."""
    progress = Progress({"web": 1, "db": 1})
    blocked = a_service_view(problems=("no node has a GPU",))
    assert progress.fold([ObjectChange(service=blocked)]) == [
        "web: 1 starting of 1; no node has a GPU"
    ]
    unknown, web = progress.standings()
    assert (unknown.service, unknown.done, unknown.text) == ("db", 0, "waits")
    assert (web.done, web.desired, web.problem) == (0, 1, "no node has a GPU")
    assert standing_parts(web, NOW_S) == (
        "web",
        "░" * 10,
        "0/1",
        "1 starting of 1; no node has a GPU",
    )


def test_what_became_of_a_rollout_is_told_with_the_reason() -> None:
    """Not that it is not so yet: it never will be."""
    progress = Progress({"web": 2})
    failed = a_service_view(revision=2, rollout=RolloutState.PAUSED)
    assert failed.rollout is not None
    told = replace(failed.rollout, message="replacing by revision 2 failed at web.1: exit code 3")
    progress.fold([ObjectChange(service=replace(failed, rollout=told))])
    assert progress.failures() == ["web: replacing by revision 2 failed at web.1: exit code 3"]
    assert progress.blocked() == "web"


def test_the_same_problem_with_another_port_is_no_news() -> None:
    """Each try of a pull comes from another port of the node."""
    progress = Progress({"web": 1})
    tries = [
        a_service_view(problems=(f"read udp 10.0.0.1:{port}->10.0.0.2:53: refused",))
        for port in (40_001, 40_002)
    ]
    assert [len(progress.fold([ObjectChange(service=each)])) for each in tries] == [1, 0]


def test_time_that_is_waited_for_is_told() -> None:
    """All run and only time is missing: the line says so, and on a terminal how much is left."""
    progress = Progress({"web": 1})
    watched = replace(a_service_view(), watched_until_unix_s=NOW_S + 2.3)
    assert progress.fold([ObjectChange(service=watched)]) == ["web: 1 starting, watched for 5 s"]
    [web] = progress.standings()
    assert web.outcome is Outcome.PENDING
    assert standing_parts(web, NOW_S)[-1] == "1 starting, watched for 5 s: 3 s left"
    assert standing_parts(web, NOW_S + 3)[-1] == "1 starting, watched for 5 s"


def test_what_is_wrong_beside_a_service_that_is_so_is_told() -> None:
    """A port that one node cannot open is no failure, and no secret."""
    progress = Progress({"web": 1, "db": 1})
    told = ("not published on node n1: port 80/tcp is taken by another program",)
    web = a_service_view(is_converged=True, problems=told)
    progress.fold([ObjectChange(service=web), ObjectChange(service=a_service_view("db"))])
    assert progress.warnings() == [f"web: {told[0]}"]
    assert progress.problems() == ["db: it is not what was asked for yet"]
