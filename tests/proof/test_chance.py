"""What is random and what only falls alike by chance, with answers that are written down."""

import numpy as np
import pytest

from freezeflow.proof.calls import Call
from freezeflow.proof.chance import asked_until_unlike, may_be_random, random_after_all
from freezeflow.proof.compare import Tolerance
from freezeflow.proof.judge import Answers, Measure, is_fixed
from freezeflow.values import DType, Signature
from tests.graphs import call, const, function, graph, node, placeholder, spec

EXACT = Measure(True, Tolerance(0.0, 0.0))
END = ("f", "y")


def answer(value, count=40):
    return {"y": np.full(count, value, np.int32)}


@pytest.fixture
def calls():
    return [Call("f", {}, "seeded", str(number)) for number in range(2)]


class Asked:
    """A side that gives the same answer to every call of a round, and notes what it was asked."""

    def __init__(self, *values):
        self.rounds = []
        self._values = list(values)

    def __call__(self, indices):
        self.rounds.append(list(indices))
        value = self._values.pop(0) if len(self._values) > 1 else self._values[0]
        return [answer(value) for _ in indices]


def test_the_original_is_asked_until_it_differs_from_itself(calls):
    same = [answer(0), answer(0)]
    answers = Answers(same, same, [answer(0), answer(1)])
    ask = Asked(0, 0, 1)
    assert random_after_all(calls, answers, EXACT, {END}, ask) == {END}
    assert ask.rounds == [[1]] * 3  # only the call in which the result differs


def test_an_original_that_stays_the_same_is_not_random(calls):
    same = [answer(0), answer(0)]
    ask = Asked(0)
    answers = Answers(same, same, [answer(1), answer(1)])
    assert random_after_all(calls, answers, EXACT, {END}, ask) == set()
    assert len(ask.rounds) == 30


@pytest.mark.parametrize("suspects, result", [(set(), 1), ({END}, 0)])
def test_nobody_is_asked_without_a_suspect_or_a_difference(suspects, result, calls):
    same = [answer(0), answer(0)]
    answers = Answers(same, same, [answer(result)] * 2)
    assert random_after_all(calls, answers, EXACT, suspects, Asked(1)) == set()


def test_the_result_is_asked_until_it_differs_from_itself(calls):
    first, second = [answer(0)] * 2, [answer(1)] * 2
    answers = Answers(first, second, first, first, frozenset({END}))
    assert is_fixed(END, calls, answers)
    moving = asked_until_unlike(calls, answers, Asked(0, 0, 1))
    assert not is_fixed(END, calls, moving)
    assert is_fixed(END, calls, asked_until_unlike(calls, answers, Asked(0)))


def test_what_a_random_op_lies_before():
    drawn = function(
        "draw",
        {"a": DType.INT32},
        {"r": ("drawn", DType.FLOAT)},
        node("drawn", "RandomUniform", "a", T=DType.INT32, dtype=DType.FLOAT),
    )
    made = graph(
        placeholder("x"),
        const("shape", [2]),
        call("called", "draw", ["shape"], [DType.INT32], [DType.FLOAT]),
        node("y", "AddV2", "x", "called", T=DType.FLOAT),
        node("z", "Neg", "x", T=DType.FLOAT),
        functions=[drawn],
    )
    signature = Signature({"x": spec("x")}, {"y": spec("y"), "z": spec("z")})
    assert may_be_random(made, {"f": signature}) == {END}
