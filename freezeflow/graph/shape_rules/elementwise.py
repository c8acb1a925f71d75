"""Ops that keep shapes, or stretch them to one another; and where shapes come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from freezeflow.graph import attrs
from freezeflow.graph.graph import SCALAR_MEANS_UNKNOWN, Node, data_inputs
from freezeflow.graph.shape_rules.known import (
    Known,
    Rule,
    as_input,
)
from freezeflow.graph.shapes import Dim, Dims, named


def _constant(known: Known, node: Node) -> Sequence[Dims]:
    if node.tensor is not None:
        return (node.tensor.shape,)
    if "value" not in node.attrs:
        return (None,)
    message = attrs.message(node.attrs["value"]).tensor
    return (named(node.name, attrs.read_shape(message.tensor_shape)),)


def _placeholder(known: Known, node: Node) -> Sequence[Dims]:
    shape = attrs.to_shape(node.attrs["shape"]) if "shape" in node.attrs else None
    if shape == () and known.body.graph.producer <= SCALAR_MEANS_UNKNOWN:
        return (None,)
    return (named(node.name, shape),)


def _ensured(known: Known, node: Node) -> Sequence[Dims]:
    """There is an output only where the promise is kept."""
    shape, promised = known.of(node, 0), attrs.to_shape(node.attrs["shape"])
    if promised is None or (shape is not None and len(shape) != len(promised)):
        return (shape,)
    if shape is None:
        return (named(node.name, promised),)
    return (tuple(a if b is None else b for a, b in zip(shape, promised, strict=True)),)


def as_inputs(known: Known, node: Node) -> Sequence[Dims]:
    return [known.shapes.of(tensor) for tensor in data_inputs(node)]


def _scalar(known: Known, node: Node) -> Sequence[Dims]:
    return ((),)


def _broadcast(known: Known, node: Node) -> Sequence[Dims]:
    shapes = [known.shapes.of(tensor) for tensor in data_inputs(node)]
    result: Dims = shapes[0]
    for shape in shapes[1:]:
        result = broadcast_two(node.name, result, shape)
    return (result,)


def broadcast_two(name: str, one: Dims, other: Dims) -> Dims:
    if one is None or other is None:
        return None
    rank = max(len(one), len(other))
    one = (1,) * (rank - len(one)) + one
    other = (1,) * (rank - len(other)) + other
    return tuple(
        _together(a, b, (name, axis)) for axis, (a, b) in enumerate(zip(one, other, strict=True))
    )


def _together(one: Dim, other: Dim, otherwise: Dim) -> Dim:
    """The size that two sizes give when one is stretched to the other, or both are the same."""
    if one == other or other == 1:
        return one
    if one == 1:
        return other
    if isinstance(one, int) is isinstance(other, int):
        return otherwise
    number = one if isinstance(one, int) else other
    return otherwise if number == 0 else number


def _all_alike(known: Known, node: Node) -> Sequence[Dims]:
    """AddN, Select: inputs of one shape."""
    shapes = {known.shapes.of(tensor) for tensor in data_inputs(node)}
    return (shapes.pop(),) if len(shapes) == 1 else (None,)


def _switched(known: Known, node: Node) -> Sequence[Dims]:
    return (known.of(node, 0), known.of(node, 0))


def _merged(known: Known, node: Node) -> Sequence[Dims]:
    """Where branches of TF1 meet; at the head of a loop nothing is known yet of what comes back."""
    return (*_all_alike(known, node), ())


def _shape_tensors(known: Known, node: Node) -> Sequence[Dims]:
    shapes = [known.shapes.of(tensor) for tensor in data_inputs(node)]
    return [None if s is None else (len(s),) for s in shapes]


_UNARY = """
    Abs Acos Acosh Asin Asinh Atan Atanh Bucketize Cast Ceil ComplexAbs Conj Cos Cosh Digamma Elu Erf Erfc
    Erfinv Exp Expm1 Floor Identity Imag Inv Invert IsFinite IsInf IsNan LeakyRelu Lgamma Log Log1p
    LogSoftmax LogicalNot Ndtri Neg OnesLike PreventGradient Real Reciprocal Relu Relu6 Rint Round Rsqrt
    Selu Sigmoid Sign Sin Sinh Snapshot Softmax Softplus Softsign Sqrt Square StopGradient StringLength
    StringLower StringStrip StringToHashBucketFast StringUpper Tan Tanh ZerosLike CheckNumerics
    CheckNumericsV2 Cumsum Cumprod Reverse ReverseV2 Roll BiasAdd Dequantize MatrixBandPart AsString
    StringToNumber LRN
"""
_BINARY = """
    Add AddV2 ApproximateEqual Atan2 BitwiseAnd BitwiseOr BitwiseXor Div DivNoNan Equal FloorDiv FloorMod
    Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr Maximum Minimum Mod Mul MulNoNan NotEqual Pow
    RealDiv SelectV2 SquaredDifference Sub TruncateDiv TruncateMod Xdivy Xlog1py Xlogy
"""

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_UNARY.split(), as_input(0)),
    **dict.fromkeys(_BINARY.split(), _broadcast),
    **dict.fromkeys(("Shape", "ShapeN"), _shape_tensors),
    **dict.fromkeys(("Size", "Rank", "L2Loss"), _scalar),
    **dict.fromkeys(("AddN", "Select"), _all_alike),
    "Const": _constant,
    "Placeholder": _placeholder,
    "Enter": as_input(0),
    "Exit": as_input(0),
    "Switch": _switched,
    "Merge": _merged,
    "ClipByValue": as_input(0),
    "EnsureShape": _ensured,
    "IdentityN": as_inputs,
    # Its shape is an attribute, not that of the default value.
    "PlaceholderWithDefault": _placeholder,
}
