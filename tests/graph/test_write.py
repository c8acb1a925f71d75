"""Graphs to bytes and back: what is written is what TensorFlow's format says, and nothing is lost."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings

from freezeflow.errors import ModelRefused
from freezeflow.graph.read import TENSOR_ATTR, GraphReader
from freezeflow.graph.write import graph_def_bytes, graph_def_pieces, materialise, size_of
from freezeflow.messages import message_class
from freezeflow.values import DType, Location
from tests.graph.random_graphs import graphs
from tests.graphs import function, graph, large_const, node, placeholder

F = DType.FLOAT


def parsed(data):
    return message_class("GraphDef").FromString(data)


def read(data, **more):
    return GraphReader(parsed(data), **more).graph()


@given(graphs())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_bytes_to_graph_to_bytes(made):
    data = graph_def_bytes(made)
    again = read(data)
    # Only functions in reach are read.
    assert again.nodes == made.nodes
    assert again.functions == {name: made.functions[name] for name in again.functions}
    assert graph_def_bytes(read(graph_def_bytes(again))) == graph_def_bytes(again)


@given(graphs())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_the_bytes_are_those_of_a_message(made):
    """Nothing twice, nothing longer than it must be; the order of maps is our own."""
    data = graph_def_bytes(made)
    again = parsed(data).SerializeToString()
    assert len(again) == len(data)
    assert parsed(again) == parsed(data)


def test_tensors_of_bodies_are_written_with_their_output_arguments():
    body = function(
        "f", {"a": F}, {"r": ("split:1", F), "s": ("a", F)},
        node("split", "Unpack", "a", T=F, num=2, axis=0), control_results=["split"],
    )  # fmt: skip
    made = graph(placeholder("x"), node("y", "f", "x"), functions=[body])
    (written,) = parsed(graph_def_bytes(made)).library.function
    assert dict(written.ret) == {"r": "split:output:1", "s": "a"}
    assert dict(written.control_ret) == {"split": "split"}


def test_weights_are_pieces_of_their_file(tmp_path):
    content = os.urandom(8000)
    made = graph(large_const("w", tmp_path / "weights", content, (2000,)))
    pieces = list(graph_def_pieces(made))
    assert [p.length for p in pieces if isinstance(p, Location)] == [8000]
    assert size_of(pieces) == len(materialise(pieces))
    assert parsed(materialise(pieces)).node[0].attr["value"].tensor.tensor_content == content


def test_weights_in_functions_are_pieces_too(tmp_path):
    content = os.urandom(4000)
    body = function("f", {}, {"r": ("w", F)}, large_const("w", tmp_path / "w", content, (1000,)))
    made = graph(node("y", "f"), functions=[body])
    data = graph_def_bytes(made)
    written = parsed(data).library.function[0].node_def[0]
    assert written.attr["value"].tensor.tensor_content == content
    assert parsed(data).SerializeToString(deterministic=True) == data


def test_a_skeleton_names_contents_by_digest(tmp_path):
    content = os.urandom(8000)
    made = graph(large_const("w", tmp_path / "weights", content, (2000,)))
    data = graph_def_bytes(made, skeleton=True)
    digest = made.nodes["w"].tensor.digest
    assert len(data) < 300
    assert parsed(data).node[0].attr[TENSOR_ATTR].s == str(digest).encode()
    there = {digest: made.nodes["w"].tensor.location}
    assert read(data, locate=there.__getitem__) == made


def test_a_file_that_became_shorter(tmp_path):
    made = graph(large_const("w", tmp_path / "weights", bytes(8000), (2000,)))
    os.truncate(tmp_path / "weights", 5000)
    with pytest.raises(ModelRefused, match="became shorter"):
        graph_def_bytes(made)


def test_an_unknown_op_in_a_function_cannot_be_written():
    body = function("f", {}, {"r": ("m", F)}, node("m", "Mystery"))
    with pytest.raises(ModelRefused, match="op 'Mystery' of node 'm' in function 'f'"):
        graph_def_bytes(graph(node("y", "f"), functions=[body]))
