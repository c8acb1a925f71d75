"""Variables that are written, and whose value is known all the same.

Written before they are read, in each call; never, in the branches that a flag leaves; with what they hold
anyway. The original is called several times, because a write shows in the next call at the latest.
"""

from random import Random

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops import gen_state_ops

from freezeflow.errors import ModelRefused
from freezeflow.stages import fold
from freezeflow.stages.stage import StageInput
from tests.constructs import harness
from tests.constructs.tf2_models import Model, spec
from tests.tf.built import FakeContext

v1 = tf.compat.v1
X = [{"x": np.array(row, np.float32)} for row in ([1.0, -2.0], [0.5, 3.0], [-0.25, -0.0])]


def variables():
    return {
        "v": tf.Variable([2.0, 5.0]),
        "w": tf.Variable([1.5, -0.5]),
        "on": tf.Variable(True, trainable=False),
        "off": tf.Variable(False, trainable=False),
        "step": tf.Variable(12, dtype=tf.int64, trainable=False),
    }


def assigned(m, x):
    m.v.assign([3.0, 4.0])
    return x * m.v


def assigned_from_the_input(m, x):
    m.v.assign(x * 2)
    return m.v + m.w


def summed_up(m, x):
    """A metric that is reset, updated, read; with reads in between."""
    m.v.assign(tf.zeros_like(m.v))
    m.v.assign_add(x)
    between = m.v * 2
    m.v.assign_sub(m.w)
    return between + m.v


def state_of_a_cell(m, x):
    m.v.assign([0.0, 0.0])
    for _ in range(3):
        m.v.assign(tf.tanh(m.v * m.w + x))
    return m.v.read_value()


def scattered(m, x):
    m.v.assign([0.0, 1.0])
    m.v.scatter_nd_add([[0], [1], [0]], tf.concat([x, x[:1]], 0))
    m.v.scatter_nd_update([[1]], x[:1] * 3)
    m.v.scatter_nd_max([[0]], x[1:])
    return m.v.read_value()


def gathered(m, x):
    m.v.assign(x * 3)
    return tf.gather(m.v, [1, 0, 1]) + tf.gather_nd(m.v, [[0]])


def read_in_functions(m, x):
    @tf.function(autograph=False)
    def called(y):
        return y * m.v

    m.v.assign(x + 1)
    y = tf.cond(x[0] > 0, lambda: m.v * 2, lambda: called(x))
    return tf.while_loop(lambda i, _: i < 3, lambda i, a: (i + 1, tf.tanh(a + m.v)), [0, y])[1]


def in_a_branch(m, x):
    def then():
        m.v.assign(x * 3)
        return m.v + 1

    return tf.cond(x[0] > 0, then, lambda: x * m.w)


def in_a_loop(m, x):
    def step(i, y):
        m.v.assign(y)
        m.v.assign_add(m.w)
        return i + 1, tf.tanh(m.v)

    return tf.while_loop(lambda i, _: i < 3, step, [0, x])[1]


def without_a_value(m, x):
    m.v.assign_add(x)  # what this adds to is overwritten
    m.v.assign(x)
    return m.v * 3


def flag_that_is_off(m, x):
    def train():
        m.v.assign(m.v * 0.9 + x * 0.1)
        return tf.reduce_mean(x) + m.v

    return x - tf.cond(m.off, train, lambda: m.v * 1)


def flag_compared(m, x):
    def later():
        m.v.assign(m.v * 0.9)
        return m.v * x

    warm = tf.logical_and(tf.cast(m.step, tf.bool), m.step > 10)
    return tf.cond(warm, lambda: m.v + x, later)


def initialized_by_the_first_batch(m, x):
    """Weight normalization, ActNorm: the first batch sets the scale, and a flag that it did."""

    def initialize():
        m.v.assign(1 / (tf.abs(x) + 1))
        m.on.assign(True)
        return tf.constant(0)

    tf.cond(m.on, lambda: tf.constant(1), initialize)
    return x * m.v


def flag_that_is_set_again(m, x):
    m.on.assign(True)
    m.step.assign(tf.identity(tf.constant(12, tf.int64)))
    return tf.cond(m.on, lambda: x * m.v, lambda: x) + tf.cast(m.step, tf.float32)


def flags_within_flags(m, x):
    """The write of one lies in a branch that the other rules out."""

    def inner():
        def forget():
            m.on.assign(False)
            m.v.assign(x)
            return x

        return tf.cond(m.off, forget, lambda: m.v * 1)

    return tf.cond(m.on, inner, lambda: x * 9)


def flag_in_a_loop(m, x):
    """Read in a branch of a loop, which gets the handle from the main graph."""

    def step(i, y):
        def train():
            m.v.assign(m.v * 0.9)
            return y - m.v

        inner = lambda j, z: (j + 1, tf.cond(m.off, train, lambda: z * m.v))  # noqa: E731
        return i + 1, tf.while_loop(lambda j, _: j < 2, inner, [0, y])[1]

    return tf.while_loop(lambda i, _: i < 2, step, [0, x])[1]


HANDLED = [
    assigned, assigned_from_the_input, summed_up, state_of_a_cell, scattered, gathered, read_in_functions,
    in_a_branch, in_a_loop, without_a_value, flag_that_is_off, flag_compared,
    initialized_by_the_first_batch, flag_that_is_set_again, flags_within_flags, flag_in_a_loop,
]  # fmt: skip


def read_before(m, x):
    y = x * m.v
    m.v.assign([3.0, 4.0])
    return y


def added_to(m, x):
    m.v.assign_add(x)
    return m.v * 1


def assigned_in_one_branch(m, x):
    def then():
        m.v.assign(x)
        return 0

    tf.cond(x[0] > 0, then, lambda: 1)
    return m.v * 1


def assigned_if_at_all(m, x):
    def step(i):
        m.v.assign(x)
        return (i + 1,)

    tf.while_loop(lambda i: tf.cast(i, tf.float32) < x[0], step, [0])
    return m.v * 1


def by_two_names(m, x):
    """Both arguments of the function are one variable, so that none of its writes is the last."""

    @tf.function(autograph=False)
    def swap(one, other):
        one.assign(x)
        other.assign_add(x)
        return one * 1

    return swap(m.v, m.v) + tf.cond(x[0] > 0, lambda: swap(m.v, m.w), lambda: swap(m.w, m.v))


def read_by_a_dataset(m, x):
    """It reads when it is asked, which is after the second write."""
    m.v.assign(x)
    data = tf.data.Dataset.range(2).map(lambda i: m.v * tf.cast(i, tf.float32))
    m.v.assign(x * 2)
    return data.reduce(x, lambda a, b: a + b) + 0 * m.v


def written_through_what_a_branch_gives(m, x):
    """The handle that comes out of the branch is one of two."""

    @tf.function(autograph=False)
    def either(y):
        handles = [tf.TensorSpec([], tf.resource)] * 2
        return tf.raw_ops.If(
            cond=y[0] > 0,
            input=[m.v.handle, m.w.handle],
            Tout=[tf.resource],
            then_branch=tf.function(lambda a, b: a).get_concrete_function(*handles),
            else_branch=tf.function(lambda a, b: b).get_concrete_function(*handles),
        )[0]

    m.v.assign(x)
    handle = either(x)
    tf.raw_ops.AssignVariableOp(resource=handle, value=x * 2)
    return m.v * 1


def flag_that_turns(m, x):
    def first():
        m.on.assign(False)
        return x * m.v

    return tf.cond(m.on, first, lambda: x)


def flag_that_a_loop_turns(m, x):
    def step(i, y):
        def train():
            m.v.assign(m.v * 0.9)
            return y - m.v

        z = tf.cond(m.off, train, lambda: y * m.v)
        m.off.assign(i > 0)
        return i + 1, z

    return tf.while_loop(lambda i, _: i < 3, step, [0, x])[1]


REFUSED = [
    read_before,
    added_to,
    assigned_in_one_branch,
    assigned_if_at_all,
    read_by_a_dataset,
    written_through_what_a_branch_gives,
    flag_that_turns,
    flag_that_a_loop_turns,
]


def save(function, path, **more):
    model = Model(lambda m, x: {"y": function(m, x)}, [spec([2])], **variables())
    tf.saved_model.save(model, str(path), signatures={"serving_default": model.serve, **more})


def both_answers(path, scratch):
    """What the original and the frozen and folded model give in several calls."""
    frozen = harness.freeze_model(harness.saved_model(path), scratch)
    assert not frozen.variables
    folded = fold.STAGE.run(
        StageInput(model=frozen, source=None), fold.Params(), FakeContext(scratch)
    ).model
    loaded = tf.saved_model.load(str(path)).signatures["serving_default"]
    for feeds in (*X, X[0]):
        want = {
            k: v.numpy() for k, v in loaded(**{k: tf.constant(v) for k, v in feeds.items()}).items()
        }
        for model in (frozen, folded):
            yield want, harness.run_frozen(model, "serving_default", feeds)


@pytest.mark.parametrize("function", HANDLED, ids=lambda f: f.__name__)
def test_what_a_call_finds_as_every_call_finds_it(function, tmp_path):
    save(function, tmp_path / "model")
    (tmp_path / "scratch").mkdir()
    for want, have in both_answers(tmp_path / "model", tmp_path / "scratch"):
        harness.assert_same(want, have)


@pytest.mark.parametrize("function", REFUSED, ids=lambda f: f.__name__)
def test_what_an_earlier_call_has_left(function, tmp_path):
    save(function, tmp_path / "model")
    with pytest.raises(ModelRefused, match="is written by Assign"):
        harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path)


def test_one_variable_by_two_names(tmp_path):
    save(by_two_names, tmp_path / "model")
    try:
        for want, have in both_answers(tmp_path / "model", tmp_path):
            harness.assert_same(want, have)
    except ModelRefused as refused:
        assert "is written by Assign" in refused.message


@pytest.mark.parametrize("written", [True, False])
def test_another_signature_that_reads_what_this_one_writes(written, tmp_path):
    """Alone each can be frozen, both together only if none writes."""
    module = tf.Module()
    module.v, module.on = tf.Variable([2.0, 5.0]), tf.Variable(True)

    @tf.function(input_signature=[spec([2])])
    def first(x):
        if written:
            module.v.assign(x)
            module.on.assign(False)
        return {"y": module.v * 2}

    @tf.function(input_signature=[spec([2])])
    def second(x):
        return {"y": tf.cond(module.on, lambda: x * module.v, lambda: x)}

    module.first, module.second = first, second
    signatures = {"first": first, "second": second}
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=signatures)
    for name in signatures:
        harness.freeze_model(harness.saved_model(tmp_path / "model", signatures=(name,)), tmp_path)
    both = harness.saved_model(tmp_path / "model", signatures=tuple(signatures))
    if not written:
        harness.freeze_model(both, tmp_path)
        return
    with pytest.raises(ModelRefused, match="is written by AssignVariableOp"):
        harness.freeze_model(both, tmp_path)


def test_each_signature_writes_before_it_reads(tmp_path):
    module = tf.Module()
    module.v = tf.Variable([2.0, 5.0])

    def writing(factor):
        @tf.function(input_signature=[spec([2])])
        def call(x):
            module.v.assign(x * factor)
            return {"y": module.v + 1}

        return call

    signatures = {"one": writing(2.0), "two": writing(3.0)}
    module.signatures_of_it = list(signatures.values())
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=signatures)
    source = harness.saved_model(tmp_path / "model", signatures=tuple(signatures))
    frozen = harness.freeze_model(source, tmp_path)
    for name in ("two", "one", "two"):
        want = harness.run_original(tmp_path / "model", name, X[0])
        harness.assert_same(want, harness.run_frozen(frozen, name, X[0]))


def test_a_value_of_another_shape_is_refused_as_before(tmp_path):
    def assigned_any(m, x):
        m.v.assign(tf.boolean_mask(x, x > 0))
        m.v.assign_add(m.w)
        return m.v * 2

    save(assigned_any, tmp_path / "model")
    frozen = harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path)
    for feeds in ({"x": np.float32([1, 2])}, {"x": np.float32([1, -2])}):
        if feeds["x"].min() < 0:
            with pytest.raises(tf.errors.InvalidArgumentError):
                harness.run_original(tmp_path / "model", "serving_default", feeds)
            with pytest.raises(tf.errors.InvalidArgumentError):
                harness.run_frozen(frozen, "serving_default", feeds)
        else:
            want = harness.run_original(tmp_path / "model", "serving_default", feeds)
            harness.assert_same(want, harness.run_frozen(frozen, "serving_default", feeds))


def test_what_a_write_waits_for_is_waited_for(tmp_path):
    def checked(m, x):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x > -1), [x])]):
            m.v.assign(x)
        return m.v * 2

    save(checked, tmp_path / "model")
    frozen = harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path)
    with pytest.raises(tf.errors.InvalidArgumentError):
        harness.run_frozen(frozen, "serving_default", X[0])
    harness.run_frozen(frozen, "serving_default", X[1])


# ---------------------------------------------------------------- any order of reads and writes


# What may happen to a value y, a variable, another (or the same) one, and a number; it gives y again.
STEPS = [
    lambda y, one, other, c: (one.assign(y * c), y)[1],
    lambda y, one, other, c: (one.assign_add(y), y)[1],
    lambda y, one, other, c: (one.assign(other * c + y), y)[1],
    lambda y, one, other, c: (one.assign_sub(other * c), y)[1],
    lambda y, one, other, c: (one.scatter_nd_add([[0]], y[:1]), y)[1],
    lambda y, one, other, c: tf.tanh(y + one),
    lambda y, one, other, c: y * other + one.read_value(),
]

# What may be around more of it.
AROUND = [
    lambda y, inner, c: tf.cond(y[0] > c, lambda: inner(y), lambda: inner(y)),
    lambda y, inner, c: tf.while_loop(lambda i, _: i < 2, lambda i, z: (i + 1, inner(z)), [0, y])[
        1
    ],
    lambda y, inner, c: tf.function(inner, autograph=False)(y),
]


def made_up(random):
    """A function that reads and writes two variables at random, in branches, loops and calls as well."""

    def block(m, y, depth):
        inner = lambda z: block(m, z, depth - 1)  # noqa: E731
        for _ in range(random.randint(1, 5)):
            number = random.uniform(-1, 1)
            if depth and random.random() < 0.3:
                y = random.choice(AROUND)(y, inner, number)
            else:
                one, other = random.choice([m.v, m.w]), random.choice([m.v, m.w])
                y = random.choice(STEPS)(y, one, other, number)
        return y

    def compute(m, x):
        m.v.assign(x * 0.5)
        m.w.assign(x - 1)
        return block(m, x, 2)

    return compute


@pytest.mark.slow
def test_writes_and_reads_in_any_order(tmp_path):
    """What can be frozen answers as the original does, call after call."""
    frozen = 0
    for seed in range(40):
        folder = tmp_path / str(seed)
        (folder / "scratch").mkdir(parents=True)
        save(made_up(Random(seed)), folder / "model")
        try:
            for want, have in both_answers(folder / "model", folder / "scratch"):
                harness.assert_same(want, have)
        except ModelRefused as refused:
            assert "is written by" in refused.message
        else:
            frozen += 1
    assert frozen > 10


# ---------------------------------------------------------------- TF1


def tf1_assigned(x, v, w):
    with (
        tf.control_dependencies([v1.assign(v, x * 2)]),
        tf.control_dependencies([v1.assign_add(v, w)]),
    ):
        return tf_read(v) * 2


def tf1_what_the_op_gives(x, v, w):
    return x * v1.assign(v, [3.0, 4.0])


def tf1_what_comes_of_two(x, v, w):
    return x * v1.assign_add(v1.assign(v, x + 1), w)


def tf1_flag(x, v, w):
    off = v1.get_variable("off", initializer=False, trainable=False)

    def train():
        with tf.control_dependencies([v1.assign(v, v * 0.9)]):
            return tf.identity(x)

    return x * v1.cond(off, train, lambda: tf.identity(v))


def tf_read(v):
    """The value at this place, not the one that get_variable reads beforehand."""
    return v.read_value()


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize(
    "compute",
    [tf1_assigned, tf1_what_the_op_gives, tf1_what_comes_of_two, tf1_flag],
    ids=lambda f: f.__name__,
)
def test_in_tf1(compute, resource, tmp_path):
    save_tf1(compute, resource, tmp_path / "model")
    frozen = harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path)
    for feeds in X:
        want = harness.run_original_v1(tmp_path / "model", "serving_default", feeds)
        harness.assert_same(want, harness.run_frozen(frozen, "serving_default", feeds))


def tf1_unordered(x, v, w):
    """The write and the read wait for nothing: which one comes first is chance."""
    written = v1.assign(v, x)
    with tf.control_dependencies([written.op]):
        waited = tf.identity(x)
    return waited + w * tf_read(v)


def tf1_taken_before(x, v, w):
    """What was taken of a reference may show what is written later."""
    first = v1.assign(v, x)
    taken = tf.identity(first)
    with tf.control_dependencies([taken]):
        second = v1.assign(v, x * 2)
    with tf.control_dependencies([second.op]):
        return taken + w


@pytest.mark.parametrize(
    ("compute", "resource"),
    [(tf1_unordered, False), (tf1_unordered, True), (tf1_taken_before, False)],
)
def test_in_no_certain_order_in_tf1(compute, resource, tmp_path):
    save_tf1(compute, resource, tmp_path / "model")
    with pytest.raises(ModelRefused, match="is written by Assign") as refused:
        harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path)
    assert ("chance decides" in refused.value.hint) is (compute is tf1_unordered)


def save_tf1(compute, resource, path):
    with tf.Graph().as_default(), v1.Session() as session:
        v1.disable_control_flow_v2()
        try:
            x = v1.placeholder(tf.float32, [2], name="x")
            with v1.variable_scope("", use_resource=resource):
                v = v1.get_variable("v", initializer=[2.0, 5.0])
                w = v1.get_variable("w", initializer=[1.5, -0.5])
                y = tf.identity(compute(x, v, w), name="y")
        finally:
            v1.enable_control_flow_v2()
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(path), {"x": x}, {"y": y})


def temporary(x, in_order):
    """A sum in a temporary variable, as accumulate_n made it."""
    ops = gen_state_ops
    made = ops.temporary_variable(shape=[2], dtype=tf.float32, var_name="sum")
    made = ops.assign(made, tf.zeros([2]))
    parts = [x, x * 3]
    if in_order:
        for part in parts:
            made = ops.assign_add(made, part)
    else:
        with tf.control_dependencies([ops.assign_add(made, part) for part in parts]):
            made = tf.raw_ops.RefIdentity(input=made)
    return ops.destroy_temporary_variable(made, var_name="sum")


def test_a_temporary_variable(tmp_path):
    save_tf1(lambda x, v, w: temporary(x, True) * w, False, tmp_path / "model")
    frozen = harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path)
    assert not {"TemporaryVariable", "Assign"} & {n.op for n in frozen.graph.nodes.values()}
    for feeds in X:
        want = harness.run_original_v1(tmp_path / "model", "serving_default", feeds)
        harness.assert_same(want, harness.run_frozen(frozen, "serving_default", feeds))


def test_a_temporary_variable_that_is_written_in_no_certain_order(tmp_path):
    save_tf1(lambda x, v, w: temporary(x, False) * w, False, tmp_path / "model")
    with pytest.raises(ModelRefused, match="temporary variable") as refused:
        harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path)
    assert "tf.add_n" in refused.value.hint
