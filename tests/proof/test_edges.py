"""The edge suite: what is promised is in it, and a recipe's wishes are kept."""

import numpy as np

from freezeflow.proof.edges import edge_inputs
from freezeflow.proof.seeded import Wish
from freezeflow.values import DType
from tests.proof.ends import signature


def cases(ends, **wishes):
    return dict(edge_inputs(ends, wishes, seed=3, size=2))


def test_floats():
    found = cases(signature(x=(DType.FLOAT, (None, 4))))
    value = {name: inputs["x"] for name, inputs in found.items()}
    assert {array.dtype for array in value.values()} == {np.dtype(np.float32)}
    assert not value["zeros"].any()
    assert np.all(value["ones"] == 1)
    assert np.all(value["lowest"] == np.finfo(np.float32).min)
    assert np.all(value["highest"] == np.finfo(np.float32).max)
    assert np.all(np.isnan(value["NaN"]))
    assert set(value["infinities"].ravel()) == {np.inf, -np.inf}
    assert np.all(np.signbit(value["negative zeros"]))
    assert not value["negative zeros"].any()
    tiny = np.finfo(np.float32).smallest_subnormal
    assert set(value["denormals"].ravel()) == {tiny, -tiny}
    sizes = {name: array.shape for name, array in value.items() if name.startswith("batch")}
    assert sizes == {f"batch of {n}": (n, 4) for n in (0, 1, 2, 3)}


def test_every_unknown_dimension_has_two_sizes():
    ends = signature(x=(DType.FLOAT, (None, None, 3)), n=(DType.INT32, (None, None)))
    found = cases(ends)
    assert found["dimension 1 of 1"]["x"].shape == (2, 1, 3)
    assert found["dimension 1 of 5"]["n"].shape == (2, 5)
    assert "dimension 2 of 1" not in found


def test_strings():
    found = cases(signature(s=(DType.STRING, (None,))))
    assert list(found["empty strings"]["s"]) == [b"", b""]
    assert list(found["NUL in strings"]["s"]) == [b"\0", b"a\0b"]
    assert "NaN" not in found


def test_wishes_bound_the_extremes():
    ends = signature(n=(DType.INT64, (3,)), m=(DType.INT64, (None,)), k=(DType.INT32, (2,)))
    wishes = {"n": Wish(low=5, high=9), "m": Wish(shape=(7,)), "k": Wish(choices=(4.0,))}
    found = cases(ends, **wishes)
    assert set(found["zeros"]["n"]) == {5}
    assert set(found["highest"]["n"]) == {9}
    assert set(found["highest"]["m"]) == {np.iinfo(np.int64).max}
    assert {tuple(inputs["k"]) for inputs in found.values()} == {(4, 4)}
    assert {inputs["m"].shape for inputs in found.values()} == {(7,)}


def test_what_a_case_is_not_about_is_seeded():
    found = cases(signature(x=(DType.FLOAT, (5,)), n=(DType.INT32, (5,))))
    assert np.array_equal(found["NaN"]["n"], found["infinities"]["n"])
    assert len(set(found["NaN"]["n"])) > 1
