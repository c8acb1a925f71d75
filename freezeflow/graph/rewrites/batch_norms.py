"""Batch norms folded into the weights of the convolution or matrix product before them.

``norm(conv(x, w) + b)`` is ``conv(x, w * scale) + (b * scale + shift)`` in exact arithmetic; in floats
it differs by rounding, so this is done only when asked. The new weights are written as nodes that
compute them; the exact folding that follows computes them with TensorFlow's own kernels.

A batch norm is a FusedBatchNorm of any version at inference, its predecessor in old graphs
(BatchNormWithGlobalNormalization), or a multiplication by constants for each channel (an addition after it
becomes the bias, or joins it). Between it and the convolution may lie an
addition of constants, a ConcatV2 along the channels (each part takes its share), a BatchToSpaceND, and,
where nothing is shifted, a padding with zeros.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from freezeflow.graph import attrs
from freezeflow.graph.constants import const
from freezeflow.graph.graph import Node, data_inputs, split
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.rewrites.linear import (
    WEIGHTS,
    Layout,
    channels_of,
    layout_of,
    scale_shape,
    weight_bytes,
)
from freezeflow.graph.rewrites.static import integers
from freezeflow.graph.shapes import Shapes, all_known
from freezeflow.values import DType

_OLD = "BatchNormWithGlobalNormalization"
FUSED = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", _OLD})
_TIMES = frozenset({"Mul", "RealDiv", "Div"})
_PLUS = frozenset({"Add", "AddV2", "BiasAdd", "Sub"})
_FLOATS = frozenset({DType.FLOAT, DType.DOUBLE, DType.HALF, DType.BFLOAT16})


class FoldedNorms(NamedTuple):
    """What was done.

    Args:
        folded: How many batch norms went into weights.
        left: Name of each batch norm that is one op and stays, and why.
        joined: How many additions joined a bias.
        copied: Bytes of weights that others use as well, so that they are there once more now.
    """

    folded: int
    left: dict[str, str]
    joined: int
    copied: int


class _Stays(Exception):
    """Why a batch norm cannot go."""


class _Site(NamedTuple):
    """A linear op that takes a share of the scale.

    Args:
        linear: The op.
        bias: The addition of constants behind it, if there is one.
        begin: Its first channel, of those that are scaled.
        channels: How many it has.
    """

    linear: str
    bias: str | None
    begin: int
    channels: int


def fold_batch_norms(body: Body, shapes: Shapes) -> FoldedNorms:
    """Folds what can be folded; the nodes that compute new weights are left for exact folding."""
    folder = _NormFolder(body, shapes)
    folded, left = 0, {}
    for name in list(body.order):
        node = body.nodes.get(name)
        if node is None or name in body.fed:
            continue
        try:
            folded += folder.fold(node)
        except _Stays as reason:
            if node.op in FUSED:
                left[name] = str(reason)
    return FoldedNorms(folded, left, folder.joined, folder.copied_bytes())


class _NormFolder:
    def __init__(self, body: Body, shapes: Shapes) -> None:
        self._body = body
        self._shapes = shapes
        self._scaled: dict[str, list[int]] = {}
        self.joined = 0

    def copied_bytes(self) -> int:
        """Bytes of scaled weights that are there once more, since others use them as they were."""
        copied = 0
        for source, sizes in self._scaled.items():
            all_scaled = len(self._body.users_of(source)) == len(sizes)
            copied += sum(sizes[1:] if all_scaled else sizes)
        return copied

    def fold(self, node: Node) -> int:
        """1 if the node was a batch norm and is gone, else 0."""
        if node.op in FUSED:
            self._fold_fused(node)
            return 1
        if node.op in _TIMES:
            return self._fold_times(node)
        if node.op in _PLUS:
            self._join_additions(node)
        return 0

    # ------------------------------------------------------------ the kinds of batch norm

    def _fold_fused(self, node: Node) -> None:
        self._check_inference(node)
        given = _statistics(node)
        x = node.inputs[0]
        if not all(map(self._is_constant, given)):
            raise _Stays("its statistics are no constants")
        channels = self._vector_length(given.variance)
        sites = list(self._sites(x, shifted=True, begin=0))
        self._check_layout(sites, layout_of(node), channels)
        make = _Maker(self._body, node.name, attrs.to_type(node.attrs.get("U", node.attrs["T"])))
        root = make.op("Rsqrt", make.op("AddV2", given.variance, make.scalar(_epsilon(node))))
        scale = make.op("Mul", given.gamma, root) if _is_scaled(node) else root
        shift = make.op("Sub", given.beta, make.op("Mul", given.mean, scale))
        self._scale(sites, scale, shift, channels, make.dtype)
        self._finish(node, x)

    def _check_inference(self, node: Node) -> None:
        if node.op == _OLD:
            return
        if "is_training" not in node.attrs or attrs.message(node.attrs["is_training"]).b:
            raise _Stays("it is in training mode: it normalises by the batch that it is given")
        for user in self._body.users_of(node.name):
            if any(t.startswith(f"{node.name}:") for t in user.inputs):
                raise _Stays("its statistics are taken by others")

    def _fold_times(self, node: Node) -> int:
        x, factor = self._constant_side(node, ordered=node.op != "Mul")
        dtype = attrs.to_type(node.attrs["T"])
        if dtype not in _FLOATS:
            raise _Stays("it is no batch norm")
        sites = list(self._sites(x, shifted=False, begin=0))
        layout = layout_of(self._body.nodes[sites[0].linear])
        channels = sum(site.channels for site in sites)
        self._check_layout(sites, layout, channels)
        make = _Maker(self._body, node.name, dtype)
        scale = self._as_vector(make, factor, layout, channels)
        if node.op != "Mul":
            scale = make.op("RealDiv", make.scalar(1.0), scale)
        self._scale(sites, scale, None, channels, dtype)
        self._finish(node, x)
        return 1

    def _join_additions(self, node: Node) -> None:
        """An addition behind the bias of a linear op joins it."""
        x, term = self._constant_side(node, ordered=node.op in ("Sub", "BiasAdd"))
        sites = list(self._sites(x, shifted=True, begin=0))
        if len(sites) != 1 or sites[0].bias != split(x)[0]:
            raise _Stays("there is no bias that it could join")
        layout, channels = layout_of(self._body.nodes[sites[0].linear]), sites[0].channels
        make = _Maker(self._body, node.name, attrs.to_type(node.attrs["T"]))
        shift = self._as_vector(make, term, layout, channels)
        if node.op == "Sub":
            shift = make.op("Neg", shift)
        self._scale(sites, None, shift, channels, make.dtype)
        self._finish(node, x)
        self.joined += 1

    def _constant_side(self, node: Node, *, ordered: bool) -> tuple[str, str]:
        """The input that is computed and the one that is constant."""
        one, other = list(data_inputs(node))[:2]
        if self._is_constant(other) and not self._is_constant(one):
            return one, other
        if self._is_constant(one) and not self._is_constant(other) and not ordered:
            return other, one
        raise _Stays("it is no batch norm")

    def _finish(self, node: Node, x: str) -> None:
        """Leaves an Identity of the name where the batch norm was; exact folding takes it out."""
        # What was inserted behind the linear op has taken over its users, the node among them.
        x = self._body.nodes[node.name].inputs[node.inputs.index(x)]
        values = {"T": node.attrs["T"]}
        waits = (tensor for tensor in node.inputs if tensor.startswith("^"))
        self._body.put(Node(node.name, "Identity", (x, *waits), values, node.device))

    # ------------------------------------------------------------ looking for linear ops

    def _sites(self, tensor: str, *, shifted: bool, begin: int) -> Iterator[_Site]:
        """The linear ops that give a tensor; raises _Stays where it is given by something else."""
        name, index = split(tensor)
        node = self._body.nodes.get(name)
        if node is None or index or not node.inputs:
            raise _Stays("no convolution or matrix product is before it")
        self._check_only_user(node)
        if node.op in WEIGHTS:
            yield self._site(node, begin)
        elif node.op in _PLUS:
            yield self._site_with_bias(node, begin)
        elif node.op == "ConcatV2":
            yield from self._sites_of_parts(node, shifted, begin)
        elif node.op == "BatchToSpaceND" or (node.op in ("Pad", "PadV2") and not shifted):
            sites = list(self._sites(node.inputs[0], shifted=shifted, begin=begin))
            self._check_commutes(node, sites)
            yield from sites
        elif node.op in ("Pad", "PadV2"):
            raise _Stays("padding lies between, which it would shift")
        else:
            raise _Stays(f"{node.op} lies between it and a convolution")

    def _check_only_user(self, node: Node) -> None:
        uses = sum(t == node.name for user in self._body.users_of(node.name) for t in user.inputs)
        if uses > 1 or node.name in self._body.known:
            raise _Stays(f"the output of {node.name} is used elsewhere, too")

    def _site(self, node: Node, begin: int) -> _Site:
        channels = channels_of(node, self._shapes)
        if not self._is_constant(node.inputs[WEIGHTS[node.op]]) or channels is None:
            raise _Stays(f"the weights of {node.name} are no constant")
        if layout_of(node) is None or attrs.to_type(node.attrs["T"]) not in _FLOATS:
            raise _Stays(f"{node.name} is of a layout or a dtype that is not folded")
        return _Site(node.name, None, begin, channels)

    def _site_with_bias(self, node: Node, begin: int) -> _Site:
        x, term = self._constant_side(node, ordered=node.op in ("Sub", "BiasAdd"))
        linear = self._body.nodes.get(split(x)[0])
        if linear is None or linear.op not in WEIGHTS:
            raise _Stays(f"{node.op} lies between it and a convolution")
        self._check_only_user(linear)
        site = self._site(linear, begin)
        layout, shape = layout_of(linear), all_known(self._shapes.of(term))
        if layout is None or shape is None:
            raise _Stays(f"what {node.name} adds is of unknown shape")
        if node.op != "BiasAdd" and not layout.fits(shape, site.channels):
            raise _Stays(f"{node.name} adds more than one value for each channel")
        return site._replace(bias=node.name)

    def _sites_of_parts(self, node: Node, shifted: bool, begin: int) -> Iterator[_Site]:
        parts = list(data_inputs(node))
        axis = self._body.integers(parts.pop())
        for part in parts:
            sites = list(self._sites(part, shifted=shifted, begin=begin))
            layout = layout_of(self._body.nodes[sites[0].linear])
            if axis is None or layout is None or axis[0] % layout.rank != layout.axis:
                raise _Stays(f"{node.name} does not join along the channels")
            begin += sum(site.channels for site in sites)
            yield from sites

    def _check_commutes(self, node: Node, sites: list[_Site]) -> None:
        """Padding must be zeros, and leave the channels alone; blocks must, too."""
        layout = layout_of(self._body.nodes[sites[0].linear])
        given = self._body.integers(node.inputs[1])
        if layout is None or given is None:
            raise _Stays(f"{node.name} is not certain to leave the channels alone")
        if node.op == "BatchToSpaceND":
            if 1 + len(given) > layout.axis:
                raise _Stays(f"{node.name} moves channels")
            return
        if node.op == "PadV2" and not self._is_zero(node.inputs[2]):
            raise _Stays(f"{node.name} pads with something else than zeros")
        if any(given[2 * layout.axis : 2 * layout.axis + 2]):
            raise _Stays(f"{node.name} pads the channels")

    def _check_layout(self, sites: list[_Site], layout: Layout | None, channels: int) -> None:
        found = {layout_of(self._body.nodes[site.linear]) for site in sites}
        if found != {layout} or sum(site.channels for site in sites) != channels:
            raise _Stays("its channels are along another axis than those of the convolution")

    # ------------------------------------------------------------ constants

    def _is_constant(self, tensor: str) -> bool:
        node = self._body.source(tensor)
        return node is not None and node.op == "Const" and node.name not in self._body.fed

    def _is_zero(self, tensor: str) -> bool:
        return self._is_constant(tensor) and is_zero(self._body.nodes[split(tensor)[0]])

    def _vector_length(self, tensor: str) -> int:
        shape = all_known(self._shapes.of(tensor))
        if shape is None or len(shape) != 1:
            raise _Stays("its scale is no vector")
        return shape[0]

    def _as_vector(self, make: _Maker, tensor: str, layout: Layout | None, channels: int) -> str:
        shape = all_known(self._shapes.of(tensor))
        if (
            shape is None
            or layout is None
            or not (
                layout.fits(shape, channels) or shape == (channels,) == layout.aligned(channels)
            )
        ):
            raise _Stays("it has more than one value for each channel")
        if channels not in shape:
            return make.op("BroadcastTo", make.reshape(tensor, (1,)), make.shape((channels,)))
        return make.reshape(tensor, (channels,))

    # ------------------------------------------------------------ rewriting

    def _scale(
        self,
        sites: list[_Site],
        scale: str | None,
        shift: str | None,
        channels: int,
        dtype: DType,
    ) -> None:
        for site in sites:
            linear = self._body.nodes[site.linear]
            make = _Maker(self._body, linear.name, dtype)
            own = [
                tensor
                if tensor is None or site.channels == channels
                else make.part(tensor, site.begin, site.channels)
                for tensor in (scale, shift)
            ]
            if own[0] is not None:
                self._scale_weights(make, linear, own[0])
            self._set_bias(make, site, own[0], own[1])

    def _scale_weights(self, make: _Maker, linear: Node, scale: str) -> None:
        place = WEIGHTS[linear.op]
        weights, own = linear.inputs[place], attrs.to_type(linear.attrs["T"])
        source = split(weights)[0]
        size = weight_bytes(linear, self._shapes, own.item_bytes)
        self._scaled.setdefault(source, []).append(size)
        shaped = make.reshape(scale, scale_shape(linear, self._shapes))
        product = make.op("Mul", make.cast(weights, own, make.dtype), shaped)
        scaled = make.cast(product, make.dtype, own)
        self._shapes.set_shape(scaled, self._shapes.of(weights))
        inputs = (*linear.inputs[:place], scaled, *linear.inputs[place + 1 :])
        self._body.put(linear._replace(inputs=inputs))

    def _set_bias(self, make: _Maker, site: _Site, scale: str | None, shift: str | None) -> None:
        linear = self._body.nodes[site.linear]
        own = attrs.to_type(linear.attrs["T"])
        if site.bias is None:
            if shift is not None:
                self._insert_bias(linear, make.cast(shift, make.dtype, own))
            return
        node = self._body.nodes[site.bias]
        x, term = self._constant_side(node, ordered=node.op in ("Sub", "BiasAdd"))
        layout = layout_of(linear)
        vector = (
            self._as_vector(make, term, layout, site.channels) if node.op != "BiasAdd" else term
        )
        vector = make.cast(vector, own, make.dtype)
        if node.op == "Sub":
            vector = make.op("Neg", vector)
        vector = vector if scale is None else make.op("Mul", vector, scale)
        vector = vector if shift is None else make.op("AddV2", vector, shift)
        vector = make.cast(vector, make.dtype, own)
        waits = tuple(tensor for tensor in node.inputs if tensor.startswith("^"))
        if node.op == "BiasAdd":
            self._body.put(node._replace(inputs=(x, vector, *waits)))
            self._shapes.set_shape(vector, (site.channels,))
            return
        assert layout is not None
        aligned = layout.aligned(site.channels)
        vector = make.reshape(vector, aligned)
        self._shapes.set_shape(vector, aligned)
        plus = node._replace(
            op="AddV2" if node.op == "Sub" else node.op, inputs=(x, vector, *waits)
        )
        self._body.put(plus)

    def _insert_bias(self, linear: Node, vector: str) -> None:
        """A BiasAdd between a linear op and the one that uses it."""
        layout = layout_of(linear)
        assert layout is not None
        text = "NHWC" if layout.axis == layout.rank - 1 else "NCHW"
        values = {"T": linear.attrs["T"], "data_format": attrs.of_bytes(text.encode())}
        name = self._body.unique(f"{linear.name}/shifted")
        for user in self._body.users_of(linear.name):
            inputs = tuple(name if t == linear.name else t for t in user.inputs)
            self._body.put(user._replace(inputs=inputs))
        self._body.put(Node(name, "BiasAdd", (linear.name, vector), values, linear.device))
        self._shapes.set_shape(name, self._shapes.of(linear.name))
        self._shapes.set_shape(vector, (channels_of(linear, self._shapes) or 0,))


class _Statistics(NamedTuple):
    """What a batch norm that is one op is given beside its input: the tensors, one value a channel."""

    gamma: str
    beta: str
    mean: str
    variance: str


def _statistics(node: Node) -> _Statistics:
    _, *given = data_inputs(node)
    if node.op == _OLD:
        mean, variance, beta, gamma = given
        return _Statistics(gamma, beta, mean, variance)
    return _Statistics(*given)


def _epsilon(node: Node) -> float:
    key = "variance_epsilon" if node.op == _OLD else "epsilon"
    epsilon: float = attrs.message(node.attrs[key]).f if key in node.attrs else 1e-4
    return epsilon


def _is_scaled(node: Node) -> bool:
    """Whether gamma counts: the old op may be told to leave it out."""
    return node.op != _OLD or bool(attrs.message(node.attrs["scale_after_normalization"]).b)


class _Maker:
    """Makes the nodes that compute constants.

    Args:
        body: Where they go.
        prefix: What their names begin with.
        dtype: Of what they compute.
    """

    def __init__(self, body: Body, prefix: str, dtype: DType) -> None:
        self._body = body
        self._prefix = f"{prefix}/folded"
        self.dtype = dtype

    def _put(self, node: Node) -> str:
        self._body.put(node)
        return node.name

    def _name(self) -> str:
        return self._body.unique(self._prefix)

    def op(self, op: str, *inputs: str) -> str:
        values = {"T": attrs.of_type(self.dtype)}
        if op == "BroadcastTo":
            values["Tidx"] = attrs.of_type(DType.INT32)
        return self._put(Node(self._name(), op, inputs, values))

    def scalar(self, value: float) -> str:
        if self.dtype is DType.BFLOAT16:
            data = struct.pack("<f", value)[2:]
        else:
            letter = {DType.FLOAT: "f", DType.DOUBLE: "d", DType.HALF: "e"}[self.dtype]
            data = struct.pack(f"<{letter}", value)
        return self._put(const(self._name(), self.dtype, (), data))

    def shape(self, sizes: tuple[int, ...]) -> str:
        return self._put(integers(self._name(), DType.INT32, (len(sizes),), sizes))

    def reshape(self, tensor: str, sizes: tuple[int, ...]) -> str:
        values = {"T": attrs.of_type(self.dtype), "Tshape": attrs.of_type(DType.INT32)}
        target = self.shape(sizes)
        return self._put(Node(self._name(), "Reshape", (tensor, target), values))

    def part(self, tensor: str, begin: int, size: int) -> str:
        values = {"T": attrs.of_type(self.dtype), "Index": attrs.of_type(DType.INT32)}
        first, length = self.shape((begin,)), self.shape((size,))
        return self._put(Node(self._name(), "Slice", (tensor, first, length), values))

    def cast(self, tensor: str, source: DType, target: DType) -> str:
        if source is target:
            return tensor
        values = {"SrcT": attrs.of_type(source), "DstT": attrs.of_type(target)}
        return self._put(Node(self._name(), "Cast", (tensor,), values))


# ---------------------------------------------------------------- additions of nothing


def is_zero(node: Node) -> bool:
    """Whether every element of a small or compact constant is zero, of either sign."""
    if node.op != "Const" or node.tensor is not None or "value" not in node.attrs:
        return False
    message = attrs.message(node.attrs["value"]).tensor
    if message.tensor_content:
        # The sign is the only bit that may be set; it is the highest of the last byte of each element.
        size = DType(message.dtype).item_bytes
        data: bytes = message.tensor_content
        return DType(message.dtype) in _FLOATS and all(
            byte == 0 or (byte == 0x80 and place % size == size - 1)
            for place, byte in enumerate(data)
        )
    lists = (message.float_val, message.double_val, message.half_val)
    if DType(message.dtype) is DType.HALF or DType(message.dtype) is DType.BFLOAT16:
        return all(value in (0, 0x8000) for value in message.half_val)
    return DType(message.dtype) in _FLOATS and all(value == 0 for part in lists for value in part)


def drop_zero_additions(body: Body, shapes: Shapes) -> int:
    """Takes out additions of zeros behind linear ops: they change no more than the sign of a zero."""
    dropped = 0
    for name in list(body.nodes):
        node = body.nodes.get(name)
        if node is None or node.op not in _PLUS or len(list(data_inputs(node))) != 2:
            continue
        x, term = data_inputs(node)
        source = body.source(x)
        constant = body.source(term)
        if source is None or source.op not in WEIGHTS or constant is None or not is_zero(constant):
            continue
        channels, layout = channels_of(source, shapes), layout_of(source)
        shape = all_known(shapes.of(term))
        if channels is None or layout is None or shape is None:
            continue
        keeps_shape = node.op == "BiasAdd" or layout.fits(shape, channels)
        if keeps_shape and constant.name not in body.fed:
            dropped += body.forward(node, [x])
    return dropped
