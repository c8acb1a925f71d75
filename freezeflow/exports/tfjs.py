"""A graph model of TensorFlow.js (``model.json`` with weight shards), written without its converter.

Source of the format: tensorflow/tfjs, ``tfjs-converter/src/operations`` and
``tfjs-core/src/io/types.ts``. Constants go into shards of 4 MiB; the graph is GraphDef as JSON.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from freezeflow.errors import ModelRefused
from freezeflow.exports.check import Checked, check_problems
from freezeflow.exports.converted import Converted, Converter, OneSignature, Single
from freezeflow.exports.format import ExportFormat, ExportRequest
from freezeflow.graph.attrs import message
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.model import Model
from freezeflow.graph.profile import FUNCTIONAL, Profile
from freezeflow.graph.spelled_out import BATCH_NORMS
from freezeflow.graph.tensor_values import elements
from freezeflow.graph.tfjs_form import tfjs_form
from freezeflow.graph.write import graph_def_bytes, read_range
from freezeflow.messages import message_class
from freezeflow.params import param
from freezeflow.runtimes import tfjs_browser, tfjs_runtime
from freezeflow.runtimes.runtime import DYNAMIC_RANGE, FLOAT16, FLOAT32, Names, Precision
from freezeflow.runtimes.tfjs_runtime import RUNTIME
from freezeflow.values import DType, Json, TensorSpec
from freezeflow.version import VERSION

if TYPE_CHECKING:
    from freezeflow.proof.dtypes import Array

MAIN = "model.json"

_SHARD_BYTES = 4 * 1024 * 1024

# Smaller weights are shapes, axes and biases: quantising them saves nothing and costs much.
_QUANTISED_ELEMENTS = 64

_OPS = Path(__file__).resolve().parent.parent / "graph" / "data" / "tfjs_ops.txt"

# What constants become: TensorFlow.js has these types only.
_WEIGHTS: Mapping[DType, str] = {
    DType.FLOAT: "float32",
    DType.INT32: "int32",
    DType.INT64: "int32",
    DType.INT16: "int32",
    DType.INT8: "int32",
    DType.UINT8: "int32",
    DType.UINT16: "int32",
    DType.BOOL: "bool",
    DType.STRING: "string",
    DType.COMPLEX64: "complex64",
}

_GATHERED = frozenset(_WEIGHTS) - {DType.STRING, DType.COMPLEX64}

# Casts to other types it reads as casts to none, and it gathers numbers only.
_TYPED: Mapping[str, Sequence[Mapping[str, frozenset[DType]]]] = {
    "Cast": (
        {
            "DstT": frozenset(
                (
                    *(DType.FLOAT, DType.DOUBLE, DType.HALF, DType.BOOL, DType.COMPLEX64),
                    *(DType.INT8, DType.UINT8, DType.INT32, DType.INT64),
                )
            )
        },
    ),
    "GatherV2": ({"Tparams": _GATHERED | {DType.DOUBLE}},),
    # What no number is, it takes for false; and of a vector the first element.
    **dict.fromkeys(("If", "StatelessIf"), ({"Tcond": frozenset([DType.BOOL])},)),
}

# How the ops of lists and tensor arrays begin, of which it gets none.
_LISTS = ("EmptyTensorList", "TensorArray", "TensorList")

_PRECISIONS: Mapping[str, Precision] = {
    "none": FLOAT32,
    "float16": FLOAT16,
    "uint16": FLOAT16,
    "uint8": DYNAMIC_RANGE,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params(OneSignature, Checked):
    """Parameters of ``format: tfjs``."""

    quantize: Literal["none", "float16", "uint16", "uint8"] = param(
        "How float32 weights are kept; the runtime turns them into float32 again.", default="none"
    )


def profile() -> Profile:
    """What TensorFlow.js takes: of control flow, branches of two and loops, as functions.

    What it calls a list is changed where it is, has the length of what was set, and loses in a function's
    end what the function has set; so does a tensor array.
    """
    lines = _OPS.read_text(encoding="utf-8").splitlines()
    return Profile(
        target="TensorFlow.js",
        ops=frozenset(line for line in lines if not line.startswith(("#", *_LISTS))),
        control_flow=FUNCTIONAL - {"Case", "StatelessCase"},
        widens=True,
        # Many times faster, and without promises.
        unrolls="all",
        stacks_lists="join",
        list_loops=False,
        spells_out=frozenset(["Einsum", "Erfc", "MatrixBandPart", "Select", *BATCH_NORMS]),
        dtypes=frozenset(_WEIGHTS) | {DType.DOUBLE, DType.UINT32},
        constants=frozenset(_WEIGHTS),
        typed=_TYPED,
        layout="NHWC",
        splits_groups=frozenset(["Conv2D", "Conv3D"]),
        training_norms=False,
    )


def convert(request: ExportRequest, made: Single) -> Converted:
    """Writes the graph model."""
    params: Params = request.params
    facts = _write_model(made.model, made.folder, params.quantize)
    names = Names(
        {key: f"{node}:0" for key, node in made.nodes.inputs.items()},
        {key: f"{node}:0" for key, node in made.nodes.outputs.items()},
    )
    precision = _PRECISIONS[params.quantize]
    return Converted(main=MAIN, names=names, precision=precision, facts=facts)


def problems(params: Params) -> list[tuple[str, str]]:
    """What is missing for a check, beside mistakes."""
    lacks = tfjs_runtime.missing() if params.check is not False else ""
    hint = f"{lacks}; `check: false` exports unchecked"
    return [*([("check", hint)] if lacks else []), *check_problems(params)]


def versions(params: Params) -> Mapping[str, str]:
    """The runtime's version, for the key."""
    return {} if params.check is False else {tfjs_runtime.PACKAGE: tfjs_runtime.version()}


# ---------------------------------------------------------------- the file


def _write_model(model: Model, folder: Path, quantize: str) -> dict[str, Json]:
    weights: list[Json] = []
    shards = _Shards(folder)
    for nodes in _bodies(model.graph):
        for node in nodes.values():
            if node.op == "Const":
                entry, data = _weight(node, quantize)
                weights.append(entry)
                shards.add(data)
    names = shards.finished()
    ((_, signature),) = model.signatures.items()
    described = {
        "format": "graph-model",
        "generatedBy": f"freezeflow {VERSION}",
        "convertedBy": None,
        "signature": {
            "inputs": {key: _end(spec) for key, spec in signature.inputs.items()},
            "outputs": {key: _end(spec) for key, spec in signature.outputs.items()},
        },
        "modelTopology": _topology(model),
        "weightsManifest": [{"paths": names, "weights": weights}],
    }
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=True)
    (folder / MAIN).write_text(text, encoding="utf-8")
    return {"weights": len(weights), "shards": len(names)}


class _Shards:
    """Weights one behind the other, cut into files of one size; their number is in their names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: list[Path] = []
        self._open = bytearray()

    def add(self, data: bytes) -> None:
        self._open += data
        while len(self._open) >= _SHARD_BYTES:
            self._cut(_SHARD_BYTES)

    def finished(self) -> list[str]:
        if self._open or not self._parts:
            self._cut(len(self._open))
        count = len(self._parts)
        names = [f"group1-shard{number}of{count}.bin" for number in range(1, count + 1)]
        for part, name in zip(self._parts, names, strict=True):
            part.rename(self._folder / name)
        return names

    def _cut(self, size: int) -> None:
        part = self._folder / f"part-{len(self._parts)}"
        part.write_bytes(self._open[:size])
        del self._open[:size]
        self._parts.append(part)


def _topology(model: Model) -> Json:
    """The graph as JSON: constants without their contents, every attribute written out.

    TensorFlow leaves out what equals the op's default; TensorFlow.js does not know the defaults. In a
    function TensorFlow tells a tensor by the name of the op's output and a number in there, of which
    TensorFlow.js reads the number alone: so tensors are numbered there as they are in the main graph.
    """
    from google.protobuf import json_format

    graph_def = message_class("GraphDef").FromString(graph_def_bytes(model.graph, skeleton=True))
    for function in graph_def.library.function:
        given = model.graph.functions[function.signature.name]
        for node in function.node_def:
            node.input[:] = given.nodes[node.name].inputs
        for result in given.results:
            function.ret[result.name] = result.tensor
    for nodes in (graph_def.node, *(each.node_def for each in graph_def.library.function)):
        for node in nodes:
            _write_out(node, model.graph)
    return _sorted(json_format.MessageToDict(graph_def))


def _write_out(node: Any, graph: Graph) -> None:
    """Gives a node all attributes of its op, and a constant no contents."""
    for key in [key for key in node.attr if key.startswith("_")]:
        del node.attr[key]
    definition = graph.op_def(node.op)
    for key, default in definition.defaults.items() if definition else ():
        if key not in node.attr:
            node.attr[key].MergeFromString(default)
    if node.op == "Const":
        tensor = node.attr["value"].tensor
        kept = type(tensor)(dtype=tensor.dtype, tensor_shape=tensor.tensor_shape)
        tensor.CopyFrom(kept)


def _bodies(graph: Graph) -> list[Mapping[str, Node]]:
    return [graph.nodes, *(function.nodes for function in graph.functions.values())]


def _sorted(data: Json, of: str = "") -> Json:
    """JSON with its keys in order: a message's maps come in any.

    Sizes of 0 are written, too: protobuf leaves them out, and TensorFlow.js reads NaN.

    Args:
        data: The JSON.
        of: The list that it is an item of, if it is one.
    """
    if isinstance(data, list):
        return [_sorted(item, of) for item in data]
    if not isinstance(data, dict):
        return data
    told = {"size": "0", **data} if of == "dim" else data
    return {
        key: _sorted(told[key], key if isinstance(told[key], list) else "") for key in sorted(told)
    }


def _end(spec: TensorSpec) -> Json:
    shape: Json = {"unknownRank": True}
    if spec.shape is not None:
        sizes = [-1 if size is None else size for size in spec.shape]
        shape = {"dim": [{"size": str(size)} for size in sizes]}
    return {"name": f"{spec.tensor}:0", "dtype": f"DT_{spec.dtype.name}", "tensorShape": shape}


# ---------------------------------------------------------------- weights


def _weight(node: Node, quantize: str) -> tuple[Json, bytes]:
    """A constant's entry in the manifest, and its bytes."""
    tensor = message(node.attrs["value"]).tensor
    dtype = DType(tensor.dtype)
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    entry: dict[str, Json] = {"name": node.name, "shape": shape, "dtype": _WEIGHTS[dtype]}
    if dtype is DType.STRING:
        words = [bytes(word) for word in elements(tensor)]
        return entry, b"".join(len(w).to_bytes(4, "little") + w for w in words)
    array = _array(node, tensor, dtype)
    if dtype is DType.FLOAT and quantize != "none" and array.size >= _QUANTISED_ELEMENTS:
        return _quantised(entry, array, quantize)
    return entry, _narrowed(array, dtype, node.name).tobytes()


def _array(node: Node, tensor: Any, dtype: DType) -> Array:
    import numpy as np

    from freezeflow.proof.dtypes import numpy_dtype

    if node.tensor is not None:
        return np.frombuffer(read_range(node.tensor.location), numpy_dtype(dtype))
    return np.array(elements(tensor), numpy_dtype(dtype))


def _narrowed(array: Array, dtype: DType, name: str) -> Array:
    """Integers as int32; the largest int64 stands for "to the end" and becomes the largest int32."""
    import numpy as np

    if _WEIGHTS[dtype] != "int32":
        return array
    low, high = -(2**31), 2**31 - 1
    wide = array.astype(np.int64)
    marks = np.isin(wide, [-(2**63), 2**63 - 1])
    if np.any(~marks & ((wide < low) | (wide > high))):
        raise ModelRefused("TensorFlow.js has no integers of more than 32 bits", where=name)
    return np.clip(wide, low, high).astype(np.int32)


def _quantised(entry: dict[str, Json], array: Array, kind: str) -> tuple[Json, bytes]:
    """Half precision, or integers between the smallest and the largest weight."""
    import numpy as np

    if kind == "float16":
        quantization: Json = {"dtype": "float16", "original_dtype": "float32"}
        return {**entry, "quantization": quantization}, array.astype(np.float16).tobytes()
    steps = {"uint8": 255, "uint16": 65535}[kind]
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise ModelRefused("a weight that is not finite cannot be quantised", where=entry["name"])
    scale = (high - low) / steps or 1.0
    # Zero stays zero: much of a network's padding and pruning depends on it.
    if low <= 0.0 <= high:
        low = -round(-low / scale) * scale
    codes = np.clip(np.round((array - low) / scale), 0, steps).astype(kind)
    quantization = {"dtype": kind, "min": low, "scale": scale, "original_dtype": "float32"}
    return {**entry, "quantization": quantization}, codes.tobytes()


_CONVERTER = Converter(profile=profile, convert=convert, runtime=RUNTIME, tools=(), form=tfjs_form)

FORMAT = ExportFormat(
    name="tfjs",
    version=12,
    summary="A graph model of TensorFlow.js, a folder; its check needs Node.js and @tensorflow/tfjs.",
    write=_CONVERTER.write,
    params=Params,
    runtimes=(RUNTIME, tfjs_browser.RUNTIME),
    problems=problems,
    versions=versions,
)
