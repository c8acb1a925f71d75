"""How far the original's own answers move when its inputs change in the last place.

An answer in float32 cannot be more exact than that: each runtime sums in an order of its own, and the
rounding of a first layer is as large as such a change. Most models damp it; one that divides by a variance
of next to nothing makes it a thousand times larger, in TensorFlow as anywhere. (The condition of a
computation, see N. Higham, Accuracy and Stability of Numerical Algorithms, chapter 1.)
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# How many times each call is made with other last places: one alone can happen to move little.
NUDGES = 8

# A runtime may round an element this many times as far as it was seen to move: of eight small samples even
# the largest is now and then a fraction of the next one.
_MARGIN = 8.0


def nudged(inputs: Mapping[str, Array], number: int) -> dict[str, Array]:
    """A call's inputs with the last place of each fraction one up or down, the same way every time.

    Whole numbers stay: as pixels, counts or ids they are exact, and what is rounded down would jump.

    Args:
        inputs: Inputs by key.
        number: Which of the `NUDGES`.
    """
    return {key: _nudged(key, value, number) for key, value in inputs.items()}


def _nudged(key: str, value: Array, number: int) -> Array:
    if value.dtype.kind != "f":
        return value
    generator = np.random.default_rng([number, zlib.crc32(key.encode())])
    # Numbers of more than 32 bits are changed as float32 would be: runtimes may know no others.
    step = max(np.finfo(value.dtype).eps, np.finfo(np.float32).eps)
    factor = 1 + generator.choice([-1, 1], value.shape) * np.float64(step)
    fraction = np.isfinite(value) & (value != np.round(value))
    return np.where(fraction, value * factor, value).astype(value.dtype)


def sway(
    answer: Mapping[str, Array], others: Sequence[Mapping[str, Array] | str]
) -> dict[str, Array]:
    """How far each element of each output of fractions moves at most, float64; 0 where it is not finite.

    Args:
        answer: The original's answer to a call.
        others: Its answers to the nudged calls, or the messages with which it refused them.
    """
    found = {key: np.zeros(value.shape) for key, value in answer.items() if value.dtype.kind == "f"}
    for other in others:
        for key, moved in found.items():
            if not isinstance(other, str) and other[key].shape == moved.shape:
                np.maximum(moved, _distance(answer[key], other[key]), out=moved)
    return found


def leeway(moved: Array, most: float) -> Array:
    """What each element may be off for that, element by element: one steep output excuses no other one.

    Args:
        moved: What `sway` gave for an output.
        most: No element may be off by more.
    """
    return np.minimum(_MARGIN * moved, min(float(np.max(moved, initial=0.0)), most))


def _distance(one: Array, other: Array) -> Array:
    left, right = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(left) & np.isfinite(right)
    apart: Array = np.subtract(left, right, where=finite, out=np.zeros(left.shape))
    return np.abs(apart, out=apart)
