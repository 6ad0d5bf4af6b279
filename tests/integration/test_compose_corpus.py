"""Does the loader agree with the official one on the large corpus of real files, and how fast?

The corpus is no part of the repository; it is looked for beside it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final

import pytest

from dray.compose import LoadRequest, Rejected
from dray.compose.canonical import canonicalise
from dray.compose.shape import json_view
from dray.compose.tree import plain
from dray.files import DiskFiles

_CORPUS: Final = Path(__file__).parents[3] / "shared" / "compose"
_SECONDS_MAX: Final = 5.0
# Cases whose expected output was made without the folder's own .env, which the specification and
# the corpus' own description say is loaded. Each differs in these variables only.
_WITHOUT_ENV_FILE: Final = {
    "awesome-compose/postgresql-pgadmin/compose.yaml",
    "compose-go/cli/testdata/env-file/compose-with-env-files.yaml",
    "compose-go/cli/testdata/simple/compose-with-variables.yaml",
    "docker-compose-e2e/fixtures/dotenv/development/compose.yaml",
    "docker-compose-e2e/fixtures/nested/compose.yaml",
}
# Refused by the official library alone, taken by the official tool: it adds env_file's raw format,
# which the specification has.
_RAW_ENV_FILE: Final = {"docker-compose-e2e/testdata/TestRawEnvFile/compose.yaml"}

pytestmark = pytest.mark.skipif(not _CORPUS.is_dir(), reason="the corpus is not beside the tree")


def _cases(verdict: str) -> list[str]:
    if not _CORPUS.is_dir():
        return []
    cases = json.loads((_CORPUS / "cases.json").read_text())
    return [case["file"] for case in cases if case["verdict"] == verdict]


def _load(file: str, **options: Any) -> Any:
    request = LoadRequest(
        (str(_CORPUS / "cases" / file),), project_name="sample", profiles=("*",), **options
    )
    return canonicalise(request, DiskFiles())


def _with_root(value: Any) -> Any:
    text = json.dumps(plain(value), ensure_ascii=False)
    return json.loads(text.replace(str(_CORPUS / "cases"), "${ROOT}"))


def test_accepted_files_are_equal() -> None:
    """Every file that the official loader takes comes out the same."""
    differing = []
    for file in _cases("accept"):
        expected = json.loads((_CORPUS / "expected" / f"{file}.json").read_text())
        options = {"env_files": ()} if file in _WITHOUT_ENV_FILE else {}
        result = _load(file, **options)
        assert not isinstance(result, Rejected), (file, *map(str, result.problems))
        if _with_root(json_view(result.config)) != expected:
            differing.append(file)
    assert not differing
    assert len(_cases("accept")) == 208


def test_refused_files_are_refused() -> None:
    """Every file that it refuses is refused, with the cause and its place."""
    refused = set(_cases("reject")) - _RAW_ENV_FILE
    for file in sorted(refused):
        result = _load(file)
        assert isinstance(result, Rejected), file
        assert all(problem.message for problem in result.problems)
        assert all(problem.position for problem in result.problems), file
    assert len(refused) == 24


def test_the_whole_corpus_is_fast() -> None:
    """All files together load within the stated time."""
    files = _cases("accept") + _cases("reject")
    started = time.process_time()
    for file in files:
        _load(file)
    assert time.process_time() - started < _SECONDS_MAX
