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
  else
    _files
  fi
}}
compdef _dray dray
"""
_FISH: Final = "complete -c dray -n __fish_use_subcommand -f -a {verb} -d '{text}'\n"
_NODE: Final = "ls members drain pause activate label rm rotate-key run config doctor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])


def run(given: argparse.Namespace, context: Context) -> ExitCode:
    """Print the script."""
    from cli.app import VERBS

    quoted = {verb: text.replace("'", "’") for verb, text in VERBS.items()}
    if given.shell == "bash":
        context.out.write(_BASH.format(verbs=" ".join(VERBS), node=_NODE))
    elif given.shell == "zsh":
        described = " ".join(f"'{verb}:{text}'" for verb, text in quoted.items())
        context.out.write(_ZSH.format(described=described, node=_NODE))
    else:
        context.out.writelines(_FISH.format(verb=verb, text=text) for verb, text in quoted.items())
    return ExitCode.CONVERGED
