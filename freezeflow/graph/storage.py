"""A model as it is kept: a skeleton GraphDef and a JSON record, weights by digest.

The skeleton is itself a valid GraphDef: a large Const keeps its dtype and shape and names its bytes
in the attribute ``_freezeflow_tensor``. Values of variables are Const nodes under
``freezeflow.variables/``. The record (``freezeflow.model/1``) holds all else.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping

from freezeflow.graph import ops
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.model import Asset, Model
from freezeflow.graph.read import GraphReader
from freezeflow.graph.write import graph_def_bytes
from freezeflow.messages import message_class, raw_class
from freezeflow.values import Digest, DType, Json, Location, Signature, TensorRef

FORMAT = "freezeflow.model/1"
_VARIABLES = "freezeflow.variables/"


def encode_model(model: Model) -> tuple[bytes, bytes, tuple[TensorRef, ...]]:
    """Skeleton, record, and every out-of-line tensor that they name, each once.

    Equal models give equal bytes; where the tensors lie does not show in them.
    """
    values = {
        _VARIABLES + handle: node._replace(name=_VARIABLES + handle)
        for handle, node in sorted(model.variables.items())
    }
    graph = dataclasses.replace(model.graph, nodes={**model.graph.nodes, **values})
    tensors = {tensor.digest: tensor for tensor in model_tensors(model)}
    record: dict[str, Json] = {
        "format": FORMAT,
        "signatures": {name: s.to_json() for name, s in sorted(model.signatures.items())},
        "init": list(model.init),
        "variables": sorted(model.variables),
        "assets": [
            {"name": a.name, "tensor": a.tensor, "content": _tensor_to_json(a.content)}
            for a in model.assets
        ],
        "op_defs": {
            name: ops.to_message(definition).SerializeToString(deterministic=True).hex()
            for name, definition in sorted(model.graph.op_defs.items())
        },
        "source": {"kind": model.source_kind, "digest": str(model.source_digest or "")},
        "tensors": sorted(str(digest) for digest in tensors),
    }
    # Few models have them.
    if model.bound:
        record["bound"] = dict(sorted(model.bound.items()))
    if model.writes_dropped:
        record["writes_dropped"] = list(model.writes_dropped)
    data = json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode()
    return graph_def_bytes(graph, skeleton=True), data, tuple(tensors.values())


def model_tensors(model: Model) -> Iterator[TensorRef]:
    """Every out-of-line tensor of a model, in graph order; one that is used twice comes twice."""
    for nodes in (
        model.graph.nodes,
        *(function.nodes for function in model.graph.functions.values()),
        model.variables,
    ):
        yield from (node.tensor for node in nodes.values() if node.tensor is not None)
    yield from (asset.content for asset in model.assets)


def tensor_digests(record: bytes) -> list[Digest]:
    """The digests of the tensors that a record's model needs."""
    return [Digest.parse(text) for text in json.loads(record)["tensors"]]


def decode_model(graph: bytes, record: bytes, locations: Mapping[Digest, Location]) -> Model:
    """The model that `encode_model` wrote.

    Args:
        graph: The skeleton.
        record: The record.
        locations: Where each tensor lies now.

    Raises:
        KeyError: A tensor has no location.
        ValueError: The record is of another format.
    """
    data = json.loads(record)
    if data["format"] != FORMAT:
        raise ValueError(f"not a {FORMAT} record: {data['format']!r}")
    definitions = [
        message_class("OpDef").FromString(bytes.fromhex(text)) for text in data["op_defs"].values()
    ]
    reader = GraphReader(
        raw_class("GraphDef").FromString(graph),
        op_defs=definitions,
        locate=locations.__getitem__,
    )
    whole = reader.graph()
    nodes = {name: n for name, n in whole.nodes.items() if not name.startswith(_VARIABLES)}
    return Model(
        graph=dataclasses.replace(whole, nodes=nodes),
        signatures={name: Signature.from_json(s) for name, s in data["signatures"].items()},
        init=tuple(data["init"]),
        variables={handle: _value(whole, handle) for handle in data["variables"]},
        assets=tuple(
            Asset(
                name=asset["name"],
                tensor=asset["tensor"],
                content=_tensor_from_json(asset["content"], locations),
            )
            for asset in data["assets"]
        ),
        bound=data.get("bound", {}),
        writes_dropped=tuple(data.get("writes_dropped", ())),
        source_kind=data["source"]["kind"],
        source_digest=_digest(data["source"]["digest"]),
    )


def _digest(text: str) -> Digest | None:
    return Digest.parse(text) if text else None


def _value(graph: Graph, handle: str) -> Node:
    return graph.nodes[_VARIABLES + handle]._replace(name=handle)


def _tensor_to_json(tensor: TensorRef) -> Json:
    return [str(tensor.digest), tensor.dtype.tf_name, list(tensor.shape)]


def _tensor_from_json(data: Json, locations: Mapping[Digest, Location]) -> TensorRef:
    digest = Digest.parse(data[0])
    return TensorRef(digest, DType.from_tf_name(data[1]), tuple(data[2]), locations[digest])
