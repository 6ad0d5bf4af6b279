"""Do `extends` and `include` bring in what they name, with its paths and places?"""

from __future__ import annotations

from tests.compose_cases.files import canonical_of, config_of, problems_of, service_of


def test_extends_in_one_file() -> None:
    """A service takes over another, what it says itself wins, and chains are followed."""
    text = """
services:
  base: {image: x, environment: {A: '1', B: '1'}, ports: ['80:80']}
  middle: {extends: base, environment: [B=2]}
  web: {extends: {service: middle}, environment: {C: '3'}, ports: ['81:81']}
"""
    web = service_of(text)
    assert web["image"] == "x"
    assert web["environment"] == {"A": "1", "B": "2", "C": "3"}
    assert [port["target"] for port in web["ports"]] == [80, 81]
    assert "extends" not in web


def test_extends_from_other_files() -> None:
    """Paths of another file are relative to it; its own references are followed from there."""
    files = {
        "compose.yaml": "services: {web: {extends: {file: sub/base.yaml, service: base}}}\n",
        "sub/base.yaml": """
services:
  base:
    extends: {file: ../deep/root.yaml, service: root}
    build: {context: ./src}
    volumes: ['./data:/data', 'named:/n']
    env_file: base.env
  broken: {image: 5}
""",
        "deep/root.yaml": "services: {root: {extends: other, image: x}, other: {user: '$WHO'}}\n",
        "sub/base.env": "A=1\n",
        "extra.yaml": "volumes: {named: }\n",
    }
    web = service_of(files, "compose.yaml", "extra.yaml", environment={"WHO": "me"})
    assert (web["image"], web["user"]) == ("x", "me")
    assert web["build"]["context"] == "/shop/sub/src"
    assert web["volumes"][0]["source"] == "/shop/sub/data"
    assert web["environment"] == {"A": "1"}


def test_extends_with_reset() -> None:
    """What the extended service says can be forgotten."""
    text = """
services:
  base: {image: x, ports: ['80:80'], user: a, labels: {a: '1'}}
  web: {extends: base, ports: !reset [], user: !reset , labels: !override {b: '2'}}
"""
    web = service_of(text)
    assert "ports" not in web
    assert "user" not in web
    assert web["labels"] == {"b": "2"}


def test_extends_keeps_places() -> None:
    """A value that was taken over is found where it was written."""
    files = {
        "compose.yaml": "services:\n  web:\n    extends: {file: base.yaml, service: base}\n",
        "base.yaml": "services:\n  base:\n    image: x\n    user: u\n",
    }
    canonical = canonical_of(files)
    assert str(canonical.where(("services", "web", "user"))) == "/shop/base.yaml:4:11"
    assert canonical.used_files == ("/shop/compose.yaml", "/shop/base.yaml")


def test_extends_in_a_cycle() -> None:
    """A cycle is told with its services, also through files."""
    assert problems_of("services:\n  a: {extends: b}\n  b: {extends: a}\n") == [
        "compose.yaml:2:16: services.a.extends: services extend one another in a cycle: a -> b -> a"
    ]
    files = {
        "compose.yaml": "services: {web: {extends: {file: b.yaml, service: b}}}\n",
        "b.yaml": "services: {b: {extends: {file: compose.yaml, service: web}}}\n",
    }
    assert "in a cycle" in problems_of(files)[0]


def test_include() -> None:
    """Included services come with paths, variables and env files of their own folder."""
    files = {
        "compose.yaml": "include: [lib/compose.yaml]\nservices: {web: {image: 'x:$TAG'}}\n",
        "lib/compose.yaml": """
services:
  db: {image: 'db:$TAG', volumes: ['./data:/d'], environment: [TAG], networks: [back]}
networks: {back: }
configs: {c: {file: ./c.conf}}
""",
        "lib/.env": "TAG=lib\n",
        ".env": "X=1\n",
        "lib/c.conf": "content",
    }
    canonical = canonical_of(files)
    config = canonical.config
    assert config["services"]["web"]["image"] == "x:"
    database = config["services"]["db"]
    assert database["image"] == "db:lib"
    assert database["environment"] == {"TAG": "lib"}
    assert database["volumes"][0]["source"] == "/shop/lib/data"
    assert config["configs"]["c"]["file"] == "/shop/lib/c.conf"
    assert canonical.contents["configs", "c"] == b"content"
    assert config["networks"]["back"]["name"] == "shop_back"


def test_include_in_the_long_syntax() -> None:
    """Several paths are merged; the project directory and env files can be named."""
    files = {
        "compose.yaml": """
include:
  - path: [lib/a.yaml, lib/b.yaml]
    project_directory: other
    env_file: [one.env, /dev/null]
""",
        "lib/a.yaml": "services: {web: {image: '$TAG', build: .}}\n",
        "lib/b.yaml": "services: {web: {user: '${USERNAME}'}}\n",
        "one.env": "TAG=one\nUSERNAME=me\n",
        "other/.env": "TAG=not used\n",
    }
    web = service_of(files)
    assert (web["image"], web["user"]) == ("one", "me")
    assert web["build"]["context"] == "/shop/other"
    assert service_of(files, environment={"TAG": "env"})["image"] == "env"


def test_what_includes_wins() -> None:
    """A file may refine what it includes, forget parts of it, and extend it."""
    files = {
        "compose.yaml": """
include: [lib.yaml]
services:
  web: {environment: {A: mine}, ports: !reset []}
  more: {extends: web, image: z}
""",
        "lib.yaml": "services: {web: {image: x, environment: [A=theirs, B=2], ports: ['1:1']}}\n",
    }
    config = config_of(files)
    assert config["services"]["web"]["environment"] == {"A": "mine", "B": "2"}
    assert "ports" not in config["services"]["web"]
    assert config["services"]["more"]["image"] == "z"
    assert config["services"]["more"]["environment"] == {"A": "mine", "B": "2"}


def test_includes_are_nested() -> None:
    """Included files include others from their own folder; the same file twice is no cycle."""
    files = {
        "compose.yaml": "include: [a/a.yaml, b/b.yaml]\nservices: {web: {image: x}}\n",
        "a/a.yaml": "include: [../c.yaml]\n",
        "b/b.yaml": "include: [../c.yaml]\n",
        "c.yaml": "services: {c: {image: c}}\n",
    }
    assert sorted(config_of(files)["services"]) == ["c", "web"]


def test_include_in_a_cycle() -> None:
    """A cycle is told with its files, and so is a chain that is too long."""
    files = {
        "compose.yaml": "include: [a.yaml]\nservices: {web: {image: x}}\n",
        "a.yaml": "include: [compose.yaml]\n",
    }
    assert problems_of(files) == [
        "a.yaml:1:11: include[0]: files include one another in a cycle: "
        "compose.yaml -> a.yaml -> compose.yaml"
    ]
    chain = {f"i{index}.yaml": f"include: [i{index + 1}.yaml]\n" for index in range(100)}
    assert "more than 20 deep" in problems_of(chain, "i0.yaml")[0]


def test_what_is_wrong_inside_is_told_there() -> None:
    """A mistake in an included or extended file has that file's place."""
    files = {
        "compose.yaml": "include: [a.yaml]\nservices: {web: {image: x}}\n",
        "a.yaml": "services:\n  a:\n    imag: x\n",
    }
    told = "a.yaml:3:5: services.a.imag: is not a known key (did you mean 'image'?)"
    assert problems_of(files) == [told]
    files = {
        "compose.yaml": "services: {web: {extends: {file: a.yaml, service: a}}}\n",
        "a.yaml": "services:\n  a:\n    imag: x\n",
    }
    assert problems_of(files) == [told.replace("services.a", "services.web")]


def test_profiles() -> None:
    """Services without an active profile are left out; what needs them says so."""
    text = """
services:
  web: {image: x}
  debug: {image: y, profiles: [debug, test], depends_on: {tool: {condition: service_started}}}
  tool: {image: z, profiles: [debug]}
"""
    assert sorted(config_of(text)["services"]) == ["web"]
    assert sorted(config_of(text, profiles=("debug",))["services"]) == ["debug", "tool", "web"]
    assert sorted(config_of(text, profiles=("*",))["services"]) == ["debug", "tool", "web"]
    by_variable = config_of(text, environment={"COMPOSE_PROFILES": "x, debug"})
    assert sorted(by_variable["services"]) == ["debug", "tool", "web"]
    assert canonical_of(text).disabled == ("debug", "tool")
    assert problems_of(text, profiles=("test",)) == [
        "compose.yaml:4:59: services.debug.depends_on.tool: service 'tool' is not enabled: "
        "none of its profiles is active (activate it with --profile)"
    ]
