"""Print a script that completes commands in a shell: `source <(dray completion bash)`."""

from __future__ import annotations

import argparse
from typing import Final

from cli.context import Context
from cli.exits import ExitCode

__all__ = ["add_arguments", "run"]

_BASH: Final = """\
_dray() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} words
  if [ "$COMP_CWORD" -eq 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W "{verbs}" -- "$word")
    return
  fi
  if [[ "$word" == -* ]]; then
    case ${{COMP_WORDS[1]}} in
{options}
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    return
  fi
  case ${{COMP_WORDS[1]}} in
    node) words="{node}" ;;
    scheduler) words="run config" ;;
    *) words="" ;;
  esac
  if [ "$COMP_CWORD" -eq 2 ] && [ -n "$words" ]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    return
  fi
  mapfile -t COMPREPLY < <(compgen -f -- "$word")
}}
complete -F _dray dray
"""
_ZSH: Final = """\
#compdef dray
_dray() {{
  local -a verbs
  verbs=({described})
  if (( CURRENT == 2 )); then
    _describe 'command' verbs
  elif [[ $words[2] == node && $CURRENT -eq 3 ]]; then
    compadd {node}
  elif [[ $words[CURRENT] == -* ]]; then
    case $words[2] in
{options}
    esac
  else
    _files
  fi
}}
compdef _dray dray
"""
_FISH: Final = "complete -c dray -n __fish_use_subcommand -f -a {verb} -d '{text}'\n"
_FISH_OPTION: Final = "complete -c dray -n '__fish_seen_subcommand_from {verb}' -l {option}\n"
_NODE: Final = "ls members drain pause activate label rm rotate-key run config doctor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Print the script."""
    from cli.app import VERBS

    quoted = {verb: text.replace("'", "’") for verb, text in VERBS.items()}
    options = {verb: _options(verb) for verb in VERBS}
    if given.shell == "bash":
        cases = "\n".join(
            f'      {verb}) words="{" ".join(each)}" ;;' for verb, each in options.items()
        )
        context.out.write(_BASH.format(verbs=" ".join(VERBS), node=_NODE, options=cases))
    elif given.shell == "zsh":
        described = " ".join(f"'{verb}:{text}'" for verb, text in quoted.items())
        cases = "\n".join(
            f"      {verb}) compadd -- {' '.join(each)} ;;" for verb, each in options.items()
        )
        context.out.write(_ZSH.format(described=described, node=_NODE, options=cases))
    else:
        context.out.writelines(_FISH.format(verb=verb, text=text) for verb, text in quoted.items())
        context.out.writelines(
            _FISH_OPTION.format(verb=verb, option=option.removeprefix("--"))
            for verb, each in options.items()
            for option in each
        )
    return ExitCode.CONVERGED


def _options(verb: str) -> list[str]:
    """Return the long options of a verb, from its own help."""
    import re

    from cli.app import help_of

    return sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", help_of(verb))))
