"""Where a difference begins: in loops of frames, in bodies of functions, at both levels."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ValidationFailed
from freezeflow.graph.graph import Function
from freezeflow.tf import apart
from freezeflow.tf.subgraph import replay_subgraph
from tests.stages.test_validate import changed_weight, pair_of, weights

v1 = tf.compat.v1


@pytest.fixture
def in_frames():
    """Loops and branches as TensorFlow 1 builds them."""
    was_on = v1.control_flow_v2_enabled()
    v1.disable_control_flow_v2()
    yield
    if was_on:
        v1.enable_control_flow_v2()


@pytest.fixture
def one_process(monkeypatch):
    monkeypatch.setattr(apart, "right_process", lambda *, exact: True)


def changed(model, name, **what):
    """A model with a changed node, of the main graph or of the function that has one of this name."""
    graph = model.graph
    if name in graph.nodes:
        nodes = {**graph.nodes, name: graph.nodes[name]._replace(**what)}
        graph = dataclasses.replace(graph, nodes=nodes)
        return dataclasses.replace(model, graph=graph)
    functions = {key: _changed(function, name, what) for key, function in graph.functions.items()}
    assert functions != graph.functions, [list(f.nodes) for f in functions.values()]
    return dataclasses.replace(model, graph=dataclasses.replace(graph, functions=functions))


def _changed(function: Function, name, what):
    if name not in function.nodes:
        return function
    nodes = {**function.nodes, name: function.nodes[name]._replace(**what)}
    return dataclasses.replace(function, nodes=nodes)


def divergence(pair, model, **params):
    with pytest.raises(ValidationFailed) as caught:
        pair.validate(model, **params)
    folder = pair.context.scratch / "evidence"
    found = json.loads((folder / "verdict.json").read_text())["divergence"]
    assert "reason" not in found, found
    assert found["node"] in caught.value.hint
    if found["subgraph"]:
        again = replay_subgraph(folder / "subgraph")
        assert again["equal"] is False
    return found


@pytest.fixture
def loop(tmp_path, in_frames):
    """Four rounds; the second half takes another branch; what a round gives is kept in an array."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        kernel = tf.constant(weights(4, 4), name="kernel")

        def body(number, y, array):
            y = tf.tanh(tf.matmul(y, kernel, name="product"), name="tanh")
            y = tf.cond(
                number < 2, lambda: tf.add(y, 1.0, name="plus"), lambda: tf.sin(y, name="sin")
            )
            array = array.write(number, tf.exp(y, name="kept"))
            return number + 1, y, array

        array = tf.TensorArray(tf.float32, 0, dynamic_size=True)
        _, y, array = tf.while_loop(
            lambda number, *_: number < 4, body, [tf.constant(0), x, array], name="loop"
        )
        outputs = {
            "y": tf.identity(y * 2.0, name="y"),
            "all": tf.identity(array.stack(), name="all"),
        }
    return pair_of(tmp_path, graph, {"x": x}, outputs)


@pytest.mark.parametrize(
    ("name", "what", "round_"),
    [
        ("loop/tanh", {"op": "Sigmoid"}, [0]),
        ("loop/cond/plus", {"op": "Sub"}, [0]),
        ("loop/cond/sin", {"op": "Cos"}, [2]),
        ("loop/kept", {"op": "Log"}, [0]),
        ("loop/Less", {"op": "LessEqual"}, [4]),
    ],
)
def test_in_a_loop_of_frames(loop, name, what, round_):
    found = divergence(loop, changed(loop.model, name, **what))
    assert (found["node"], found["kind"]) == (name, "computation")
    assert found["round"] == round_
    assert found["others"] == []
    assert found["subgraph"]


def test_a_weight_that_goes_into_a_loop(loop):
    found = divergence(loop, changed_weight(loop, "kernel", lambda array: array * 1.01))
    assert (found["node"], found["kind"]) == ("kernel", "constant")
    assert found["round"] is None


@pytest.mark.usefixtures("in_frames")
def test_in_a_loop_within_a_loop(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [3], name="x")

        def inner(number, y):
            # Differs from a sum only where the inner number is 2.
            return number + 1, tf.maximum(y, tf.cast(number, tf.float32), name="largest")

        def outer(number, y):
            _, y = tf.while_loop(lambda n, _: n < 3, inner, [number, y * 0.1], name="inner")
            return number + 1, y

        _, y = tf.while_loop(lambda n, _: n < 2, outer, [tf.constant(0), x], name="outer")
        y = tf.identity(y, name="y")
    pair = pair_of(tmp_path, graph, {"x": x}, {"y": y})
    found = divergence(pair, changed(pair.model, "outer/inner/largest", op="AddV2"))
    assert found["node"] == "outer/inner/largest"
    assert len(found["round"]) == 2


def test_a_loop_that_is_too_long_says_so(loop, monkeypatch):
    from freezeflow.tf import recording

    monkeypatch.setattr(recording, "_MOST_VALUES", 5)
    found = divergence(loop, changed(loop.model, "loop/cond/sin", op="Cos"))
    assert found["kind"] == "unseen"
    assert "in the loop loop/while_context" in found["because"]
    assert "first rounds" in found["because"]


# ---------------------------------------------------------------- functions


class Bodies(tf.Module):
    """A loop, a branch, a case and a call, each with a weight of its own."""

    def __init__(self):
        super().__init__()
        generator = np.random.default_rng(3)
        self.weight = [
            tf.Variable(generator.standard_normal((4, 4)).astype(np.float32)) for _ in range(4)
        ]

    @tf.function
    def call_me(self, y):
        return tf.nn.softplus(y @ self.weight[0], name="called")

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def call(self, x):
        y = self.call_me(x)

        def step(number, y):
            y = tf.tanh(y @ self.weight[1], name="in_loop")
            y = tf.cond(
                number > 1, lambda: tf.sin(y, name="in_both"), lambda: tf.cos(y, name="in_other")
            )
            return number + 1, y

        _, y = tf.while_loop(lambda n, _: n < 4, step, [tf.constant(0), y])
        y = tf.cond(
            tf.size(x) > 0,
            lambda: tf.nn.elu(y @ self.weight[2], name="in_branch"),
            lambda: y - 1.0,
        )
        branch = tf.cast(tf.shape(x)[0] % 3, tf.int32)
        cases = [
            lambda: tf.exp(y, name="case_0"),
            lambda: tf.abs(y @ self.weight[3], name="case_1"),
            lambda: tf.square(y, name="case_2"),
        ]
        y = tf.switch_case(branch, cases)
        parts = tf.map_fn(lambda row: tf.nn.relu(row - 0.1, name="mapped"), y)
        return {"y": parts, "z": y + 1.0}


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    from tests.constructs import harness

    folder = tmp_path_factory.mktemp("bodies")
    module = Bodies()
    tf.saved_model.save(module, str(folder / "saved"), signatures=module.call)
    source = harness.saved_model(folder / "saved")
    (folder / "scratch").mkdir()
    return source, harness.freeze_model(source, folder / "scratch")


@pytest.fixture
def pair(bodies, tmp_path):
    from tests.stages.test_validate import Pair
    from tests.tf.built import FakeContext

    return Pair(*bodies, FakeContext(tmp_path))


@pytest.mark.parametrize(
    ("name", "op"),
    [
        ("called", "Softsign"),
        ("in_loop", "Sigmoid"),
        ("in_both", "Tan"),
        ("in_other", "Tan"),
        ("in_branch", "Selu"),
        ("case_0", "Expm1"),
        ("case_1", "Exp"),
        ("case_2", "Neg"),
        ("mapped", "Softsign"),
    ],
)
def test_in_bodies_of_functions(pair, name, op):
    nodes = [*pair.model.graph.nodes]
    nodes += [n for f in pair.model.graph.functions.values() for n in f.nodes]
    (full,) = {each for each in nodes if each.rpartition("/")[2] == name}
    found = divergence(pair, changed(pair.model, full, op=op), samples=6)
    assert found["kind"] == "computation"
    assert found["node"].endswith(name), found
    assert found["inside"] is None


@pytest.mark.usefixtures("one_process")
def test_within_a_tolerance_too(tmp_path):
    """What is small enough is passed over; the node with the large difference is named."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        y = tf.matmul(x, tf.constant(weights(4, 4), name="first"), name="one")
        y = tf.tanh(y, name="tanh")
        y = tf.matmul(y, tf.constant(weights(4, 4), name="second"), name="two")
        y = tf.identity(tf.exp(y), name="y")
    pair = pair_of(tmp_path, graph, {"x": x}, {"y": y})
    slightly = changed_weight(pair, "first", lambda array: array * np.float32(1 + 1e-6))
    pair.validate(slightly, level="served", atol=1e-3, rtol=1e-3)
    graph = slightly.graph
    pair.model = slightly
    both = changed_weight(pair, "second", lambda array: array * np.float32(1.1))
    assert both.graph.nodes["first"] == graph.nodes["first"]
    found = divergence(pair, both, level="served", atol=1e-3, rtol=1e-3)
    assert (found["node"], found["kind"]) == ("second", "constant")
    assert divergence(pair, both)["node"] == "first"


@pytest.mark.usefixtures("one_process")
def test_within_a_tolerance_in_a_loop(loop):
    both = changed_weight(loop, "kernel", lambda array: array * np.float32(1 + 1e-6))
    loop.model = both
    model = changed(both, "loop/cond/sin", op="Cos")
    found = divergence(loop, model, level="served", atol=1e-3, rtol=1e-3)
    assert (found["node"], found["round"]) == ("loop/cond/sin", [2])
