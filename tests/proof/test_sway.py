import numpy as np
import pytest

from freezeflow.proof.sway import NUDGES, leeway, nudged, sway


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_fractions_move_by_the_last_place_and_all_else_stays(dtype):
    fractions = np.linspace(0.1, 0.9, 50).astype(dtype)
    exact = np.array([0.0, -0.0, 3.0, np.inf, np.nan], dtype)
    whole = np.arange(5)
    for number in range(NUDGES):
        found = nudged({"x": fractions, "e": exact, "i": whole}, number)
        step = np.abs(found["x"].astype(float) - fractions) / fractions
        assert found["x"].dtype == dtype
        assert 0 < step.min() <= step.max() <= 2 * max(np.finfo(dtype).eps, 2.0**-23)
        assert {True, False} == set((found["x"] > fractions).tolist())
        assert found["e"].tobytes() == exact.tobytes()
        assert found["i"] is whole


def test_each_nudge_is_another_and_the_same_every_time():
    call = {"x": np.linspace(0.1, 0.9, 50, dtype=np.float32)}
    made = [nudged(call, number)["x"].tobytes() for number in range(NUDGES)]
    assert len(set(made)) == NUDGES
    assert made[0] == nudged(call, 0)["x"].tobytes()


def test_the_largest_distance_by_element():
    answer = {"y": np.array([1.0, np.nan, np.inf, 2.0]), "n": np.array([1, 2])}
    others = [
        {"y": np.array([1.25, 0.0, 0.0, 2.0]), "n": np.array([5, 6])},
        "refused",
        {"y": np.array([1.0, np.nan, np.inf, 2.5]), "n": np.array([1, 2])},
        {"y": np.array([9.0]), "n": np.array([1, 2])},
    ]
    found = sway(answer, others)
    assert {key: moved.tolist() for key, moved in found.items()} == {"y": [0.25, 0.0, 0.0, 0.5]}


def test_the_leeway_of_each_element():
    moved = np.array([0.0, 1e-6, 1e-3, 4e-3])
    np.testing.assert_allclose(leeway(moved, 1.0), [0.0, 8e-6, 4e-3, 4e-3])
    np.testing.assert_allclose(leeway(moved, 2e-3), [0.0, 8e-6, 2e-3, 2e-3])
    assert leeway(np.zeros((0, 3)), 1.0).shape == (0, 3)
