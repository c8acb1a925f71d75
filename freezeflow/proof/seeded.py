"""Inputs made up from a signature: the same for the same seed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from freezeflow.errors import StageFailed
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

# Bytes are mostly pixels.
_BYTE_RANGE = (0, 255)

# Rows and columns of a sparse tensor where nothing tells them.
_ROWS = 8


class Wish(NamedTuple):
    """What is known about one input; everything may be left open.

    Args:
        shape: Its shape, in place of the signature's; None is an unknown dimension.
        low: Smallest number.
        high: Largest number (excluded for floats, included for integers).
        choices: Numbers or strings to take from, in place of a range.
        pattern: ``coordinates`` of a sparse tensor's elements (one in each row, at its beginning), or its
            ``dense_shape``.
        columns: Columns of that tensor; None for as many as rows.
        loose: The choices are what shows most; others would do.
        because: The op that asks for it.
    """

    shape: Shape = None
    low: float | None = None
    high: float | None = None
    choices: tuple[float | str | bytes, ...] = ()
    pattern: str = ""
    columns: int | None = None
    loose: bool = False
    because: str = ""

    def of_size(self, size: int) -> Wish:
        """The same in a call whose unknown dimensions have a size: a dense shape has as many rows."""
        return self._replace(low=size) if self.pattern == "dense_shape" else self

    def or_else(self, needed: Wish, spec: TensorSpec) -> Wish:
        """What is said here, and where nothing is, what a graph needs; ranks only where none is known."""
        is_said = self.low is not None or self.high is not None or self.choices or self.pattern
        values = self if is_said else needed
        shape = self.shape
        if shape is None and spec.shape is None:
            shape = needed.shape
        pattern = "" if self.shape is not None else values.pattern
        return values._replace(shape=shape, pattern=pattern, because=self.because or values.because)

    def in_words(self, shape: Shape) -> str:
        """What is assumed."""
        said = []
        if shape is not None:
            said.append(
                f"shape {['?' if size is None else size for size in shape]}".replace("'", "")
            )
        if self.pattern:
            said.append(self.pattern.replace("_", " "))
        elif self.choices:
            said.append(f"one of {len(self.choices)} made for it")
        elif self.low is not None:
            said.append(f"from {self.low:g} to {self.high:g}")
        return f"{', '.join(said)} (for {self.because})" if self.because else ", ".join(said)


class Habits(NamedTuple):
    """What inputs look like of which nothing is known.

    Args:
        rank: Rank of inputs whose rank is unknown.
        integers: Smallest and largest integer; None for what is usual for a dtype.
        more: Sizes of unknown dimensions in further calls.
    """

    rank: int = 1
    integers: tuple[int, int] | None = None
    more: tuple[int, ...] = ()

    def wish(self, spec: TensorSpec) -> Wish:
        """The same for one input."""
        shape = None if spec.shape is not None or self.rank == 1 else (None,) * self.rank
        if self.integers is not None and spec.dtype in INTEGERS:
            return Wish(shape=shape, low=self.integers[0], high=self.integers[1], because=_TRIED)
        return Wish(shape=shape, because="" if shape is None else _TRIED)


_TRIED = "the first that the original answers"

USUAL = Habits()

# Tried in turn where the original refuses what is usual.
OTHER_HABITS = (
    *(Habits(rank=rank) for rank in (0, 2, 3, 4)),
    *(Habits(integers=pair) for pair in ((1, 1), (0, 0), (0, 1))),
    Habits(rank=0, integers=(0, 0)),
    Habits(rank=2, integers=(0, 0)),
)


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
        wish = wishes.get(key, Wish()).of_size(size)
        shape = concrete(spec.shape if wish.shape is None else wish.shape, size)
        found[key] = seeded_input(key, spec, wish, shape, seed=seed, number=number)
    return found


def seeded_input(
    key: str, spec: TensorSpec, wish: Wish, shape: tuple[int, ...], *, seed: int, number: int
) -> Array:
    """One input of a given shape; see `seeded_inputs`."""
    # The key's checksum keeps inputs apart without depending on their order.
    generator = np.random.default_rng([seed, number, zlib.crc32(key.encode())])
    kind = numpy_dtype(spec.dtype)
    if wish.pattern:
        return _of_sparse(wish, shape).astype(kind)
    if spec.dtype is DType.STRING:
        chosen = [c if isinstance(c, bytes) else str(c).encode() for c in wish.choices]
        words = chosen or list(_WORDS)
        picked = generator.choice(len(words), shape)
        return strings([words[index] for index in np.ravel(picked)], np.shape(picked))
    texts = [choice for choice in wish.choices if not isinstance(choice, (int, float))]
    if texts:
        raise StageFailed(
            f"input {key!r} is {spec.dtype.tf_name}, and the recipe has words for it",
            hint=f"random: {{{key}: {{values: [...]}}}} takes numbers; `vocabulary` is for strings.",
        )
    if wish.choices:
        values = generator.choice(np.array([float(choice) for choice in wish.choices]), shape)
        return np.asarray(values).astype(kind)
    return np.asarray(_numbers(generator, spec.dtype, shape, wish)).astype(kind)


def _of_sparse(wish: Wish, shape: tuple[int, ...]) -> Array:
    """Coordinates of elements, or the dense shape that holds them; see `Wish.pattern`."""
    if wish.pattern == "coordinates":
        found = np.zeros(shape, np.int64)
        found.reshape(-1, shape[-1] if shape else 1)[:, 0] = np.arange(shape[0] if shape else 1)
        return found
    sizes = np.full(shape, int(wish.low or _ROWS))
    if wish.columns is not None and sizes.size > 1:
        sizes[-1] = wish.columns
    return sizes


def concrete(shape: Shape, size: int) -> tuple[int, ...]:
    """A shape with every unknown dimension of one size."""
    return (size,) if shape is None else tuple(size if dim is None else dim for dim in shape)


def _numbers(
    generator: np.random.Generator, dtype: DType, shape: tuple[int, ...], wish: Wish
) -> Any:
    if dtype is DType.BOOL:
        return generator.integers(0, 2, shape)
    if dtype in INTEGERS | QUANTISED:
        usual = _BYTE_RANGE if dtype is DType.UINT8 else _INTEGER_RANGE
        low, high = _range(wish, (0, min(usual[1], range_of(dtype)[1])))
        return generator.integers(int(low), int(high), shape, endpoint=True)
    low, high = _range(wish, _FLOAT_RANGE)
    numbers = generator.uniform(low, high, shape)
    return numbers + 1j * generator.uniform(low, high, shape) if dtype in COMPLEX else numbers


def _range(wish: Wish, usual: tuple[float, float]) -> tuple[float, float]:
    low = usual[0] if wish.low is None else wish.low
    high = usual[1] if wish.high is None else wish.high
    return low, max(low, high)
