"""Variables and their keys, by the dataflow of the restore op and never by name."""

from __future__ import annotations

import pytest

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.restore import SavedTensor, follow_restore
from freezeflow.values import DType
from tests.graphs import call, const, function, graph, node

F = DType.FLOAT
S = DType.STRING
R = DType.RESOURCE


def restore(keys, slices=None, count=None):
    dtypes = [F] * (count or len(keys))
    return [
        const("prefix", b"ckpt", S),
        const("keys", list(keys), S),
        const("slices", slices or [b""] * len(keys), S),
        node("restore", "RestoreV2", "prefix", "keys", "slices", dtypes=dtypes),
    ]


def handle(name):
    return node(name, "VarHandleOp", dtype=F, shape=attrs.of_shape(()))


def assign(name, resource, value):
    return node(name, "AssignVariableOp", resource, value, dtype=F)


def test_each_output_fills_its_variable():
    made = graph(
        *restore([b"key/a", b"key/b"]), handle("v"), handle("w"),
        assign("one", "w", "restore"), assign("two", "v", "restore:1"), node("all", "NoOp", "^one", "^two"),
    )  # fmt: skip
    assert follow_restore(made, "all").variables == {
        "w": SavedTensor("key/a", ""), "v": SavedTensor("key/b", ""),
    }  # fmt: skip


def test_through_identities_and_calls():
    body = function(
        "traced", {"h": R}, {"r": ("done", F)}, *restore([b"k"]),
        node("passed", "Identity", "restore", T=F), assign("put", "h", "passed"),
        const("done", 0.0), control_results=["put"], stateful=True,
    )  # fmt: skip
    made = graph(
        handle("v"), node("same", "Identity", "v", T=R), call("go", "traced", ["same"], [R], [F]),
        functions=[body],
    )  # fmt: skip
    assert follow_restore(made, "go").variables == {"v": SavedTensor("k", "")}


def test_a_slice():
    made = graph(*restore([b"k"], [b"10 4 0,5:-"]), handle("v"), assign("a", "v", "restore"))
    assert follow_restore(made, "a").variables["v"] == SavedTensor("k", "10 4 0,5:-")


@pytest.mark.parametrize("op", ["Restore", "RestoreSlice"])
def test_the_ops_of_the_first_format(op):
    extra = ["slice"] if op == "RestoreSlice" else []
    made = graph(
        const("file", b"ckpt", S), const("key", b"k", S), const("slice", b"4 0,2", S),
        node("restore", op, "file", "key", *extra, dt=F, preferred_shard=-1),
        node("v", "VariableV2", dtype=F, shape=attrs.of_shape(())),
        node("a", "Assign", "v", "restore", T=F),
    )  # fmt: skip
    assert follow_restore(made, "a").variables["v"] == SavedTensor("k", "4 0,2" if extra else "")


def test_a_table():
    made = graph(
        *restore([b"t-keys", b"t-values"]),
        node("table", "MutableHashTableV2", key_dtype=F, value_dtype=F),
        node("put", "LookupTableImportV2", "table", "restore", "restore:1", Tin=F, Tout=F),
    )
    assert follow_restore(made, "put").tables == {
        "table": (SavedTensor("t-keys", ""), SavedTensor("t-values", ""))
    }


def test_keys_that_are_no_text():
    made = graph(*restore([b"\xff\xfe"]), handle("v"), assign("a", "v", "restore"))
    key = follow_restore(made, "a").variables["v"].key
    assert key.encode(errors="surrogateescape") == b"\xff\xfe"


def test_a_variable_that_is_set_to_something_else_is_not_restored():
    made = graph(const("zero", 0.0), handle("v"), assign("a", "v", "zero"))
    assert follow_restore(made, "a").variables == {}


def test_nothing_to_restore():
    assert follow_restore(graph(), "") == ({}, {})


def test_more_outputs_than_keys():
    made = graph(*restore([b"k"], count=3), handle("v"), assign("a", "v", "restore:2"))
    with pytest.raises(ModelRefused, match="restores 1 tensors, number 2 is used"):
        follow_restore(made, "a")


def test_keys_that_are_computed():
    nodes = [n for n in restore([b"k"]) if n.name != "keys"]
    made = graph(
        *nodes, node("keys", "Placeholder", dtype=S), handle("v"), assign("a", "v", "restore")
    )
    with pytest.raises(ModelRefused, match="constant string is expected, found op Placeholder"):
        follow_restore(made, "a")
