"""How is a config written as YAML that Compose reads back to the same?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from dray.compose.shape import yaml_view
from dray.compose.yaml_scalars import resolve

__all__ = ["yaml_text"]

_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_WIDTH = 4096  # characters: no value is folded


class _ComposeDumper(_Dumper):  # type: ignore[misc]
    """A dumper that quotes what Compose, and not only PyYAML, would take for no text."""

    def ignore_aliases(self, data: object) -> bool:
        """Write every value out."""
        return True


def _text(dumper: Any, value: str) -> Any:
    style = None if isinstance(resolve(value), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_ComposeDumper.add_representer(str, _text)


def yaml_text(config: Mapping[str, Any], *, escape: bool = True) -> str:
    """Return a config as YAML.

    Args:
        config: A canonical config.
        escape: Whether dollar signs are doubled, so that nothing is replaced when it is read.
    """
    view = yaml_view(config)
    shown = _escaped(view) if escape else view
    text: str = yaml.dump(
        shown, Dumper=_ComposeDumper, sort_keys=False, allow_unicode=True, width=_WIDTH
    )
    return text


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    return value
