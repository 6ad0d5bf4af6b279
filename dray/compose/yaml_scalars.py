"""What does an unquoted YAML scalar mean to Compose?

YAML 1.2's core schema with two older habits: a leading 0 means octal, and underscores may group
digits. yes, no, on and off are text, and so are dates.
"""

from __future__ import annotations

import base64
import math
import re
from typing import Final

__all__ = ["float_text", "resolve", "resolve_tagged", "scalar_text"]

_WORDS: Final[dict[str, bool | float | None]] = {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    ".nan": math.nan,
    ".NaN": math.nan,
    ".NAN": math.nan,
    ".inf": math.inf,
    ".Inf": math.inf,
    ".INF": math.inf,
    "+.inf": math.inf,
    "+.Inf": math.inf,
    "+.INF": math.inf,
    "-.inf": -math.inf,
    "-.Inf": -math.inf,
    "-.INF": -math.inf,
    "-0": -0.0,
}
_INTEGER = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|0[0-7]*|[1-9][0-9]*)", re.ASCII
)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NUMBER_STARTS: Final = frozenset("0123456789+-.")
_DIGITS_MAX: Final = 64  # no 64-bit number is longer, in any base
_PLAIN_EXPONENT_MAX: Final = 6  # from 1e+06 on a float is written with an exponent


def resolve(text: str) -> str | int | float | bool | None:
    """Return what an unquoted scalar without a tag stands for."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS or len(text) > _DIGITS_MAX:
        return text
    digits = text.replace("_", "") if text[0] != "." else text
    if _INTEGER.fullmatch(digits):
        return _integer(digits)
    if _FLOAT.fullmatch(digits):
        return float(digits)
    return text


def _integer(digits: str) -> int | float:
    sign = -1 if digits[0] == "-" else 1
    body = digits.lstrip("+-")
    prefix = body[:2].lower()
    if prefix in ("0x", "0o", "0b"):
        number = sign * int(body[2:], {"0x": 16, "0o": 8, "0b": 2}[prefix])
    elif len(body) > 1 and body[0] == "0":
        number = sign * int(body, 8)
    else:
        number = sign * int(body)
    return number if -(2**63) <= number < 2**64 else float(number)


def resolve_tagged(tag: str, text: str) -> str | int | float | bool | None:
    """Return what a scalar with an explicit tag stands for.

    Raises:
        ValueError: The text is not of the type that its tag names.
    """
    name = tag.removeprefix("tag:yaml.org,2002:")
    if name == "binary":
        return base64.b64decode("".join(text.split()), validate=True).decode("utf-8")
    if name not in ("int", "float", "bool", "null"):
        return text
    value = resolve(text)
    kinds: dict[str, type] = {"int": int, "float": float, "bool": bool, "null": type(None)}
    if name == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kinds[name]:
        raise ValueError(f"{text!r} is tagged !!{name} and is none")
    return value


def scalar_text(value: object) -> str:
    """Return a scalar as the text that it becomes where Compose wants text."""
    if isinstance(value, str):
        return value
    if value is True:
        return "true"
    if value is False:
        return "false"
    if value is None:
        return "<nil>"
    if isinstance(value, float):
        return float_text(value)
    return str(value)


def float_text(value: float) -> str:
    """Return a float as the official tool writes it: shortest, with an exponent from 1e+06 on."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    digits, _, exponent_text = repr(value).partition("e")
    exponent = _exponent_of(digits, exponent_text, value)
    if value != 0 and not -4 <= exponent < _PLAIN_EXPONENT_MAX:
        mantissa = _significant(digits)
        sign = "-" if value < 0 else ""
        body = mantissa[0] + (f".{mantissa[1:]}" if len(mantissa) > 1 else "")
        return f"{sign}{body}e{'-' if exponent < 0 else '+'}{abs(exponent):02}"
    if not exponent_text:
        return digits.removesuffix(".0")
    decimals = max(len(_significant(digits)) - 1 - exponent, 0)
    return f"{value:.{decimals}f}"


def _significant(digits: str) -> str:
    return digits.lstrip("-").replace(".", "").strip("0") or "0"


def _exponent_of(digits: str, exponent_text: str, value: float) -> int:
    if exponent_text:
        return int(exponent_text)
    if value == 0:
        return 0
    whole, _, fraction = digits.lstrip("-").partition(".")
    if whole.strip("0"):
        return len(whole.lstrip("0")) - 1
    return -(len(fraction) - len(fraction.lstrip("0")) + 1)
