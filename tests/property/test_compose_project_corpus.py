"""Do real files convert whole? Reads the official loader's own output where it is at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from dray.compose.schema import compose_schema
from dray.compose.treatment import AVAILABLE
from tests.compose_views import ALL, project_of
from tests.json_schema import violations

CORPUS: Final = Path(__file__).parents[2].parent / "shared" / "compose"
NEEDS_CORPUS: Final = pytest.mark.skipif(
    not CORPUS.is_dir(), reason="the corpus of real Compose files is not beside the repository"
)


class _Loader(yaml.SafeLoader):
    """Reads YAML with the tags that Compose adds."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def _expected() -> list[Path]:
    return sorted((CORPUS / "expected").rglob("*.json"))


@NEEDS_CORPUS
def test_every_normalised_project_converts_with_every_key_accounted_for() -> None:
    """No key of a real project is unknown, and none is left unread, whatever is available."""
    paths = _expected()
    assert len(paths) > 200
    for path in paths:
        config: dict[str, Any] = json.loads(path.read_text())
        for available in (ALL, AVAILABLE):
            result = project_of(config, available=available)
            assert result.problems == (), path
            lost = [each for each in result.refusals if "does not know this key" in each.message]
            assert lost == [], path
        assert len(result.project.services) == len(config["services"]), path
        lenient = project_of(config, available=AVAILABLE, allow_ignored=True)
        assert lenient.refusals == (), path


@NEEDS_CORPUS
def test_accepted_files_satisfy_the_schema() -> None:
    """An editor marks nothing in a file that the official loader accepts."""
    schema = compose_schema()
    cases = json.loads((CORPUS / "cases.json").read_text())
    accepted = [case["file"] for case in cases if case["verdict"] == "accept"]
    assert len(accepted) > 200
    wrong: dict[str, list[str]] = {}
    for name in accepted:
        for document in yaml.load_all((CORPUS / "cases" / name).read_text(), _Loader):
            found = list(violations(document, schema)) if document is not None else []
            if found:
                wrong[name] = found
    assert wrong == {}
