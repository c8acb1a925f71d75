"""The figures of a comparison in words."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal

from freezeflow.values import Json

_NEEDED = frozenset({"atol_needed", "rtol_needed"})
_UP = Context(prec=3, rounding=ROUND_CEILING)


def figure(name: str, value: Json) -> str:
    """A metric of `compare` in three digits; a tolerance is never shown smaller than it has to be."""
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    shown = f"{value:.3g}"
    if name in _NEEDED and float(shown) < value:
        return f"{_UP.create_decimal(Decimal(value)):.3g}"
    return shown
