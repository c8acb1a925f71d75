"""Lists as tensors: the same bytes, and no list is left."""

import random

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.graph import stacked as stacked_module
from freezeflow.graph import verify
from freezeflow.graph.canonical import canonical
from freezeflow.graph.inline import inline_model
from freezeflow.graph.single import with_one_signature, with_shapes
from freezeflow.graph.stacked import stacked
from freezeflow.values import DType
from tests.tf.built import assert_same, model_of, run

RANDOM = np.random.default_rng(5)
X = RANDOM.standard_normal((3, 6, 4)).astype(np.float32)
W = RANDOM.standard_normal((4, 4)).astype(np.float32)


def rounds(number, body, *start):
    """`body` so many times, with what the rounds hand on."""
    step = lambda i, *v: (i + 1, *body(i, *v))  # noqa: E731
    return tf.while_loop(lambda i, *_: i < number, step, (0, *start))[1:]


def recurrent(x, *, backwards=False):
    """As Keras' layers do it, by length and batch as the call tells them."""
    steps = tf.transpose(x, [1, 0, 2])
    length = tf.shape(steps)[0]
    given = tf.TensorArray(tf.float32, length, clear_after_read=False).unstack(steps)
    kept = tf.TensorArray(tf.float32, length, element_shape=(None, 4))
    state = tf.zeros((tf.shape(x)[0], 4))

    def body(i, state, memory, kept):
        place = length - 1 - i if backwards else i
        gate = tf.sigmoid(given.read(place) + tf.linalg.matmul(state, W))
        memory = gate * memory + (1.0 - gate) * tf.tanh(given.read(place))
        state = tf.tanh(memory) * gate
        return state, memory, kept.write(i, state)

    state, _, kept = rounds(length, body, state, state, kept)
    return tf.concat([tf.transpose(kept.stack(), [1, 0, 2]), state[:, tf.newaxis]], 1)


def recurrent_twice(x):
    return recurrent(tf.concat([recurrent(x), x], 1), backwards=True)


def mapped(x):
    return tf.map_fn(lambda row: tf.reduce_sum(row, 0) @ W[:, :3] * 2.0, x[:, :, tf.newaxis])


def mapped_in_a_map(x):
    return tf.map_fn(lambda rows: tf.map_fn(lambda row: tf.sort(row) * 2.0, rows), x)


def several_types(x):
    kinds = (tf.float32, tf.int32, tf.bool)
    a, b, c = tf.map_fn(
        lambda row: (row[0], tf.argmax(row[1], output_type=tf.int32), row[0, 0] > 0.0),
        x,
        fn_output_signature=kinds,
    )
    return a + tf.cast(b, tf.float32)[:, tf.newaxis] + tf.cast(c, tf.float32)[:, tf.newaxis]


def unset_elements(x):
    kept = tf.TensorArray(tf.float32, 5, element_shape=(4,))
    (kept,) = rounds(2, lambda i, kept: (kept.write(2 * i, x[0, i]),), kept)
    return kept.stack()


def no_round(x):
    kept = tf.TensorArray(tf.float32, 0 * tf.shape(x)[0], element_shape=(4,))
    (kept,) = rounds(0 * tf.shape(x)[0], lambda i, kept: (kept.write(i, x[0, i]),), kept)
    return tf.concat([kept.stack(), x[0]], 0)


def read_again(x):
    """Each round reads what the two before it set."""
    kept = tf.TensorArray(tf.float32, 6, element_shape=(4,), clear_after_read=False)
    kept = kept.write(0, x[0, 0]).write(1, x[0, 1])
    body = lambda i, kept: (kept.write(i + 2, kept.read(i) + kept.read(i + 1)),)  # noqa: E731
    (kept,) = rounds(4, body, kept)
    return kept.stack()


def as_it_was_before(x):
    """A list is a value: setting an element does not change the one that was."""
    before = tf.TensorArray(tf.float32, 2, element_shape=(4,)).unstack(x[0, :2])
    after = before.write(0, x[0, 3])
    (after,) = rounds(1, lambda i, kept: (kept.write(i + 1, x[0, 4]),), after)
    return tf.concat([before.stack(), after.stack()], 0)


def in_a_branch(x):
    kept = tf.TensorArray(tf.float32, 3)

    def body(i, kept):
        write = lambda: kept.write(i, tf.sin(x[i]))  # noqa: E731
        return (tf.cond(x[i, 0, 0] > 0.0, write, lambda: kept.write(i, x[i])),)

    (kept,) = rounds(3, body, kept)
    return kept.stack()


def gathered(x):
    kept = tf.TensorArray(tf.float32, 6)
    (kept,) = rounds(6, lambda i, kept: (kept.write(i, x[0, i] * 2.0),), kept)
    return kept.gather([4, 0, 4]) + tf.cast(kept.size(), tf.float32)


TAKEN = [
    recurrent,
    recurrent_twice,
    mapped,
    mapped_in_a_map,
    several_types,
    unset_elements,
    no_round,
    read_again,
    as_it_was_before,
    in_a_branch,
    gathered,
]


def built(make, folder, shape=(None, None, 4)):
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, shape, name="x")
        y = tf.identity(make(x), name="y")
    model = model_of(graph, {"x": x}, {"y": y}, folder)
    return with_one_signature(canonical(inline_model(model)), None)


def nodes_of(model):
    graph = model.graph
    bodies = (graph.nodes, *(function.nodes for function in graph.functions.values()))
    return [each for nodes in bodies for each in nodes.values()]


@pytest.mark.parametrize("make", TAKEN)
def test_the_same_bytes_without_a_list(make, tmp_path):
    model = built(make, tmp_path)
    assert any("TensorList" in each.op for each in nodes_of(model))
    result, kept = stacked(model)
    assert kept is None
    assert verify.verify(result) == ()
    assert not [each.name for each in nodes_of(result) if "TensorList" in each.op]
    assert not [
        arg for f in result.graph.functions.values() for arg in f.args if arg.dtype is DType.VARIANT
    ]
    assert canonical(result).graph == result.graph
    for x in (X, X[:, :2], X[:1]):
        if make in (recurrent, recurrent_twice, mapped, mapped_in_a_map) or x is X:
            assert_same(run(model, {"x": x}), run(result, {"x": x}))


def dynamic_size(x):
    kept = tf.TensorArray(tf.float32, 0, dynamic_size=True)
    return rounds(3, lambda i, kept: (kept.write(i, x[i]),), kept)[0].stack()


def elements_of_any_length(x):
    kept = tf.TensorArray(tf.float32, 3, infer_shape=False)
    (kept,) = rounds(3, lambda i, kept: (kept.write(i, x[0, : i + 1]),), kept)
    return rounds(3, lambda i, y: (y + tf.reduce_sum(kept.read(i)),), x)[0]


def two_shapes(x):
    kept = tf.TensorArray(tf.float32, 2, infer_shape=False)
    kept = kept.write(0, x[0, 0]).write(1, x[0])
    return rounds(2, lambda i, y: (y + tf.reduce_sum(kept.read(i)),), x)[0]


def joined(x):
    kept = tf.TensorArray(tf.float32, 3)
    return rounds(3, lambda i, kept: (kept.write(i, x[i]),), kept)[0].concat()


def words(x):
    return tf.strings.to_number(
        tf.map_fn(tf.strings.as_string, x[0], fn_output_signature=tf.string)
    )


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (dynamic_size, "its length may change"),
        (elements_of_any_length, "the shape of its elements is not known"),
        (two_shapes, "another shape than the rest"),
        (joined, "TensorListConcatV2 works on it"),
        (words, "its elements are string"),
    ],
)
def test_what_stays_a_list(make, reason, tmp_path):
    model = built(make, tmp_path)
    result, kept = stacked(model)
    assert result is model
    assert reason in kept.reason
    assert kept.path.rpartition("/")[2]


def test_known_shapes_need_nothing_from_the_call(tmp_path):
    model = with_shapes(built(recurrent, tmp_path), None, {"x": (3, 6, 4)})
    result, _ = stacked(model)
    assert_same(run(model, {"x": X}), run(result, {"x": X}))


def test_a_model_without_lists_stays_as_it_is(tmp_path):
    model = built(lambda x: rounds(3, lambda i, y: (y * 2.0,), x)[0], tmp_path)
    assert stacked(model) == (model, None)


def test_functions_that_come_to_too_many_nodes(tmp_path, monkeypatch):
    model = built(mapped_in_a_map, tmp_path)
    monkeypatch.setattr(stacked_module, "MAX_INLINED_NODES", 20)
    result, kept = stacked(model)
    assert result is model
    assert "too many" in kept.reason


class Drawn:
    """A random net of loops, branches and lists in each other, on tensors of one shape."""

    def __init__(self, seed, x):
        self._random = random.Random(seed)
        self._x = x

    def scope(self, given, depth=0):
        """The last of some tensors that are computed one from the other."""
        values = list(given)
        for _ in range(self._random.randint(1, 3)):
            kind = self._random.choice(["plain", "loop", "branch"]) if depth < 3 else "plain"
            values += getattr(self, kind)(values, depth)
        return values[-1]

    def plain(self, values, depth):
        a, b = self._random.choice(values), self._random.choice(values)
        ways = (
            lambda: tf.tanh(a + b),
            lambda: a * 0.5 - b,
            lambda: tf.where(a > 0.0, a, b),
            lambda: tf.tanh(tf.linalg.matmul(a, 0.3 * W)),
        )
        return [self._random.choice(ways)()]

    def loop(self, values, depth):
        number = self._random.randint(0, 3)
        if self._random.random() < 0.5:
            number = tf.minimum(tf.shape(self._x)[1], number + 1)
        given = tf.TensorArray(tf.float32, 2, clear_after_read=False)
        given = given.unstack(tf.stack([values[0], values[-1]]))
        kept = tf.TensorArray(tf.float32, number + 1).write(number, values[-1])

        def body(i, state, kept):
            state = self.scope([*values, state, given.read(i % 2)], depth + 1)
            return state, kept.write(i, state)

        state, kept = rounds(number, body, values[-1], kept)
        return [state, tf.reduce_sum(kept.stack(), 0), kept.gather([0])[0]]

    def branch(self, values, depth):
        side = lambda: self.scope(values, depth + 1)  # noqa: E731
        return [tf.cond(tf.reduce_sum(values[-1]) > 0.0, side, side)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_drawn_nets(seed, tmp_path):
    model = built(lambda x: Drawn(seed, x).scope([x[:, 0]]), tmp_path)
    result, kept = stacked(model)
    assert kept is None
    for x in (X, X[:1, :2]):
        assert_same(run(model, {"x": x}), run(result, {"x": x}))
