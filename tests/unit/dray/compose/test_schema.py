"""Does the JSON Schema take what is right, mark what is wrong, and know every key?"""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from cli.app import main
from dray.compose.keys import key_paths
from dray.compose.schema import DIALECT, compose_schema
from dray.compose.treatment import AVAILABLE, Executor
from dray.compose.xdray_table import PROJECT_WORDS, SERVICE_WORDS
from tests.json_schema import violations

SCHEMA = compose_schema()

GOOD: dict[str, Any] = {
    "name": "shop",
    "x-common": {"anything": [1]},
    "x-dray": {"version": 1, "gang": True},
    "services": {
        "web": {
            "image": "nginx:${TAG:-1}",
            "command": "serve --fast",
            "ports": ["80:80", 443, {"target": 8080, "published": "9000-9010"}],
            "environment": ["A=1", "B"],
            "depends_on": ["db"],
            "deploy": {"replicas": "${N}", "resources": {"limits": {"cpus": "0.5"}}},
            "healthcheck": {"test": ["CMD", "x"], "interval": "3s"},
            "ulimits": {"nofile": {"soft": 1, "hard": 2}, "nproc": 5},
            "volumes": ["data:/data", {"type": "tmpfs", "target": "/t"}],
            "x-dray": {
                "schedule": {"cron": "@daily"},
                "affinity": ["db", {"node_label": "disk=ssd"}],
                "priority": "${P}",
                "gpu": {"fraction": 0.5},
                "disk": "1g",
            },
        },
        "db": {"image": "postgres", "networks": {"back": None}, "build": "."},
    },
    "networks": {"back": None},
    "volumes": {"data": {"driver": "local"}},
}


def test_a_good_file_is_taken() -> None:
    """Short and long forms, variables and extensions satisfy the schema."""
    assert list(violations(GOOD, SCHEMA)) == []


@pytest.mark.parametrize(
    ("service", "place"),
    [
        ({"imagee": "x"}, "imagee"),
        ({"ports": "80"}, "ports"),
        ({"deploy": {"replica": 1}}, "deploy.replica"),
        ({"volumes": [{"type": "nfs"}]}, "volumes[0]"),
        ({"healthcheck": {"test": 5}}, "healthcheck.test"),
        ({"depends_on": {"db": {"condition": "ready"}}}, "depends_on"),
        ({"oom_score_adj": -5000}, "oom_score_adj"),
        ({"x-dray": {"singelton": True}}, "x-dray.singelton"),
        ({"x-dray": {"policy": "pack"}}, "x-dray.policy"),
        ({"x-dray": {"autoscale": {"min": 1}}}, "x-dray.autoscale"),
        ({"x-dray": {"priority": 5000}}, "x-dray.priority"),
        ({"x-dray": {"tolerations": [{"effect": "no_execute"}]}}, "x-dray.tolerations"),
    ],
)
def test_a_mistake_is_marked_in_its_place(service: dict[str, Any], place: str) -> None:
    """A misspelt key, a wrong type or a wrong choice violates the schema where it stands."""
    found = list(violations({"services": {"web": {"image": "x", **service}}}, SCHEMA))
    assert found
    assert all(each.startswith(f"$.services.web.{place}") for each in found)


def _described(schema: Any, path: str = "") -> dict[str, str]:
    """Return the description of every key of a schema by its path."""
    found: dict[str, str] = {}
    for name, inner in schema.get("properties", {}).items():
        below = f"{path}.{name}" if path else name
        found[below] = inner.get("description", "")
        found |= _described(inner, below)
    if isinstance(schema.get("additionalProperties"), dict):
        found |= _described(schema["additionalProperties"], f"{path}.*")
    if "items" in schema:
        found |= _described(schema["items"], f"{path}[]")
    return found


def test_every_key_is_there_and_described() -> None:
    """The schema has every key of Compose and every word of x-dray, with its treatment."""
    found = _described(SCHEMA)
    words = {f"x-dray.{word.name}" for word in PROJECT_WORDS}
    words |= {f"services.*.x-dray.{word.name}" for word in SERVICE_WORDS}
    assert {path for path, _ in key_paths()} | words <= set(found)
    assert [path for path, text in found.items() if not text] == []


def test_a_description_says_what_is_not_there_yet() -> None:
    """It follows the executors."""
    today = _described(compose_schema(AVAILABLE - {Executor.AGENT}))["services.*.restart"]
    later = _described(compose_schema(AVAILABLE | {Executor.AGENT}))["services.*.restart"]
    assert (today, later) == ("Refused until there is: AGENT.", "Carried out by: AGENT.")


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    """`dray schema` prints the schema as JSON."""
    assert main(["schema"], {}) == 0
    printed = json.load(io.StringIO(capsys.readouterr().out))
    assert printed == SCHEMA
    assert printed["$schema"] == DIALECT
