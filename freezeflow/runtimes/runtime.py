"""What a runtime is, and how exact its numbers are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from freezeflow.installed import version_of
from freezeflow.values import Json


class Names(NamedTuple):
    """What inputs and outputs are called in a file, by the signature's keys."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


class Precision(NamedTuple):
    """How far a format's numbers may be from the original's.

    Args:
        name: ``float32``, ``float16`` and so on.
        atol: Absolute tolerance of outputs whose largest value is 1 or less; it grows with them.
        rtol: Relative tolerance.
    """

    name: str
    atol: float
    rtol: float


# Sums in another order; half precision has 11 bits; 8 bits for weights, or for everything.
FLOAT32 = Precision("float32", 1e-5, 1e-4)
FLOAT16 = Precision("float16", 2e-3, 1e-2)
DYNAMIC_RANGE = Precision("dynamic_range", 5e-2, 5e-2)
INT8 = Precision("int8", 1e-1, 1e-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtime:
    """What runs files of a format.

    Args:
        name: What recipes and verdicts call it.
        answer: ``(file, names, calls, answers)``: answers the calls that are saved under one path
            into another. Raises RuntimeRefused where it cannot.
        tools: Packages that it takes.
        narrowed: Dtypes that it does not have, to those that it gives in their place.
        version: Tells its version, where no package does.
    """

    name: str
    answer: Callable[[Path, Names, Path, Path], Json]
    tools: tuple[str, ...]
    narrowed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    version: Callable[[], str] | None = None

    def described(self) -> str:
        """Its name with its version."""
        found = self.version() if self.version is not None else version_of(self.tools[0])
        return f"{self.name} {found}"
