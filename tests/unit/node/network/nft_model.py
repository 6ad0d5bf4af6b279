"""A small model of nftables: carries out what `Tables` writes, refuses what the kernel would."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

ELEMENT = re.compile(r"(add|delete) element ip dray (\S+) \{ (.*) \}")
ADDED = re.compile(r"(add|flush) (map|set|chain) ip dray (\S+)")
RULE = re.compile(r"add rule ip dray (\S+) (.*)")
SKELETON = re.compile(r"^(map|set|chain) (\S+) \{")
REFERENCE = re.compile(r"(?:goto (\w+)|@(\w+))")


@dataclass
class Nft:
    """What the table holds."""

    elements: dict[str, dict[str, str]] = field(default_factory=dict)
    chains: dict[str, list[str]] = field(default_factory=dict)

    def carry_out(self, text: str) -> None:
        """Carry out a transaction."""
        for line in text.splitlines():
            if line == "delete table ip dray":
                self.elements, self.chains = {}, {}
            elif match := SKELETON.match(line):
                self._declare(match[1], match[2])
            elif match := ELEMENT.fullmatch(line):
                for element in match[3].split(", "):
                    self._element(match[1], match[2], element)
            elif match := ADDED.match(line):
                self._declare(match[2], match[3], is_flushed=match[1] == "flush")
            elif match := RULE.fullmatch(line):
                self._check(match[2])
                self.chains[match[1]].append(match[2])

    def _declare(self, kind: str, name: str, *, is_flushed: bool = False) -> None:
        if kind == "chain":
            rules = self.chains.setdefault(name, [])
            if is_flushed:
                rules.clear()
        else:
            self.elements.setdefault(name, {})

    def _element(self, verb: str, name: str, element: str) -> None:
        key, _, value = element.partition(" : ")
        if verb == "delete":
            assert self.elements[name].pop(key) == value, f"{name} has another {key}"
        else:
            assert self.elements[name].get(key, value) == value, f"{key} is in {name} already"
            self._check(value)
            self.elements[name][key] = value

    def _check(self, text: str) -> None:
        for chain, held in REFERENCE.findall(text):
            assert not chain or chain in self.chains, f"no chain {chain}"
            assert not held or held in self.elements, f"no set {held}"
