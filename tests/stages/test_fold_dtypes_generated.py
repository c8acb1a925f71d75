"""Random graphs of every dtype, of strings, shapes, calls and control flow, folded to the byte.

Where the original answers, the folded graph gives the same bytes. Where it refuses an input, the folded
graph may answer: what was refused may have been an argument that nothing needs.
"""

import os
import random

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.graph.inline import inline_model
from freezeflow.graph.strip import strip
from freezeflow.graph.verify import verify
from freezeflow.graph.write import graph_def_bytes
from freezeflow.stages.fold import STAGE, Params
from freezeflow.stages.stage import StageInput
from freezeflow.tf.sessions import RUN_ERRORS, exact_config
from tests.tf.built import FakeContext, full_name, model_of

v1, raw = tf.compat.v1, tf.raw_ops
MANY = range(4000, 4000 + int(os.environ.get("FREEZEFLOW_TEST_SEEDS", "60")))

F32, I32, TEXT, BOOL = tf.float32, tf.int32, tf.string, tf.bool
HUGE = np.iinfo(np.int32)
WIDE = [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, np.nan, np.inf, -np.inf, 1e-45, -1e-39, 1e38, -3e38, 1e10]
WHOLE = [0, 0, 1, 1, 2, 3, -1, -2, 7, 31, HUGE.max, HUGE.min]
SMALL = [0, 1, 2, 7, 100, 127]
VALUES = {
    F32: WIDE,
    tf.float64: WIDE,
    tf.float16: [0.0, -0.0, 1.0, np.nan, np.inf, 6e-8, 60000.0, -2.5],
    I32: WHOLE,
    tf.int64: WHOLE,
    tf.uint8: SMALL,
    tf.int8: SMALL,
    TEXT: [b"", b"a", b"Ab c", b"1.5", b"-7", b"x,y,,z", b"\xc3\xa9", b"\xff\x00", b"nan"],
    BOOL: [True, False],
}
FLOATS = [F32, F32, F32, tf.float64, tf.float16]
INTEGERS = [I32, I32, tf.int64, tf.uint8, tf.int8]
SHAPES = [(), (), (1,), (3,), (1, 3), (2, 3), (0,), (0, 3), (3, 1)]
ERRORS = (ValueError, TypeError, IndexError, NotImplementedError, tf.errors.OpError)


class Pool:
    """Makes random statements on the tensors made so far; a seed gives one graph."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.tensors = []

    def one(self, *dtypes):
        """A tensor of one of these dtypes: one that is there, or a constant."""
        dtype = self.rng.choice(dtypes)
        found = [tensor for tensor in self.tensors if tensor.dtype == dtype]
        if found and self.rng.random() < 0.65:
            return self.rng.choice(found[-8:])
        shape = self.rng.choice(SHAPES)
        count = int(np.prod(shape))
        if self.rng.random() < 0.4:
            values = [self.rng.choice(VALUES[dtype])] * count
        else:
            values = [self.rng.choice(VALUES[dtype]) for _ in range(count)]
        kind = object if dtype == TEXT else dtype.as_numpy_dtype
        return tf.constant(np.array(values, kind).reshape(shape), dtype)

    def floats(self):
        return self.one(*FLOATS)

    def integers(self):
        return self.one(*INTEGERS)

    def number(self):
        return self.one(*FLOATS, *INTEGERS)

    def any(self):
        return self.one(*FLOATS, *INTEGERS, TEXT, TEXT, BOOL)

    def two(self, *dtypes):
        first = self.one(*dtypes)
        pair = [first, self.one(first.dtype)]
        return pair if self.rng.random() < 0.5 else pair[::-1]

    def axis(self):
        return self.rng.choice([0, 0, 1, -1])

    # ------------------------------------------------------------ statements

    def statements(self, count, depth):
        """Adds what can be built; what TensorFlow refuses to build is left out."""
        for _ in range(count):
            kinds = CALLS if depth and self.rng.random() < 0.2 else STATEMENTS
            try:
                made = self.rng.choice(kinds)(self, *([depth - 1] if kinds is CALLS else []))
            except ERRORS:
                continue
            made = made if isinstance(made, (list, tuple)) else [made]
            self.tensors += [tensor for tensor in made if tensor.dtype in VALUES]

    def inside(self, depth, dtype, *extra):
        """A tensor made by statements of its own, of these tensors and those outside."""
        outside = self.tensors
        self.tensors = [*outside, *extra, *extra]
        self.statements(self.rng.randint(1, 5), depth)
        result = tf.identity(self.one(dtype))
        self.tensors = outside
        return result

    def decision(self):
        if self.rng.random() < 0.4:
            return tf.constant(self.rng.random() < 0.5)
        return tf.reduce_any(self.one(BOOL))

    def cond(self, depth):
        dtype = self.rng.choice([F32, I32, TEXT])
        return tf.cond(
            self.decision(), lambda: self.inside(depth, dtype), lambda: self.inside(depth, dtype)
        )

    def case(self, depth):
        dtype = self.rng.choice([F32, I32, TEXT])
        index = tf.constant(self.rng.randint(-1, 3))
        if self.rng.random() < 0.6:
            index = tf.size(self.any()) % 3
        return tf.switch_case(index, [lambda: self.inside(depth, dtype) for _ in range(3)])

    def loop(self, depth):
        first, kept = self.one(F32, I32), self.any()
        times = tf.constant(self.rng.randint(0, 3))
        if self.rng.random() < 0.4:
            times = tf.size(self.one(F32)) % 3

        def body(i, y, k):
            return i + 1, self.inside(depth, y.dtype, y, i, k), k

        shapes = [tf.TensorShape([]), tf.TensorShape(None), kept.shape]
        start = [tf.constant(0), first, kept]
        return tf.while_loop(lambda i, *_: i < times, body, start, shapes)

    def function(self, depth):
        dtype = self.rng.choice([F32, I32, TEXT])
        attributes = {"_noinline": True} if self.rng.random() < 0.5 else None

        @tf.function(autograph=False, experimental_attributes=attributes)
        def call(a, b):
            return self.inside(depth, dtype, a, b), self.inside(depth, F32, b)

        return call(self.any(), self.one(F32))

    def switch(self, depth):
        no, yes = raw.Switch(data=self.any(), pred=self.decision())
        keep = self.rng.choice([tf.identity, tf.shape, lambda t: tf.reshape(t, [-1])])
        return raw.Merge(inputs=[keep(no), keep(yes)])[0]

    def waiting(self, depth):
        tensor = self.any()
        kept = tf.debugging.Assert(tf.logical_or(self.decision(), True), [tensor])
        with tf.control_dependencies([kept, self.any().op]):
            return self.rng.choice([tf.identity, tf.shape])(tensor)


CALLS = [Pool.cond, Pool.case, Pool.loop, Pool.function, Pool.switch, Pool.waiting]


def any_of(*functions, of=Pool.number, **options):
    """A statement that applies one of several functions to one tensor."""
    return lambda pool: pool.rng.choice(functions)(of(pool), **options)


def either(*functions, of):
    """A statement that applies one of several functions to two tensors of the same dtype."""
    return lambda pool: pool.rng.choice(functions)(*pool.two(*of))


def reshaped(target):
    """A statement that reshapes to what is computed from the tensor."""

    def statement(pool):
        tensor = pool.any()
        return tf.reshape(tensor, target(pool, tensor))

    return statement


MATH = tf.math
STATEMENTS = [
    either(tf.add, tf.subtract, tf.multiply, tf.maximum, tf.minimum, of=FLOATS + INTEGERS),
    either(MATH.floordiv, MATH.floormod, tf.truncatediv, tf.truncatemod, of=INTEGERS),
    either(tf.divide, tf.pow, MATH.squared_difference, MATH.divide_no_nan, MATH.atan2, of=[F32]),
    either(
        tf.bitwise.bitwise_and, tf.bitwise.bitwise_xor, tf.bitwise.left_shift,
        tf.bitwise.right_shift, of=INTEGERS,
    ),
    either(tf.less, tf.greater_equal, tf.equal, tf.not_equal, of=FLOATS + INTEGERS),
    either(tf.logical_and, tf.logical_or, of=[BOOL]),
    any_of(tf.negative, tf.abs, tf.sign, tf.square),
    any_of(
        tf.exp, MATH.log, tf.sqrt, MATH.rsqrt, tf.sigmoid, tf.tanh, tf.nn.relu, tf.nn.relu6, tf.floor,
        tf.round, MATH.reciprocal, MATH.is_nan, MATH.log1p, tf.nn.softmax, tf.nn.softplus,
        of=Pool.floats,
    ),
    lambda p: tf.cast(p.number(), p.rng.choice([F32, I32, tf.int64, tf.float16, BOOL, tf.uint8])),
    lambda p: tf.bitcast(p.one(F32), I32),
    # Ops that do nothing, or almost nothing.
    *[lambda p, c=c: p.one(F32) * c for c in (1.0, 0.5, -1.0)],
    *[lambda p, c=c: p.one(F32) * 2.0 + c for c in (0.0, -0.0, np.zeros(3, np.float32))],
    lambda p: tf.nn.softmax(tf.nn.relu(p.one(F32) * p.one(F32) + 0.0)),
    any_of(lambda x: x + 0.0, lambda x: x - 0.0, lambda x: x / 1.0, of=Pool.floats),
    any_of(lambda n: n + 0, lambda n: n * 1, lambda n: n // 1, of=Pool.integers),
    any_of(tf.identity, tf.stop_gradient, of=Pool.any),
    lambda p: raw.IdentityN(input=[p.any(), p.any()]),
    lambda p: tf.ensure_shape(p.any(), p.rng.choice([None, [None], [None, 3], [None, None]])),
    # Shapes, and what is computed from them.
    any_of(tf.shape, tf.size, tf.rank, tf.zeros_like, of=Pool.any),
    any_of(lambda t: tf.shape(t)[0], lambda t: tf.shape(t)[1:], of=Pool.any),
    lambda p: tf.shape_n([p.any(), p.any()]),
    reshaped(lambda p, t: p.rng.choice([[-1], [-1, 3], [3, -1], [0, -1], [], [-1, 1, 3]])),
    reshaped(lambda p, t: tf.shape(t)),
    reshaped(lambda p, t: tf.stack([tf.shape(t)[0], p.rng.choice([-1, 3, 1])])),
    reshaped(lambda p, t: tf.concat([tf.shape(t), [1]], 0)),
    reshaped(lambda p, t: [tf.reduce_prod(tf.shape(t))]),
    reshaped(lambda p, t: p.one(I32)),
    lambda p: tf.fill(tf.shape(p.any()), p.rng.choice([0.0, -0.0, 1.5])),
    lambda p: tf.broadcast_to(p.any(), tf.shape(p.any())),
    lambda p: tf.broadcast_dynamic_shape(tf.shape(p.any()), tf.shape(p.any())),
    lambda p: tf.range(tf.size(p.any())),
    # Moving elements.
    lambda p: tf.expand_dims(p.any(), p.axis()),
    any_of(tf.squeeze, tf.transpose, of=Pool.any),
    lambda p: tf.tile(p.any(), p.rng.choice([[1], [1, 1], [2, 1], [0], [1, 0]])),
    lambda p: tf.pad(
        p.number(), p.rng.choice([[[0, 0]], [[0, 0], [0, 0]], [[1, 0], [0, 2]]]),
        mode=p.rng.choice(["CONSTANT", "REFLECT", "SYMMETRIC"]),
    ),
    any_of(
        lambda t: t[::-1], lambda t: t[..., 0:3], lambda t: t[1:], lambda t: t[:, 1], lambda t: t[0:0],
        lambda t: t[:, 0:], lambda t: t[:, tf.newaxis], of=Pool.any,
    ),
    lambda p: tf.slice(p.any(), *p.rng.choice([([0], [-1]), ([0, 0], [-1, 3]), ([1, 0], [0, 1])])),
    lambda p: tf.concat(p.two(F32, I32, TEXT), p.axis()),
    lambda p: tf.stack(p.two(F32, I32, TEXT), p.axis()),
    lambda p: tf.unstack(p.any(), axis=p.axis()),
    lambda p: tf.split(p.any(), p.rng.choice([1, 3, [1, 2], [0, 3]]), axis=p.axis()),
    lambda p: tf.gather(p.any(), p.rng.choice([[0], [1, 0], [2]]), axis=p.axis()),
    lambda p: tf.where(p.one(BOOL), *p.two(F32, I32, TEXT)),
    any_of(tf.where, of=lambda p: p.one(BOOL)),
    lambda p: tf.unique(tf.reshape(p.one(I32), [-1])),
    # Reductions.
    lambda p: p.rng.choice([tf.reduce_sum, tf.reduce_max, tf.reduce_mean, tf.reduce_prod])(
        p.number(), p.rng.choice([None, 0, -1, [], [0, 1]]), keepdims=p.rng.random() < 0.3
    ),
    lambda p: tf.reduce_all(p.one(BOOL), p.rng.choice([None, 0, []])),
    lambda p: tf.argmax(p.number(), p.axis()),
    lambda p: tf.cumsum(p.number()),
    lambda p: tf.matmul(*p.two(F32), transpose_b=p.rng.random() < 0.5),
    lambda p: tf.nn.bias_add(p.one(F32), np.array([0, -0.0, p.rng.choice([0, 1])], np.float32)),
    # Strings.
    lambda p: tf.strings.join(p.two(TEXT), p.rng.choice(["", "-"])),
    any_of(
        tf.strings.length, tf.strings.lower, tf.strings.strip, tf.strings.to_number, tf.io.encode_base64,
        lambda s: tf.strings.regex_replace(s, "[a-c]", "q"), lambda s: tf.strings.substr(s, -1, 2),
        lambda s: tf.strings.to_hash_bucket_fast(s, 7), lambda s: tf.strings.reduce_join(s, axis=-1),
        lambda s: tf.io.decode_raw(s, tf.uint8), of=lambda p: p.one(TEXT),
    ),
    any_of(tf.strings.as_string, lambda n: tf.strings.as_string(n, precision=3, width=8)),
    lambda p: tf.debugging.check_numerics(p.one(F32), "bad"),
    lambda p: tf.random.uniform([2], seed=3) * 0.0,
]  # fmt: skip


def built(seed):
    """A random graph with three inputs of partly known shapes; control flow of TF1 in some."""
    pool = Pool(seed)
    if pool.rng.random() < 0.3:
        v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default() as graph:
            shapes = [[None, 3], [None, 3], [None, None], None], [[None], None, []], [[None], None]
            inputs = {
                name: v1.placeholder(dtype, pool.rng.choice(choices), name=name)
                for name, dtype, choices in zip("xnw", (F32, I32, TEXT), shapes, strict=True)
            }
            pool.tensors = list(inputs.values()) * 2
            pool.statements(pool.rng.randint(6, 40), 2)
            made = [t for t in pool.tensors if t.op.type != "Placeholder"] or [inputs["x"]]
            ends = pool.rng.sample(made, min(6, len(made)))
            outputs = {f"o{i}": tf.identity(t, name=f"o{i}") for i, t in enumerate(ends)}
        return graph, inputs, outputs
    finally:
        v1.enable_control_flow_v2()


def calls(seed, inputs):
    """Inputs of none to three rows."""
    rng = random.Random(seed)
    for rows in (2, 0, 1, 3):
        numbers = np.array([rng.choice(VALUES[I32]) for _ in range(rows)], np.int32)
        words = np.array([rng.choice(VALUES[TEXT]) for _ in range(rows)], object)
        values = np.array([rng.choice(VALUES[F32]) for _ in range(rows * 3)], np.float32)
        scalar = inputs["n"].shape.rank == 0
        yield {
            "x": values.reshape(rows, 3),
            "n": np.int32(rng.choice(VALUES[I32])) if scalar else numbers,
            "w": words,
        }


class Session:
    """A model that answers, or says that it refuses."""

    def __init__(self, model):
        graph = tf.Graph()
        with graph.as_default():
            data = graph_def_bytes(model.graph)
            tf.graph_util.import_graph_def(v1.GraphDef.FromString(data), name="")
        self._session = v1.Session(graph=graph, config=exact_config())
        self._signature = model.signatures["serving_default"]

    def __call__(self, feeds, *keys):
        ends = self._signature.outputs
        fetches = [full_name(ends[key].tensor) for key in keys or sorted(ends)]
        given = {full_name(self._signature.inputs[k].tensor): v for k, v in feeds.items()}
        try:
            results = self._session.run(fetches, given)
        except RUN_ERRORS:
            return None
        return [described(result) for result in results]


def described(result):
    if isinstance(result, bytes):
        return result
    content = result.tolist() if result.dtype == object else result.tobytes()
    return result.dtype, result.shape, content


def answering(session, outputs, feeds):
    """Keys of the outputs that answer twice the same, and more often than not."""
    steady = [
        key
        for key in outputs
        if session(feeds[0], key) == session(feeds[0], key)
        and sum(session(given, key) is not None for given in feeds) > 2
    ]
    return {key: outputs[key] for key in steady}


def check(seed, tmp_path):
    graph, inputs, outputs = built(seed)
    feeds = list(calls(seed, inputs))
    outputs = answering(Session(model_of(graph, inputs, outputs, tmp_path)), outputs, feeds)
    model = model_of(graph, inputs, outputs, tmp_path)
    original = Session(model)
    bare = strip(inline_model(model)).model
    for way in ({}, {"max_growth": 1_000_000}, {"max_bytes": 256}):
        given = StageInput(model=bare, source=None)
        outcome = STAGE.run(given, Params(**way), FakeContext(tmp_path))
        assert not verify(outcome.model)
        if not way:
            assert outcome.facts["bytes_after"] <= outcome.facts["bytes_before"]
            given = StageInput(model=outcome.model, source=None)
            again = STAGE.run(given, Params(), FakeContext(tmp_path))
            assert again.facts["nodes_after"] == outcome.facts["nodes_after"]
        folded = Session(outcome.model)
        for values in feeds:
            expected = original(values)
            if expected is not None:
                assert folded(values) == expected


@pytest.mark.parametrize("seed", range(4))
def test_graphs_of_every_dtype(seed, tmp_path):
    check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
def test_many_graphs_of_every_dtype(seed, tmp_path):
    check(seed, tmp_path)
