"""What a recipe may say about inputs that are made up."""

from __future__ import annotations

from dataclasses import dataclass

from freezeflow.params import param


@dataclass(frozen=True, kw_only=True)
class Random:
    """What seeded inputs of one key look like."""

    shape: tuple[int, ...] | None = param("Its shape, in place of the signature's.", default=None)
    low: float | None = param("The smallest number.", default=None)
    high: float | None = param(
        "The largest number: included for integers, excluded for floats.", default=None
    )
    values: tuple[float, ...] = param("Numbers to choose from, in place of a range.", default=())
    vocabulary: tuple[str, ...] = param("Strings to choose from.", default=())
