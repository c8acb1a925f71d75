"""TF1's control flow and its functional form compute the same, to the bit, in either direction."""

import dataclasses
import random

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from freezeflow.graph.effects import V1_CONTROL_FLOW
from freezeflow.graph.graph import Graph
from freezeflow.graph.inline import inline_model
from freezeflow.graph.lower import lower
from freezeflow.graph.model import Model
from freezeflow.graph.profile import Profile, look
from freezeflow.graph.raised import raised
from freezeflow.graph.single import with_one_signature
from freezeflow.graph.strip import strip
from freezeflow.graph.text import model_text
from freezeflow.graph.verify import verify
from freezeflow.stages.fold import STAGE, Params
from freezeflow.stages.stage import StageInput
from freezeflow.values import DType, Signature, TensorSpec
from tests.graphs import node, placeholder
from tests.tf.built import FakeContext, assert_same, model_of, run

v1 = tf.compat.v1
raw = tf.raw_ops


def of_tf1(build, folder):
    """A model whose conditionals and loops are TF1's."""
    was = v1.control_flow_v2_enabled()
    v1.disable_control_flow_v2()
    try:
        return of_tf2(build, folder)
    finally:
        if was:
            v1.enable_control_flow_v2()


def of_tf2(build, folder):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], name="x")
        n = v1.placeholder(tf.int32, [], name="n")
        outputs = build(x, n)
        ends = {key: tf.identity(value) for key, value in outputs.items()}
    return model_of(graph, {"x": x, "n": n}, ends, folder)


def left(model):
    """Ops of TF1's control flow that are in a model."""
    graph = model.graph
    bodies = (graph.nodes, *(function.nodes for function in graph.functions.values()))
    return {node.op for nodes in bodies for node in nodes.values()} & V1_CONTROL_FLOW


FEEDS = [{"x": np.float32([0.5, -2.0, 3.0]), "n": np.int32(n)} for n in (0, 1, 2, 3, 5, -1)]


def assert_alike(model, other):
    for feeds in FEEDS:
        assert_same(run(model, feeds), run(other, feeds))


class Generator:
    """Random TF1 programs: conditionals and loops in each other, with what is captured."""

    def __init__(self, seed, n):
        self.rng = random.Random(seed)
        self.n = n

    def block(self, x, depth, pool):
        pool = [*pool, x]
        for _ in range(self.rng.randint(1, 3)):
            x = self.statement(self.rng.choice(pool[-3:]), depth, pool)
            pool.append(x)
        return x

    def statement(self, x, depth, pool):
        nested = (self.cond, self.pair, self.loop, self.same_twice)
        plain = (self.scale, self.add, self.captured, self.shaped)
        kind = self.rng.choice(nested if depth and self.rng.random() < 0.7 else plain)
        return tf.tanh(kind(x, depth - 1, pool))

    def predicate(self, x):
        kinds = (
            lambda: self.n > self.rng.randint(-1, 3),
            lambda: tf.reduce_sum(x) > self.rng.choice([-1.0, 0.0, 0.3]),
            lambda: tf.equal(self.n % 2, 0),
        )
        return self.rng.choice(kinds)()

    def cond(self, x, depth, pool):
        def branch():
            return self.block(x, depth, pool) if self.rng.random() < 0.8 else x

        return v1.cond(self.predicate(x), branch, branch)

    def pair(self, x, depth, pool):
        def branch():
            y = self.block(x, depth, pool)
            return y, self.statement(y, depth, pool), tf.constant(self.rng.random())

        a, b, c = v1.cond(self.predicate(x), branch, branch)
        return (a + c) * b if self.rng.random() < 0.5 else a - c

    def same_twice(self, x, depth, pool):
        """The second conditional takes what the first gives, of the same or of another predicate."""
        one, other = self.predicate(x), self.predicate(x)
        for predicate in (one, other, self.rng.choice([one, other])):
            x = v1.cond(
                predicate,
                lambda x=x: self.block(x, depth, pool),
                lambda x=x: self.block(x, 0, pool),
            )
        return x

    def loop(self, x, depth, pool):
        rounds = self.rng.randint(0, 3)

        def body(i, y, z):
            return i + 1, self.block(y + tf.cast(i, tf.float32), depth, pool), y * 0.5

        def goes_on(i, y, z):
            return tf.logical_and(i < rounds + self.n // 2, tf.reduce_sum(y) < 9.0)

        shapes = [tf.TensorShape([]), tf.TensorShape([None]), tf.TensorShape([None])]
        _, y, z = v1.while_loop(goes_on, body, [0, x, x], shape_invariants=shapes)
        return y + z if self.rng.random() < 0.5 else y

    def scale(self, x, depth, pool):
        return x * self.rng.uniform(-2, 2)

    def add(self, x, depth, pool):
        return x + self.rng.choice(pool)

    def captured(self, x, depth, pool):
        return x * tf.cast(self.n, tf.float32) - tf.reduce_max(self.rng.choice(pool))

    def shaped(self, x, depth, pool):
        return tf.reshape(tf.reshape(x, [1, -1]), tf.shape(x))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed, tmp_path):
    def build(x, n):
        return {"y": Generator(seed, n).block(x, 3, [])}

    model = of_tf1(build, tmp_path)
    made = raised(model)
    assert not left(made)
    assert not verify(made)
    assert_alike(model, made)
    assert raised(made) is made
    again = dataclasses.replace(made, graph=lower(made.graph))
    assert_alike(model, again)


def folded(model, folder):
    """After `strip` and `fold`, which leave out the Identities that tell conditionals apart."""
    given = StageInput(model=strip(model, drop_identities=True).model, source=None)
    return STAGE.run(given, Params(), FakeContext(folder)).model


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 20))
def test_after_a_fold(seed, tmp_path):
    def build(x, n):
        return {"y": Generator(seed, n).block(x, 3, [])}

    model = of_tf1(build, tmp_path)
    flat = folded(model, tmp_path)
    made = raised(flat)
    assert not left(made)
    assert_alike(model, made)


@pytest.mark.parametrize("seed", [1, 5])
def test_small_programs(seed, tmp_path):
    model = of_tf1(lambda x, n: {"y": Generator(seed, n).block(x, 2, [])}, tmp_path)
    made = raised(model)
    assert left(model)
    assert not left(made)
    assert_alike(model, made)


def test_what_was_lowered(tmp_path):
    def build(x, n):
        def more(k, z):
            return k + 1, tf.cond(k % 2 > 0, lambda: z * 1.5, lambda: z - 0.25)

        def row(number, y):
            return number + 1, tf.while_loop(lambda k, _: k < number, more, [0, y])[1]

        y = tf.while_loop(lambda i, _: i < n, row, [0, x])[1]
        return {"y": tf.cond(n > 1, lambda: y * y, lambda: tf.map_fn(tf.sin, y))}

    model = inline_model(of_tf2(build, tmp_path))
    flat = dataclasses.replace(model, graph=lower(model.graph))
    made = raised(flat)
    assert left(flat)
    assert not left(made)
    assert_alike(model, made)


def test_golden(tmp_path, golden):
    def build(x, n):
        y = v1.cond(n > 1, lambda: x * 2.0, lambda: x)

        def more(i, z):
            return i + 1, v1.cond(tf.equal(i % 2, 0), lambda: z + y, lambda: z - 1.0)

        return {"z": v1.while_loop(lambda i, _: i < n, more, [0, y])[1]}

    golden("raised/loop_with_a_branch.txt", model_text(raised(of_tf1(build, tmp_path))))


# ---------------------------------------------------------------- what happens on the way


def test_random_numbers_are_drawn_where_they_were(tmp_path):
    """As often: an op with a seed gives the next number of its own row each time that it runs."""

    def build(x, n):
        def drawn(i, y):
            once = tf.random.uniform([], seed=1)
            return i + 1, v1.cond(
                tf.equal(i % 2, 0),
                lambda: y + once + tf.random.uniform([], seed=2),
                lambda: y * once,
            )

        first = v1.cond(n > 1, lambda: x + tf.random.normal([3], seed=3), lambda: x)
        # Side by side, rounds draw in no order of their own.
        loop = v1.while_loop(lambda i, _: i < n, drawn, [0, first], parallel_iterations=1)
        return {"y": loop[1]}

    model = of_tf1(build, tmp_path)
    made = raised(model)
    assert not left(made)
    ops = [node.op for node in made.graph.nodes.values()]
    assert "While" in ops and "If" in ops
    assert not {"RandomUniform", "RandomStandardNormal"} & set(ops)
    assert_alike(model, made)


def test_two_results_of_one_number(tmp_path):
    """What is drawn once comes out of one If, though a conditional lies between the results."""

    def build(x, n):
        between = v1.cond(n > 2, lambda: x * 2.0, lambda: x)

        def drawn():
            number = tf.random.uniform([], seed=1)
            return number, number + between

        a, b = v1.cond(n > 0, drawn, lambda: (tf.constant(1.0), x))
        return {"a": a, "b": b}

    model = of_tf1(build, tmp_path)
    made = raised(model)
    assert not left(made)
    assert_alike(model, made)


def test_asserts_stay_in_their_branch(tmp_path):
    def build(x, n):
        def checked():
            with tf.control_dependencies([v1.assert_less(tf.reduce_sum(x), 1.0)]):
                return tf.identity(x)

        only = v1.cond(n > 1, lambda: v1.assert_less(n, 5), tf.no_op)
        with tf.control_dependencies([only]):
            return {"y": v1.cond(n > 0, checked, lambda: x * 2.0)}

    model = of_tf1(build, tmp_path)
    made = raised(model)
    assert not left(made)
    calls = [(0.1, 0, True), (0.1, 3, True), (0.1, 6, False), (2.0, 0, True), (2.0, 1, False)]
    for value, n, passes in calls:
        feeds = {"x": np.float32([value]), "n": np.int32(n)}
        if passes:
            assert_same(run(model, feeds), run(made, feeds))
            continue
        for each in (model, made):
            with pytest.raises(tf.errors.InvalidArgumentError):
                run(each, feeds)


# ---------------------------------------------------------------- by hand


def test_which_input_came(tmp_path):
    def build(x, n):
        out, into = raw.Switch(data=x, pred=n > 1)
        merged = raw.Merge(inputs=[into * 2.0, out])
        return {"y": merged.output, "index": merged.value_index + 1}

    model = of_tf1(build, tmp_path)
    made = raised(model)
    assert not left(made)
    assert_alike(model, made)


def test_two_conditions_that_need_each_other(tmp_path):
    """The first and the last choice are of one predicate and share a node; another one lies between."""

    def build(x, n):
        p, q = n > 1, n > 2
        no, yes = raw.Switch(data=x, pred=p)
        shared = tf.exp(yes)
        first = raw.Merge(inputs=[no, shared + 1.0]).output
        b_no, b_yes = raw.Switch(data=first, pred=q)
        second = raw.Merge(inputs=[b_no * 3.0, b_yes]).output
        c_no, c_yes = raw.Switch(data=second, pred=p)
        return {"y": raw.Merge(inputs=[c_no, c_yes * shared]).output}

    model = of_tf1(build, tmp_path)
    made = raised(model)
    assert not left(made)
    assert sum(node.op == "StatelessIf" for node in made.graph.nodes.values()) == 3
    assert_alike(model, made)


class Loop:
    """``while y < 50: y += 2 * y``, made by hand: what is compared is used in the body, too."""

    def __init__(self, x, drawn=False, twice=False):
        start = raw.Enter(data=tf.reduce_sum(x), frame_name="f")
        limit = raw.Enter(data=tf.constant(50.0), frame_name="f", is_constant=True)
        head = raw.Merge(inputs=[start, start]).output
        double = head + head
        if drawn:
            double = raw.Add(
                x=double, y=raw.RandomUniform(shape=tf.shape(head), dtype=tf.float32, seed=1)
            )
        goes_on = raw.LoopCond(input=double < limit)
        out, on = raw.Switch(data=head, pred=goes_on)
        head.op._update_input(1, raw.NextIteration(data=double + on))
        self.out = raw.Exit(data=out * 2.0 if twice else out)


def test_what_is_in_the_condition_and_in_the_body(tmp_path):
    model = of_tf1(lambda x, n: {"y": Loop(x).out}, tmp_path)
    made = raised(model)
    assert not left(made)
    assert_alike(model, made)


def dead(x, n):
    """Nothing is there where the predicate is false."""
    return raw.Switch(data=x, pred=n > 1).output_true


def first_come(x, n):
    """What is always there, or what is there at times."""
    return raw.Merge(inputs=[x, raw.Switch(data=x, pred=n > 1).output_true]).output


def of_two(x, n):
    """Sides of two predicates."""
    yes = raw.Switch(data=x, pred=n > 1).output_true
    return raw.Merge(inputs=[yes, raw.Switch(data=x, pred=n > 2).output_false]).output


def leaving_a_branch(x, n):
    """A number that is drawn in a branch is used outside of it, too."""
    no, yes = raw.Switch(data=x, pred=n > 1)
    number = yes + tf.random.uniform([], seed=1)
    return raw.Merge(inputs=[no, number]).output, number


def drawn_in_the_condition(x, n):
    return Loop(x, drawn=True).out


def computed_on_leaving(x, n):
    return Loop(x, twice=True).out


IRREGULAR = [
    dead,
    first_come,
    of_two,
    leaving_a_branch,
    drawn_in_the_condition,
    computed_on_leaving,
]


@pytest.mark.parametrize("build", IRREGULAR, ids=lambda build: build.__name__)
def test_what_no_function_can_say_stays(build, tmp_path):
    def outputs(x, n):
        found = build(x, n)
        return {f"y{i}": y for i, y in enumerate(found if isinstance(found, tuple) else [found])}

    model = of_tf1(outputs, tmp_path)
    made = raised(model)
    assert not made.graph.functions
    assert left(made) == left(model)
    named = with_one_signature(made, None)
    with pytest.raises(ModelRefused, match=r"Toaster does not take lowered control flow: \w+ \("):
        look(named, Profile(target="Toaster", ops=None))


def test_a_switch_of_many(tmp_path):
    """As TensorFlow lowers a Case; no file of a model holds it, and importing one refuses it."""
    kinds = {"T": DType.FLOAT}
    nodes = [
        placeholder("x", DType.FLOAT, (None,)),
        placeholder("n", DType.INT32),
        node("s", "_SwitchN", "x", "n", num_outs=3, **kinds),
        node("a", "Neg", "s", **kinds),
        node("b", "Exp", "s:2", **kinds),
        node("m", "Merge", "b", "s:1", "a", N=3, **kinds),
        node("y", "Identity", "m", **kinds),
    ]
    ends = Signature(
        {"x": TensorSpec("x", DType.FLOAT, (None,)), "n": TensorSpec("n", DType.INT32, ())},
        {"y": TensorSpec("y", DType.FLOAT, (None,))},
    )
    graph = Graph(nodes={each.name: each for each in nodes})
    made = raised(Model(graph=graph, signatures={"serving_default": ends}))
    assert not left(made)
    assert made.graph.nodes["m/case"].op == "StatelessCase"
    x = np.float32([0.5, -2.0])
    for n, expected in {0: -x, 1: x, 2: np.exp(x), 3: np.exp(x), -1: np.exp(x)}.items():
        assert np.allclose(run(made, {"x": x, "n": np.int32(n)})["y"], expected, 1e-6)
