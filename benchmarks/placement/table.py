"""How do all policies compare? The tournament as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["markdown_table"]


def markdown_table(
    sections: Mapping[str, Mapping[str, Mapping[str, float]]], rows: str = "policy"
) -> str:
    """Return one table: a row a policy, a column a figure.

    Args:
        sections: Figures by section and policy.
        rows: What the rows are.
    """
    columns = [
        (section, figure)
        for section, policies in sections.items()
        for figure in dict.fromkeys(key for each in policies.values() for key in each)
        if figure not in ("deviation", "seeds")
    ]
    longest = sorted(sections.values(), key=len, reverse=True)  # so that rows keep their order
    names = list(dict.fromkeys(name for each in longest for name in each))
    head = [rows, *(f"{section}: {figure}" for section, figure in columns)]
    lines = [head, ["---", *("--:" for _ in columns)]]
    for name in names:
        values = [sections[section].get(name, {}).get(figure) for section, figure in columns]
        lines.append([name, *("–" if value is None else f"{value:g}" for value in values)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
