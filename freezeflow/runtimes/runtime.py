"""What a runtime is, and how exact its numbers are."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from freezeflow.installed import version_of
from freezeflow.values import Json, Signature


class Names(NamedTuple):
    """What inputs and outputs are called in a file, by the signature's keys."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    @staticmethod
    def by_place(words: tuple[str, str], keys: tuple[Sequence[str], Sequence[str]]) -> Names:
        """For files that only number what goes in and comes out.

        Args:
            words: What stands before the numbers of inputs, and of outputs.
            keys: Keys of inputs in their order, and of outputs.
        """
        return Names(
            *(
                {key: f"{word}{place}" for place, key in enumerate(side)}
                for word, side in zip(words, keys, strict=True)
            )
        )

    def in_order(self) -> tuple[list[str], list[str]]:
        """Keys of inputs, and of outputs, by the numbers of `by_place`."""

        def ordered(side: Mapping[str, str]) -> list[str]:
            return sorted(side, key=lambda key: int(re.sub(r"\D", "", side[key])))

        return ordered(self.inputs), ordered(self.outputs)


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


# Sums in another order; half precision has 11 bits, bfloat16 8; 8 bits for weights, or for everything.
FLOAT32 = Precision("float32", 1e-5, 1e-4)
FLOAT16 = Precision("float16", 2e-3, 1e-2)
BFLOAT16 = Precision("bfloat16", 1.6e-2, 8e-2)
DYNAMIC_RANGE = Precision("dynamic_range", 5e-2, 5e-2)
INT8 = Precision("int8", 1e-1, 1e-1)


PRECISIONS: Mapping[str, Precision] = {
    precision.name: precision for precision in (FLOAT32, FLOAT16, BFLOAT16, DYNAMIC_RANGE, INT8)
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """An exported file as a runtime is asked about it.

    Args:
        file: The main file.
        names: Its inputs and outputs.
        signature_name: The signature that it answers.
        signature: The same, with the shapes that the file takes.
        bound: Inputs that were bound, which the original gets beside the others.
        init: Nodes that run once, in order, before the first call.
        precision: Of the file's numbers.
        options: What else its runtime has to know, by name.
        random: Outputs that a random op lies before, each with the op, where the runtime may draw other
            numbers than TensorFlow.
    """

    file: Path
    names: Names
    signature_name: str
    signature: Signature
    bound: Mapping[str, bool | int | float | str] = dataclasses.field(default_factory=dict)
    init: tuple[str, ...] = ()
    precision: Precision = FLOAT32
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    random: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtime:
    """What runs files of a format.

    Args:
        name: What recipes and verdicts call it.
        answer: ``(subject, calls, answers)``: answers the calls that are saved under one path into
            another; what it gives back goes into the verdict. Raises RuntimeRefused where it cannot.
        tools: Packages that it takes.
        narrowed: Dtypes that it does not have, to those that it gives in their place.
        exact: It is TensorFlow itself and runs as the exact level does (one thread, no Grappler, no
            oneDNN); what it is compared with does then, too.
        version: Tells its version, where no package does.
        missing: What there is to be installed beside packages, in words; empty if all is there.
    """

    name: str
    answer: Callable[[Subject, Path, Path], Mapping[str, Json]]
    tools: tuple[str, ...]
    narrowed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    exact: bool = False
    version: Callable[[], str] | None = None
    missing: Callable[[], str] = lambda: ""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions that no package tells, by name, for keys."""
        return {} if self.version is None else {self.name: self.version()}

    def described(self) -> str:
        """Its name with its version."""
        found = self.version() if self.version is not None else version_of(self.tools[0])
        return f"{self.name} {found}"
