"""A graph cut at the tensors that its signatures feed."""

from __future__ import annotations

import dataclasses

from freezeflow.graph.cut import cut_at_inputs
from freezeflow.graph.verify import verify
from freezeflow.values import DType, Signature
from tests.graphs import graph, model, node, placeholder, spec

F = DType.FLOAT


def neg(name, *inputs):
    return node(name, "Neg", *inputs, T=F)


def cut(made):
    nodes, signatures = cut_at_inputs(made.graph, made.signatures)
    result = dataclasses.replace(made, graph=nodes, signatures=signatures)
    assert verify(result) == ()
    return result


def signature(result, name="serving_default"):
    found = result.signatures[name]
    return [s.tensor for side in (found.inputs, found.outputs) for s in side.values()]


def test_a_placeholder_is_left_alone():
    made = model(graph(placeholder("x"), neg("y", "x")), {"x": spec("x")}, {"y": spec("y")})
    assert cut_at_inputs(made.graph, made.signatures) == (made.graph, made.signatures)


def test_it_takes_the_place_of_a_node_that_computes_nothing_else():
    made = model(
        graph(placeholder("in"), neg("middle", "in"), neg("y", "middle", "^middle")),
        {"x": spec("middle", F, (None, 3))},
        {"y": spec("y"), "x": spec("middle")},
    )
    result = cut(made)
    middle = result.graph.nodes["middle"]
    assert (middle.op, middle.inputs) == ("Placeholder", ())
    assert result.graph.nodes["y"].inputs == ("middle", "^middle")
    assert signature(result) == ["middle", "y", "middle"]


def test_one_of_several_outputs():
    unique = node("u", "Unique", "in", T=F, out_idx=DType.INT32)
    made = model(
        graph(placeholder("in"), unique, neg("y", "u"), node("i", "Neg", "u:1", T=DType.INT32)),
        {"x": spec("u:1", DType.INT32)},
        {"y": spec("y"), "i": spec("i", DType.INT32)},
    )
    result = cut(made)
    assert result.graph.nodes["u/input"].op == "Placeholder"
    assert result.graph.nodes["i"].inputs == ("u/input",)
    assert result.graph.nodes["y"].inputs == ("u",)
    assert signature(result) == ["u/input", "y", "i"]


def test_another_signature_computes_it():
    made = model(
        graph(placeholder("in"), neg("middle", "in"), neg("y", "middle")),
        {"x": spec("middle")},
        {"y": spec("y")},
    )
    (inner,) = made.signatures.values()
    both = {"inner": inner, "whole": Signature({"in": spec("in")}, inner.outputs)}
    result = cut(dataclasses.replace(made, signatures=both))
    fed = result.graph.nodes["middle/input"]
    assert (fed.op, fed.inputs) == ("PlaceholderWithDefault", ("middle",))
    assert result.graph.nodes["y"].inputs == ("middle/input",)
    assert signature(result, "inner") == ["middle/input", "y"]
    assert signature(result, "whole") == ["in", "y"]
