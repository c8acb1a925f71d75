"""What a graph needs of its inputs, read from the ops that take them.

An index has to lie in its table, a serialized example has to have the features that are parsed, bytes
that are decoded have to be a picture. From each input, the tensors that only hand its elements on are
followed to ops that take nothing else; what such an op asks for becomes a `Wish`. What a recipe says
of an input goes before it. Nothing here has to be complete: it makes inputs that a model answers, and
whether it does is seen when it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from freezeflow.graph import attrs, walk
from freezeflow.graph.graph import Node, data_inputs, join, node_of
from freezeflow.graph.inline import inline_calls
from freezeflow.graph.lower import lower
from freezeflow.graph.original import Original
from freezeflow.graph.table_contents import contents_of
from freezeflow.graph.tensor_values import elements
from freezeflow.proof import samples
from freezeflow.proof.seeded import Wish
from freezeflow.values import Shape

Needs = Mapping[str, Mapping[str, Wish]]

# Ops that hand their first input's elements on, in some shape or dtype.
_HANDS_ON = frozenset(
    {"Cast", "EnsureShape", "Enter", "ExpandDims", "Identity", "IdentityN", "Pack"}
    | {"PlaceholderWithDefault", "Reshape", "Snapshot", "Squeeze", "StopGradient", "Switch"}
    | {"TensorListFromTensor", "TensorListGetItem", "Transpose", "Unique"}
)

# Those that hand another input on, too; a flow stands for what a tensor array holds.
_HANDS_ON_OTHERS = frozenset(
    {("Merge", 0), ("Merge", 1), ("TensorArrayReadV3", 2), ("TensorArrayScatterV3", 2)}
)

# Those of them that give another shape.
_TURNS = _HANDS_ON - frozenset(
    {"Cast", "EnsureShape", "Enter", "Identity", "IdentityN", "PlaceholderWithDefault", "Snapshot"}
    | {"StopGradient", "Switch"}
) | {"TensorArrayReadV3", "TensorArrayScatterV3"}

_FILLS = frozenset(
    {"InitializeTable", "InitializeTableV2", "LookupTableImport", "LookupTableImportV2"}
)

# Elements of a table, of a vocabulary, that are enough to take from.
_ENOUGH = 16


def needs_of(original: Original) -> Needs:
    """Signature to input key to what is needed of it; inputs of which nothing is known are left out."""
    inputs = {
        (name, key): spec.tensor
        for name, signature in original.signatures.items()
        for key, spec in signature.inputs.items()
    }
    targets = [*original.init, *filter(None, [original.restore_op])]
    inlined = inline_calls(original.graph, inputs.values(), targets)
    search = _Search(lower(inlined.graph).nodes)
    found: dict[str, dict[str, Wish]] = {}
    for (name, key), tensor in inputs.items():
        wish = search.wish(inlined.tensors[tensor])
        if wish is not None:
            found.setdefault(name, {})[key] = wish
    for name, signature in original.signatures.items():
        mine = found.setdefault(name, {})
        for key in signature.inputs:
            shape = key.removesuffix(_INDICES) + _DENSE_SHAPE
            if key.endswith(_INDICES) and shape in signature.inputs:
                mine.setdefault(key, Wish(pattern="coordinates", because=_SPARSE_INPUT))
                mine.setdefault(shape, Wish(pattern="dense_shape", because=_SPARSE_INPUT))
    return found


# The parts of an input that is a sparse tensor, as its signature names them.
_INDICES, _DENSE_SHAPE = ".indices", ".dense_shape"
_SPARSE_INPUT = "a sparse tensor"


class _Search:
    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes
        self._takers = walk.consumers(nodes)

    def wish(self, tensor: str) -> Wish | None:
        """What is needed of a tensor; where two ops need what cannot be put together, the first one's."""
        found: Wish | None = None
        for node, index, keeps_shape in self._users(tensor):
            wish = self._need(node, index, keeps_shape=keeps_shape)
            if wish is not None:
                found = wish if found is None else _both(found, wish)
        return found

    def _users(self, tensor: str) -> Iterator[tuple[Node, int, bool]]:
        """The ops that take a tensor's elements: with the number of their input, and whether the tensor
        comes to them in its own shape."""
        queue, seen = [(tensor, True)], {tensor}
        for current, keeps_shape in queue:  # grows while it is walked
            for name in self._takers.get(node_of(current), ()):
                node = self.nodes[name]
                for index, source in enumerate(data_inputs(node)):
                    if source != current:
                        continue
                    yield node, index, keeps_shape
                    for more in _handed_on(node, index):
                        if more not in seen:
                            seen.add(more)
                            queue.append((more, keeps_shape and node.op not in _TURNS))

    def _need(self, node: Node, index: int, *, keeps_shape: bool) -> Wish | None:
        use = node.op, index
        pool = _STRINGS.get(use)
        if pool is not None:
            return Wish(choices=pool(), because=_because(node))
        rule = _RULES.get(use) or _SPARSE.get(use) or (_SHAPES.get(use) if keeps_shape else None)
        return None if rule is None else rule(self, node)

    # ------------------------------------------------------------ what is known of other inputs

    def shape(self, tensor: str) -> Shape:
        """The shape of a constant or a variable; None where it is not known."""
        for _ in range(50):
            node = self.nodes[node_of(tensor)]
            if node.op == "Const":
                if node.tensor is not None:
                    return tuple(node.tensor.shape)
                return attrs.read_shape(attrs.message(node.attrs["value"]).tensor.tensor_shape)
            if node.op in ("VarHandleOp", "VariableV2", "Variable", "Placeholder"):
                return attrs.to_shape(node.attrs["shape"]) if "shape" in node.attrs else None
            if node.op == "ConcatV2":
                return self._joined(node)
            if not node.inputs:
                return None
            tensor = node.inputs[0]
        return None

    def _joined(self, node: Node) -> Shape:
        """Parts of a partitioned variable."""
        shapes = [self.shape(tensor) for tensor in list(data_inputs(node))[:-1]]
        known = [shape for shape in shapes if shape and shape[0] is not None]
        if len(known) < len(shapes) or not known:
            return None
        return (sum(shape[0] or 0 for shape in known), *known[0][1:])

    def words(self, tensor: str) -> list[Any]:
        """The elements of a small constant."""
        node = self.nodes[node_of(tensor)]
        while node.op == "Identity":
            node = self.nodes[node_of(node.inputs[0])]
        if node.op != "Const" or node.tensor is not None:
            return []
        return list(elements(attrs.message(node.attrs["value"]).tensor))

    def sizes(self, tensor: str) -> list[int]:
        """The elements of a vector of sizes; -1 for those that are computed."""
        node = self.nodes[node_of(tensor)]
        if node.op != "Pack":
            return self.words(tensor)
        parts = [self.words(part) for part in data_inputs(node)]
        return [part[0] if len(part) == 1 else -1 for part in parts]

    def keys(self, table: str) -> list[Any]:
        """Some keys of a table that is filled from constants."""
        source = self._handle(table)
        for fill in self.nodes.values():
            if fill.op in _FILLS and self._handle(fill.inputs[0]) == source:
                found = contents_of(self.nodes, fill)
                return [] if isinstance(found, str) else list(found)[:_ENOUGH]
        return []

    def _handle(self, tensor: str) -> str:
        while (node := self.nodes[node_of(tensor)]).inputs and "Table" not in node.op:
            tensor = node.inputs[0]
        return node.name


def _handed_on(node: Node, index: int) -> Sequence[str]:
    if node.op == "IdentityN":
        return [join(node.name, index)]
    if node.op in _HANDS_ON and (index == 0 or node.op == "Pack"):
        return [node.name, join(node.name, 1)] if node.op == "Switch" else [node.name]
    return [node.name] if (node.op, index) in _HANDS_ON_OTHERS else []


def _both(one: Wish, other: Wish) -> Wish:
    """What satisfies two ops, as far as that can be told."""
    if one.choices or one.pattern or other.choices or other.pattern:
        first, second = (one, other) if one.choices or one.pattern else (other, one)
        return first._replace(shape=first.shape if first.shape is not None else second.shape)
    lows = [low for low in (one.low, other.low) if low is not None]
    highs = [high for high in (one.high, other.high) if high is not None]
    return Wish(
        shape=one.shape if one.shape is not None else other.shape,
        low=max(lows, default=None),
        high=min(highs, default=None),
        because=", ".join(dict.fromkeys([one.because, other.because])),
    )


def _because(node: Node) -> str:
    return f"{node.op} at {node.name}"


# ---------------------------------------------------------------- numbers


def _index_of(position: int, axis_position: int | None = None) -> Any:
    """Indices into an axis of another input."""

    def rule(search: _Search, node: Node) -> Wish | None:
        inputs = list(data_inputs(node))
        shape = search.shape(inputs[position])
        axes = search.words(inputs[axis_position]) if axis_position is not None else [0]
        if not shape or len(axes) != 1 or not -len(shape) <= axes[0] < len(shape):
            return None
        size = shape[axes[0]]
        return Wish(low=0, high=size - 1, because=_because(node)) if size else None

    return rule


def _smallest_index_of(search: _Search, node: Node) -> Wish | None:
    """Indices into several axes of the first input."""
    sizes = [size for size in search.shape(node.inputs[0]) or () if size]
    return Wish(low=0, high=min(sizes) - 1, because=_because(node)) if sizes else None


def _positive(search: _Search, node: Node) -> Wish | None:
    return Wish(low=0.01, high=1.0, because=_because(node))


def _at_most_one(search: _Search, node: Node) -> Wish | None:
    return Wish(low=0, high=1, because=_because(node))


def _keys(search: _Search, node: Node) -> Wish | None:
    found = search.keys(node.inputs[0])
    if not found:
        return None
    strange = b"?" if isinstance(found[0], bytes | str) else max(found) + 1
    return Wish(choices=(*found, strange), loose=True, because=_because(node))


# ---------------------------------------------------------------- shapes where the rank is unknown


def _matrix(search: _Search, node: Node) -> Wish | None:
    other = search.shape(node.inputs[1])
    turned = "transpose_b" in node.attrs and attrs.message(node.attrs["transpose_b"]).b
    rows = other[-1 if turned else -2] if other and len(other) >= 2 else None
    return Wish(shape=(None, rows), because=_because(node))


def _pictures(search: _Search, node: Node) -> Wish | None:
    kernel = search.shape(node.inputs[1])
    first = attrs.to_bytes(node.attrs.get("data_format", attrs.of_bytes(b"NHWC"))) == b"NCHW"
    if not kernel or len(kernel) != 4:
        return None
    height, width, channels = (max(kernel[0] or 1, 16), max(kernel[1] or 1, 16), kernel[2])
    shape = (None, channels, height, width) if first else (None, height, width, channels)
    return Wish(shape=shape, because=_because(node))


def _reshaped(search: _Search, node: Node) -> Wish | None:
    sizes = search.sizes(node.inputs[1])
    if not sizes:
        return None
    shape = tuple(None if size < 0 else int(size) for size in sizes)
    return Wish(shape=shape, because=_because(node))


# ---------------------------------------------------------------- sparse tensors


def _sparse_rules() -> dict[tuple[str, int], Any]:
    """For each op on a sparse tensor: rules for its indices and for its shape."""
    found: dict[tuple[str, int], Any] = {}
    for op, (indices, shape, columns) in _SPARSE_OPS.items():
        found[op, indices] = _pattern("coordinates", columns)
        if shape is not None:
            found[op, shape] = _pattern("dense_shape", columns)
    return found


def _pattern(name: str, columns: int | None) -> Any:
    def rule(search: _Search, node: Node) -> Wish:
        size = None
        if columns is not None:
            other = search.shape(node.inputs[columns])
            size = other[0] if other else None
        return Wish(pattern=name, columns=size, because=_because(node))

    return rule


# Op to the numbers of its inputs: indices, dense shape, and a matrix with as many rows as the sparse
# tensor has columns.
_SPARSE_OPS: Mapping[str, tuple[int, int | None, int | None]] = {
    "SparseTensorDenseMatMul": (0, 2, 3),
    "SparseToDense": (0, 1, None),
    "SparseReorder": (0, 2, None),
    "SparseReshape": (0, 1, None),
    "SparseFillEmptyRows": (0, 2, None),
    "SparseSlice": (0, 2, None),
    "SparseTensorDenseAdd": (0, 2, None),
    "SparseSoftmax": (0, 2, None),
    "SparseReduceSum": (0, 2, None),
    "SparseReduceMax": (0, 2, None),
    "SparseDenseCwiseMul": (0, 2, None),
    "SparseDenseCwiseDiv": (0, 2, None),
    "SparseDenseCwiseAdd": (0, 2, None),
    "SparseSplit": (1, 3, None),
}


# ---------------------------------------------------------------- serialized examples


def _examples(search: _Search, node: Node) -> Wish | None:
    inputs = list(data_inputs(node))
    sparse, dense = _count(node, "Nsparse"), _count(node, "Ndense")
    keys = [_word(search.words(tensor)) for tensor in inputs[2 : 2 + sparse + dense]]
    return _made(search, node, keys[:sparse], keys[sparse:])


def _examples_v2(search: _Search, node: Node) -> Wish | None:
    inputs = list(data_inputs(node))
    sparse, dense, ragged = (search.words(tensor) for tensor in inputs[2:5])
    return _made(search, node, sparse, dense, ragged)


def _single_example(search: _Search, node: Node) -> Wish | None:
    sparse, dense = (
        list(attrs.message(node.attrs[key]).list.s) for key in ("sparse_keys", "dense_keys")
    )
    return _made(search, node, sparse, dense)


def _made(
    search: _Search,
    node: Node,
    sparse: Sequence[Any],
    dense: Sequence[Any],
    ragged: Sequence[Any] = (),
) -> Wish:
    """Examples with every feature that is parsed, its values as the ops behind it need them."""
    types = attrs.to_types(node.attrs["sparse_types"]) if "sparse_types" in node.attrs else ()
    dense_types = attrs.to_types(node.attrs["Tdense"])
    shapes = attrs.to_shapes(node.attrs["dense_shapes"])
    ragged_types = (
        attrs.to_types(node.attrs["ragged_value_types"])
        if "ragged_value_types" in node.attrs
        else ()
    )
    count = len(sparse)
    features = [
        samples.Feature(_word([key]), dtype, None, search.wish(join(node.name, count + n)))
        for n, (key, dtype) in enumerate(zip(sparse, types, strict=False))
    ]
    features += [
        samples.Feature(_word([key]), dtype, shape, search.wish(join(node.name, 3 * count + n)))
        for n, (key, dtype, shape) in enumerate(zip(dense, dense_types, shapes, strict=False))
    ]
    features += [
        samples.Feature(
            _word([key]), dtype, None, search.wish(join(node.name, 3 * count + len(dense) + n))
        )
        for n, (key, dtype) in enumerate(zip(ragged, ragged_types, strict=False))
    ]
    return Wish(choices=samples.examples(features), because=_because(node))


def _word(words: Iterable[Any]) -> bytes:
    (word, *_) = (*words, b"")
    return word.encode() if isinstance(word, str) else bytes(word)


def _count(node: Node, key: str) -> int:
    return attrs.to_int(node.attrs[key]) if key in node.attrs else 0


def _columns(search: _Search, node: Node) -> Wish | None:
    count = len(attrs.to_types(node.attrs["OUT_TYPE"]))
    return Wish(choices=samples.lines(count), because=_because(node))


def _tensors(search: _Search, node: Node) -> Wish | None:
    dtype = attrs.to_type(node.attrs["out_type"])
    return Wish(choices=samples.tensors(dtype), because=_because(node))


# ---------------------------------------------------------------- which op needs what

_STRINGS: Mapping[tuple[str, int], Any] = {
    **dict.fromkeys(
        [(op, 0) for op in ("DecodeImage", "DecodePng", "DecodeGif")], samples.png_pictures
    ),
    **dict.fromkeys(
        [(op, 0) for op in ("DecodeJpeg", "DecodeAndCropJpeg", "ExtractJpegShape")],
        samples.jpeg_pictures,
    ),
    ("DecodeBmp", 0): samples.bmp_pictures,
    ("DecodeWav", 0): samples.sounds,
    ("StringToNumber", 0): samples.numbers,
    ("DecodeRaw", 0): samples.raw_bytes,
    ("DecodePaddedRaw", 0): samples.raw_bytes,
    ("DecodeBase64", 0): samples.base64_words,
}

_RULES: Mapping[tuple[str, int], Any] = {
    ("Gather", 1): _index_of(0),
    ("ResourceGather", 1): _index_of(0),
    ("GatherV2", 1): _index_of(0, 2),
    ("GatherNd", 1): _smallest_index_of,
    ("ResourceGatherNd", 1): _smallest_index_of,
    ("StridedSlice", 1): _smallest_index_of,
    ("SparseSegmentSum", 1): _index_of(0),
    ("SparseSegmentMean", 1): _index_of(0),
    ("SparseSegmentSqrtN", 1): _index_of(0),
    ("ReverseSequence", 1): _at_most_one,
    ("Log", 0): _positive,
    ("Sqrt", 0): _positive,
    ("Rsqrt", 0): _positive,
    ("LookupTableFind", 1): _keys,
    ("LookupTableFindV2", 1): _keys,
    ("ParseExample", 0): _examples,
    ("ParseExampleV2", 0): _examples_v2,
    ("ParseSingleExample", 0): _single_example,
    ("DecodeCSV", 0): _columns,
    ("ParseTensor", 0): _tensors,
}

# What tells the shape of an input of unknown rank.
_SHAPES: Mapping[tuple[str, int], Any] = {
    ("MatMul", 0): _matrix,
    ("Conv2D", 0): _pictures,
    ("DepthwiseConv2dNative", 0): _pictures,
    ("Reshape", 0): _reshaped,
}

_SPARSE = _sparse_rules()
