"""Is every function short, every module readable in one sitting, and every error handler narrow?"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.house import tree

FUNCTION_LINES_MAX: Final = 70
MODULE_LINES_MAX: Final = 600
# The one function of each daemon that may catch everything: it logs and starts its loop again.
SUPERVISORS: Final[frozenset[tuple[str, str]]] = frozenset()
BROAD: Final = frozenset({"Exception", "BaseException"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    """Yield every function and method of a module, nested ones too."""
    for node in ast.walk(tree.parsed(path)):
        if isinstance(node, Function):
            yield node


def length(function: Function) -> int:
    """Return a function's lines from its first decorator to its last statement."""
    first = min([function.lineno, *(d.lineno for d in function.decorator_list)])
    return (function.end_lineno or function.lineno) - first + 1


def is_broad(handler: ast.ExceptHandler) -> bool:
    """Return whether a handler takes every error and does not raise it again."""
    named = [handler.type, *(handler.type.elts if isinstance(handler.type, ast.Tuple) else [])]
    takes_all = handler.type is None or any(
        isinstance(name, ast.Name) and name.id in BROAD for name in named
    )
    return takes_all and not any(isinstance(node, ast.Raise) for node in ast.walk(handler))


def broad_handlers(path: Path) -> Iterator[tuple[ast.ExceptHandler, str]]:
    """Yield every broad handler with the name of the innermost function that it is in."""
    owner = {
        node: function.name
        for function in functions(path)  # outer functions first, so the innermost one stays
        for node in ast.walk(function)
        if isinstance(node, ast.ExceptHandler)
    }
    for node in ast.walk(tree.parsed(path)):
        if isinstance(node, ast.ExceptHandler) and is_broad(node):
            yield node, owner.get(node, "the module")


def test_functions_are_short() -> None:
    """No function has more than 70 lines."""
    found = [
        tree.shown(
            path,
            function.lineno,
            f"{function.name} has {length(function)} lines, {FUNCTION_LINES_MAX} are the most",
        )
        for path in tree.modules()
        for function in functions(path)
        if length(function) > FUNCTION_LINES_MAX
    ]
    assert not found, tree.report(found)


def test_modules_are_short() -> None:
    """No module has more than 600 lines."""
    found = [
        tree.shown(path, MODULE_LINES_MAX, f"{lines} lines, {MODULE_LINES_MAX} are the most")
        for path in tree.modules()
        if (lines := len(path.read_text().splitlines())) > MODULE_LINES_MAX
    ]
    assert not found, tree.report(found)


def test_no_handler_takes_every_error() -> None:
    """In the four packages only the listed supervisors catch everything."""
    found = [
        tree.shown(path, handler.lineno, f"{name} catches every error; name those it expects")
        for path in tree.modules()
        if path.relative_to(tree.TOP).parts[0] in tree.PACKAGES
        for handler, name in broad_handlers(path)
        if (str(path.relative_to(tree.TOP)), name) not in SUPERVISORS
    ]
    assert not found, tree.report(found)


def test_every_module_says_what_it_answers() -> None:
    """Every module opens with a docstring of which the first line is a whole sentence."""
    found = []
    for path in tree.modules():
        words = (ast.get_docstring(tree.parsed(path)) or "").split("\n\n")[0].strip()
        if not words.endswith((".", "?", "!", ":")):
            found.append(tree.shown(path, 1, "does not open with a sentence that says what it is"))
    assert not found, tree.report(found)


def test_every_test_says_what_it_proves() -> None:
    """Every test function has a docstring, also the ones in classes."""
    found = [
        tree.shown(path, function.lineno, f"{function.name} does not say what it proves")
        for path in tree.modules()
        if path.name.startswith("test_")
        for function in functions(path)
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]
    assert not found, tree.report(found)
