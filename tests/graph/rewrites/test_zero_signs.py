"""Who sees the sign of a zero: the lists of ops against TensorFlow's kernels, and the walk."""

import inspect

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.graph.foldable import Scope
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.rewrites.simplify import simplify
from freezeflow.graph.rewrites.zero_signs import (
    BLIND,
    CARRIES,
    CARRIES_SOME,
    is_zero_sign_seen,
)
from freezeflow.values import DType
from tests.graphs import call, const, function, graph, node, placeholder

raw = tf.raw_ops
FLOAT = DType.FLOAT


# ---------------------------------------------------------------- the kernels


def filters(tensor, *shape):
    return tf.reshape(tf.reshape(tensor, [-1])[: int(np.prod(shape))], shape)


def deep(x):
    return tf.reshape(x, [1, 4, 6, 6, 1])


def strides(rank):
    return {"strides": [1] * rank, "padding": "SAME"}


def pool(rank, size=2):
    return {"ksize": [1, *[size] * (rank - 2), 1], **strides(rank)}


def norm(op):
    def call_it(x, y):
        return op(
            x=x, scale=y[0, 0, 0], offset=y[0, 0, 1], mean=y[0, 0, 2],
            variance=tf.abs(y[0, 0, 3]), is_training=False,
        ).y  # fmt: skip

    return call_it


def reduction(op):
    return lambda x, y: op(input=x, axis=[1, 3])


# Each takes tensors of shape [1, 4, 6, 6]. Of ops that see the sign in some of their inputs, x is what
# they do not see it in.
CALLS = {
    "AddN": lambda x, y: raw.AddN(inputs=[x, y, x]),
    "ArgMax": lambda x, y: raw.ArgMax(input=x, dimension=2),
    "ArgMin": lambda x, y: raw.ArgMin(input=x, dimension=2),
    "AvgPool": lambda x, y: raw.AvgPool(value=x, **pool(4)),
    "AvgPool3D": lambda x, y: raw.AvgPool3D(input=deep(x), **pool(5)),
    "BatchMatMulV3": lambda x, y: raw.BatchMatMulV3(x=x, y=y, Tout=x.dtype),
    "BatchToSpaceND": lambda x, y: raw.BatchToSpaceND(
        input=tf.tile(x, [4, 1, 1, 1]), block_shape=[2, 2], crops=[[0, 0], [1, 1]]
    ),
    "BiasAdd": lambda x, y: raw.BiasAdd(value=x, bias=y[0, 0, 0]),
    "BroadcastTo": lambda x, y: raw.BroadcastTo(input=x, shape=[3, 4, 6, 6]),
    "ConcatV2": lambda x, y: raw.ConcatV2(values=[x, y], axis=1),
    "Conv2D": lambda x, y: raw.Conv2D(input=x, filter=filters(y, 3, 3, 6, 2), **strides(4)),
    "Conv2DBackpropInput": lambda x, y: raw.Conv2DBackpropInput(
        input_sizes=[1, 4, 6, 2], filter=filters(x, 3, 3, 2, 6), out_backprop=x, **strides(4)
    ),
    "Conv3D": lambda x, y: raw.Conv3D(
        input=deep(x), filter=filters(y, 2, 2, 2, 1, 3), **strides(5)
    ),
    "Conv3DBackpropInputV2": lambda x, y: raw.Conv3DBackpropInputV2(
        input_sizes=[1, 4, 6, 6, 3], filter=filters(x, 2, 2, 2, 3, 1), out_backprop=deep(x),
        **strides(5),
    ),
    "Cumsum": lambda x, y: raw.Cumsum(x=x, axis=1),
    "DepthToSpace": lambda x, y: raw.DepthToSpace(input=filters(x, 1, 6, 6, 4), block_size=2),
    "DepthwiseConv2dNative": lambda x, y: raw.DepthwiseConv2dNative(
        input=x, filter=filters(y, 3, 3, 6, 2), **strides(4)
    ),
    "Einsum": lambda x, y: raw.Einsum(inputs=[x, y], equation="abij,abjk->aik"),
    "EnsureShape": lambda x, y: raw.EnsureShape(input=x, shape=[1, None, 6, 6]),
    "ExpandDims": lambda x, y: raw.ExpandDims(input=x, axis=1),
    "FusedBatchNorm": norm(raw.FusedBatchNorm),
    "FusedBatchNormV2": norm(raw.FusedBatchNormV2),
    "FusedBatchNormV3": norm(raw.FusedBatchNormV3),
    "Gather": lambda x, y: raw.Gather(params=x[0], indices=[2, 0]),
    "GatherNd": lambda x, y: raw.GatherNd(params=x, indices=[[0, 2], [0, 1]]),
    "GatherV2": lambda x, y: raw.GatherV2(params=x, indices=[2, 0], axis=2),
    "IdentityN": lambda x, y: raw.IdentityN(input=[x, y]),
    "MatMul": lambda x, y: raw.MatMul(a=filters(x, 9, 16), b=filters(y, 16, 9)),
    "Max": reduction(raw.Max),
    "MaxPool": lambda x, y: raw.MaxPool(input=x, **pool(4)),
    "MaxPool3D": lambda x, y: raw.MaxPool3D(input=deep(x), **pool(5)),
    "Mean": reduction(raw.Mean),
    "Min": reduction(raw.Min),
    "MirrorPad": lambda x, y: raw.MirrorPad(
        input=x, paddings=[[0, 0], [1, 2], [0, 0], [1, 1]], mode="REFLECT"
    ),
    "Pack": lambda x, y: raw.Pack(values=[x, y], axis=2),
    "Pad": lambda x, y: raw.Pad(input=x, paddings=[[0, 0], [1, 2], [0, 0], [1, 1]]),
    "PadV2": lambda x, y: raw.PadV2(
        input=x, paddings=[[0, 0], [1, 2], [0, 0], [1, 1]], constant_values=y[0, 0, 0, 0]
    ),
    "Reshape": lambda x, y: raw.Reshape(tensor=x, shape=[-1]),
    "ResizeBilinear": lambda x, y: raw.ResizeBilinear(images=x, size=[9, 7]),
    "ResizeNearestNeighbor": lambda x, y: raw.ResizeNearestNeighbor(images=x, size=[9, 7]),
    "ReverseV2": lambda x, y: raw.ReverseV2(tensor=x, axis=[2]),
    "Select": lambda x, y: raw.Select(condition=y > 0, x=x, y=tf.reverse(x, [2])),
    "SelectV2": lambda x, y: raw.SelectV2(condition=y > 0, t=x, e=tf.reverse(x, [2])),
    "ShapeN": lambda x, y: raw.ShapeN(input=[x, y]),
    "Slice": lambda x, y: raw.Slice(input=x, begin=[0, 1, 0, 2], size=[1, 2, 6, -1]),
    "SpaceToBatchND": lambda x, y: raw.SpaceToBatchND(
        input=x, block_shape=[2, 3], paddings=[[0, 0], [2, 1]]
    ),
    "SpaceToDepth": lambda x, y: raw.SpaceToDepth(input=x, block_size=2),
    "Split": lambda x, y: raw.Split(axis=1, value=x, num_split=2),
    "SplitV": lambda x, y: raw.SplitV(value=x, size_splits=[1, 3], axis=1, num_split=2),
    "StridedSlice": lambda x, y: x[:, 1:3, ::2],
    "Sum": reduction(raw.Sum),
    "Tile": lambda x, y: raw.Tile(input=x, multiples=[1, 2, 1, 2]),
    "Transpose": lambda x, y: raw.Transpose(x=x, perm=[0, 2, 3, 1]),
    "Unpack": lambda x, y: raw.Unpack(value=x, num=4, axis=1),
}  # fmt: skip


def outputs(op, x, y):
    """What an op gives; by default of one tensor, or of two where it wants a second one."""
    if op in CALLS:
        found = CALLS[op](x, y)
    else:
        first, *others = inspect.signature(getattr(raw, op)).parameters
        # A length that leaves a rest behind what is computed eight or sixteen at a time.
        given = {"x": x, "y": y} if others[:1] == ["y"] else {first: filters(x, 11, 13)}
        found = getattr(raw, op)(**given)
    listed = found if isinstance(found, (list, tuple)) else [found]
    return [tensor.numpy() for tensor in listed]


NUMBERS = [1.0, -1.0, 0.5, 3.0, -7.25, 1e-4]
SPECIAL = [np.inf, -np.inf, np.nan, -np.nan]


def drawn(rng, dtype, special):
    """Two thirds are zeros of either sign; some are nothing else."""
    pool = np.array([0.0, -0.0] * 8 + NUMBERS + (SPECIAL if special else [1e-30, -1e-30]))
    if rng.random() < 0.2:
        pool = pool[:2]
    return tf.constant(rng.choice(pool, (1, 4, 6, 6)), dtype)


def flipped(rng, tensor):
    """The tensor with other signs of its zeros."""
    values = tensor.numpy()
    signs = rng.choice([1.0, -1.0], values.shape).astype(values.dtype)
    return tf.constant(np.where(values == 0, signs * np.zeros_like(values), values))


def bits(array, *, signs):
    """An array's bytes, each zero with its sign or none."""
    if not signs and array.dtype.kind not in "iub":
        array = np.where(array == 0, np.zeros_like(array), array)
    return array.tobytes()


def check(run, signs, both, dtype):
    rng = np.random.default_rng(5)
    for number in range(12):
        x, y = (drawn(rng, dtype, special=number % 3 == 2) for _ in range(2))
        before = run(x, y)
        after = run(flipped(rng, x), flipped(rng, y) if both else y)
        assert [bits(a, signs=signs) for a in after] == [bits(b, signs=signs) for b in before]


OTHERS = (tf.float64, tf.float16, tf.bfloat16)
DTYPES = pytest.mark.parametrize(
    "dtype", [tf.float32, *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in OTHERS)]
)


def runs(op, dtype):
    try:
        outputs(op, *[tf.zeros([1, 4, 6, 6], dtype)] * 2)
    except tf.errors.OpError:
        return False
    return True


@DTYPES
@pytest.mark.parametrize("op", sorted(BLIND))
def test_blind_ops_give_the_same_bits(op, dtype):
    if runs(op, dtype):
        check(lambda x, y: outputs(op, x, y), signs=True, both=True, dtype=dtype)
    else:
        assert dtype is not tf.float32


@DTYPES
@pytest.mark.parametrize("op", sorted(CARRIES))
def test_others_differ_in_signs_of_zeros_alone(op, dtype):
    if runs(op, dtype):
        check(lambda x, y: outputs(op, x, y), signs=False, both=True, dtype=dtype)
    else:
        assert dtype is not tf.float32


@DTYPES
@pytest.mark.parametrize("op", sorted(CARRIES_SOME))
def test_some_do_so_in_some_of_their_inputs(op, dtype):
    if runs(op, dtype):
        check(lambda x, y: outputs(op, x, y), signs=False, both=False, dtype=dtype)
    else:
        assert dtype is not tf.float32


@DTYPES
def test_casts(dtype):
    check(lambda x, y: [tf.cast(x, tf.bool).numpy()], signs=True, both=False, dtype=dtype)
    for to in (tf.float32, tf.float64, tf.float16, tf.bfloat16):
        check(lambda x, y, to=to: [tf.cast(x, to).numpy()], signs=False, both=False, dtype=dtype)
    rng = np.random.default_rng(6)
    x = drawn(rng, dtype, special=False)
    for to in (tf.int32, tf.int64):
        assert bits(tf.cast(x, to).numpy(), signs=True) == bits(
            tf.cast(flipped(rng, x), to).numpy(), signs=True
        )


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_a_sum_with_what_is_no_minus_zero(dtype):
    for number in (0.0, 3.0, -(2.0**-100)):
        term = tf.constant(number, dtype)
        check(lambda x, y, c=term: [(x + c).numpy()], signs=True, both=False, dtype=dtype)


# ---------------------------------------------------------------- the walk


def unary(name, op, *inputs):
    return node(name, op, *inputs, T=FLOAT)


def bias(name, tensor, numbers):
    return [
        const(f"{name}/term", numbers),
        node(name, "BiasAdd", tensor, f"{name}/term", T=FLOAT, data_format="NHWC"),
    ]


def is_seen(*nodes, wanted=("y",), functions=()):
    """Whether it is seen of ``a``, which is a sum of x."""
    made = graph(
        placeholder("x", FLOAT, (None, 2)), unary("a", "AddV2", "x", "x"), *nodes,
        functions=functions,
    )  # fmt: skip
    scope = Scope(made.nodes, frozenset(wanted), frozenset(["x"]))
    return is_zero_sign_seen(Body(made, scope, NodeTypes(made)), "a")


END = unary("y", "Softmax", "b")


@pytest.mark.parametrize(
    ("nodes", "seen"),
    [
        ([unary("y", "Sigmoid", "a")], False),
        ([unary("y", "Neg", "a")], True),
        ([unary("b", "Relu", "a"), END], False),
        ([unary("b", "Relu", "a"), END, unary("z", "Neg", "b")], True),
        ([const("c", 2.0), unary("b", "RealDiv", "a", "c"), END], False),
        ([const("c", 2.0), unary("b", "RealDiv", "c", "a"), END], True),
        ([unary("b", "Rsqrt", "a"), END], True),
        ([*bias("y", "a", [1.0, -3.0])], False),
        ([*bias("y", "a", [1.0, 0.0])], False),
        ([*bias("y", "a", [1.0, -0.0])], True),
        ([*bias("y", "a", [1.0, 1e-38])], True),
        ([unary("y", "AddV2", "a", "a")], True),
        ([unary("b", "Relu", "x"), unary("y", "Neg", "b", "^a")], False),
        ([node("b", "Cast", "a", SrcT=FLOAT, DstT=DType.INT32, Truncate=False),
          node("y", "Neg", "b", T=DType.INT32)], False),
        ([node("b", "Cast", "a", SrcT=FLOAT, DstT=DType.HALF, Truncate=False),
          node("y", "Neg", "b", T=DType.HALF)], True),
        ([unary("y", "Unheard", "a")], True),
    ],
)  # fmt: skip
def test_who_sees_it(nodes, seen):
    assert is_seen(*nodes, wanted=("y", "z")) is seen


def test_what_is_an_output_is_seen():
    assert is_seen(unary("y", "Sigmoid", "a"), wanted=("a", "y"))


def test_a_call_sees_it():
    inner = function("f", {"v": FLOAT}, {"o": ("v", FLOAT)})
    assert is_seen(call("b", "f", ["a"], [FLOAT], [FLOAT]), END, functions=[inner])


def test_it_is_followed_only_so_far():
    chain = [unary(f"n{i}", "Relu", f"n{i - 1}" if i else "a") for i in range(2000)]
    assert is_seen(*chain, unary("y", "Softmax", "n1999"))
    assert not is_seen(*chain[:500], unary("y", "Softmax", "n499"))


def test_a_bias_of_zeros_stays_only_where_it_is_seen():
    """Two layers: the first one's bias goes, and the second one's, but for the bare output."""
    layers = [
        placeholder("x", FLOAT, (None, 2)), const("w", [[1.0, 2.0], [3.0, 4.0]]),
        node("m", "MatMul", "x", "w", T=FLOAT), *bias("a", "m", [0.0, 0.0]), unary("r", "Relu", "a"),
        node("n", "MatMul", "r", "w", T=FLOAT), *bias("b", "n", [0.0, 0.0]),
    ]  # fmt: skip

    def left(*ends):
        made = graph(*layers, *ends)
        nodes = simplify(made, Scope(made.nodes, frozenset(["y", "z"]), frozenset(["x"])))
        return {name for name in ("a", "b") if name in nodes}

    assert left(unary("y", "Softmax", "b")) == set()
    assert left(unary("y", "Softmax", "b"), unary("z", "Neg", "b")) == {"b"}
    assert left(unary("y", "Neg", "r"), unary("z", "Softmax", "b")) == {"a"}
