"""Which services does a change touch, and is the reason named in Compose's words?"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dray.compose.diff import Change, Effect, ProjectDiff, ServiceDiff, diff_projects
from dray.model import ProjectSpec
from tests.compose_views import a_config, project_of

Config = Mapping[str, object]

BEFORE: Config = {
    "environment": {"A": "1", "B": "2"},
    "networks": {"front": {"aliases": ["www"]}},
    "ports": [{"target": 80, "published": "8080"}],
    "healthcheck": {"test": ["CMD", "a"], "interval": "3s"},
    "secrets": [{"source": "key"}],
    "volumes": [{"type": "volume", "source": "data", "target": "/data"}],
    "deploy": {"replicas": 2, "resources": {"limits": {"cpus": 1}}},
}
TOP: Config = {
    "secrets": {"key": {"name": "shop_key", "environment": "KEY"}},
    "volumes": {"data": {"name": "shop_data"}},
    "networks": {"front": {"name": "shop_front"}},
}


def _project(service: Config, content: bytes = b"old", **top: object) -> ProjectSpec:
    config = a_config({**BEFORE, **service}, **{**TOP, **top})
    result = project_of(config, contents={("secrets", "key"): content})
    assert not result.faults
    return result.project


def test_the_same_project_changes_nothing() -> None:
    """Two loads of one file do not differ."""
    assert diff_projects(_project({}), _project({})).is_empty


def test_services_that_come_and_go() -> None:
    """A new service is created, a missing one removed; without a project all are created."""
    old, new = _project({}), ProjectSpec("shop")
    assert diff_projects(None, old) == ProjectDiff((ServiceDiff("web", Effect.CREATED),))
    found = diff_projects(old, new)
    assert found.services == (ServiceDiff("web", Effect.REMOVED),)
    assert [each.path for each in found.changes] == [
        "networks.front",
        "volumes.data",
        "secrets.key",
    ]


@pytest.mark.parametrize(
    ("service", "effect", "changes"),
    [
        ({"image": "nginx:2"}, Effect.REPLACED, ["image: nginx → nginx:2"]),
        ({"environment": {"A": "1", "B": "3"}}, Effect.REPLACED, ["environment.B: 2 → 3"]),
        ({"environment": {"A": "1"}}, Effect.REPLACED, ["environment.B: 2 → not set"]),
        ({"command": ["x"]}, Effect.REPLACED, ["command: not set → x"]),
        ({"privileged": True}, Effect.REPLACED, ["privileged: false → true"]),
        (
            {"healthcheck": {"test": ["CMD", "b"], "interval": "3s"}},
            Effect.REPLACED,
            ["healthcheck.test: a → b"],
        ),
        (
            {"networks": {"front": {"aliases": ["www", "w"]}}},
            Effect.REPLACED,
            ["networks.front.aliases: www → www w"],
        ),
        (
            {"deploy": {"replicas": 2, "resources": {"limits": {"cpus": 2}}}},
            Effect.REPLACED,
            ["deploy.resources.limits.cpus: 1 → 2"],
        ),
        (
            {"deploy": {"replicas": 5, "resources": {"limits": {"cpus": 1}}}},
            Effect.UPDATED,
            ["deploy.replicas: 2 → 5"],
        ),
        (
            {"ports": [{"target": 80, "published": "8081"}]},
            Effect.UPDATED,
            ["ports.80.published: 8080 → 8081"],
        ),
        (
            {"x-dray": {"priority": 5}},
            Effect.UPDATED,
            ["x-dray.priority: 0 → 5"],
        ),
        (
            {"x-dray": {"disk": "1k"}},
            Effect.REPLACED,
            ["x-dray.disk: 0B → 1KiB"],
        ),
    ],
)
def test_one_change(service: Config, effect: Effect, changes: list[str]) -> None:
    """What makes a task replaces it, anything else is changed in place."""
    found = diff_projects(_project({}), _project(service))
    [diff] = found.services
    assert diff.effect is effect
    assert [str(each) for each in diff.changes] == [f"services.web.{each}" for each in changes]
    assert found.changes == ()


def test_a_new_secret_replaces_its_users_and_is_not_shown() -> None:
    """Containers mount what was there when they started; the content stays hidden."""
    found = diff_projects(_project({}, b"hunter2"), _project({}, b"hunter3"))
    change = Change("secrets.key.content", "old content", "new content")
    assert found.changes == (change,)
    assert found.services == (ServiceDiff("web", Effect.REPLACED, (change,)),)
    assert "hunter" not in repr(found)


def test_a_changed_volume_replaces_its_users() -> None:
    """Another driver is another volume."""
    volumes = {"data": {"name": "shop_data", "driver": "nfs"}}
    found = diff_projects(_project({}), _project({}, volumes=volumes))
    change = Change("volumes.data.driver", "", "nfs")
    assert found.services == (ServiceDiff("web", Effect.REPLACED, (change,)),)


def test_a_changed_network_is_changed_in_place() -> None:
    """Networks are rules between tasks, which are written anew without touching any."""
    networks = {"front": {"name": "shop_front", "internal": True}}
    found = diff_projects(_project({}), _project({}, networks=networks))
    assert found.services == ()
    assert [str(each) for each in found.changes] == ["networks.front.internal: false → true"]


def test_the_projects_own_words() -> None:
    """The project's policy is a change of no service."""
    before = project_of(a_config({})).project
    words = {"x-dray": {"policy": "spread"}}
    found = diff_projects(before, project_of(a_config({}, **words)).project)
    assert [str(each) for each in found.changes] == ["x-dray.policy: inherit → spread"]
