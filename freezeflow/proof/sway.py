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
NUDGES = 4


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
) -> dict[str, float]:
    """The largest distance by output, over elements that are finite on both sides.

    Args:
        answer: The original's answer to a call.
        others: Its answers to the nudged calls, or the messages with which it refused them.
    """
    found = dict.fromkeys(answer, 0.0)
    for other in others:
        for key, value in answer.items():
            if not isinstance(other, str) and value.dtype.kind == "f":
                found[key] = max(found[key], _distance(value, other[key]))
    return found


def _distance(one: Array, other: Array) -> float:
    if one.shape != other.shape:
        return 0.0
    finite = np.isfinite(one) & np.isfinite(other)
    left, right = (side[finite].astype(np.float64) for side in (one, other))
    return float(np.max(np.abs(left - right), initial=0.0))
