"""Does a package that names its modules' content load only what is asked for?"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

INIT = """
from dray.lazy import importing

__getattr__ = importing(__name__, {"one": ("First", "Second"), "two": ("Third",)})
"""


def test_a_name_loads_its_module_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of a name is loaded when the name is used, and the name stays."""
    package = tmp_path / "lazily_named"
    package.mkdir()
    (package / "__init__.py").write_text(INIT)
    (package / "one.py").write_text("First, Second = object(), object()\n")
    (package / "two.py").write_text("Third = object()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        found = importlib.import_module("lazily_named")
        assert "lazily_named.one" not in sys.modules
        first = found.First
        assert first is sys.modules["lazily_named.one"].First
        assert vars(found)["First"] is first
        assert "lazily_named.two" not in sys.modules
        with pytest.raises(AttributeError, match=r"'lazily_named' has no attribute 'Fourth'"):
            _ = found.Fourth
    finally:
        for name in [each for each in sys.modules if each.startswith("lazily_named")]:
            del sys.modules[name]
