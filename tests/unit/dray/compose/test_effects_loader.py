"""Does every key that the loader itself carries out change what is loaded?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from dray.compose import Loaded, LoadRequest, load
from dray.compose.treatment import ROWS, Executor
from tests.compose_cases.files import FOLDER, MemoryFiles

_Files = Mapping[str, str]
_WEB: Final = "services: {web: {image: x}}\n"


def _web(more: str) -> str:
    return f"services: {{web: {{image: x, {more}}}}}\n"


def _config(kind: str, more: str) -> str:
    return f"{_web(f'{kind}: [a]')}{kind}: {{a: {{{more}}}}}\n"


_BASE: Final = {"base.yaml": "services: {base: {image: y}, web: {image: z}}\n"}
_ENV: Final = {"a.env": "A=1\n", "b.env": "A=$$B\n", "w.env": "W=1\n"}

# path: (the files without the key, the files with it)
EFFECTS: Final[dict[str, tuple[_Files | str, _Files | str]]] = {
    "name": (_WEB, f"name: other\n{_WEB}"),
    "include": (_WEB, {"compose.yaml": f"include: [other.yaml]\n{_WEB}"}),
    "include[].path": (_WEB, {"compose.yaml": f"include: [{{path: other.yaml}}]\n{_WEB}"}),
    "include[].env_file": (
        {"compose.yaml": f"include: [{{path: w.yaml, env_file: none.env}}]\n{_WEB}"},
        {"compose.yaml": f"include: [{{path: w.yaml, env_file: w.env}}]\n{_WEB}"},
    ),
    "include[].project_directory": (
        {"compose.yaml": f"include: [{{path: sub/b.yaml}}]\n{_WEB}"},
        {"compose.yaml": f"include: [{{path: sub/b.yaml, project_directory: .}}]\n{_WEB}"},
    ),
    "services": (_WEB, _web("user: '5'")),
    "services.*": (_WEB, "services: {web: {image: x}, db: {image: x}}\n"),
    "services.*.extends": (_WEB, "services: {b: {image: y, user: '5'}, web: {extends: b}}\n"),
    "services.*.extends.service": (
        "services: {b: {image: y}, c: {image: z}, web: {extends: {service: b}}}\n",
        "services: {b: {image: y}, c: {image: z}, web: {extends: {service: c}}}\n",
    ),
    "services.*.extends.file": (
        "services: {base: {image: x}, web: {extends: {service: base}}}\n",
        "services: {base: {image: x}, web: {extends: {service: base, file: base.yaml}}}\n",
    ),
    "services.*.profiles": (
        "services: {web: {image: x}, db: {image: x}}\n",
        "services: {web: {image: x}, db: {image: x, profiles: [other]}}\n",
    ),
    "services.*.label_file": (_WEB, _web("label_file: [a.env]")),
    "services.*.env_file": (_WEB, _web("env_file: [a.env]")),
    "services.*.env_file[].path": (
        _web("env_file: [{path: a.env}]"),
        _web("env_file: [{path: w.env}]"),
    ),
    "services.*.env_file[].required": (
        _WEB,
        _web("env_file: [{path: a.env}, {path: none.env, required: false}]"),
    ),
    "services.*.env_file[].format": (
        _web("env_file: [{path: b.env}]"),
        _web("env_file: [{path: b.env, format: raw}]"),
    ),
    "services.*.networks": (_WEB, f"{_web('networks: [a]')}networks: {{a: }}\n"),
    "services.*.ports": (_WEB, _web("ports: ['80:80']")),
    "services.*.volumes": (_WEB, _web("volumes: ['/a:/a']")),
    "networks": (
        _web("networks: [a]") + "networks: {a: }\n",
        _web("networks: [b]") + "networks: {b: }\n",
    ),
    "networks.*": (
        f"{_web('networks: [a]')}networks: {{a: }}\n",
        f"{_web('networks: [a]')}networks: {{a: , b: {{internal: true}}}}\n",
    ),
    "volumes": (_WEB, f"{_web('volumes: [a:/a]')}volumes: {{a: }}\n"),
    "volumes.*": (
        f"{_web('volumes: [a:/a]')}volumes: {{a: }}\n",
        f"{_web('volumes: [b:/a]')}volumes: {{b: }}\n",
    ),
    "configs": (_WEB, _config("configs", "content: a")),
    "configs.*": (_WEB, _config("configs", "content: a")),
    "secrets": (_WEB, _config("secrets", "file: ./a.env")),
    "secrets.*": (_WEB, _config("secrets", "file: ./a.env")),
    **{
        f"{kind}.*.external.name": (
            f"{_web(use)}{kind}: {{a: {{external: true}}}}\n",
            f"{_web(use)}{kind}: {{a: {{external: {{name: other}}}}}}\n",
        )
        for kind, use in (
            ("networks", "networks: [a]"),
            ("volumes", "volumes: [a:/a]"),
            ("configs", "configs: [a]"),
            ("secrets", "secrets: [a]"),
        )
    },
    **{
        f"{kind}.*.{key}": (_config(kind, one), _config(kind, other))
        for kind in ("configs", "secrets")
        for key, one, other in (
            ("content", "content: a", "content: b"),
            ("environment", "environment: A", "environment: B"),
            ("file", "file: ./a.env", "file: ./w.env"),
        )
        if (kind, key) != ("secrets", "content")
    },
    "x-dray": (_WEB, f"x-dray: {{labels: {{a: b}}}}\n{_WEB}"),
    "services.*.x-dray": (_WEB, _web("x-dray: {policy: spread}")),
}
# What the official tool prints and no file may say; and a number that has one value.
_UNSAYABLE: Final = {"secrets.*.content", "x-dray.version"}


def _loaded(files: _Files | str, name: str = "compose.yaml") -> Loaded:
    given = {
        "other.yaml": "services: {db: {image: x}}\n",
        "w.yaml": "services: {db: {image: 'x:${W:-0}'}}\n",
        "none.env": "",
        "sub/b.yaml": "services: {db: {image: x, env_file: c.env}}\n",
        "sub/c.env": "C=1\n",
        "c.env": "C=2\n",
        **_BASE,
        **_ENV,
        **({name: files} if isinstance(files, str) else files),
    }
    if "required: false" in str(files):
        del given["none.env"]
    request = LoadRequest(
        (f"{FOLDER}/{name}",), project_name=None, environment=(("A", "a"), ("B", "b"))
    )
    result = load(request, MemoryFiles(given))
    assert isinstance(result, Loaded), "\n".join(map(str, result.problems))
    return result


def test_every_key_of_the_loader_is_tried() -> None:
    """The table above has every key that nothing but the loader carries out."""
    keys = {row.path for row in ROWS if row.executors == (Executor.LOADER,)}
    assert keys == set(EFFECTS) | _UNSAYABLE


@pytest.mark.parametrize("path", EFFECTS)
def test_a_key_of_the_loader_changes_the_project(path: str) -> None:
    """With the key, the cluster is asked for something else than without it."""
    without, with_it = EFFECTS[path]
    assert _loaded(with_it).project != _loaded(without).project


def test_builds_are_handed_to_the_client() -> None:
    """What a service builds comes with the project, under the reference that its tasks run."""
    loaded = _loaded("services: {web: {build: {context: ./src, target: a}}, db: {image: x}}\n")
    [build] = loaded.builds
    assert (build.service, build.options["context"], build.options["target"]) == (
        "web",
        f"{FOLDER}/src",
        "a",
    )
    web = next(each for each in loaded.project.services if each.name == "web")
    assert web.task.container.image.reference == build.image
