"""Are env files read as the official tool reads them?"""

from __future__ import annotations

import pytest

from dray.compose.dotenv import BadEnvFile, parse_env, parse_raw_env
from tests.compose_cases.files import problems_of, service_of

_ENVIRONMENT = {"HOME": "/root", "GIVEN": "given"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# only a comment", {}),
        ("A=1", {"A": "1"}),
        ("A=1\nB=2\n", {"A": "1", "B": "2"}),
        ("\n\n A=1\n", {"A": "1"}),
        ("A: 1\n", {"A": "1"}),
        ("export A=1\n", {"A": "1"}),
        ("A = 1\n", {"A": "1"}),
        ("A=\nB=\n", {"A": "", "B": ""}),
        ("A=1 # comment\n", {"A": "1"}),
        ("A=1#no comment\n", {"A": "1#no comment"}),
        ("A=a b  \n", {"A": "a b"}),
        ("A='a $B # c' # d\n", {"A": "a $B # c"}),
        ("A='it\\'s'\n", {"A": "it's"}),
        ("A='a\\nb'\n", {"A": "a\\nb"}),
        ('A="a\\nb"\n', {"A": "a\nb"}),
        ('A="a\\tb\\\\"\n', {"A": "a\tb\\"}),
        ('A="say \\"x\\""\n', {"A": 'say "x"'}),
        ('A="\\0101"\n', {"A": "A"}),
        ('A="\\$B"\n', {"A": "$B"}),
        ('A="$$B"\n', {"A": "$B"}),
        ('A="one\ntwo"\nB=3\n', {"A": "one\ntwo", "B": "3"}),
        ("A=1\nB=$A-${A}\n", {"A": "1", "B": "1-1"}),
        ('A=1\nB="${A}${X:-d}"\n', {"A": "1", "B": "1d"}),
        ("B=$GIVEN\n", {"B": "given"}),
        ("GIVEN=file\nB=$GIVEN\n", {"GIVEN": "file", "B": "given"}),
        ("GIVEN\nMISSING\n", {"GIVEN": "given"}),
        ("GIVEN", {"GIVEN": "given"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("A.b-c[0]=1\n", {"A.b-c[0]": "1"}),
        ("A=b=c\n", {"A": "b=c"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("\ufeffA=1\n", {"A": "1"}),
        ('JSON={"a": 1}\n', {"JSON": '{"a": 1}'}),
    ],
    ids=repr,
)
def test_parse(text: str, expected: dict[str, str]) -> None:
    """Quotes, comments, escapes, references and inheritance give what they must."""
    variables: dict[str, str] = {}
    parse_env(text.encode(), variables, _ENVIRONMENT.get)
    assert variables == expected


@pytest.mark.parametrize(
    ("content", "line", "told"),
    [
        (b"A=1\nB?=2\n", 2, "unexpected '?' in the name 'B?=2'"),
        (b"A B=1\n", 1, "the name 'A B' holds a space"),
        (b"A='one\ntwo\n", 1, "the quoted value 'one does not end"),
        (b"\nA=${B\n", 2, "'${B' has a malformed variable"),
        (b"A=1\nB=\xff\n", 2, "is not UTF-8: byte 0xff"),
    ],
    ids=repr,
)
def test_bad_files(content: bytes, line: int, told: str) -> None:
    """What is wrong is told with its line."""
    with pytest.raises(BadEnvFile) as caught:
        parse_env(content, {}, _ENVIRONMENT.get)
    assert (caught.value.line, caught.value.message) == (line, told)


def test_raw_format() -> None:
    """The raw format takes a line as it is."""
    variables: dict[str, str] = {}
    text = "# c\n A='x' # $B\nGIVEN\nMISSING\n\nC=\n"
    parse_raw_env(text.encode(), variables, _ENVIRONMENT.get)
    assert variables == {"A": "'x' # $B", "GIVEN": "given", "C": ""}
    with pytest.raises(BadEnvFile, match="not a name of a variable"):
        parse_raw_env(b"A B=1\n", {}, _ENVIRONMENT.get)


def test_env_files_of_a_service() -> None:
    """Later files win over earlier ones, and the service's own environment over all."""
    files = {
        "compose.yaml": (
            "services:\n  web:\n    image: x\n    environment: {A: own, N: }\n"
            "    env_file: [one.env, {path: two.env}, {path: no.env, required: false}]\n"
        ),
        "one.env": "A=1\nB=1\nC=1\n",
        "two.env": "B=2\nD=$A-$C-$B\nN=2\n",
    }
    web = service_of(files)
    expected = {"A": "own", "B": "2", "C": "1", "D": "own-1-2", "N": None}
    assert web["environment"] == expected
    assert web["env_file"][0] == {"path": "/shop/one.env"}
    assert web["env_file"][2] == {"path": "/shop/no.env", "required": False}
    assert service_of(files, environment={"N": "env"})["environment"]["N"] == "env"


def test_raw_env_file_of_a_service() -> None:
    """`format: raw` is honoured."""
    text = "services:\n  web:\n    image: x\n    env_file: [{path: raw.env, format: raw}]\n"
    web = service_of({"compose.yaml": text, "raw.env": "A='$B'\n"})
    assert web["environment"] == {"A": "'$B'"}
    assert web["env_file"] == [{"format": "raw", "path": "/shop/raw.env"}]


def test_label_files() -> None:
    """Labels come from files too; the service's own win."""
    files = {
        "compose.yaml": "services: {web: {image: x, label_file: [l], labels: {a: own}}}\n",
        "l": "a=1\nb=2\n",
    }
    assert service_of(files)["labels"] == {"a": "own", "b": "2"}


def test_large_env_file() -> None:
    """An env file has a limit too."""
    files: dict[str, str | bytes] = {"compose.yaml": "services: {web: {image: x}}\n"}
    files[".env"] = b"A=" + b"x" * 2_000_000
    assert problems_of(files) == ["env file: .env is larger than 1,048,576 bytes"]
