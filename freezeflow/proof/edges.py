"""Inputs at the edges, where rewritten graphs go wrong first: special numbers, sizes, strings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from freezeflow.proof.dtypes import (
    COMPLEX,
    FLOATS,
    INTEGERS,
    QUANTISED,
    Array,
    numpy_dtype,
    range_of,
    strings,
)
from freezeflow.proof.seeded import Wish, seeded_input
from freezeflow.values import DType, Signature, TensorSpec

# A batch that is empty, of one, even, odd.
_BATCHES = (0, 1, 2, 3)

_REAL = FLOATS | INTEGERS | QUANTISED | {DType.BOOL}

# A value, or the smallest or largest one of a type.
_NUMBERS: Mapping[str, Callable[[DType], Any]] = {
    "zeros": lambda dtype: 0,
    "ones": lambda dtype: 1,
    "lowest": lambda dtype: range_of(dtype)[0],
    "highest": lambda dtype: range_of(dtype)[1],
}
_SPECIAL = {
    "NaN": (np.nan,),
    "infinities": (np.inf, -np.inf),
    "NaN, infinities and numbers": (np.nan, 1.0, np.inf, -1.0, -np.inf, 0.0),
    "negative zeros": (-0.0,),
}
_STRINGS = {
    "empty strings": (b"",),
    "NUL in strings": (b"\0", b"a\0b", b"c\0"),
    "bytes that are no UTF-8": (b"\xff\xfe", b"\xc3", b"\x80abc"),
}

Shape = tuple[int, ...]


def edge_inputs(
    signature: Signature, wishes: Mapping[str, Wish], *, seed: int, size: int
) -> Iterator[tuple[str, dict[str, Array]]]:
    """Calls at the edges, each with what it is about.

    What a case does not touch is seeded. An input with a choice of values keeps to it; one with a
    range has its smallest and largest value in place of the dtype's.

    Args:
        signature: Tells keys, dtypes and shapes.
        wishes: Key to what is known about it.
        seed: Seed of what is seeded.
        size: Size of unknown dimensions in the cases about values.
    """
    suite = _Suite(signature, wishes, seed, size)
    dtypes = {spec.dtype for key, spec in signature.inputs.items() if suite.is_free(key)}
    if dtypes & (_REAL | COMPLEX):
        for name, value in _NUMBERS.items():
            yield name, suite.inputs(functools.partial(_number, value))
    if dtypes & (FLOATS | COMPLEX):
        for name, values in _SPECIAL.items():
            yield name, suite.inputs(functools.partial(_special, values))
        yield "denormals", suite.inputs(_denormal)
    if DType.STRING in dtypes:
        for name, words in _STRINGS.items():
            yield name, suite.inputs(functools.partial(_text, words))
    yield from _shapes(suite)


def _shapes(suite: _Suite) -> Iterator[tuple[str, dict[str, Array]]]:
    """The first dimension at four sizes, every other unknown one at two."""
    axes = suite.unknown_axes()
    for axis in sorted(axes):
        sizes = _BATCHES if axis == 0 else (1, suite.size + 3)
        for size in sizes:
            name = f"batch of {size}" if axis == 0 else f"dimension {axis} of {size}"
            yield name, suite.inputs(_as_seeded, {axis: size})


class _Suite:
    """Makes calls of one signature, changed in one respect."""

    def __init__(
        self, signature: Signature, wishes: Mapping[str, Wish], seed: int, size: int
    ) -> None:
        self._signature = signature
        self._wishes = wishes
        self._seed = seed
        self.size = size

    def is_free(self, key: str) -> bool:
        """Whether values of an input may be replaced: no choice was given, no other input depends on it."""
        wish = self._wishes.get(key, Wish())
        return (not wish.choices or wish.loose) and not wish.pattern

    def unknown_axes(self) -> set[int]:
        """Axes that are unknown in some input whose shape was not given."""
        return {
            axis
            for key, spec in self._signature.inputs.items()
            for axis, dim in enumerate(self._dims(key, spec))
            if dim is None
        }

    def inputs(
        self,
        values: Callable[[TensorSpec, Wish], tuple[Any, ...] | None],
        sizes: Mapping[int, int] | None = None,
    ) -> dict[str, Array]:
        """A call.

        Args:
            values: What an input is filled with, in turn; None leaves it as it is seeded.
            sizes: Axis to the size that it gets where it is unknown.
        """
        found = {}
        for key, spec in self._signature.inputs.items():
            wish = self._wishes.get(key, Wish()).of_size((sizes or {}).get(0, self.size))
            shape = tuple(
                (sizes or {}).get(axis, self.size) if dim is None else dim
                for axis, dim in enumerate(self._dims(key, spec))
            )
            array = seeded_input(key, spec, wish, shape, seed=self._seed, number=0)
            filling = values(spec, wish) if self.is_free(key) else None
            found[key] = array if filling is None else _filled(filling, spec.dtype, shape)
        return found

    def _dims(self, key: str, spec: TensorSpec) -> tuple[int | None, ...]:
        """An input's shape; one dimension where not even the rank is known."""
        shape = self._wishes.get(key, Wish()).shape
        shape = spec.shape if shape is None else shape
        return (None,) if shape is None else shape


def _as_seeded(spec: TensorSpec, wish: Wish) -> None:
    return None


def _text(words: tuple[bytes, ...], spec: TensorSpec, wish: Wish) -> tuple[Any, ...] | None:
    return words if spec.dtype is DType.STRING else None


def _number(value: Callable[[DType], Any], spec: TensorSpec, wish: Wish) -> tuple[Any, ...] | None:
    dtype = spec.dtype
    if dtype in COMPLEX:
        parts = DType.FLOAT if dtype is DType.COMPLEX64 else DType.DOUBLE
        return (value(parts) * (1 + 1j),)
    if dtype not in _REAL:
        return None
    found = value(dtype)
    if wish.low is not None:
        found = max(found, wish.low)
    return (found if wish.high is None else min(found, wish.high),)


def _special(values: tuple[float, ...], spec: TensorSpec, wish: Wish) -> tuple[Any, ...] | None:
    if spec.dtype in COMPLEX:
        return tuple(complex(value, -value) for value in values)
    return values if spec.dtype in FLOATS else None


def _denormal(spec: TensorSpec, wish: Wish) -> tuple[Any, ...] | None:
    dtype = spec.dtype
    if dtype not in FLOATS | COMPLEX:
        return None
    kind = numpy_dtype(dtype)
    if dtype in COMPLEX:
        kind = np.finfo(kind).dtype
    # The bits of the smallest positive number are those of the integer 1.
    smallest = np.ones(1, f"<u{kind.itemsize}").view(kind)[0]
    return (smallest, -smallest)


def _filled(values: tuple[Any, ...], dtype: DType, shape: Shape) -> Array:
    count = int(np.prod(shape))
    if dtype is DType.STRING:
        return strings([values[index % len(values)] for index in range(count)], shape)
    kind = numpy_dtype(dtype)
    # Values that are exact in a dtype must not pass through another one.
    exact = np.array(values, dtype=kind[0] if kind.names else kind)
    return np.resize(exact, shape).astype(kind)
