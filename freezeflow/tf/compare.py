"""How far two tensors are apart, and whether that is allowed."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from freezeflow.values import Json

Array = np.ndarray[Any, Any]

# Integers that order the bits of floats, by size in bytes.
_INTEGERS = {2: np.int16, 4: np.int32, 8: np.int64}


class Tolerance(NamedTuple):
    """|result - original| <= atol + rtol * |original|, element by element."""

    atol: float
    rtol: float


class Comparison(NamedTuple):
    """What a comparison of two tensors found.

    Args:
        equal: Equal to the byte.
        within: Every element within the tolerance.
        metrics: Figures as JSON; ``problem`` alone where the tensors cannot be compared.
    """

    equal: bool
    within: bool
    metrics: dict[str, Json]


def compare(original: Array, result: Array, tolerance: Tolerance) -> Comparison:
    """Compares two tensors: bytes first, then numbers.

    NaN equals NaN and an infinity equals itself; strings and integers have to be equal.

    Returns:
        Metrics, over the elements where both are finite: ``max_abs``, ``mean_abs``, ``max_rel``,
        ``rmse``, ``max_ulp`` (null for what is no float), ``bad_share`` (elements out of tolerance,
        0 to 1), ``top1_agreement`` (0 to 1, over the last axis; null below two dimensions),
        ``special_differ`` (elements where NaN or infinity differ), ``atol_needed`` (the smallest
        atol that would pass with this rtol; null where none would).
    """
    if original.dtype != result.dtype or original.shape != result.shape:
        problem = f"{_kind(original)} became {_kind(result)}"
        return Comparison(False, False, {"problem": problem})
    equal = same_bytes(original, result)
    if original.dtype.kind in "OSU" or original.dtype.names is not None:
        share = 0.0 if equal else float(np.mean(original != result))
        return Comparison(equal, equal, {"bad_share": share})
    metrics, within = _numbers(original, result, tolerance)
    return Comparison(equal, equal or within, metrics)


def same_bytes(one: Array, other: Array) -> bool:
    """Equal in dtype, shape and every bit (strings: every byte of every element)."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.kind == "O":
        return bool(one.ravel().tolist() == other.ravel().tolist())
    return one.tobytes() == other.tobytes()


def _kind(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _numbers(original: Array, result: Array, tolerance: Tolerance) -> tuple[dict[str, Json], bool]:
    exact_type = not (original.dtype.kind == "c" or _is_float(original))
    left, right = _wide(original), _wide(result)
    finite = np.isfinite(left) & np.isfinite(right)
    special = ~finite & ~((left == right) | (np.isnan(left) & np.isnan(right)))
    with np.errstate(over="ignore"):
        gap = np.abs(left[finite] - right[finite])
        rmse = float(np.sqrt(np.mean(gap**2))) if gap.size else 0.0
    size = np.abs(left[finite])
    allowed = 0.0 if exact_type else tolerance.atol + tolerance.rtol * size
    bad = int(np.count_nonzero(gap > allowed)) + int(np.count_nonzero(special))
    needed = float(np.max(gap - tolerance.rtol * size, initial=0.0))
    metrics: dict[str, Json] = {
        "max_abs": float(np.max(gap, initial=0.0)),
        "mean_abs": float(np.mean(gap)) if gap.size else 0.0,
        "max_rel": _max_relative(gap, size),
        "rmse": rmse,
        "max_ulp": max_ulp(original, result),
        "bad_share": bad / original.size if original.size else 0.0,
        "special_differ": int(np.count_nonzero(special)),
        "top1_agreement": _top1(original, result),
        "atol_needed": None if special.any() or (exact_type and bad) else max(needed, 0.0),
    }
    # JSON has no infinity: a difference that does not fit into a double is null.
    finite_metrics = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in metrics.items()
    }
    return finite_metrics, bad == 0


def _wide(array: Array) -> Array:
    if array.dtype.kind == "c":
        return array.astype(np.complex128)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        # Differences of 64-bit integers do not fit into a double.
        return array.astype(np.longdouble)
    return array.astype(np.float64)


def _max_relative(gap: Array, size: Array) -> float | None:
    """The largest gap as a share of the original; null where the original is 0 and the result not."""
    if np.any((size == 0) & (gap > 0)):
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(gap == 0, 0.0, gap / size)
    return float(np.max(relative, initial=0.0))


def max_ulp(original: Array, result: Array) -> int | None:
    """The largest distance in units in the last place; null for what is no float.

    The bits of floats, read as integers with the sign turned, are in the floats' own order, so that
    neighbours differ by 1; -0.0 and 0.0 differ by 0. NaNs are left out.
    """
    if original.dtype.kind == "c":
        parts = original.real.dtype
        return max_ulp(
            np.ascontiguousarray(original).reshape(-1).view(parts),
            np.ascontiguousarray(result).reshape(-1).view(parts),
        )
    integer = _INTEGERS.get(original.dtype.itemsize)
    if integer is None or not _is_float(original):
        return None
    numbers = ~(np.isnan(_wide(original)) | np.isnan(_wide(result)))
    left = _ordered(original[numbers].view(integer))
    right = _ordered(result[numbers].view(integer))
    return max((abs(a - b) for a, b in _furthest(left, right)), default=0)


def _is_float(array: Array) -> bool:
    # The small floats of ml_dtypes (bfloat16, float8_*) are of NumPy's kind V.
    return array.dtype.kind == "f" or str(array.dtype).startswith(("bfloat16", "float8"))


def _ordered(bits: Array) -> Array:
    smallest = np.iinfo(bits.dtype).min
    return np.where(bits < 0, smallest - bits, bits)


def _furthest(left: Array, right: Array) -> list[tuple[int, int]]:
    """The pair that is furthest apart, as Python integers: int64 distances can overflow."""
    if not left.size:
        return []
    apart = np.abs(left.astype(np.longdouble) - right.astype(np.longdouble))
    index = int(np.argmax(apart))
    return [(int(left[index]), int(right[index]))]


def _top1(original: Array, result: Array) -> float | None:
    if original.ndim < 2 or original.dtype.kind in "cb" or not original.size:
        return None
    same = np.argmax(_wide(original), axis=-1) == np.argmax(_wide(result), axis=-1)
    return float(np.mean(same))


def accuracy(scores: Array, labels: Array) -> float:
    """The share of rows whose label is the best score (or the value itself, for rows of one number).

    Args:
        scores: [n, classes], or [n] with the predicted classes.
        labels: [n].
    """
    guesses = np.argmax(scores, axis=-1) if scores.ndim == 2 else scores
    return float(np.mean(guesses == labels))


def worse(one: dict[str, Json], other: dict[str, Json]) -> dict[str, Json]:
    """The worse of each metric of two comparisons of the same output."""
    if "problem" in one or "problem" in other:
        return one if "problem" in one else other
    merged = dict(one)
    for key, value in other.items():
        if key not in merged:
            merged[key] = value
        elif value is None or merged[key] is None:
            merged[key] = None
        else:
            merged[key] = (
                min(merged[key], value) if key == "top1_agreement" else max(merged[key], value)
            )
    return merged
