"""Models for the tests of exports."""

from __future__ import annotations

import struct

from freezeflow.exports.format import ExportRequest
from freezeflow.graph import attrs
from freezeflow.graph.model import Asset
from freezeflow.values import Digest, DType
from tests.graphs import const, function, graph, large_const, model, node, placeholder, spec

F = DType.FLOAT
STRING = DType.STRING


def dense(folder, **fields):
    """y = relu(x @ w) with 400 weights out of line, and a function that runs in every call."""
    folder.mkdir(exist_ok=True)
    weights = struct.pack("<400f", *(0.25 * i for i in range(400)))
    halve = function(
        "__inference_halve_12", {"a": F}, {"r": ("half", F)},
        const("two", 2.0), node("half", "RealDiv", "a", "two", T=F),
    )  # fmt: skip
    nodes = [
        node("y", "PartitionedCall", "relu", Tin=(F,), Tout=(F,), f=attrs.of_function(halve.name),
             config_proto="\x07\n\x03CPU\x10\x01", executor_type=""),
        node("relu", "Relu", "dot", T=F, device="/device:CPU:0"),
        node("dot", "MatMul", "x", "w", T=F, transpose_a=False, transpose_b=False),
        placeholder("x", F, (None, 4)),
        large_const("w", folder / "weights", weights, (4, 100)),
    ]  # fmt: skip
    return model(
        graph(*nodes, functions=[halve]),
        {"x": spec("x", F, (None, 4))},
        {"y": spec("y", F, (None, 100))},
        source_kind="saved_model",
        source_digest=Digest("0" * 64),
        **fields,
    )


def lookup(**fields):
    """A table that two initializers fill one after the other, and a model that reads it."""
    types = {"Tkey": STRING, "Tval": DType.INT64}
    nodes = [
        placeholder("word", STRING, (None,)),
        node("table", "HashTableV2", key_dtype=STRING, value_dtype=DType.INT64, shared_name="t"),
        node("other", "HashTableV2", key_dtype=STRING, value_dtype=DType.INT64, shared_name="o"),
        const("keys", [b"a", b"b"], STRING),
        const("values", [1, 2], DType.INT64),
        const("default", -1, DType.INT64),
        node("fill", "InitializeTableV2", "table", "keys", "values", **types),
        node("fill_other", "InitializeTableV2", "other", "keys", "values", **types),
        node("id", "LookupTableFindV2", "table", "word", "default", Tin=STRING, Tout=DType.INT64),
    ]
    return model(
        graph(*nodes),
        {"word": spec("word", STRING, (None,))},
        {"id": spec("id", DType.INT64, (None,))},
        init=("fill", "fill_other"),
        **fields,
    )


def with_asset(folder):
    """A model whose table is filled from a vocabulary file."""
    content = large_const("text", folder / "vocabulary", b"a\nb\n\n\n", (2,)).tensor
    content = content._replace(dtype=DType.UINT8, shape=(6,))
    nodes = [
        placeholder("word", STRING, (None,)),
        const("file", b"vocabulary.txt", STRING),
        node("table", "HashTableV2", key_dtype=STRING, value_dtype=DType.INT64, shared_name="t"),
        node("fill", "InitializeTableFromTextFileV2", "table", "file",
             key_index=-2, value_index=-1, vocab_size=2, delimiter="\t"),
        const("default", -1, DType.INT64),
        node("id", "LookupTableFindV2", "table", "word", "default", Tin=STRING, Tout=DType.INT64),
    ]  # fmt: skip
    return model(
        graph(*nodes),
        {"word": spec("word", STRING, (None,))},
        {"id": spec("id", DType.INT64, (None,))},
        init=("fill",),
        assets=(Asset(name="vocabulary.txt", tensor="file", content=content),),
    )


def asked(model, to, recipe_digest=None, **more):
    """A request to write a model; what frozen graphs and SavedModels do not use is left out."""
    request = {"params": None, "original": None, "context": None, **more}
    return ExportRequest(model=model, to=to, recipe_digest=recipe_digest, **request)
