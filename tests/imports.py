"""Which module may import which: checks the table `[tool.dray.imports]` of pyproject.toml.

The table names modules by pattern, also ones that do not exist yet. This file lists the modules
that exist, writes import-linter contracts about them, and reports every broken one as `path:line`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHAIN_LINE = re.compile(r"([A-Za-z_][\w.]*) -> ([A-Za-z_][\w.]*) \(l\.(\d+)")


@dataclass(frozen=True, slots=True)
class Contract:
    """One import-linter contract.

    Attributes:
        name: What it says, in words.
        sources: Modules it speaks about; never empty.
        forbidden: Modules they may not import; empty for an independence contract.
        is_direct_only: Whether a chain through a third module is allowed.
        bridges: Imports, "a -> b", that are not followed.
    """

    name: str
    sources: tuple[str, ...]
    forbidden: tuple[str, ...]
    is_direct_only: bool = False
    bridges: tuple[str, ...] = ()

    def ini(self, number: int) -> str:
        """Return the contract as a section of an import-linter file."""
        kind = "forbidden" if self.forbidden else "independence"
        names = "source_modules" if self.forbidden else "modules"
        lines = [f"[importlinter:contract:{number}]", f"name = {self.name}", f"type = {kind}"]
        lines += [f"{names} =", *(f"    {source}" for source in self.sources)]
        if self.forbidden:
            lines += ["forbidden_modules =", *(f"    {module}" for module in self.forbidden)]
            lines += [f"allow_indirect_imports = {self.is_direct_only}", "as_packages = False"]
        if self.bridges:
            lines += ["ignore_imports =", *(f"    {bridge}" for bridge in self.bridges)]
        return "\n".join(lines) + "\n"


def module_names(top: Path, roots: list[str]) -> list[str]:
    """Return every module of the root packages that exist below `top`, sorted."""
    found = []
    for root in roots:
        if not (top / root / "__init__.py").is_file():
            continue
        for path in (top / root).rglob("*.py"):
            parts = list(path.relative_to(top).with_suffix("").parts)
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(found)


def matches(module: str, patterns: list[str]) -> bool:
    """Return whether a module is named by a pattern or lies below one."""
    return any(module == pattern or module.startswith(f"{pattern}.") for pattern in patterns)


def contracts(modules: list[str], table: dict[str, Any]) -> list[Contract]:
    """Return the contracts of the table about the modules that exist."""
    generated = [module for module in modules if matches(module, table["generated"])]
    pure = [
        module
        for module in modules
        if matches(module, table["pure"]) and not matches(module, table["pure_except"])
    ]
    exists = set(modules)
    daemons = [root for root in table["roots"] if root != "dray" and root in exists]
    pure_forbids = [
        name for name in table["pure_forbids"] if name in exists or not name.startswith("dray.")
    ]
    acting = [module for module in table["pure_except"] if module in exists]
    servers = [module for module in modules if module.endswith(".server")]
    outsiders = [
        module
        for module in modules
        if not matches(module, table["generated"] + table["generated_users"])
    ]
    library = [module for module in modules if matches(module, ["dray"])]
    found = [
        Contract("dray imports none of the programs", tuple(library), tuple(daemons)),
        Contract(
            "pure packages only compute",
            tuple(pure),
            tuple(pure_forbids + generated + acting),
            bridges=tuple(b for b in table["pure_bridges"] if b.split()[0] in exists),
        ),
        Contract(
            "only __main__ imports a composition root",
            tuple(m for m in modules if not m.endswith(".__main__") and m not in servers),
            tuple(servers),
            is_direct_only=True,
        ),
        Contract(
            "generated code is used in few places",
            tuple(outsiders),
            tuple(generated),
            is_direct_only=True,
        ),
    ]
    for root, absent in table["not_installed"].items():
        inside = tuple(module for module in modules if matches(module, [root]))
        found.append(Contract(f"{root} runs without other extras", inside, tuple(absent)))
    found = [contract for contract in found if contract.sources and contract.forbidden]
    if len(daemons) > 1:
        found.append(Contract("the programs are independent", tuple(daemons), ()))
    return found


def main() -> int:
    """Check the tree below the working directory; print what is broken as `path:line: text`."""
    top = Path.cwd()
    table = tomllib.loads((top / "pyproject.toml").read_text())["tool"]["dray"]["imports"]
    modules = module_names(top, table["roots"])
    found = contracts(modules, table)
    roots = [root for root in table["roots"] if root in modules]
    head = "[importlinter]\nroot_packages =\n" + "".join(f"    {root}\n" for root in roots)
    head += "include_external_packages = True\n"
    with tempfile.TemporaryDirectory(prefix="dray-imports-") as folder:
        config = Path(folder, "importlinter.ini")
        config.write_text(head + "\n".join(c.ini(n) for n, c in enumerate(found)))
        linter = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports({}))"
        options = f"config_filename={str(config)!r}, cache_dir='.import_linter_cache'"
        done = subprocess.run(
            [sys.executable, "-c", linter.format(options)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    if done.returncode:
        print(_with_paths(top, done.stdout + done.stderr))
    print(f"{len(found)} contracts about {len(modules)} modules")
    return done.returncode


def _with_paths(top: Path, text: str) -> str:
    """Return the linter's report with `path:line` in front of every import it names."""

    def located(match: re.Match[str]) -> str:
        relative = Path(*match[1].split("."))
        is_package = (top / relative).is_dir()
        path = relative / "__init__.py" if is_package else relative.with_suffix(".py")
        return f"{path}:{match[3]}: {match[1]} imports {match[2]} (l.{match[3]}"

    return _CHAIN_LINE.sub(located, text)


if __name__ == "__main__":
    raise SystemExit(main())
