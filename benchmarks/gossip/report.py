"""What did several invocations find? One JSON file of all of them, and a table of the labs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["merged", "table"]

_HIDDEN = {"kind", "size", "what", "load"}


def merged(paths: Iterable[Path]) -> dict[str, Any]:
    """Return the outputs of several invocations as one, in their order."""
    runs = [json.loads(path.read_text()) for path in paths]
    return {"benchmark": "gossip", "runs": runs}


def table(report: Mapping[str, Any]) -> str:
    """Return the figures of all labs as Markdown: one row a figure and size, one column a kind."""
    cells: dict[tuple[str, str, int], dict[str, list[str]]] = {}
    for run in report["runs"]:
        for found in run.get("lab", ()):
            for figure, text in _figures(found):
                row = cells.setdefault((found["what"], figure, found["size"]), {})
                row.setdefault(found["kind"], []).append(text)
    lines = ["| what | figure | nodes | dray | Serf |", "| --- | --- | --: | --- | --- |"]
    for (what, figure, size), row in sorted(cells.items()):
        kinds = ("; ".join(row.get(kind, ["–"])) for kind in ("dray", "serf"))
        lines.append(f"| {what} | {figure} | {size} | {' | '.join(kinds)} |")
    return "\n".join(lines) + "\n"


def _figures(found: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield the figures of one scenario, each with its text."""
    for name, value in found.items():
        if name in _HIDDEN:
            continue
        if not isinstance(value, dict):
            yield name, f"{value}"
        elif "median" in value:
            worst = f", p99 {value['p99']}" if "p99" in value else ""
            never = f", never {value['never']}" if value["never"] else ""
            spread = f"{value['median']} [{value['min']} – {value['max']}]"
            yield name, f"{spread}{worst}, {value['runs']} runs{never}"
        elif "runs" in value:
            yield name, f"never in {value['runs']} runs"
        else:
            yield name, ", ".join(f"{what} {count}" for what, count in value.items())
