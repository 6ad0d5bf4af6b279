"""Does every implementation of the Compose loader keep its guarantees? Files chosen by hand.

What this version cannot read yet is among the refused files, because nothing may be dropped in
silence; an implementation that learns to read one takes its row out.
"""

from __future__ import annotations

from textwrap import dedent

import pytest
import yaml

from dray.compose import (
    COMPOSE_BYTES_MAX,
    PROBLEMS_MAX,
    Loaded,
    LoadRequest,
    Problem,
    Rejected,
)
from dray.errors import DrayError
from dray.model import EnvVar, ProjectSpec, ServiceSpec, string_map
from tests.contract.compose.implementations import LOADS, PATH, DictFiles, Load, load_text

SMALLEST = "services: {web: {image: 'web:1'}}"


@pytest.fixture(params=sorted(LOADS))
def load(request: pytest.FixtureRequest) -> Load:
    """Return one implementation after the other."""
    return LOADS[request.param]


def project_of(result: Loaded | Rejected) -> ProjectSpec:
    """Return the project of a file that must have been taken."""
    assert isinstance(result, Loaded), [str(problem) for problem in result.problems]
    return result.project


def service_of(load: Load, lines: str, **options: bool) -> ServiceSpec:
    """Load a file with one service that has an image and these lines; return the service."""
    body = "".join(f"    {line}\n" for line in dedent(lines).strip().splitlines())
    text = f"services:\n  web:\n    image: web:1\n{body}"
    (service,) = project_of(load_text(load, text, **options)).services
    return service


def refusals(result: Loaded | Rejected) -> list[str]:
    """Return why a file was rejected, as people read it, without the name of the file."""
    assert isinstance(result, Rejected), result
    return [
        str(problem).removeprefix(f"{PATH}:") if problem.position else str(problem)
        for problem in result.problems
    ]


# ---- what is taken ----------------------------------------------------------------------------


def test_the_smallest_file_is_a_project(load: Load) -> None:
    """One service with an image is enough; the project is named after its folder."""
    project = project_of(load_text(load, SMALLEST))
    assert project.name == "shop"
    (service,) = project.services
    assert service.name == "web"
    assert service.task.container.image.reference == "web:1"
    assert service.mode.replicas == 1


def test_everything_that_is_read_is_taken_over(load: Load) -> None:
    """Every key of this version arrives in its field."""
    service = service_of(
        load,
        """
        command: serve --port 80 'two words'
        entrypoint: [/bin/app, -v]
        environment: {B: two, A: 1, EMPTY: ""}
        hostname: h1
        labels: [a=b, c]
        stop_grace_period: 1m30s
        stop_signal: SIGINT
        user: 1000:1000
        working_dir: /srv
        deploy:
          replicas: 3
          labels: {team: blue}
          resources: {reservations: {cpus: "0.5", memory: 64m}}
        """,
    )
    container = service.task.container
    assert container.command == ("serve", "--port", "80", "two words")
    assert container.entrypoint == ("/bin/app", "-v")
    assert container.environment == (EnvVar("A", "1"), EnvVar("B", "two"), EnvVar("EMPTY", ""))
    assert (container.hostname, container.user, container.working_dir) == (
        "h1",
        "1000:1000",
        "/srv",
    )
    assert container.labels == (("a", "b"), ("c", ""))
    assert (container.stop_grace_s, container.stop_signal) == (90.0, "SIGINT")
    assert service.labels == (("team", "blue"),)
    assert service.mode.replicas == 3
    reservations = service.task.reservations
    assert (reservations.cpu_millis, reservations.memory_bytes) == (500, 64 * 1024**2)


@pytest.mark.parametrize(
    "lines",
    [
        "environment: {A: 1, B: two, C: 'x=y', D: ''}",
        "environment:\n- A=1\n- B=two\n- C=x=y\n- D=",
        "environment:\n  D: ''\n  C: x=y\n  B: two\n  A: 1",
        "environment: ['B=two', 'D=', 'C=x=y', 'A=1']",
    ],
)
def test_a_list_of_variables_is_a_map_of_them(load: Load, lines: str) -> None:
    """The two forms say the same, in any order."""
    expected = (EnvVar("A", "1"), EnvVar("B", "two"), EnvVar("C", "x=y"), EnvVar("D", ""))
    assert service_of(load, lines).task.container.environment == expected


@pytest.mark.parametrize("lines", ["environment: [SET, UNSET]", "environment: {SET: , UNSET: ~}"])
def test_a_variable_without_a_value_has_the_callers(load: Load, lines: str) -> None:
    """A bare name is taken from the caller's environment; one that is not there is taken away."""
    text = f"services:\n  web:\n    image: web:1\n    {lines}\n"
    environment = string_map({"SET": "from $outside", "OTHER": "x"})
    request = LoadRequest((PATH,), environment=environment)
    project = project_of(load(request, DictFiles({PATH: text.encode()})))
    assert project.services[0].task.container.environment == (
        EnvVar("SET", "from $outside"),
        EnvVar("UNSET", None),
    )


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("command: echo hello", ("echo", "hello")),
        ("command: [echo, 'a b', 5]", ("echo", "a b", "5")),
        ("command: []", ()),
        ("command: ''", ()),
        ("command:", None),
        ("command: null", None),
        ("""command: sh -c "echo \\"a b\\"" 'c d'""", ("sh", "-c", 'echo "a b"', "c d")),
    ],
)
def test_commands(load: Load, lines: str, expected: tuple[str, ...] | None) -> None:
    """Text is split as a shell does, a list is taken as it is, nothing keeps the image's own."""
    assert service_of(load, lines).task.container.command == expected


def test_two_dollar_signs_are_one(load: Load) -> None:
    """`$$` stands for a dollar sign, unless nothing is to be replaced."""
    lines = "command: ['$$HOME', 'a$$b']"
    assert service_of(load, lines).task.container.command == ("$HOME", "a$b")
    plain = service_of(load, "command: ['$$HOME', '${X}']", interpolate=False)
    assert plain.task.container.command == ("$$HOME", "${X}")


def test_keys_of_the_author_mean_nothing(load: Load) -> None:
    """Extension fields are passed over wherever they are, and may hold what is used elsewhere."""
    text = """
        x-common: &common {image: "web:1", user: ann}
        x-list: [1, [2, {a: b}]]
        services:
          web: *common
          db:
            image: db:1
            x-note: anything
            deploy: {x-note: 5}
        """
    project = project_of(load_text(load, dedent(text)))
    assert [service.name for service in project.services] == ["db", "web"]
    assert project.services[1].task.container.user == "ann"


@pytest.mark.parametrize(
    ("request_name", "written", "expected"),
    [(None, None, "shop"), (None, "written", "written"), ("asked", "written", "asked")],
)
def test_the_name_of_a_project(
    load: Load, request_name: str | None, written: str | None, expected: str
) -> None:
    """The caller's name wins over the file's, the file's over its folder's."""
    text = (f"name: {written}\n" if written else "") + SMALLEST
    request = LoadRequest((PATH,), project_name=request_name)
    assert project_of(load(request, DictFiles({PATH: text.encode()}))).name == expected


def test_the_project_folder_names_the_project(load: Load) -> None:
    """A project folder that is named takes the place of the file's; it becomes a DNS label."""
    request = LoadRequest((PATH,), project_directory="/srv/My_Project/")
    assert project_of(load(request, DictFiles({PATH: SMALLEST.encode()}))).name == "my-project"


def test_services_come_sorted_and_the_order_of_keys_means_nothing(load: Load) -> None:
    """Two files that say the same give equal projects."""
    one = "name: x\nservices: {b: {image: b, user: u}, a: {image: a}}"
    two = "services: {a: {image: a}, b: {user: u, image: b}}\nname: x"
    assert project_of(load_text(load, one)) == project_of(load_text(load, two))


# ---- what is refused --------------------------------------------------------------------------

VALUES = {
    "no-image": ("web: {}", ["1:12: services.web: has no image (name one with `image:`)"]),
    "no-mapping": ("web: ", ["1:17: services.web: must be a mapping"]),
    "null-image": ("web: {image: }", ["1:25: services.web.image: must be text"]),
    "bad-image": (
        "web: {image: a b}",
        ["1:25: services.web.image: 'a b' is not the name of an image"],
    ),
    "list-image": ("web: {image: [a]}", ["1:25: services.web.image: must be text"]),
    "replicas": (
        "web: {image: a, deploy: {replicas: -1}}",
        ["1:47: services.web.deploy.replicas: '-1' is not a number of replicas"],
    ),
    "replicas-digits": (
        "web: {image: a, deploy: {replicas: ٣}}",
        ["1:47: services.web.deploy.replicas: '٣' is not a number of replicas"],
    ),
    "replicas-many": (
        "web: {image: a, deploy: {replicas: 10000000}}",
        ["1:47: services.web.deploy.replicas: '10000000' is not a number of replicas"],
    ),
    "duration": (
        "web: {image: a, stop_grace_period: 5}",
        [
            "1:47: services.web.stop_grace_period: '5' is not a duration"
            " (write it as 30s, 1m30s or 500ms)"
        ],
    ),
    "quotation": (
        'web: {image: a, command: "echo \'a"}',
        ["1:37: services.web.command: ends within a quotation or after a backslash"],
    ),
    "backslash": (
        "web: {image: a, command: 'echo \\'}",
        ["1:37: services.web.command: ends within a quotation or after a backslash"],
    ),
    "command-map": (
        "web: {image: a, command: {a: b}}",
        ["1:37: services.web.command: must be text or a list"],
    ),
    "command-item": (
        "web: {image: a, command: [a, [b]]}",
        ["1:41: services.web.command[1]: must be text"],
    ),
    "variable": (
        "web: {image: 'web:$TAG'}",
        ["1:25: services.web.image: variables are not replaced yet (write $$ for a dollar sign)"],
    ),
    "variable-in-list": (
        "web: {image: a, environment: ['A=${B:-c}']}",
        [
            "1:42: services.web.environment[0]: variables are not replaced yet"
            " (write $$ for a dollar sign)"
        ],
    ),
    "odd-dollars": (
        "web: {image: a, user: '$$$'}",
        ["1:34: services.web.user: variables are not replaced yet (write $$ for a dollar sign)"],
    ),
    "twice": (
        "web: {image: a, image: b}",
        ["1:28: services.web.image: is there twice"],
    ),
    "twice-in-list": (
        "web: {image: a, environment: [A=1, A=2]}",
        ["1:47: services.web.environment[1]: is there twice"],
    ),
    "nameless": (
        "web: {image: a, environment: [=1, '']}",
        [
            "1:42: services.web.environment[0]: has no name",
            "1:46: services.web.environment[1]: has no name",
        ],
    ),
    "equals": (
        "web: {image: a, environment: {A=B: c}}",
        ["1:42: services.web.environment.A=B: a name may not hold '='"],
    ),
    "unknown": (
        "web: {image: a, volumes: [x:/y], x-dray: {singleton: true}}",
        [
            "1:28: services.web.volumes: is not supported yet (remove it from the file)",
            "1:45: services.web.x-dray: is not supported yet (remove it from the file)",
        ],
    ),
    "merge-key": (
        "web: {image: a, <<: {user: b}}",
        ["1:28: services.web: merge keys (<<) are not supported yet (write the keys out)"],
    ),
    "key-no-text": (
        "web: {image: a, ? [b] : c, ~ : d}",
        ["1:30: services.web: a key must be text", "1:39: services.web: a key must be text"],
    ),
    "tag": ("web: {image: !reset a}", ["1:25: the tag !reset is not supported yet"]),
    "nul": ('web: {image: "a\\0"}', ["1:25: holds a NUL character"]),
    "service-name": (
        "'we b': {image: a}",
        [
            "1:12: services.we b: service name 'we b' may hold only letters, digits, '._-'"
            " (rename the service)"
        ],
    ),
    "dns-name": (
        "a_b: {image: a}, a-b: {image: b}",
        ["1:29: services.a-b: has the same DNS name as service 'a_b': 'a-b' (rename one of them)"],
    ),
}


@pytest.mark.parametrize(("services", "expected"), VALUES.values(), ids=VALUES)
def test_what_is_wrong_is_said_at_its_place(load: Load, services: str, expected: list[str]) -> None:
    """A bad value, an unknown key, a name that will not do: file, line, column, path and advice."""
    assert refusals(load_text(load, f"services: {{{services}}}")) == expected


FILES = {
    "empty": (b"", ["1:1: is empty (a Compose file has `services:`)"]),
    "comments": (b"# nothing\n", ["2:1: is empty (a Compose file has `services:`)"]),
    "no-services": (
        b"name: x\n",
        ["1:1: services: there is no service (add one under `services:`)"],
    ),
    "empty-services": (
        b"services: {}\n",
        ["1:1: services: there is no service (add one under `services:`)"],
    ),
    "null-services": (b"services:\n", ["1:10: services: must be a mapping"]),
    "a-list": (b"- a\n", ["1:1: must be a mapping"]),
    "a-scalar": (b"hello\n", ["1:1: must be a mapping"]),
    "top-unknown": (
        b"version: '3'\nservices: {web: {image: a}}\nvolumes: {v: }\n",
        [
            "1:1: version: is not supported yet (remove it from the file)",
            "3:1: volumes: is not supported yet (remove it from the file)",
        ],
    ),
    "bad-name": (
        b"name: A B\nservices: {web: {image: a}}\n",
        [
            "1:7: name: project name 'A B' may hold only a-z, 0-9 and hyphens, and no hyphen at"
            " either end ('a-b' would do)"
        ],
    ),
    "not-utf-8": (b"name: x\n# caf\xc3\xa9 \xff\n", ["2:8: is not UTF-8"]),
    "utf-16": ("name: x".encode("utf-16"), ["1:1: is not UTF-8"]),
    "nul": (b"name: x\n  \x00", ["2:3: holds the control character U+0000"]),
    "two-documents": (b"a: b\n---\nc: d\n", ["2:1: holds more than one document (split the file)"]),
    "no-anchor": (b"a: *b\n", ["1:4: there is no anchor &b before this"]),
    "circle": (b"services: &a {web: *a}\n", ["1:20: &a contains itself"]),
    "tab": (b"services:\n\tweb: x\n", None),
    "unclosed": (b"services: {web: [", None),
    "colon": (b"services: web: x\n", None),
}


@pytest.mark.parametrize(("content", "expected"), FILES.values(), ids=FILES)
def test_files_that_are_no_projects(load: Load, content: bytes, expected: list[str] | None) -> None:
    """A file that cannot be read says where and why; syntax errors in the words of the parser."""
    found = refusals(load_text(load, content))
    if expected is None:
        assert len(found) == 1
        assert "is not YAML: " in found[0]
    else:
        assert found == expected


def test_problems_are_in_the_order_of_the_file(load: Load) -> None:
    """Line 9 comes before line 10, and column 9 before column 10, of all problems there are."""
    lines = "".join(f"    k{number}: v\n" for number in range(12))
    text = f"services:\n  web:\n    image: a\n{lines}    ports: [{{}}]\nvolumes: {{}}\n"
    result = load_text(load, text)
    assert isinstance(result, Rejected)
    positions = [problem.position for problem in result.problems]
    assert len(positions) == 14
    assert [each.line for each in positions if each] == [*range(4, 16), 16, 17]


def test_every_problem_is_found_at_once(load: Load) -> None:
    """One load names what is wrong in every service, not only the first."""
    text = "services:\n" + "".join(f"  s{n}: {{image: a, bad: 1}}\n" for n in range(5))
    assert len(refusals(load_text(load, text))) == 5


def test_more_problems_than_anybody_reads_are_counted(load: Load) -> None:
    """A list of problems has a limit; the last line says how many there are beyond it."""
    text = "services:\n  web:\n    image: a\n" + "".join(f"    k{n}: v\n" for n in range(3000))
    found = refusals(load_text(load, text))
    assert len(found) == PROBLEMS_MAX + 1
    assert found[-1] == f"{3000 - PROBLEMS_MAX} problems more than the {PROBLEMS_MAX} above"


def test_files_that_cannot_be_had(load: Load) -> None:
    """No file, none named, several, an unreadable one, and env files: each says what to do."""
    broken = DictFiles({PATH: DrayError("cannot read it", hint="check its permissions")})
    request = LoadRequest((PATH,))
    env_files = LoadRequest((PATH,), env_files=("/projects/x.env",))
    assert refusals(load(request, DictFiles({}))) == [
        f"{PATH}: there is no such file (name it with -f)"
    ]
    assert refusals(load(request, broken)) == [f"{PATH}: cannot read it (check its permissions)"]
    assert refusals(load(LoadRequest(()), DictFiles({}))) == [
        "0 files were named (name exactly one)"
    ]
    assert refusals(load(LoadRequest((PATH, PATH)), DictFiles({}))) == [
        "2 files were named (name exactly one)"
    ]
    assert refusals(load(env_files, DictFiles({PATH: SMALLEST.encode()}))) == [
        "/projects/x.env: env files are not read yet (leave them out)"
    ]


def test_a_value_that_may_be_in_an_unread_file_is_not_guessed(load: Load) -> None:
    """A bare variable beside a `.env` that is not read yet is refused, unless it is set outside."""
    text = "services: {web: {image: a, environment: [A]}}"
    files = DictFiles({PATH: text.encode(), "/projects/shop/.env": b"A=1"})
    assert refusals(load(LoadRequest((PATH,)), files)) == [
        "1:41: services.web.environment: the value of A may be in .env, which is not read yet"
        " (write the value here)"
    ]
    for request in (
        LoadRequest((PATH,), environment=(("A", "2"),)),
        LoadRequest((PATH,), env_files=()),
    ):
        assert isinstance(load(request, files), Loaded)


def test_what_may_be_ignored_is_listed(load: Load) -> None:
    """With the caller's leave unknown keys are passed over and named; real errors stay errors."""
    text = "services:\n  web:\n    image: a\n    volumes: [b]\n    x-dray: {}\nvolumes: {b: }\n"
    result = load_text(load, text, allow_ignored=True)
    assert isinstance(result, Loaded)
    assert [problem.path for problem in result.ignored] == [
        "services.web.volumes",
        "services.web.x-dray",
        "volumes",
    ]
    for wrong in ("web: {image: a, <<: {user: b}}", "web: {image: '$A'}", "web: {}"):
        refused = load_text(load, f"services: {{{wrong}}}", allow_ignored=True)
        assert isinstance(refused, Rejected)


def test_problems_read_as_one_line() -> None:
    """A problem without a place, a path or a hint leaves them out."""
    assert str(Problem(None, "", "is wrong")) == "is wrong"
    assert str(Problem(None, "a.b", "is wrong", "fix it")) == "a.b: is wrong (fix it)"


# ---- what is bounded --------------------------------------------------------------------------

BOMBS = {
    "nested-lists": b"a: " + b"[" * 500_000,
    "nested-maps": b"{a: " * 200_000,
    "nested-blocks": b"\n".join(b" " * depth + b"a:" for depth in range(700)),
    "dashes": b"- " * 400_000,
    "laughs": b"a0: &a0 [x, x]\n"
    + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 40)),
    "services-of-aliases": b"x-e: &e {"
    + b", ".join(b"k%d: v" % n for n in range(30_000))
    + b"}\nservices:\n"
    + b"".join(b"  s%d: {image: a, environment: *e}\n" % n for n in range(10_000)),
    "long-text-of-aliases": b"x-t: &t "
    + b"y" * 500_000
    + b"\nservices: {web: {image: a, environment: ["
    + b"*t," * 100_000
    + b"]}}",
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
def test_files_that_stand_for_more_than_they_are(load: Load, content: bytes) -> None:
    """Deep nesting and aliases of aliases are refused at a place, quickly, and never raise."""
    (problem,) = refusals(load_text(load, content))
    assert "nested deeper" in problem or "with every alias written out" in problem


@pytest.mark.parametrize("size", [COMPOSE_BYTES_MAX, COMPOSE_BYTES_MAX + 1])
def test_the_largest_file(load: Load, size: int) -> None:
    """A file of exactly the limit is taken, one byte more is not."""
    content = SMALLEST.encode() + b"\n#"
    result = load_text(load, content + b"x" * (size - len(content)))
    if size <= COMPOSE_BYTES_MAX:
        assert isinstance(result, Loaded)
    else:
        assert refusals(result) == [f"{PATH}: is larger than {COMPOSE_BYTES_MAX} bytes"]


def test_a_large_honest_file_is_taken(load: Load) -> None:
    """A megabyte of services, and a command of half a megabyte, are read in a few seconds."""
    services = "".join(
        f"  s{n}:\n    image: a\n    environment: {{A: 1, B: two}}\n" for n in range(9_000)
    )
    text = f"services:\n{services}  last:\n    image: a\n    command: '{'x' * 500_000} y'\n"
    assert len(text) < COMPOSE_BYTES_MAX
    project = project_of(load_text(load, text))
    assert len(project.services) == 9_001


def test_keys_have_a_length(load: Load) -> None:
    """A key longer than any name is refused without being repeated in the message."""
    text = f"services: {{? {'x' * 2000} : {{image: a}}}}"
    assert refusals(load_text(load, text))[0] == (
        "1:14: services: a key of 2000 characters; 1024 are the most"
    )


# ---- what comes out ---------------------------------------------------------------------------


def test_the_normalised_shape(load: Load) -> None:
    """The project is shown whole, in plain values, without what was not said."""
    text = """
        services:
          web:
            image: web:1
            command: echo $$HOME
            entrypoint: []
            environment: {A: 1, B: }
            hostname: h
            labels: {a: b}
            stop_grace_period: 90s
            stop_signal: SIGINT
            user: ann
            working_dir: /srv
            deploy: {replicas: 0, labels: [x=y], resources: {reservations: {cpus: 1.5, memory: 1g}}}
          db: {image: db:1}
        """
    result = load_text(load, dedent(text))
    assert isinstance(result, Loaded)
    assert result.config == {
        "name": "shop",
        "services": {
            "db": {"deploy": {"replicas": 1}, "image": "db:1"},
            "web": {
                "command": ["echo", "$$HOME"],
                "deploy": {
                    "labels": {"x": "y"},
                    "replicas": 0,
                    "resources": {"reservations": {"cpus": "1.5", "memory": "1073741824"}},
                },
                "entrypoint": [],
                "environment": {"A": "1", "B": None},
                "hostname": "h",
                "image": "web:1",
                "labels": {"a": "b"},
                "stop_grace_period": "1m30s",
                "stop_signal": "SIGINT",
                "user": "ann",
                "working_dir": "/srv",
            },
        },
    }
    again = load_text(load, yaml.safe_dump(dict(result.config)))
    assert again == result
