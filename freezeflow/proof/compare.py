"""How far two tensors are apart, and whether that is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from freezeflow.values import Json

Array = np.ndarray[Any, Any]

# Integers that order the bits of floats, by size in bytes.
_INTEGERS = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


class Tolerance(NamedTuple):
    """|result - original| <= atol + rtol * |original|, element by element."""

    atol: float
    rtol: float


class Comparison(NamedTuple):
    """What a comparison of two tensors found.

    Args:
        equal: Equal to the byte.
        within: Every element within the tolerance.
        metrics: The figures of `compare`; ``problem`` alone where the tensors cannot be compared.
    """

    equal: bool
    within: bool
    metrics: dict[str, Json]


def compare(
    original: Array, result: Array, tolerance: Tolerance, leeway: Array | None = None
) -> Comparison:
    """Compares two tensors: bytes first, then numbers.

    NaN equals NaN and an infinity equals itself; strings and integers have to be equal.

    Args:
        original: One.
        result: The other.
        tolerance: What is allowed.
        leeway: Of each element, what ``atol`` is where it is more than the tolerance's.

    Returns:
        Metrics, over the elements where both are finite: ``max_abs``, ``mean_abs``, ``p99_abs`` (99 %
        of the elements are at most so far apart), ``max_rel``, ``rmse``, ``max_ulp``, ``cosine``,
        ``psnr_db`` (against the original's range), ``sqnr_db`` (against its power), ``bad_share``
        (elements out of tolerance, 0 to 1), ``nan_differ`` and ``inf_differ`` (elements where only
        one is NaN, or they are not the same infinity), ``top1_agreement`` and ``top5_agreement``
        (0 to 1, over the last axis), ``atol_needed`` and ``rtol_needed`` (the smallest double that
        passes as that tolerance, with the other one and the leeway as they are). None where a figure
        does not exist for a dtype or shape. Some can be infinite; `to_json` knows what to do with
        them.
    """
    if original.dtype != result.dtype or original.shape != result.shape:
        problem = f"{_kind(original)} became {_kind(result)}"
        return Comparison(False, False, {"problem": problem})
    equal = same_bytes(original, result)
    if original.dtype.kind in "OSU" or original.dtype.names is not None:
        share = 0.0 if equal else float(np.mean(original != result))
        return Comparison(equal, equal, {"bad_share": share})
    if equal:
        return Comparison(True, True, _no_difference(original))
    metrics, within = _numbers(original, result, tolerance, leeway)
    return Comparison(False, within, metrics)


def same_bytes(one: Array, other: Array) -> bool:
    """Equal in dtype, shape and every bit (strings: every byte of every element)."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.kind == "O":
        return bool(one.ravel().tolist() == other.ravel().tolist())
    return one.tobytes() == other.tobytes()


def _kind(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"


# ---------------------------------------------------------------- numbers


def _no_difference(array: Array) -> dict[str, Json]:
    """What `_numbers` gives for equal tensors, without the work."""
    return {
        "max_abs": 0.0,
        "mean_abs": 0.0,
        "p99_abs": 0.0,
        "max_rel": 0.0,
        "rmse": 0.0,
        "max_ulp": 0 if _is_float(array) or array.dtype.kind == "c" else None,
        "cosine": 1.0,
        "psnr_db": math.inf,
        "sqnr_db": math.inf,
        "bad_share": 0.0,
        "nan_differ": 0,
        "inf_differ": 0,
        "top1_agreement": 1.0 if _ranks(array, 1) else None,
        "top5_agreement": 1.0 if _ranks(array, 5) else None,
        "atol_needed": 0.0,
        "rtol_needed": 0.0,
    }


def _numbers(
    original: Array, result: Array, tolerance: Tolerance, leeway: Array | None
) -> tuple[dict[str, Json], bool]:
    exact_type = not (original.dtype.kind == "c" or _is_float(original))
    left, right = _wide(original), _wide(result)
    finite = np.isfinite(left) & np.isfinite(right)
    nan = np.isnan(left) != np.isnan(right)
    infinite = ~finite & ~nan & ~np.isnan(left) & (left != right)
    special = int(np.count_nonzero(nan)) + int(np.count_nonzero(infinite))
    left, right = left[finite], right[finite]
    with np.errstate(over="ignore"):
        gap, size = np.abs(left - right), np.abs(left)
    spare = 0.0 if leeway is None else leeway[finite]
    most = Tolerance(0.0, 0.0) if exact_type else tolerance
    bad = special + int(np.count_nonzero(gap > _allowed(most, size, spare)))
    never = special > 0 or (exact_type and bad > 0)
    metrics: dict[str, Json] = {
        **_distances(gap, size),
        "max_ulp": max_ulp(original, result),
        **_likeness(left, right),
        "bad_share": bad / original.size,
        "nan_differ": int(np.count_nonzero(nan)),
        "inf_differ": int(np.count_nonzero(infinite)),
        "top1_agreement": _top(original, result, 1),
        "top5_agreement": _top(original, result, 5),
        "atol_needed": math.inf if never else _atol_needed(gap, size, tolerance.rtol, spare),
        "rtol_needed": math.inf if never else _rtol_needed(gap, size, tolerance.atol, spare),
    }
    return metrics, bad == 0


def _allowed(tolerance: Tolerance, size: Array, spare: Array | float) -> Array:
    """How far each element may be off, by its size in the original and its leeway."""
    with np.errstate(over="ignore"):
        allowed: Array = np.maximum(tolerance.atol, spare) + tolerance.rtol * size
    return allowed


def _distances(gap: Array, size: Array) -> dict[str, Json]:
    if not gap.size:
        return dict.fromkeys(("max_abs", "mean_abs", "p99_abs", "max_rel", "rmse"), 0.0)
    largest = np.max(gap)
    # By a power of two, so that no square leaves the range of doubles and no bit is rounded off.
    _, exponent = np.frexp(largest)
    scaled = np.ldexp(gap, -exponent)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        relative = np.where(gap == 0, 0.0, gap / size)
        return {
            "max_abs": float(largest),
            "mean_abs": float(np.ldexp(np.mean(scaled), exponent)),
            "p99_abs": float(np.quantile(gap, 0.99, method="inverted_cdf")),
            "max_rel": float(np.max(relative)),
            "rmse": float(np.ldexp(np.sqrt(np.mean(scaled**2)), exponent)),
        }


def _likeness(left: Array, right: Array) -> dict[str, Json]:
    """Cosine, and the noise's distance from the signal in decibels."""
    scale = max(float(np.max(np.abs(left), initial=0)), float(np.max(np.abs(right), initial=0)))
    if scale in (0.0, math.inf):
        same = math.inf if scale == 0 else None
        return {"cosine": 1.0 if scale == 0 else None, "psnr_db": same, "sqnr_db": same}
    # Squares of what is at most 2 do not leave the range of doubles.
    left, right = left / scale, right / scale
    gap = np.abs(left - right)
    power, other, noise = (float(np.sum(np.abs(part) ** 2)) for part in (left, right, gap))
    peak = float(np.max(np.real(left)) - np.min(np.real(left)))
    norms = math.sqrt(power * other)
    product = float(np.real(np.vdot(left, right)))
    return {
        "cosine": max(-1.0, min(1.0, product / norms)) if norms else 0.0,
        "psnr_db": _decibels(peak**2 * gap.size, noise),
        "sqnr_db": _decibels(power, noise),
    }


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _atol_needed(gap: Array, size: Array, rtol: float, spare: Array | float) -> float:
    def needed(gap: Array) -> Array:
        return gap - rtol * size

    def passes(atol: float, where: Array) -> bool:
        leeway = spare if isinstance(spare, float) else spare[where]
        return bool(np.all(gap[where] <= _allowed(Tolerance(atol, rtol), size[where], leeway)))

    return _smallest(gap, needed, passes)


def _rtol_needed(gap: Array, size: Array, atol: float, spare: Array | float) -> float:
    def needed(gap: Array) -> Array:
        beyond: Array = (gap - np.maximum(atol, spare)) / size
        return beyond

    def passes(rtol: float, where: Array) -> bool:
        leeway = spare if isinstance(spare, float) else spare[where]
        return bool(np.all(gap[where] <= _allowed(Tolerance(atol, rtol), size[where], leeway)))

    return _smallest(gap, needed, passes)


def _smallest(
    gap: Array, needed: Callable[[Array], Array], passes: Callable[[float, Array], bool]
) -> float:
    """The smallest double that passes, which rounding puts a little off what arithmetic says.

    Args:
        gap: How far each element is off.
        needed: What each element needs by arithmetic, if it is so far off.
        passes: Whether a number passes for some of the elements.
    """
    where = np.arange(gap.size)
    if passes(0.0, where):
        return 0.0
    with np.errstate(all="ignore"):
        step = np.spacing(gap)
        least, most = needed(gap - step), needed(gap + step)
    # All others pass with whatever these need.
    where = where[~(most < np.max(least, initial=0.0, where=~np.isnan(least)))]
    low, high = 0, _bits_of(math.inf)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(_double_of(middle), where) else (middle, high)
    return _double_of(high)


def _bits_of(number: float) -> int:
    """The bits of a double that is not negative: they are in the order of the numbers."""
    return int(np.float64(number).view(np.int64))


def _double_of(bits: int) -> float:
    return float(np.int64(bits).view(np.float64))


def _wide(array: Array) -> Array:
    if array.dtype.kind == "c":
        return array.astype(np.complex128)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        # Differences of 64-bit integers do not fit into a double.
        return array.astype(np.longdouble)
    return array.astype(np.float64)


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


def _ranks(array: Array, count: int) -> bool:
    """Whether the last axis can be read as scores of which the best `count` mean something."""
    fitting = array.ndim >= 2 and array.size > 0 and array.dtype.kind not in "cb"
    return fitting and (count == 1 or array.shape[-1] > count)


def _top(original: Array, result: Array, count: int) -> float | None:
    """The share of the best `count` places of each row that both have."""
    if not _ranks(original, count):
        return None
    if count == 1:
        same = np.argmax(_wide(original), axis=-1) == np.argmax(_wide(result), axis=-1)
        return float(np.mean(same))
    left, right = (
        np.argsort(-_wide(array), axis=-1, kind="stable")[..., :count]
        for array in (original, result)
    )
    return float(np.mean(np.any(left[..., :, None] == right[..., None, :], axis=-1)))


def count_right(scores: Array, labels: Array) -> int:
    """How many labels are the best score, or the predicted class itself.

    Args:
        scores: [..., classes], or [...] with the predicted classes.
        labels: [...].
    """
    guesses = np.argmax(scores, axis=-1) if scores.ndim > labels.ndim else scores
    return int(np.count_nonzero(guesses == labels))


# The smaller of these is the worse one; of all others it is the larger.
_BETTER_WHEN_LARGER = frozenset(
    {"cosine", "psnr_db", "sqnr_db", "top1_agreement", "top5_agreement"}
)


def worse(one: Mapping[str, Json], other: Mapping[str, Json]) -> dict[str, Json]:
    """The worse of each metric of two comparisons of the same output."""
    if "problem" in one or "problem" in other:
        return dict(one if "problem" in one else other)
    merged = dict(one)
    for key, value in other.items():
        if merged.get(key) is None:
            merged[key] = value
        elif value is not None:
            choose = min if key in _BETTER_WHEN_LARGER else max
            merged[key] = choose(merged[key], value)
    return merged


def to_json(metrics: Mapping[str, Json]) -> dict[str, Json]:
    """Metrics as strict JSON, which has no infinity: such a figure becomes null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in metrics.items()
    }
