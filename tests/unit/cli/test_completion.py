"""Does a shell that sources the script complete verbs, actions and options?"""

from __future__ import annotations

import pytest

from cli.app import VERBS, help_of, main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_verb_and_option_is_in_the_script(
    capsys: pytest.CaptureFixture[str], shell: str
) -> None:
    """They come from the verbs themselves, so none can be forgotten."""
    assert main(["completion", shell], {}) == 0
    script = capsys.readouterr().out
    assert all(verb in script for verb in VERBS)
    for option in ("detach", "dry-run", "remove-orphans", "no-log-prefix"):
        assert option in script
    assert "--timeout DURATION" in help_of("up")
    if shell == "bash":
        [line] = [line for line in script.splitlines() if line.strip().startswith("down)")]
        assert line.split('"')[1].split() == [
            *("--detach", "--file", "--help", "--host", "--insecure"),
            *("--project-name", "--timeout", "--volumes"),
        ]
