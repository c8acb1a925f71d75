"""The metrics of a comparison against a second computation: element by element, in fractions."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from freezeflow.proof.compare import Tolerance, compare
from freezeflow.proof.figure import figure

REAL = (np.float16, np.float32, np.float64)
COMPLEX = (np.complex64, np.complex128)
EXACT = (np.bool_, np.int8, np.int32, np.int64, np.uint8, np.uint64)
BITS = {np.dtype(np.float16): "eH", np.dtype(np.float32): "fI", np.dtype(np.float64): "dQ"}

SPECIAL = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 6e-8)


# ---------------------------------------------------------------- the second computation


def exactly(number):
    """A finite number as one or two fractions."""
    value = number.item()
    if isinstance(value, complex):
        return Fraction(value.real), Fraction(value.imag)
    return (Fraction(value),)


def is_finite(number):
    value = number.item()
    parts = (value.real, value.imag) if isinstance(value, complex) else (value,)
    return all(isinstance(part, int) or math.isfinite(part) for part in parts)


def is_nan(number):
    return bool(number != number)


def size_of(parts):
    largest = max(map(abs, parts))
    if len(parts) == 1 or not largest:
        return largest
    # Of what no double could hold the square of, too.
    return largest * Fraction(math.sqrt(sum((part / largest) ** 2 for part in parts)))


def place_of(number):
    """Where a float stands among all of its dtype, from the smallest to the largest."""
    real, whole = BITS[number.dtype]
    (bits,) = struct.unpack(f"<{whole}", struct.pack(f"<{real}", number.item()))
    sign = 1 << (8 * number.dtype.itemsize - 1)
    return -(bits - sign) if bits & sign else bits


def ulps(left, right):
    is_complex = left.dtype.kind == "c"
    parts = [(left.real, right.real), (left.imag, right.imag)] if is_complex else [(left, right)]
    return [
        abs(place_of(one) - place_of(other))
        for one, other in parts
        if not is_nan(one) and not is_nan(other)
    ]


def divided(part, whole):
    if part == 0:
        return 0.0
    return math.inf if whole == 0 else as_double(part / whole)


def as_double(number):
    try:
        return float(number)
    except OverflowError:
        return math.inf


def decibels(signal, noise):
    if noise == 0:
        return math.inf
    share = as_double(signal / noise)
    return 10 * math.log10(share) if share else -math.inf


def slowly(original, result, tolerance):
    """What `compare` should say of two tensors of numbers."""
    pairs = list(zip(original.reshape(-1), result.reshape(-1), strict=True))
    nan = sum(is_nan(a) != is_nan(b) for a, b in pairs)
    inf = sum(
        not is_nan(a) and not is_nan(b) and not (is_finite(a) and is_finite(b)) and bool(a != b)
        for a, b in pairs
    )
    finite = [(exactly(a), exactly(b)) for a, b in pairs if is_finite(a) and is_finite(b)]
    gaps = [size_of([p - q for p, q in zip(a, b, strict=True)]) for a, b in finite]
    sizes = [size_of(a) for a, _ in finite]
    is_exact = original.dtype.kind in "biu"
    atol, rtol = Fraction(tolerance.atol), Fraction(tolerance.rtol)
    allowed = [Fraction(0) if is_exact else atol + rtol * Fraction(size) for size in sizes]
    bad = [gap > most for gap, most in zip(gaps, allowed, strict=True)]
    never = nan + inf > 0 or (is_exact and any(bad))
    signal = sum(p**2 for a, _ in finite for p in a)
    other = sum(q**2 for _, b in finite for q in b)
    noise = sum((p - q) ** 2 for a, b in finite for p, q in zip(a, b, strict=True))
    product = sum(p * q for a, b in finite for p, q in zip(a, b, strict=True))
    reals = [a[0] for a, _ in finite]
    norms = math.sqrt(signal) * math.sqrt(other)
    found = {
        "max_abs": max(gaps, default=0),
        "mean_abs": sum(gaps) / len(gaps) if gaps else 0,
        "p99_abs": sorted(gaps)[math.ceil(0.99 * len(gaps)) - 1] if gaps else 0,
        "max_rel": max(map(divided, gaps, sizes), default=0),
        "rmse": math.sqrt(noise / len(gaps)) if gaps else 0,
        "cosine": float(product) / norms if norms else float(signal == other),
        "sqnr_db": decibels(signal, noise),
        "psnr_db": decibels((max(reals) - min(reals)) ** 2 * len(gaps), noise)
        if reals
        else math.inf,
        "bad_share": (sum(bad) + nan + inf) / original.size if original.size else 0,
        "nan_differ": nan,
        "inf_differ": inf,
        "atol_needed": math.inf
        if never
        else max((g - rtol * Fraction(s) for g, s in zip(gaps, sizes, strict=True)), default=0),
        "rtol_needed": math.inf
        if never
        else max(
            (divided(g - atol, s) for g, s in zip(gaps, sizes, strict=True) if g > atol), default=0
        ),
    }
    found["atol_needed"] = max(found["atol_needed"], 0)
    return {key: float(value) for key, value in found.items()}, not any(bad) and nan + inf == 0


def top(original, result, count):
    """The share of the best places of each row that both have, ties to the first."""
    width = original.shape[-1]
    shares = []
    for left, right in zip(original.reshape(-1, width), result.reshape(-1, width), strict=True):
        best = [
            sorted(range(width), key=lambda i, row=row: (-row[i].item(), i))[:count]
            for row in (left, right)
        ]
        shares.append(len({*best[0]} & {*best[1]}) / count)
    return sum(shares) / len(shares)


# ---------------------------------------------------------------- the same by both


def elements(dtype):
    kind = np.dtype(dtype).kind
    if kind in "biu":
        return arrays.from_dtype(np.dtype(dtype))
    width = np.dtype(dtype).itemsize * 8 // (2 if kind == "c" else 1)
    # Where squares leave the range of doubles, the figures are infinite or null.
    one = st.one_of(
        st.sampled_from(SPECIAL).map(np.dtype(f"f{width // 8}").type).map(float),
        st.floats(-1000, 1000, width=width),
    )
    return st.builds(complex, one, one) if kind == "c" else one


@st.composite
def pairs(draw, dtypes):
    """A tensor, and one that differs from it here and there."""
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(arrays.array_shapes(max_dims=3, min_side=0, max_side=6))
    original = draw(arrays.arrays(dtype, shape, elements=elements(dtype)))
    other = draw(arrays.arrays(dtype, shape, elements=elements(dtype)))
    where = draw(arrays.arrays(np.bool_, shape))
    return original, np.where(where, other, original).astype(dtype)


TOLERANCES = st.sampled_from([(0.0, 0.0), (0.25, 0.0), (0.0, 0.125), (0.5, 0.5)])


@given(pairs((*REAL, *COMPLEX, *EXACT)), TOLERANCES)
@example((np.array([0j]), np.array([7e-199j])), (0.0, 0.0))
@example((np.array([7e-199j]), np.array([1j])), (0.0, 0.0))
def test_each_figure_is_that_of_the_second_computation(pair, tolerance):
    original, result = pair
    tolerance = Tolerance(*tolerance)
    found = compare(original, result, tolerance)
    expected, within = slowly(original, result, tolerance)
    assert found.equal is (original.tobytes() == result.tobytes())
    assert found.within is within
    if found.equal and original.dtype.kind != "c":
        # Equal bytes need no arithmetic; what would come out is the same.
        assert expected["max_abs"] == expected["bad_share"] == 0
    told = {key: found.metrics[key] for key in expected if found.metrics[key] is not None}
    assert told == pytest.approx({key: expected[key] for key in told}, rel=1e-6, abs=1e-9)


WIDE = [np.float16, np.float32, np.float64, np.complex64, np.complex128]


@st.composite
def awkward_pairs(draw):
    """Numbers of all sizes, denormals and the largest ones included, and others beside them."""
    dtype = np.dtype(draw(st.sampled_from(WIDE)))
    shape = draw(st.integers(1, 5))
    kinds = {"allow_nan": False, "allow_infinity": False}
    original = draw(arrays.arrays(dtype, shape, elements=arrays.from_dtype(dtype, **kinds)))
    if draw(st.booleans()):
        return original, draw(
            arrays.arrays(dtype, shape, elements=arrays.from_dtype(dtype, **kinds))
        )
    factor = draw(st.sampled_from([1 + 1e-7, 0.999, 1.5, -1.0, 0.0]))
    with np.errstate(over="ignore", under="ignore"):
        return original, (original * dtype.type(factor)).astype(dtype)


@given(
    awkward_pairs(),
    st.sampled_from([(0.0, 0.0), (1e-6, 0.0), (0.0, 1e-3), (1e-5, 1e-5), (0.1, 0.3)]),
    st.one_of(st.none(), st.floats(0, 2)),
)
def test_the_smallest_tolerance_passes_and_the_next_smaller_one_does_not(pair, tolerance, spare):
    leeway = None if spare is None else np.full(pair[0].shape, spare)
    given = Tolerance(*tolerance)
    metrics = compare(*pair, given, leeway).metrics
    for name in ("atol", "rtol"):
        needed = metrics[f"{name}_needed"]
        if needed == math.inf:
            # Off by more than any double, or of an original that is zero.
            assert not compare(*pair, given._replace(**{name: 1.7e308}), leeway).within
            continue
        assert compare(*pair, given._replace(**{name: needed}), leeway).within
        shown = float(figure(f"{name}_needed", needed))
        assert shown >= needed
        assert shown <= needed * 1.0101 or needed < 1e-320
        if needed:
            below = float(np.nextafter(needed, 0))
            assert not compare(*pair, given._replace(**{name: below}), leeway).within


def test_the_smallest_tolerance_where_a_leeway_lets_most_pass():
    one, other = np.zeros(3), np.array([0.5, 2.0, 0.25])
    found = compare(one, other, Tolerance(0.0, 0.0), np.array([1.0, 1.0, 0.0]))
    assert found.metrics["atol_needed"] == 2.0


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("atol_needed", 0.00123456, "0.00124"),
        ("atol_needed", 0.1, "0.1"),
        ("rtol_needed", 1e-320, "1e-320"),
        ("atol_needed", 5e-324, "4.94e-324"),
        ("max_abs", 0.00123456, "0.00123"),
        ("max_ulp", 12345, "12345"),
        ("cosine", None, "-"),
    ],
)
def test_figures_in_words(name, value, shown):
    assert figure(name, value) == shown


def test_distances_whose_squares_no_double_holds():
    """Large and small ones; the result is what it is for numbers of a middling size."""
    one, other = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 3.0])
    expected = compare(one, other, Tolerance(0, 0)).metrics
    for scale in (2.0**600, 2.0**1000, 2.0**-600, 2.0**-1000):
        found = compare(one * scale, other * scale, Tolerance(0, 0)).metrics
        for key in ("max_abs", "mean_abs", "p99_abs", "rmse", "atol_needed"):
            assert found[key] == expected[key] * scale
        for key in ("max_rel", "cosine", "sqnr_db", "psnr_db", "rtol_needed"):
            assert found[key] == expected[key]


@pytest.mark.parametrize(
    "dtype", ["float8_e5m2", "float8_e4m3fn", "float8_e4m3b11fnuz", "float8_e4m3fnuz", "bfloat16"]
)
def test_units_in_the_last_place_of_small_floats(dtype):
    """Every number of the dtype against its neighbour, in the order of their values."""
    dtype = np.dtype(getattr(ml_dtypes, dtype))
    bits = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype)
    with np.errstate(invalid="ignore"):
        numbers = bits.astype(np.float64)
    kept = ~np.isnan(numbers)
    _, first = np.unique(numbers[kept], return_index=True)  # -0.0 is 0.0
    ordered = bits[kept][first]
    assert compare(ordered[:-1], ordered[1:], Tolerance(0, 0)).metrics["max_ulp"] == 1
    assert compare(ordered, ordered.copy(), Tolerance(0, 0)).metrics["max_ulp"] == 0
    far = compare(ordered[:1], ordered[-1:], Tolerance(0, 0)).metrics["max_ulp"]
    assert far == len(ordered) - 1


def test_shares_that_no_double_holds():
    """Of the smallest numbers: as far off as can be, without a warning."""
    tiny = np.array([np.nan, 2.225e-311])
    found = compare(tiny, np.array([np.nan, 1.0]), Tolerance(0, 0)).metrics
    assert found["max_rel"] == found["rtol_needed"] == math.inf
    assert found["sqnr_db"] == -math.inf
    assert found["atol_needed"] == found["max_abs"] == 1.0


@given(pairs((*REAL, *COMPLEX)))
def test_units_in_the_last_place(pair):
    original, result = pair
    expected = [
        found
        for one in zip(original.reshape(-1), result.reshape(-1), strict=True)
        for found in ulps(*one)
    ]
    assert compare(original, result, Tolerance(0, 0)).metrics["max_ulp"] == max(expected, default=0)


@given(pairs(REAL))
def test_a_dtype_of_half_the_bits_is_measured_as_its_numbers_are(pair):
    """bfloat16, which NumPy does not know, is the upper half of float32."""
    original, result = (side.astype(ml_dtypes.bfloat16) for side in pair)
    wide = compare(
        *(side.astype(np.float32) for side in (original, result)), Tolerance(0.25, 0.125)
    )
    found = compare(original, result, Tolerance(0.25, 0.125))
    assert found.within is wide.within
    for key in ("max_abs", "rmse", "bad_share", "nan_differ", "inf_differ", "atol_needed"):
        assert found.metrics[key] == pytest.approx(wide.metrics[key])


@given(
    arrays.arrays(np.float32, (3, 7), elements=st.floats(-9, 9, width=16)),
    arrays.arrays(np.float32, (3, 7), elements=st.floats(-9, 9, width=16)),
)
def test_the_best_places(original, result):
    metrics = compare(original, result, Tolerance(0, 0)).metrics
    assert metrics["top1_agreement"] == pytest.approx(top(original, result, 1))
    assert metrics["top5_agreement"] == pytest.approx(top(original, result, 5))


@given(st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=3)), max_size=8))
def test_strings_are_equal_or_not(words):
    original, result = (
        (np.array([*side, None], object)[:-1] for side in zip(*words, strict=True))
        if words
        else (np.array([], object),) * 2
    )
    found = compare(original, result, Tolerance(9, 9))
    apart = [one != other for one, other in words]
    assert found.equal is found.within is not any(apart)
    assert found.metrics["bad_share"] == pytest.approx(sum(apart) / max(len(apart), 1))
