"""Does everything that is said of a file say where in the file, from the text to the project?"""

from __future__ import annotations

from typing import Final

from dray.compose import Loaded, LoadRequest, Rejected, load
from dray.model import Affinity, AffinityTarget, PackingPolicy

TEXT: Final = """\
name: shop
x-dray: {version: 1, policy: spread}
services:
  web:
    image: nginx
    volumes_from: [db]
    ports:
      - "8080:80"
      - "8080:81"
    x-dray:
      singleton: ${P:-true}
      affinity: [db]
    deploy:
      placement:
        constraints:
          - node.labels.a == b
          - node.label.x == y
    configs: [c]
  db:
    image: postgres
    attach: false
configs:
  c: {file: ./missing}
"""


class _Files:
    """One file, in memory."""

    def __init__(self, text: str) -> None:
        self.text = text

    def read(self, path: str, bytes_max: int) -> bytes | None:
        """Return the file."""
        return self.text.encode()[: bytes_max + 1] if self.exists(path) else None

    def exists(self, path: str) -> bool:
        """Return whether it is the one."""
        return path == "/p/compose.yaml"


def _load(text: str, *, allow_ignored: bool = False) -> Loaded | Rejected:
    request = LoadRequest(files=("/p/compose.yaml",), allow_ignored=allow_ignored)
    return load(request, _Files(text))


def test_refusals_and_faults_have_positions() -> None:
    """Each key that cannot be carried out is named where it stands."""
    result = _load(TEXT)
    assert isinstance(result, Loaded)
    told = {each.path: str(each.position) for each in result.refusals}
    assert told == {
        "services.web.volumes_from": "/p/compose.yaml:6:5",
        "services.web.ports[1]": "/p/compose.yaml:9:9",
        "services.web.x-dray.singleton": "/p/compose.yaml:11:18",
        "services.web.deploy.placement.constraints[1]": "/p/compose.yaml:17:13",
        "configs.c.file": "/p/compose.yaml:23:13",
    }
    assert [str(each.position) for each in result.ignored] == ["/p/compose.yaml:21:13"]


def test_the_text_becomes_the_project() -> None:
    """Interpolated x-dray words and all else arrive in the model."""
    result = _load(TEXT)
    assert isinstance(result, Loaded)
    _, web = result.project.services
    assert result.project.policy is PackingPolicy.SPREAD
    assert web.dray.singleton is True
    assert web.dray.affinities == (Affinity(AffinityTarget.SERVICE, "db"),)


def test_allow_ignored_keeps_the_faults() -> None:
    """What contradicts itself cannot be ignored: a constraint, a missing file."""
    result = _load(TEXT, allow_ignored=True)
    assert isinstance(result, Loaded)
    assert [each.path for each in result.refusals] == [
        "services.web.ports[1]",
        "services.web.deploy.placement.constraints[1]",
        "configs.c.file",
    ]
    assert [each.path for each in result.ignored] == [
        "services.web.volumes_from",
        "services.web.x-dray.singleton",
        "services.db.attach",
    ]
    _, web = result.project.services
    assert web.dray.singleton is False


def test_a_mistake_below_x_dray_rejects_the_file() -> None:
    """It is told with its place and what was meant, among the faults of the file."""
    result = _load(TEXT.replace("singleton: ${P:-true}", "singletn: true"))
    assert isinstance(result, Rejected)
    assert [f"{each.position}: {each.path}" for each in result.problems] == [
        "/p/compose.yaml:9:9: services.web.ports[1]",
        "/p/compose.yaml:11:17: services.web.x-dray.singletn",
        "/p/compose.yaml:17:13: services.web.deploy.placement.constraints[1]",
        "/p/compose.yaml:23:13: configs.c.file",
    ]
    assert result.problems[1].message == "is not a word of x-dray"
    assert result.problems[1].hint == "did you mean singleton?"
