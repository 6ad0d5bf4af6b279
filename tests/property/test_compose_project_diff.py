"""Does a diff tell every difference, and nothing else?"""

from __future__ import annotations

from typing import Any

from hypothesis import given

from dray.compose.diff import Effect, diff_projects
from tests.compose_views import a_config, project_of
from tests.property.test_compose_project import SERVICES, TOP


@given(SERVICES, SERVICES, TOP, TOP)
def test_a_diff_is_empty_for_equal_projects_only(
    old: dict[str, Any], new: dict[str, Any], top_old: dict[str, Any], top_new: dict[str, Any]
) -> None:
    """Two projects that differ have a diff; one and the same has none."""
    before = project_of(a_config(old, **top_old)).project
    after = project_of(a_config(new, **top_new)).project
    assert diff_projects(before, before).is_empty
    assert diff_projects(before, after).is_empty == (before == after)


@given(SERVICES, SERVICES)
def test_only_a_new_task_replaces_containers(old: dict[str, Any], new: dict[str, Any]) -> None:
    """A service is replaced when what makes its tasks differs, and never otherwise."""
    before, after = (project_of(a_config(each)).project for each in (old, new))
    effects = [each.effect for each in diff_projects(before, after).services]
    is_replaced = before.services[0].task != after.services[0].task
    assert (effects == [Effect.REPLACED]) == is_replaced
