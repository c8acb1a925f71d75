"""Inputs to validate with: seeded from a signature, or from a file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from freezeflow.errors import StageFailed
from freezeflow.values import DType, Shape, Signature, TensorSpec

Array = np.ndarray[Any, Any]

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
    return {
        key: _seeded(key, spec, wishes.get(key, Wish()), (seed, number), size)
        for key, spec in signature.inputs.items()
    }


def _seeded(key: str, spec: TensorSpec, wish: Wish, seed: tuple[int, int], size: int) -> Array:
    shape = wish.shape if wish.shape is not None else _concrete(spec.shape, size)
    # The key's checksum keeps inputs apart without depending on their order.
    generator = np.random.default_rng([*seed, zlib.crc32(key.encode())])
    if spec.dtype is DType.STRING:
        words = [c.encode() if isinstance(c, str) else str(c).encode() for c in wish.choices]
        return _strings(generator.choice(len(words or _WORDS), shape), words or list(_WORDS))
    dtype = tf.as_dtype(int(spec.dtype))
    if spec.dtype in (DType.RESOURCE, DType.VARIANT, DType.INVALID):
        raise StageFailed(
            f"input {key!r} is of dtype {dtype.name}, which cannot be fed",
            hint="Choose another signature to validate.",
        )
    if wish.choices:
        values = generator.choice(np.array([float(choice) for choice in wish.choices]), shape)
        return np.asarray(values).astype(dtype.as_numpy_dtype)
    return np.asarray(_numbers(generator, dtype, shape, wish)).astype(dtype.as_numpy_dtype)


def _concrete(shape: Shape, size: int) -> tuple[int, ...]:
    return (size,) if shape is None else tuple(size if dim is None else dim for dim in shape)


def _strings(indices: Any, words: Sequence[bytes]) -> Array:
    found = np.empty(np.shape(indices), object)
    found.ravel()[:] = [words[index] for index in np.ravel(indices)]
    return found


def _numbers(generator: np.random.Generator, dtype: Any, shape: tuple[int, ...], wish: Wish) -> Any:
    if dtype == tf.bool:
        return generator.integers(0, 2, shape)
    if dtype.is_integer or dtype.is_quantized:
        low, high = _range(wish, _INTEGER_RANGE)
        return generator.integers(int(low), int(high), shape, endpoint=True)
    low, high = _range(wish, _FLOAT_RANGE)
    numbers = generator.uniform(low, high, shape)
    return numbers + 1j * generator.uniform(low, high, shape) if dtype.is_complex else numbers


def _range(wish: Wish, usual: tuple[float, float]) -> tuple[float, float]:
    low = usual[0] if wish.low is None else wish.low
    high = usual[1] if wish.high is None else wish.high
    return low, max(low, high)


# ---------------------------------------------------------------- files


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an ``.npz`` file; nothing in it is executed.

    Raises:
        StageFailed: It is no such file, or holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise StageFailed(
            f"cannot be read as an .npz file: {error}",
            where=str(path),
            hint="Write it with numpy.savez(path, input_key=array, ...), without Python objects.",
        ) from None


def inputs_from(arrays: Mapping[str, Array], signature: Signature, where: str) -> dict[str, Array]:
    """The inputs that a signature takes, out of a file's arrays.

    Raises:
        StageFailed: One is of another dtype or shape than the signature says.
    """
    return {key: _fitting(key, arrays[key], spec, where) for key, spec in signature.inputs.items()}


def _fitting(key: str, array: Array, spec: TensorSpec, where: str) -> Array:
    if spec.dtype is DType.STRING and array.dtype.kind in "SU":
        words = [
            item if isinstance(item, bytes) else item.encode() for item in array.ravel().tolist()
        ]
        return _strings(np.arange(array.size).reshape(array.shape), words)
    wanted = tf.as_dtype(int(spec.dtype)).as_numpy_dtype
    if array.dtype != wanted:
        raise StageFailed(
            f"{key!r} is {array.dtype}, the signature takes {spec.dtype.tf_name}",
            where=where,
            hint="Save the array with the signature's dtype.",
        )
    if spec.shape is not None and not _fits(array.shape, spec.shape):
        raise StageFailed(
            f"{key!r} has the shape {list(array.shape)}, the signature takes "
            f"{['?' if dim is None else dim for dim in spec.shape]}",
            where=where,
        )
    return array


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        want is None or want == dim for dim, want in zip(shape, wanted, strict=True)
    )
