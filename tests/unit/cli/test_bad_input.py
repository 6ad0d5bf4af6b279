"""Is every mistake that needs no cluster told with its place and a next step, and nothing sent?"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from cli.app import main
from cli.exits import ExitCode

BUSY: Final = "image: busybox, command: [sleep, inf]"
COMPOSE: Final = (
    (
        "an unknown key",
        "name: shop\nservices:\n  web: {imagine: x}\n",
        ("compose.yaml:3:9", "imagine", "did you mean 'image'?"),
    ),
    ("no YAML", "name: shop\nservices: {web: [\n", ("compose.yaml:3:1", "is not YAML")),
    (
        "a service's name that is too long",
        f"name: shop\nservices: {{{'w' * 64}: {{{BUSY}}}}}\n",
        ("compose.yaml:2:12", "has 64 characters, 63 are the most"),
    ),
    (
        "a key that is not carried out",
        f"name: shop\nservices:\n  web: {{{BUSY}, networks: {{a: {{ipv6_address: 'fd00::9'}}}}}}\n"
        "networks: {a: {}}\n",
        ("compose.yaml:3", "ipv6_address", "not carried out yet"),
    ),
    (
        "an address of no subnet",
        f"name: shop\nservices:\n  web: {{{BUSY}, networks: {{a: {{ipv4_address: 10.1.2.3}}}}}}\n"
        "networks: {a: {}}\n",
        ("compose.yaml:3", "ipv4_address", "of no subnet"),
    ),
    (
        "one port for two services",
        f"name: shop\nservices:\n  api: {{{BUSY}, ports: ['8080:80']}}\n"
        f"  web: {{{BUSY}, ports: ['8080:80']}}\n",
        ("compose.yaml:4", "port 8080/tcp", "api"),
    ),
    ("no image", "name: shop\nservices: {web: {command: [x]}}\n", ("compose.yaml:2", "image")),
)
COMMANDS: Final = (
    (("up", "-f", "/nowhere/compose.yaml"), ExitCode.REFUSED, "/nowhere/compose.yaml"),
    (("scale", "shop/web=many"), ExitCode.USAGE, "SERVICE=REPLICAS"),
    (("ps", "--host", "a:b:c"), ExitCode.USAGE, "a:b:c"),
    (("up", "--timeout", "soon"), ExitCode.USAGE, "--timeout"),
    (("events", "--since", "lately"), ExitCode.USAGE, "--since"),
    (("logs", "shop/web", "--tail", "some"), ExitCode.USAGE, "some"),
    (("node", "label", "n1", "=x"), ExitCode.USAGE, "KEY=VALUE"),
    (("cp", "a", "b"), ExitCode.USAGE, "one side must be in a container"),
    (("exec", "shop/web"), ExitCode.USAGE, "no command"),
    (("events", "--tail", "0"), ExitCode.USAGE, "1 to 1000"),
    (("nonsense",), ExitCode.USAGE, "nonsense"),
)


@pytest.mark.parametrize(("what", "text", "told"), COMPOSE)
def test_a_file_with_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, text: str, told: tuple[str, ...]
) -> None:
    """It is refused before anybody is asked, with file, line and what is wrong."""
    file = tmp_path / "compose.yaml"
    file.write_text(text)
    assert main(["up", "-f", str(file)], {}) == ExitCode.REFUSED, what
    shown = capsys.readouterr()
    assert all(part in shown.err for part in told), (what, shown.err)
    assert shown.err.endswith("dray: nothing was changed\n"), (what, shown.err)
    assert shown.out == ""


@pytest.mark.parametrize(("command", "status", "told"), COMMANDS)
def test_a_command_with_a_mistake(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...], status: ExitCode, told: str
) -> None:
    """One line says which part is wrong; the status says whose mistake it is."""
    assert main(command, {}) == status
    shown = capsys.readouterr()
    assert told in shown.err, shown.err
    assert shown.err.startswith("dray: ")
    assert shown.out == ""
