"""Print the JSON Schema of Compose files with x-dray, for editors."""

from __future__ import annotations

import argparse

from cli.context import Context
from cli.exits import ExitCode

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments: there are none."""
    parser.epilog = "Tell your editor to use it for compose.yaml, or name it in the file's first "
    parser.epilog += "line: # yaml-language-server: $schema=compose.schema.json"


def run(_given: argparse.Namespace, context: Context) -> ExitCode:
    """Print the schema."""
    import json

    from dray.compose.schema import compose_schema

    json.dump(compose_schema(), context.out, indent=2, ensure_ascii=False)
    context.out.write("\n")
    return ExitCode.CONVERGED
