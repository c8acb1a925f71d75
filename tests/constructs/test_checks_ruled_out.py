"""Checks beside branches and loops that a constant decides: run or not, as TensorFlow runs them.

A check may stand in what is taken, in what is not, before both, before the predicate; what it looks at may
be needed or not. Each of these in a function, in a main graph with If and Case, and with TF1's Switches.
"""

import pytest
import tensorflow as tf

from tests.constructs.test_checks import assert_checked_alike, check, save_in_tf1, save_in_tf2

v1 = tf.compat.v1


def unneeded(x):
    def branch():
        check(x)
        return x * 2

    return branch


def needed(x):
    return lambda: check(x) * 2


def plain(x):
    return lambda: x * 3


def one_of_two(x):
    return lambda: (x * 2, check(x) * 5)


def waiting(x, compute):
    with tf.control_dependencies([check(x)]):
        return compute()


def awaited(x, result):
    with tf.control_dependencies([result]):
        return x * 7


def on_the_way(x, compute):
    return compute(check(x))


BRANCHES = {
    f"{one.__name__} or {other.__name__}": lambda x, p, one=one, other=other: v1.cond(
        p(), one(x), other(x)
    )
    for one in (unneeded, needed, plain)
    for other in (unneeded, needed, plain)
    if one is not other or one is not plain
}
CONDS = BRANCHES | {
    "taken by the first": lambda x, p: on_the_way(
        x, lambda c: v1.cond(p(), lambda: c * 2, lambda: x * 3)
    ),
    "taken by the second": lambda x, p: on_the_way(
        x, lambda c: v1.cond(p(), lambda: x * 2, lambda: c * 3)
    ),
    "waited for by a node of the first": lambda x, p: on_the_way(
        x, lambda c: v1.cond(p(), lambda: awaited(x, c), lambda: x * 3)
    ),
    "another result of the first": lambda x, p: v1.cond(p(), one_of_two(x), lambda: (x, x))[0],
    "another result of the second": lambda x, p: v1.cond(p(), lambda: (x, x), one_of_two(x))[0],
    "before all of it": lambda x, p: waiting(x, lambda: v1.cond(p(), plain(x), unneeded(x))),
    "awaited": lambda x, p: awaited(x, v1.cond(p(), plain(x), needed(x))),
    "awaited twice": lambda x, p: awaited(x, v1.cond(p(), needed(x), needed(x))),
    "in another branch": lambda x, p: v1.cond(
        x[0] > 0, lambda: v1.cond(p(), unneeded(x), needed(x)), plain(x)
    ),
    "around another branch": lambda x, p: v1.cond(
        p(), lambda: v1.cond(x[0] > 0, unneeded(x), plain(x)), plain(x)
    ),
    "before another one in the second": lambda x, p: on_the_way(
        x, lambda c: v1.cond(p(), plain(x), lambda: v1.cond(x[0] > 0, lambda: c * 2, plain(x)))
    ),
    "before a loop in the second": lambda x, p: on_the_way(
        x,
        lambda c: v1.cond(
            p(),
            plain(x),
            lambda: v1.while_loop(lambda i, _: i < 2, lambda i, a: (i + 1, a * 2), [0, c])[1],
        ),
    ),
    "in a loop, first": lambda x, p: v1.while_loop(
        lambda i, _: i < 2, lambda i, a: (i + 1, v1.cond(p(), unneeded(a), plain(a))), [0, x]
    )[1],
    "in a loop, second": lambda x, p: v1.while_loop(
        lambda i, _: i < 2, lambda i, a: (i + 1, v1.cond(p(), plain(a), unneeded(a))), [0, x]
    )[1],
}

CASES = {
    "unneeded": lambda x, i: tf.switch_case(i, [plain(x), unneeded(x), plain(x)]),
    "needed": lambda x, i: tf.switch_case(i, [plain(x), needed(x), plain(x)]),
    "taken by the last": lambda x, i: on_the_way(
        x, lambda c: tf.switch_case(i, [plain(x), plain(x), lambda: c * 1])
    ),
    "another result": lambda x, i: tf.switch_case(
        i, [lambda: (x, x), one_of_two(x), lambda: (x, x)]
    )[0],
}


def never(*_):
    return tf.constant(False)


def never_and_checks(a):
    check(a)
    return tf.constant(False)


def never_behind_a_check(a):
    return waiting(a, never)


def twice(*values):
    return tuple(value * 2 for value in values)


LOOPS = {
    "in the body": lambda x: v1.while_loop(never, lambda a: (check(a) * 2,), [x]),
    "unneeded in the body": lambda x: v1.while_loop(never, lambda a: (unneeded(a)(),), [x]),
    "in the condition": lambda x: v1.while_loop(never_and_checks, twice, [x]),
    "before the condition": lambda x: v1.while_loop(never_behind_a_check, twice, [x]),
    "another variable": lambda x: v1.while_loop(never, twice, [x, check(x)])[0],
    "the variable": lambda x: v1.while_loop(never, twice, [x, check(x)])[1],
    "awaited": lambda x: awaited(x, v1.while_loop(never, twice, [check(x)])),
    "before the loop": lambda x: waiting(x, lambda: v1.while_loop(never, twice, [tf.identity(x)])),
    "no round": lambda x: v1.while_loop(lambda i, _: i < 0, lambda i, a: (i + 1, check(a)), [0, x])[
        1
    ],
    "another variable in one round": lambda x: v1.while_loop(
        lambda i, *_: i < 1, lambda i, a, b: (i + 1, a * 2, check(b)), [0, x, x]
    )[1],
}


def single(result):
    while isinstance(result, (list, tuple)):
        result = result[0]
    return result


def assert_alike(compute, kind, tmp_path):
    if kind == "function":
        save_in_tf2(lambda x: single(compute(x)), tmp_path / "model")
    elif kind == "main graph":
        save_in_tf1(lambda x: single(compute(x)), tmp_path / "model")
    else:
        v1.disable_control_flow_v2()
        try:
            save_in_tf1(lambda x: single(compute(x)), tmp_path / "model")
        finally:
            v1.enable_control_flow_v2()
    assert_checked_alike(tmp_path / "model", tmp_path / "scratch")


KINDS = pytest.mark.parametrize("kind", ["function", "main graph", "switches"])

# What was not so before, and an example of each kind.
QUICK = {"taken by the first", "taken by the second", "before all of it", "needed or unneeded"}


@KINDS
@pytest.mark.parametrize("predicate", [False, True])
@pytest.mark.parametrize(
    "where",
    [pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in CONDS],
)
def test_a_branch(where, predicate, kind, tmp_path):
    assert_alike(lambda x: CONDS[where](x, lambda: tf.constant(predicate)), kind, tmp_path)


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("index", [-1, 0, 1, 2, 5])
@pytest.mark.parametrize("where", CASES)
def test_one_of_several(where, index, kind, tmp_path):
    assert_alike(lambda x: CASES[where](x, tf.constant(index)), kind, tmp_path)


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("where", LOOPS)
def test_a_loop_that_never_runs(where, kind, tmp_path):
    assert_alike(LOOPS[where], kind, tmp_path)
