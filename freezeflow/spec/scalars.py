"""Plain scalars by the core schema of YAML 1.2, in which ``no`` is a string and ``010`` is ten.

Source of the rules: https://yaml.org/spec/1.2.2/#103-core-schema.
"""

from __future__ import annotations

import re

Scalar = str | int | float | bool | None

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOL = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = (
    (re.compile(r"[-+]?[0-9]+"), 10),
    (re.compile(r"0o[0-7]+"), 8),
    (re.compile(r"0x[0-9a-fA-F]+"), 16),
)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

# Longer ones are no numbers that anything takes, and Python's own reading of them is quadratic.
_MAX_DIGITS = 400


def parse_scalar(text: str) -> Scalar:
    """The value of a plain (unquoted) scalar: null, bool, int, float, or the string itself."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if len(text) > _MAX_DIGITS:
        return text
    for pattern, base in _INT:
        if pattern.fullmatch(text):
            return int(text.removeprefix("0o").removeprefix("0x"), base)
    if _FLOAT.fullmatch(text):
        return float(text)
    special = _NOT_FINITE.fullmatch(text)
    if special:
        return float("nan") if special[3] else float(f"{special[1]}inf")
    return text
