"""Are mistakes that different stages of the loader find told together, and nothing twice?"""

from __future__ import annotations

import pytest

from dray.compose import LoadRequest, Rejected, load
from tests.compose_cases.files import FOLDER, MemoryFiles

_EVERYTHING = """\
services:
  web:
    image: nginx
    prots:
      - "80:80"
    ports: ["99999:80"]
    restart: sometimes
    deploy:
      replicas: many
      resources:
        reservations:
          memory: 12x
    networks: [back]
    depends_on: [db]
"""

# Two mistakes, and where what is told starts; `web` is a service with an image.
_PAIRS: dict[str, tuple[str, list[str]]] = {
    "template, structure": (
        "    hostname: ${A\n    imag: x\n",
        ["4:15: services.web.hostname", "5:5: services.web.imag"],
    ),
    "cast, short syntax": (
        "    init: maybe\n    ports: ['x:80']\n",
        ["4:11: services.web.init", "5:13: services.web.ports[0]"],
    ),
    "structure, entry": (
        "    ports: [{target: 80, host_ip: here}]\n    dns: 5\n",
        ["4:35: services.web.ports[0].host_ip", "5:10: services.web.dns"],
    ),
    "short syntax, path": (
        "    devices: ['a:b:c:d']\n    volumes: [{type: bind, target: /b}]\n",
        ["4:15: services.web.devices[0]", "5:15: services.web.volumes[0]"],
    ),
    "structure, printed shape": (
        "    mem_limit: 12x\n    tty: [x]\n",
        ["4:16: services.web.mem_limit", "5:10: services.web.tty"],
    ),
    "printed shape, reference": (
        "    stop_grace_period: soon\n    networks: [back]\n",
        ["4:24: services.web.stop_grace_period", "5:16: services.web.networks.back"],
    ),
    "reference, env file": (
        "    env_file: none.env\n    depends_on: [db]\n",
        ["4:15: services.web.env_file[0]", "5:18: services.web.depends_on.db"],
    ),
    "extends, reference": (
        "    extends: {file: none.yaml, service: x}\n    secrets: [key]\n",
        ["4:14: services.web.extends", "5:15: services.web.secrets[0]"],
    ),
    "structure, conversion": (
        "    restart: sometimes\n    tty: [x]\n",
        ["4:14: services.web.restart", "5:10: services.web.tty"],
    ),
    "items of one list": (
        "    volumes: [5, 'data::b', 'data:/d']\n    links: [db]\n",
        [
            "4:15: services.web.volumes[0]",
            "4:18: services.web.volumes[1]",
            "4:29: services.web.volumes[2]",
            "5:12: services.web.depends_on.db",
        ],
    ),
    "x-dray, reference": (
        "    x-dray: {prioriti: 7}\n    models: [llm]\n",
        ["4:24: services.web.x-dray.prioriti", "5:14: services.web.models.llm"],
    ),
}

# A mistake whose consequences are no mistakes of their own: only one line is told.
_NO_FOLLOWERS: dict[str, str] = {
    "misspelt image": "services:\n  web: {imag: x}\n",
    "image that is no text": "services:\n  web: {image: [x]}\n",
    "image without its variable": "services:\n  web: {image: '${TAG:?}'}\n",
    "service that is no mapping": "services:\n  db: 5\n  web: {image: x, depends_on: [db]}\n",
    "misspelt section": "services:\n  web: {image: x, networks: [a]}\nnetwroks: {a: }\n",
    "volumes that are no mapping": "services:\n  web: {image: x, volumes: ['d1:/a']}\nvolumes: 5\n",
    "network that is a number": "services:\n  web: {image: x, networks: [a]}\nnetworks: {a: 5}\n",
    "secret without content": "services:\n  web: {image: x, secrets: [a]}\nsecrets: {a: {}}\n",
    "base that is not there": "services:\n  web: {extends: base}\n",
    "base with a mistake": "services:\n  a: {image: 5}\n  web: {extends: a}\n",
    "other file that is not there": (
        "include: [other.yaml]\nservices:\n  web: {image: x, depends_on: [db], networks: [a]}\n"
    ),
    "target that is no number": "services:\n  web: {image: x, ports: [{target: many}]}\n",
    "test whose first word is refused": (
        "services:\n  web: {image: x, healthcheck: {test: [[CMD], x]}}\n"
    ),
    "what aliases repeat": (
        "x-a: &a {cpus: lots}\nservices:\n  a: {image: x, <<: *a}\n  b: {image: y, <<: *a}\n"
    ),
    "what services extend": (
        "services:\n  a: {image: x, prots: []}\n  b: {extends: a}\n  c: {extends: b}\n"
    ),
}


def _told(text: str) -> list[str]:
    result = load(LoadRequest((f"{FOLDER}/compose.yaml",)), MemoryFiles({"compose.yaml": text}))
    assert isinstance(result, Rejected), "the files were taken"
    return [str(each).removeprefix(f"{FOLDER}/compose.yaml:") for each in result.problems]


def test_mistakes_of_all_stages_are_told_at_once() -> None:
    """Structure, syntaxes, sizes, references and conversion: each mistake once, by place."""
    assert _told(_EVERYTHING) == [
        "4:5: services.web.prots: is not a known key (did you mean 'ports'?)",
        "6:13: services.web.ports[0]: '99999:80' has no proper published port: '99999' is not "
        "within 0 to 65535",
        "7:14: services.web.restart: 'sometimes' is no restart policy (write no, always, "
        "on-failure[:3] or unless-stopped)",
        "9:17: services.web.deploy.replicas: 'many' is not a whole number",
        "12:19: services.web.deploy.resources.reservations.memory: '12x' is not a size (write it "
        "as 512m, 1.5g or 1024)",
        "13:16: services.web.networks.back: there is no network 'back' (define it under "
        "`networks:`)",
        "14:18: services.web.depends_on.db: there is no service 'db' (define it under `services:`)",
    ]


@pytest.mark.parametrize(("lines", "starts"), _PAIRS.values(), ids=list(_PAIRS))
def test_mistakes_of_two_stages_are_told(lines: str, starts: list[str]) -> None:
    """A stage that refuses something does not keep a later one from looking at the rest."""
    told = _told(f"services:\n  web:\n    image: nginx\n{lines}")
    assert [": ".join(each.split(": ")[:2]) for each in told] == starts


@pytest.mark.parametrize("text", _NO_FOLLOWERS.values(), ids=list(_NO_FOLLOWERS))
def test_what_follows_from_a_mistake_is_not_told(text: str) -> None:
    """What was refused is neither missing nor undefined."""
    told = _told(text)
    assert len(told) == 1, "\n".join(told)


def test_a_later_file_is_checked_as_well() -> None:
    """A mistake in one file does not hide those of the next."""
    files = MemoryFiles(
        {
            "a.yaml": "services:\n  web: {image: x, ports: ['x:80']}\n",
            "b.yaml": "services:\n  web: {ports: ['81:81', 'y:80'], cpus: lots}\n",
        }
    )
    result = load(LoadRequest((f"{FOLDER}/a.yaml", f"{FOLDER}/b.yaml")), files)
    assert isinstance(result, Rejected)
    assert [(str(each.position), each.path) for each in result.problems] == [
        ("/shop/a.yaml:2:27", "services.web.ports[0]"),
        ("/shop/b.yaml:2:26", "services.web.ports[2]"),
        ("/shop/b.yaml:2:41", "services.web.cpus"),
    ]


def test_an_empty_base_excuses_nothing() -> None:
    """What is missing is told when there is no mistake that explains it."""
    files = MemoryFiles(
        {
            "compose.yaml": "services:\n  web: {extends: {file: base.yaml, service: a}}\n",
            "base.yaml": "services:\n  a:\n",
        }
    )
    result = load(LoadRequest((f"{FOLDER}/compose.yaml",)), files)
    assert isinstance(result, Rejected)
    assert [each.message for each in result.problems] == ["has neither an image nor a build"]
