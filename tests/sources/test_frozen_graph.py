"""Graph files: how their ends are named and found, and ops that nobody here knows."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from google.protobuf import text_format

from freezeflow.engine.context import StepContext
from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.write import graph_def_bytes
from freezeflow.messages import message_class
from freezeflow.sources.registry import load_source
from freezeflow.values import DType, ModelSource
from tests.graphs import call, const, function, graph, node, placeholder
from tests.sources.damage import frozen_bytes

F = DType.FLOAT

CONTEXT = StepContext(Path.cwd(), Path.cwd(), None, io.StringIO())


def written(tmp_path, *nodes, functions=(), name="graph.pb", **choices):
    data = graph_def_bytes(graph(placeholder("x", F, (None, 2)), *nodes, functions=functions))
    if name.endswith(".pbtxt"):
        data = text_format.MessageToString(message_class("GraphDef").FromString(data)).encode()
    (tmp_path / name).write_bytes(data)
    return ModelSource(kind="frozen_graph", path=tmp_path / name, **choices)


def neg(name, tensor):
    return node(name, "Neg", tensor, T=F)


def ends(source):
    (signature,) = load_source(source, CONTEXT).signatures.values()
    return list(signature.inputs), list(signature.outputs)


def refusal(source):
    with pytest.raises(ModelRefused) as refused:
        load_source(source, CONTEXT)
    return refused.value


@pytest.mark.parametrize("name", ["graph.pb", "graph.pbtxt"])
def test_ends_that_are_clear_need_no_names(name, tmp_path):
    assert ends(written(tmp_path, neg("y", "x"), name=name)) == (["x"], ["y"])


@pytest.mark.parametrize("suffix", ["", ":0"])
def test_both_ways_to_name_a_tensor(suffix, tmp_path):
    source = written(
        tmp_path, neg("y", "x"), neg("z", "y"), inputs=("x" + suffix,), outputs=("y" + suffix,)
    )
    assert ends(source) == (["x"], ["y"])


def test_an_output_in_the_middle_takes_only_its_inputs(tmp_path):
    source = written(tmp_path, placeholder("idle"), neg("y", "x"), outputs=("y",))
    assert ends(source) == (["x"], ["y"])


def test_several_outputs_are_suggested(tmp_path):
    said = refusal(written(tmp_path, neg("y", "x"), neg("z", "x")))
    assert "not clear" in said.message and "y, z" in said.hint


def test_a_near_miss_is_suggested(tmp_path):
    said = refusal(written(tmp_path, neg("layer/output", "x"), outputs=("layer/outptu",)))
    assert "'layer/output'" in said.hint


def test_an_output_that_a_node_does_not_have(tmp_path):
    assert "has 1 output" in refusal(written(tmp_path, neg("y", "x"), outputs=("y:1",))).message


def test_a_function_library(tmp_path):
    double = function("f", {"a": F}, {"r": ("s", F)}, node("s", "AddV2", "a", "a", T=F))
    source = written(tmp_path, call("y", "f", ["x"], [F], [F]), functions=[double])
    assert b"PartitionedCall" not in frozen_bytes(source, tmp_path)


def test_an_op_that_nobody_knows_passes_through(tmp_path):
    source = written(tmp_path, node("m", "Mystery", "x"), neg("y", "m"))
    assert b"Mystery" in frozen_bytes(source, tmp_path)


def test_an_op_that_nobody_knows_has_no_dtype_as_output(tmp_path):
    assert "no definition" in refusal(written(tmp_path, node("m", "Mystery", "x"))).message


def test_a_variable_without_a_checkpoint(tmp_path):
    handle = node("v", "VarHandleOp", dtype=F, shape=attrs.of_shape(()))
    source = written(tmp_path, handle, node("y", "ReadVariableOp", "v", dtype=F))
    with pytest.raises(ModelRefused, match="'v' has no value"):
        frozen_bytes(source, tmp_path)


def test_a_constant_alone(tmp_path):
    assert ends(written(tmp_path, const("c", [1.0]), outputs=("c",))) == ([], ["c"])


@pytest.mark.parametrize("data", [b"", b"\x00", b"node {", b"\xff" * 100])
@pytest.mark.parametrize("name", ["graph.pb", "graph.pbtxt"])
def test_what_is_no_graph(name, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    said = refusal(ModelSource(kind="frozen_graph", path=tmp_path / name))
    assert "this is no GraphDef" in said.message or "not clear" in said.message


def test_no_such_file(tmp_path):
    assert (
        "cannot be read"
        in refusal(ModelSource(kind="frozen_graph", path=tmp_path / "no.pb")).message
    )
