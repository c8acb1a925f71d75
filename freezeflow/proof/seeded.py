"""Inputs made up from a signature: the same for the same seed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from freezeflow.proof.dtypes import (
    COMPLEX,
    INTEGERS,
    QUANTISED,
    Array,
    numpy_dtype,
    range_of,
    strings,
)
from freezeflow.values import DType, Shape, Signature, TensorSpec

# Strings that show what a model does with text: empty, NUL, not ASCII, long.
_WORDS = (
    b"",
    b"a",
    b"the",
    b"freeze",
    b"a b c",
    b"\xc3\xa9t\xc3\xa9",
    b"x\x00y",
    b"0",
    b"-1.5",
    b"z" * 80,
)

# Small enough to be an index into nearly every table.
_INTEGER_RANGE = (0, 4)
_FLOAT_RANGE = (-1.0, 1.0)


class Wish(NamedTuple):
    """What is known about one input; everything may be left open.

    Args:
        shape: Its shape, in place of the signature's.
        low: Smallest number.
        high: Largest number (excluded for floats, included for integers).
        choices: Numbers or strings to take from, in place of a range.
    """

    shape: tuple[int, ...] | None = None
    low: float | None = None
    high: float | None = None
    choices: tuple[float | str, ...] = ()


def seeded_inputs(
    signature: Signature, wishes: Mapping[str, Wish], *, seed: int, number: int, size: int
) -> dict[str, Array]:
    """Inputs for one call, the same for the same seed whatever else there is.

    Args:
        signature: Tells keys, dtypes and shapes.
        wishes: Key to what is known about it.
        seed: Seed of the recipe.
        number: Number of the call.
        size: Size that each unknown dimension gets.

    Raises:
        StageFailed: An input is of a dtype that cannot be made up.
    """
    found = {}
    for key, spec in signature.inputs.items():
        wish = wishes.get(key, Wish())
        shape = wish.shape if wish.shape is not None else concrete(spec.shape, size)
        found[key] = seeded_input(key, spec, wish, shape, seed=seed, number=number)
    return found


def seeded_input(
    key: str, spec: TensorSpec, wish: Wish, shape: tuple[int, ...], *, seed: int, number: int
) -> Array:
    """One input of a given shape; see `seeded_inputs`."""
    # The key's checksum keeps inputs apart without depending on their order.
    generator = np.random.default_rng([seed, number, zlib.crc32(key.encode())])
    kind = numpy_dtype(spec.dtype)
    if spec.dtype is DType.STRING:
        chosen = [c.encode() if isinstance(c, str) else str(c).encode() for c in wish.choices]
        words = chosen or list(_WORDS)
        picked = generator.choice(len(words), shape)
        return strings([words[index] for index in np.ravel(picked)], np.shape(picked))
    if wish.choices:
        values = generator.choice(np.array([float(choice) for choice in wish.choices]), shape)
        return np.asarray(values).astype(kind)
    return np.asarray(_numbers(generator, spec.dtype, shape, wish)).astype(kind)


def concrete(shape: Shape, size: int) -> tuple[int, ...]:
    """A shape with every unknown dimension of one size."""
    return (size,) if shape is None else tuple(size if dim is None else dim for dim in shape)


def _numbers(
    generator: np.random.Generator, dtype: DType, shape: tuple[int, ...], wish: Wish
) -> Any:
    if dtype is DType.BOOL:
        return generator.integers(0, 2, shape)
    if dtype in INTEGERS | QUANTISED:
        low, high = _range(wish, (0, min(_INTEGER_RANGE[1], range_of(dtype)[1])))
        return generator.integers(int(low), int(high), shape, endpoint=True)
    low, high = _range(wish, _FLOAT_RANGE)
    numbers = generator.uniform(low, high, shape)
    return numbers + 1j * generator.uniform(low, high, shape) if dtype in COMPLEX else numbers


def _range(wish: Wish, usual: tuple[float, float]) -> tuple[float, float]:
    low = usual[0] if wish.low is None else wish.low
    high = usual[1] if wish.high is None else wish.high
    return low, max(low, high)
