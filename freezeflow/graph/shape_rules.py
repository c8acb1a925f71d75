"""What each op says of the shapes of its outputs; see `freezeflow.graph.shapes`.

Source of the semantics: the shape functions of upstream ``core/ops`` and ``core/framework/
common_shape_fns.cc``, taken only as far as they hold without assuming that the op succeeds, or where
what it would fail on is seen to be right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from freezeflow.graph import attrs
from freezeflow.graph.graph import Node, data_inputs, join
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.shapes import Dim, Dims, Shapes, all_known, fresh, named
from freezeflow.graph.slicing import Picked, picked
from freezeflow.values import DType

Rule = Callable[["_Inference", Node], Sequence[Dims]]

# Up to this producer version a scalar `shape` attribute meant that nothing is known.
_SCALAR_MEANS_UNKNOWN = 23


def infer(body: Body, args: Mapping[str, Dims] | None = None) -> Shapes:
    """The shapes of a scope's tensors, and the values of those computed from shapes.

    Args:
        body: The scope.
        args: Shapes of a function's arguments, by name.
    """
    inference = _Inference(body)
    for name, shape in (args or {}).items():
        inference.shapes.set_shape(name, shape)
    for name in body.order:
        if name not in body.fed or body.nodes[name].op == "Placeholder":
            inference.node(body.nodes[name])
    return inference.shapes


class _Inference:
    def __init__(self, body: Body) -> None:
        self.body = body
        self.shapes = Shapes()

    def node(self, node: Node) -> None:
        rule = RULES.get(node.op)
        if rule is not None:
            for index, shape in enumerate(rule(self, node)):
                self.shapes.set_shape(join(node.name, index), shape)
        value_rule = VALUES.get(node.op)
        if value_rule is not None:
            value = value_rule(self, node)
            if value is not None:
                self.shapes.set_value(node.name, value)
        elif node.op in ("Unpack", "ShapeN"):
            self._several_values(node)

    def _several_values(self, node: Node) -> None:
        """ShapeN, and Unpack of a shape: a value for each output."""
        if node.op == "ShapeN":
            for index, tensor in enumerate(data_inputs(node)):
                shape = self.shapes.of(tensor)
                if shape is not None:
                    self.shapes.set_value(join(node.name, index), shape)
            return
        value = self.shapes.value(node.inputs[0])
        if value is not None and len(value) == _integer(node, "num", 0):
            for index, size in enumerate(value):
                self.shapes.set_value(join(node.name, index), (size,))

    def of(self, node: Node, index: int) -> Dims:
        return self.shapes.of(node.inputs[index])

    def integers(self, node: Node, index: int) -> tuple[int, ...] | None:
        """The elements of a constant input, or of one whose value is known anyway."""
        tensor = node.inputs[index]
        found = self.body.integers(tensor)
        return found if found is not None else all_known(self.shapes.value(tensor))


def _numbers(node: Node, key: str) -> tuple[int, ...]:
    return tuple(attrs.message(node.attrs[key]).list.i) if key in node.attrs else ()


def _integer(node: Node, key: str, default: int) -> int:
    return attrs.to_int(node.attrs[key]) if key in node.attrs else default


def _flag(node: Node, key: str) -> bool:
    return key in node.attrs and bool(attrs.message(node.attrs[key]).b)


def _text(node: Node, key: str, default: str) -> str:
    return attrs.to_bytes(node.attrs[key]).decode() if key in node.attrs else default


# ---------------------------------------------------------------- where shapes come from


def _constant(known: _Inference, node: Node) -> Sequence[Dims]:
    if node.tensor is not None:
        return (node.tensor.shape,)
    if "value" not in node.attrs:
        return (None,)
    message = attrs.message(node.attrs["value"]).tensor
    return (named(node.name, attrs.read_shape(message.tensor_shape)),)


def _placeholder(known: _Inference, node: Node) -> Sequence[Dims]:
    shape = attrs.to_shape(node.attrs["shape"]) if "shape" in node.attrs else None
    if shape == () and known.body.graph.producer <= _SCALAR_MEANS_UNKNOWN:
        return (None,)
    return (named(node.name, shape),)


def _as_input(index: int) -> Rule:
    def rule(known: _Inference, node: Node) -> Sequence[Dims]:
        return (known.of(node, index),)

    return rule


def _as_inputs(known: _Inference, node: Node) -> Sequence[Dims]:
    return [known.shapes.of(tensor) for tensor in data_inputs(node)]


def _scalar(known: _Inference, node: Node) -> Sequence[Dims]:
    return ((),)


# ---------------------------------------------------------------- elementwise


def _broadcast(known: _Inference, node: Node) -> Sequence[Dims]:
    shapes = [known.shapes.of(tensor) for tensor in data_inputs(node)]
    result: Dims = shapes[0]
    for shape in shapes[1:]:
        result = _broadcast_two(node.name, result, shape)
    return (result,)


def _broadcast_two(name: str, one: Dims, other: Dims) -> Dims:
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


def _all_alike(known: _Inference, node: Node) -> Sequence[Dims]:
    """AddN, Select: inputs of one shape."""
    shapes = {known.shapes.of(tensor) for tensor in data_inputs(node)}
    return (shapes.pop(),) if len(shapes) == 1 else (None,)


def _switched(known: _Inference, node: Node) -> Sequence[Dims]:
    return (known.of(node, 0), known.of(node, 0))


def _merged(known: _Inference, node: Node) -> Sequence[Dims]:
    """Where branches of TF1 meet; at the head of a loop nothing is known yet of what comes back."""
    return (*_all_alike(known, node), ())


def _norm(known: _Inference, node: Node) -> Sequence[Dims]:
    return (known.of(node, 0),)


# ---------------------------------------------------------------- products


def _matmul(known: _Inference, node: Node) -> Sequence[Dims]:
    one, other = known.of(node, 0), known.of(node, 1)
    if one is None or other is None or len(one) != 2 or len(other) != 2:
        return (None,)
    rows = one[1] if _flag(node, "transpose_a") else one[0]
    columns = other[0] if _flag(node, "transpose_b") else other[1]
    return ((rows, columns),)


def _batch_matmul(known: _Inference, node: Node) -> Sequence[Dims]:
    one, other = known.of(node, 0), known.of(node, 1)
    if one is None or other is None or len(one) < 2 or len(other) < 2:
        return (None,)
    batch = _broadcast_two(node.name, one[:-2], other[:-2])
    if batch is None:
        return (None,)
    rows = one[-1] if _flag(node, "adj_x") else one[-2]
    columns = other[-2] if _flag(node, "adj_y") else other[-1]
    return ((*batch, rows, columns),)


def _convolution(known: _Inference, node: Node) -> Sequence[Dims]:
    """Conv2D, DepthwiseConv2dNative and pooling: batch and channels; the sizes where known."""
    shape = known.of(node, 0)
    layout = _text(node, "data_format", "NHWC")
    if shape is None or len(shape) != 4 or layout not in ("NHWC", "NCHW"):
        return (None,)
    places = (1, 2) if layout == "NHWC" else (2, 3)
    channel = 3 if layout == "NHWC" else 1
    window, channels = _window(known, node, shape[channel], places)
    if window is None:
        return (None,)
    strides = _numbers(node, "strides")
    dilations = _numbers(node, "dilations") or (1, 1, 1, 1)
    sizes: list[Dim] = list(fresh(node.name, 4))
    sizes[0], sizes[channel] = shape[0], channels
    for place, length in zip(places, window, strict=True):
        size = shape[place]
        reach = (length - 1) * dilations[place] + 1
        found = _windowed(node, place, size, reach, strides[place])
        if found is not None:
            sizes[place] = found
    return (tuple(sizes),)


def _window(
    known: _Inference, node: Node, channels: Dim, places: tuple[int, int]
) -> tuple[tuple[int, ...] | None, Dim]:
    """Height and width of the window, and the channels that come out."""
    if "ksize" in node.attrs:
        sizes = _numbers(node, "ksize")
        return tuple(sizes[place] for place in places), channels
    kernel = all_known(known.of(node, 1))
    if kernel is None or len(kernel) != 4:
        return None, channels
    outputs = kernel[3] if node.op == "Conv2D" else kernel[2] * kernel[3]
    return kernel[:2], outputs


def _windowed(node: Node, place: int, size: Dim, reach: int, stride: int) -> int | None:
    if not isinstance(size, int):
        return None
    padding = _text(node, "padding", "")
    if padding == "SAME":
        return -(-size // stride)
    if padding == "EXPLICIT":
        explicit = _numbers(node, "explicit_paddings")
        size += explicit[2 * place] + explicit[2 * place + 1]
    elif padding != "VALID":
        return None
    return -(-(size - reach + 1) // stride) if size >= reach else None


def _resized(known: _Inference, node: Node) -> Sequence[Dims]:
    shape, size = known.of(node, 0), known.integers(node, 1)
    if shape is None or len(shape) != 4 or size is None or len(size) != 2:
        return (None,)
    return ((shape[0], size[0], size[1], shape[3]),)


# ---------------------------------------------------------------- other shapes of the same elements


def _reshaped(known: _Inference, node: Node) -> Sequence[Dims]:
    target = known.shapes.value(node.inputs[1])
    if target is None:
        rank = known.of(node, 1)
        known_rank = rank is not None and len(rank) == 1 and isinstance(rank[0], int)
        return (fresh(node.name, int(rank[0])),) if known_rank else (None,)  # type: ignore[index,arg-type]
    sizes = list(target)
    if -1 in sizes:
        place = sizes.index(-1)
        sizes[place] = _inferred(known.of(node, 0), target) or (node.name, place)
    return (tuple(sizes),)


def _inferred(shape: Dims, target: tuple[Dim, ...]) -> Dim | None:
    """What a -1 in a Reshape stands for; None where it is not certain."""
    if shape is None:
        return None
    left = list(shape)
    rest = []
    for size in target:
        if size == -1:
            continue
        if not isinstance(size, int):
            if size not in left:
                return None
            left.remove(size)
        else:
            rest.append(size)
    symbols = [size for size in left if not isinstance(size, int)]
    number, divisor = math.prod(s for s in left if isinstance(s, int)), math.prod(rest)
    if not divisor or number % divisor:
        return None
    if not symbols:
        return number // divisor
    return symbols[0] if len(symbols) == 1 and number == divisor else None


def _transposed(known: _Inference, node: Node) -> Sequence[Dims]:
    shape, order = known.of(node, 0), known.integers(node, 1)
    if shape is None:
        return (None,)
    if order is None or sorted(order) != list(range(len(shape))):
        return (fresh(node.name, len(shape)),)
    return (tuple(shape[axis] for axis in order),)


def _expanded(known: _Inference, node: Node) -> Sequence[Dims]:
    shape, axis = known.of(node, 0), known.integers(node, 1)
    if shape is None or axis is None or len(axis) != 1:
        return (None,)
    place = axis[0] if axis[0] >= 0 else axis[0] + len(shape) + 1
    if not 0 <= place <= len(shape):
        return (None,)
    return ((*shape[:place], 1, *shape[place:]),)


def _squeezed(known: _Inference, node: Node) -> Sequence[Dims]:
    shape, asked = known.of(node, 0), _numbers(node, "squeeze_dims")
    if shape is None:
        return (None,)
    if asked:
        places = {axis % len(shape) for axis in asked if -len(shape) <= axis < len(shape)}
        return (tuple(size for axis, size in enumerate(shape) if axis not in places),)
    if not all(isinstance(size, int) for size in shape):
        return (None,)
    return (tuple(size for size in shape if size != 1),)


def _padded(known: _Inference, node: Node) -> Sequence[Dims]:
    shape, padding = known.of(node, 0), known.integers(node, 1)
    if shape is None:
        return (None,)
    if padding is None or len(padding) != 2 * len(shape):
        return (fresh(node.name, len(shape)),)
    pairs = zip(padding[::2], padding[1::2], strict=True)
    return (
        tuple(
            size if before + after == 0 else _plus(size, before + after, (node.name, axis))
            for axis, (size, (before, after)) in enumerate(zip(shape, pairs, strict=True))
        ),
    )


def _plus(size: Dim, more: int, otherwise: Dim) -> Dim:
    return size + more if isinstance(size, int) else otherwise


def _tiled(known: _Inference, node: Node) -> Sequence[Dims]:
    shape, times = known.of(node, 0), known.integers(node, 1)
    if shape is None:
        return (None,)
    if times is None or len(times) != len(shape):
        return (fresh(node.name, len(shape)),)
    return (
        tuple(
            size if n == 1 else size * n if isinstance(size, int) else (node.name, axis)
            for axis, (size, n) in enumerate(zip(shape, times, strict=True))
        ),
    )


def _filled(known: _Inference, node: Node) -> Sequence[Dims]:
    """Fill and BroadcastTo: the shape is an input."""
    index = 0 if node.op == "Fill" else 1
    value = known.shapes.value(node.inputs[index])
    if value is not None and not any(isinstance(size, int) and size < 0 for size in value):
        return (value,)
    return (None,)


# ---------------------------------------------------------------- joining and cutting


def _concatenated(known: _Inference, node: Node) -> Sequence[Dims]:
    data = list(data_inputs(node))
    shapes = [known.shapes.of(tensor) for tensor in data[:-1]]
    axis = known.integers(node, len(data) - 1)
    first = shapes[0]
    if axis is None or len(axis) != 1 or first is None:
        return (None,)
    if any(shape is None or len(shape) != len(first) for shape in shapes) or not first:
        return (None,)
    place = axis[0] % len(first)
    sizes: list[Dim] = list(fresh(node.name, len(first)))
    for index in range(len(first)):
        own = {shape[index] for shape in shapes if shape is not None}
        if index != place and len(own) == 1:
            sizes[index] = own.pop()
    along = all_known(tuple(shape[place] for shape in shapes if shape is not None))
    if along is not None:
        sizes[place] = sum(along)
    return (tuple(sizes),)


def _packed(known: _Inference, node: Node) -> Sequence[Dims]:
    data = list(data_inputs(node))
    shape = known.shapes.of(data[0])
    if shape is None or any(known.shapes.of(tensor) != shape for tensor in data):
        return (None,)
    axis = _integer(node, "axis", 0)
    place = axis if axis >= 0 else axis + len(shape) + 1
    return ((*shape[:place], len(data), *shape[place:]),)


def _unpacked(known: _Inference, node: Node) -> Sequence[Dims]:
    shape, number = known.of(node, 0), _integer(node, "num", 0)
    if not shape:
        return (None,) * number
    place = _integer(node, "axis", 0) % len(shape)
    return ((*shape[:place], *shape[place + 1 :]),) * number


def _split(known: _Inference, node: Node) -> Sequence[Dims]:
    number = _integer(node, "num_split", 1)
    data, axis_input = (1, 0) if node.op == "Split" else (0, 2)
    shape, axis = known.of(node, data), known.integers(node, axis_input)
    if not shape or axis is None or len(axis) != 1:
        return (None,) * number
    place = axis[0] % len(shape)
    size = shape[place]
    sizes: tuple[int, ...] | None = None
    if node.op == "SplitV":
        given = known.integers(node, 1)
        sizes = given if given is not None and all(n >= 0 for n in given) else None
    elif isinstance(size, int) and size % number == 0:
        sizes = (size // number,) * number
    return [
        (*shape[:place], _part(sizes, index, node, place), *shape[place + 1 :])
        for index in range(number)
    ]


def _part(sizes: tuple[int, ...] | None, index: int, node: Node, place: int) -> Dim:
    return (join(node.name, index), place) if sizes is None else sizes[index]


def _sliced(known: _Inference, node: Node) -> Sequence[Dims]:
    shape = known.of(node, 0)
    begin, size = known.integers(node, 1), known.integers(node, 2)
    if shape is None:
        return (None,)
    if begin is None or size is None or not len(begin) == len(size) == len(shape):
        return (fresh(node.name, len(shape)),)
    result: list[Dim] = []
    for axis, (own, first, length) in enumerate(zip(shape, begin, size, strict=True)):
        if length >= 0:
            result.append(length)
        elif first == 0:
            result.append(own)
        else:
            result.append(own - first if isinstance(own, int) else (node.name, axis))
    return (tuple(result),)


def _strided(known: _Inference, node: Node) -> Sequence[Dims]:
    found = _picked(known, node)
    if found is None:
        return (None,)
    return (tuple((node.name, axis) if n is None else n for axis, n in enumerate(found.shape)),)


def _picked(known: _Inference, node: Node) -> Picked | None:
    shape = known.of(node, 0)
    begin, end, strides = (known.body.integers(node.inputs[index]) for index in (1, 2, 3))
    if shape is None or strides is None:
        return None
    return picked(node, shape, begin, end, strides)


def _gathered(known: _Inference, node: Node) -> Sequence[Dims]:
    params, indices = known.of(node, 0), known.of(node, 1)
    axis: tuple[int, ...] | None = (0,)
    if node.op == "GatherV2":
        axis = known.integers(node, 2)
    if params is None or indices is None or axis is None or _integer(node, "batch_dims", 0):
        return (None,)
    if not params:
        return (None,)
    place = axis[0] % len(params)
    return ((*params[:place], *indices, *params[place + 1 :]),)


def _reduced(known: _Inference, node: Node) -> Sequence[Dims]:
    shape, axes = known.of(node, 0), known.integers(node, 1)
    if shape is None or axes is None:
        return (None,)
    places = {axis % len(shape) for axis in axes} if shape else set()
    if _flag(node, "keep_dims"):
        return (tuple(1 if axis in places else size for axis, size in enumerate(shape)),)
    return (tuple(size for axis, size in enumerate(shape) if axis not in places),)


def _best(known: _Inference, node: Node) -> Sequence[Dims]:
    """ArgMax, ArgMin."""
    shape, axis = known.of(node, 0), known.integers(node, 1)
    if not shape or axis is None or len(axis) != 1:
        return (None,)
    place = axis[0] % len(shape)
    return ((*shape[:place], *shape[place + 1 :]),)


def _one_hot(known: _Inference, node: Node) -> Sequence[Dims]:
    shape, depth = known.of(node, 0), known.integers(node, 1)
    if shape is None:
        return (None,)
    axis = _integer(node, "axis", -1)
    place = len(shape) if axis == -1 else axis
    size: Dim = (node.name, place) if depth is None else depth[0]
    return ((*shape[:place], size, *shape[place:]),)


# ---------------------------------------------------------------- shapes as tensors


def _shape_tensors(known: _Inference, node: Node) -> Sequence[Dims]:
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
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative", "MaxPool", "AvgPool")
_REDUCTIONS = ("All", "Any", "EuclideanNorm", "Max", "Mean", "Min", "Prod", "Sum")

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_UNARY.split(), _as_input(0)),
    **dict.fromkeys(_BINARY.split(), _broadcast),
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    **dict.fromkeys(_REDUCTIONS, _reduced),
    **dict.fromkeys(("MatMul",), _matmul),
    **dict.fromkeys(("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), _batch_matmul),
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), _norm),
    **dict.fromkeys(("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic"), _resized),
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad"), _padded),
    **dict.fromkeys(("Split", "SplitV"), _split),
    **dict.fromkeys(("Gather", "GatherV2"), _gathered),
    **dict.fromkeys(("ArgMax", "ArgMin"), _best),
    **dict.fromkeys(("Fill", "BroadcastTo"), _filled),
    **dict.fromkeys(("Shape", "ShapeN"), _shape_tensors),
    **dict.fromkeys(("Size", "Rank", "L2Loss"), _scalar),
    **dict.fromkeys(("AddN", "Select"), _all_alike),
    "Const": _constant,
    "Placeholder": _placeholder,
    "Enter": _as_input(0),
    "Exit": _as_input(0),
    "Switch": _switched,
    "Merge": _merged,
    "ClipByValue": _as_input(0),
    "IdentityN": _as_inputs,
    "Reshape": _reshaped,
    "Transpose": _transposed,
    "ExpandDims": _expanded,
    "Squeeze": _squeezed,
    "Tile": _tiled,
    "ConcatV2": _concatenated,
    "Pack": _packed,
    "Unpack": _unpacked,
    "Slice": _sliced,
    "StridedSlice": _strided,
    "OneHot": _one_hot,
    # Its shape is an attribute, not that of the default value.
    "PlaceholderWithDefault": _placeholder,
}


# ---------------------------------------------------------------- values that are shapes

Value = tuple[Dim, ...] | None
ValueRule = Callable[[_Inference, Node], Value]
_INT32_MAX = 2**31 - 1


def _value_of_constant(known: _Inference, node: Node) -> Value:
    shape = known.shapes.of(node.name)
    return known.body.integers(node.name) if shape is not None and len(shape) <= 1 else None


def _value_of_input(known: _Inference, node: Node) -> Value:
    return known.shapes.value(node.inputs[0])


def _value_of_cast(known: _Inference, node: Node) -> Value:
    value = known.shapes.value(node.inputs[0])
    if value is None or attrs.to_type(node.attrs["DstT"]) not in (DType.INT32, DType.INT64):
        return None
    fits = all(isinstance(n, int) and abs(n) <= _INT32_MAX for n in value)
    return value if fits or attrs.to_type(node.attrs["DstT"]) is DType.INT64 else None


def _value_of_shape(known: _Inference, node: Node) -> Value:
    return known.of(node, 0)


def _value_of_size(known: _Inference, node: Node) -> Value:
    numbers = all_known(known.of(node, 0))
    return None if numbers is None else (math.prod(numbers),)


def _value_of_rank(known: _Inference, node: Node) -> Value:
    shape = known.of(node, 0)
    return None if shape is None else (len(shape),)


def _value_of_strided(known: _Inference, node: Node) -> Value:
    value, found = known.shapes.value(node.inputs[0]), _picked(known, node)
    if value is None or found is None or found.places is None or known.of(node, 0) == ():
        return None
    return tuple(value[place] for place in found.places)


def _value_of_gather(known: _Inference, node: Node) -> Value:
    value, places = known.shapes.value(node.inputs[0]), known.integers(node, 1)
    rank = known.of(node, 1)
    if value is None or places is None or rank is None or len(rank) > 1:
        return None
    if node.op == "GatherV2" and (
        known.integers(node, 2) != (0,) or _integer(node, "batch_dims", 0)
    ):
        return None
    if known.of(node, 0) == () or any(not 0 <= place < len(value) for place in places):
        return None
    return tuple(value[place] for place in places)


def _value_of_pack(known: _Inference, node: Node) -> Value:
    parts = [known.shapes.value(tensor) for tensor in data_inputs(node)]
    if any(known.shapes.of(tensor) != () for tensor in data_inputs(node)):
        return None
    return tuple(part[0] for part in parts if part) if all(parts) else None


def _value_of_concat(known: _Inference, node: Node) -> Value:
    data = list(data_inputs(node))[:-1]
    parts = [known.shapes.value(tensor) for tensor in data]
    if any(part is None for part in parts) or known.integers(node, len(data)) not in ((0,), (-1,)):
        return None
    return tuple(size for part in parts if part is not None for size in part)


def _value_of_slice(known: _Inference, node: Node) -> Value:
    value = known.shapes.value(node.inputs[0])
    begin, size = known.integers(node, 1), known.integers(node, 2)
    if value is None or begin is None or size is None or len(begin) != 1 or len(size) != 1:
        return None
    last = len(value) if size[0] == -1 else begin[0] + size[0]
    return value[begin[0] : last] if 0 <= begin[0] <= last <= len(value) else None


def _value_of_prod(known: _Inference, node: Node) -> Value:
    value, axes = known.shapes.value(node.inputs[0]), known.integers(node, 1)
    if value is None or axes not in ((0,), (-1,)) or known.of(node, 0) == ():
        return None
    return _limited(node, "T", _product(value))


def _product(value: tuple[Dim, ...]) -> Dim | None:
    symbols = [size for size in value if not isinstance(size, int)]
    number = math.prod(size for size in value if isinstance(size, int))
    if not symbols:
        return number
    return symbols[0] if len(symbols) == 1 and number == 1 else None


def _limited(node: Node, key: str, size: Dim | None) -> Value:
    """One number, if it does not overflow its dtype."""
    if size is None or (isinstance(size, int) and abs(size) > _INT32_MAX):
        return None
    return (size,)


_EXACT: Mapping[str, Callable[[int, int], int]] = {
    "Add": lambda a, b: a + b,
    "AddV2": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Maximum": max,
    "Minimum": min,
}
_NEUTRAL = {"Add": 0, "AddV2": 0, "Sub": 0, "Mul": 1}


def _value_of_arithmetic(known: _Inference, node: Node) -> Value:
    one, other = (known.shapes.value(tensor) for tensor in list(data_inputs(node))[:2])
    if one is None or other is None:
        return None
    if len(one) == 1 and known.of(node, 0) == ():
        one = one * len(other)
    if len(other) == 1 and known.of(node, 1) == ():
        other = other * len(one)
    if len(one) != len(other):
        return None
    result = [_computed(node.op, a, b) for a, b in zip(one, other, strict=True)]
    if any(size is None or (isinstance(size, int) and abs(size) > _INT32_MAX) for size in result):
        return None
    return tuple(size for size in result if size is not None)


def _computed(op: str, one: Dim, other: Dim) -> Dim | None:
    if isinstance(one, int) and isinstance(other, int):
        return _EXACT[op](one, other)
    if other == _NEUTRAL.get(op):
        return one
    if one == _NEUTRAL.get(op) and op != "Sub":
        return other
    return one if one == other and op in ("Maximum", "Minimum") else None


def _same_elements(known: _Inference, node: Node) -> Value:
    """Squeeze, ExpandDims and Reshape between a scalar and a vector of one, or of a vector."""
    value, shape = known.shapes.value(node.inputs[0]), known.shapes.of(node.name)
    if value is None or shape is None or len(shape) > 1:
        return None
    return value if all_known(shape) in ((), (len(value),)) else None


VALUES: Mapping[str, ValueRule] = {
    **dict.fromkeys(("Identity", "Snapshot", "StopGradient"), _value_of_input),
    **dict.fromkeys(("Gather", "GatherV2"), _value_of_gather),
    **dict.fromkeys(_EXACT, _value_of_arithmetic),
    "Const": _value_of_constant,
    "Cast": _value_of_cast,
    "Shape": _value_of_shape,
    "Size": _value_of_size,
    "Rank": _value_of_rank,
    "StridedSlice": _value_of_strided,
    "Pack": _value_of_pack,
    "ConcatV2": _value_of_concat,
    "Slice": _value_of_slice,
    "Prod": _value_of_prod,
    **dict.fromkeys(("ExpandDims", "Reshape", "Squeeze"), _same_elements),
}
