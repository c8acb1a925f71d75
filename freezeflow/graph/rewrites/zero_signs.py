"""Where it makes no difference whether a zero is 0.0 or -0.0.

``x + 0.0`` turns -0.0 into 0.0 and changes no other bit of what arithmetic gave. What comes behind can be
of three kinds: ops that give the very same for zeros of either sign (exp, softmax, a comparison, a
bias of numbers that are no zeros); ops whose result differs in no more than signs of zeros, too (matrix
products, relu); and all others, outputs of the model among them. If all ways from a tensor through ops of
the second kind end in one of the first, no bit that anybody sees depends on the signs of its zeros.

That both kinds do so follows from IEEE 754: zeros of either sign are equal, and have the same sum with
anything else, the same product up to the sign of a zero, the same NaN with infinity. The tests hold every
op of both lists against TensorFlow's kernels.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence

from freezeflow.graph import attrs
from freezeflow.graph.graph import Node, data_inputs, node_of
from freezeflow.graph.rewrites.body import Body
from freezeflow.values import DType

# They give the same bits for zeros of either sign.
_BLIND = """
    Abs ArgMax ArgMin Cos Cosh Equal Erfc Exp Greater GreaterEqual IsFinite IsInf IsNan L2Loss Less
    LessEqual NotEqual OnesLike Rank Shape ShapeN Sigmoid Size Softmax Softplus Square SquaredDifference
    ZerosLike
"""
BLIND = frozenset(_BLIND.split())

# What they give differs at most in signs of zeros. None of them divides by the tensor.
_CARRIES = """
    Add AddN AddV2 AvgPool AvgPool3D BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchToSpaceND BiasAdd Ceil
    ConcatV2 Conv2D Conv3D Cumsum DepthToSpace DepthwiseConv2dNative Einsum Elu EnsureShape Erf ExpandDims
    Expm1 Floor Identity IdentityN LeakyRelu Log1p LogSoftmax MatMul Max MaxPool MaxPool3D Maximum Mean Min
    Minimum MirrorPad Mul Neg Pack Relu Relu6 Reshape ReverseV2 Rint Round Selu Sign Sin Sinh Slice Softsign
    SpaceToBatchND SpaceToDepth Split SplitV Sqrt Squeeze StopGradient StridedSlice Sub Sum Tanh Tile
    Transpose Unpack
"""
CARRIES = frozenset(_CARRIES.split())

# The same for those of their inputs that have these numbers.
CARRIES_SOME = {
    **dict.fromkeys(("Conv2DBackpropInput", "Conv3DBackpropInputV2"), (1, 2)),
    **dict.fromkeys(("BroadcastTo", "Gather", "GatherNd", "GatherV2", "Pad", "PadV2"), (0,)),
    **dict.fromkeys(("Div", "RealDiv"), (0,)),
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), (0,)),
    **dict.fromkeys(("ResizeBilinear", "ResizeNearestNeighbor"), (0,)),
    **dict.fromkeys(("Select", "SelectV2"), (1, 2)),
}

_FLOATS = frozenset({DType.FLOAT, DType.DOUBLE, DType.HALF, DType.BFLOAT16})
_PLUS = frozenset({"Add", "AddV2", "BiasAdd"})

# A sum with a number of this size is zero only where both cancel out, and never so small that it is
# flushed to zero with the sign that it had.
_LARGE_ENOUGH = 2.0**-100

# Nodes that are looked at to find out who sees a sign; one that is seen only further away counts as seen.
_MAX_NODES = 1000


def is_zero_sign_seen(body: Body, name: str) -> bool:
    """Whether an output of the scope may depend on the signs of zeros among a node's outputs."""
    pending, looked_at = [name], {name}
    while pending:
        name = pending.pop()
        if name in body.known or len(looked_at) > _MAX_NODES:
            return True
        for user in body.users_of(name):
            places = [i for i, tensor in enumerate(data_inputs(user)) if node_of(tensor) == name]
            if _is_blind(body, user, places):
                continue
            if not _carries(user, places):
                return True
            if user.name not in looked_at:
                looked_at.add(user.name)
                pending.append(user.name)
    return False


def _is_blind(body: Body, node: Node, places: Sequence[int]) -> bool:
    if not places or node.op in BLIND:
        return True
    if node.op == "Cast":
        return attrs.to_type(node.attrs["DstT"]) in (DType.BOOL, DType.INT32, DType.INT64)
    return any(place not in places for place in _steady_terms(body, node))


def _carries(node: Node, places: Sequence[int]) -> bool:
    if node.op == "Cast":
        return attrs.to_type(node.attrs["DstT"]) in _FLOATS
    if node.op in CARRIES:
        return True
    return node.op in CARRIES_SOME and set(places) <= set(CARRIES_SOME[node.op])


# ---------------------------------------------------------------- sums with constants


def is_never_minus_zero(body: Body, node: Node) -> bool:
    """Whether a node adds a constant by which no element becomes -0.0."""
    return any(True for _ in _steady_terms(body, node))


def _steady_terms(body: Body, node: Node) -> Iterator[int]:
    """Numbers of the inputs of a sum that are constants, none of them -0.0 or almost zero.

    The sum with such a number is never -0.0, and the same for zeros of either sign.
    """
    if node.op not in _PLUS:
        return
    for place in (1,) if node.op == "BiasAdd" else (0, 1):
        numbers = floats(body, node.inputs[place])
        if numbers is not None and all(
            abs(n) >= _LARGE_ENOUGH or (n == 0 and math.copysign(1, n) > 0) for n in numbers
        ):
            yield place


def floats(body: Body, tensor: str) -> Sequence[float] | None:
    """Elements of a constant of float32 or float64 in the graph's file, a repeated one only once."""
    node = body.source(tensor)
    if node is None or node.op != "Const" or node.name in body.fed or node.tensor is not None:
        return None
    if "value" not in node.attrs:
        return None
    message = attrs.message(node.attrs["value"]).tensor
    letters = {DType.FLOAT: "f", DType.DOUBLE: "d"}
    if message.dtype not in letters or any(dim.size <= 0 for dim in message.tensor_shape.dim):
        return None
    if message.tensor_content:
        letter, content = letters[DType(message.dtype)], message.tensor_content
        return struct.unpack(f"<{len(content) // struct.calcsize(letter)}{letter}", content)
    listed = message.float_val if message.dtype == DType.FLOAT else message.double_val
    return tuple(listed) or (0.0,)
