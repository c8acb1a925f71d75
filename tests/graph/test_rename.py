"""Ends named after the signature's keys, whatever the graph calls them."""

from __future__ import annotations

import dataclasses

import pytest

from freezeflow.graph.rename import name_ends, placeholder_shape
from freezeflow.graph.verify import verify
from freezeflow.values import DType, Signature
from tests.graphs import graph, model, node, placeholder, spec

F = DType.FLOAT


def named(made, **how):
    assert verify(made) == ()
    result = name_ends(made, **how)
    assert verify(result) == ()
    return result


def ends(made, signature="serving_default"):
    found = made.signatures[signature]
    return (
        {key: s.tensor for key, s in found.inputs.items()},
        {key: s.tensor for key, s in found.outputs.items()},
    )


def neg(name, tensor):
    return node(name, "Neg", tensor, T=F)


def identity(name, tensor):
    return node(name, "Identity", tensor, T=F)


def simple(key_in="x", key_out="y"):
    nodes = [
        placeholder("serving_default_x"),
        neg("n", "serving_default_x"),
        identity("Identity", "n"),
    ]
    return model(graph(*nodes), {key_in: spec("serving_default_x")}, {key_out: spec("Identity")})


def test_ends_are_called_after_their_keys():
    assert ends(named(simple())) == ({"x": "x"}, {"y": "y"})


def test_the_graphs_own_names_on_request():
    assert ends(named(simple(), after_signature=False)) == (
        {"x": "serving_default_x"}, {"y": "Identity"},
    )  # fmt: skip


def test_a_node_of_that_name_in_capitals_gives_way():
    """TensorFlow 2's loader makes no difference between the two, and then does not find the output."""
    nodes = [
        placeholder("serving_default_x"),
        neg("Y", "serving_default_x"),
        identity("Identity", "Y"),
    ]
    made = model(graph(*nodes), {"x": spec("serving_default_x")}, {"y": spec("Identity")})
    result = named(made)
    assert ends(result) == ({"x": "x"}, {"y": "y"})
    assert set(result.graph.nodes) == {"x", "Y_1", "y"}


def test_a_node_in_the_way_gives_way():
    made = model(
        graph(placeholder("in"), neg("y", "in"), identity("out", "y")),
        {"x": spec("in")}, {"y": spec("out")},
    )  # fmt: skip
    result = named(made)
    assert ends(result) == ({"x": "x"}, {"y": "y"})
    assert result.graph.nodes["y"].inputs == ("y_1",)


@pytest.mark.parametrize(
    ("key", "name"), [("a b", "a_b"), ("_x", "._x"), ("a:0", "a_0"), ("é", "._"), ("", ".")]
)
def test_keys_that_are_no_node_names(key, name):
    assert ends(named(simple(key_out=key)))[1] == {key: name}


def test_two_keys_of_one_name():
    made = simple()
    both = {"a b": spec("Identity"), "a_b": spec("n")}
    made = model(made.graph, {"x": spec("serving_default_x")}, both)
    assert ends(named(made))[1] == {"a b": "a_b", "a_b": "a_b_1"}


def test_one_tensor_as_two_outputs():
    made = model(
        simple().graph, {"x": spec("serving_default_x")}, {k: spec("Identity") for k in "ab"}
    )
    assert ends(named(made))[1] == {"a": "a", "b": "b"}


def test_an_input_that_is_an_output():
    made = model(simple().graph, *[{k: spec("serving_default_x")} for k in ("x", "same")])
    result = named(made)
    assert ends(result) == ({"x": "x"}, {"same": "same"})
    assert result.graph.nodes["same"].inputs == ("x",)


def test_a_second_output_of_a_node():
    made = model(
        graph(placeholder("in", F, (2,)), node("u", "Unpack", "in", T=F, num=2, axis=0)),
        {"x": spec("in", F, (2,))}, {"y": spec("u:1")},
    )  # fmt: skip
    result = named(made)
    assert ends(result)[1] == {"y": "y"}
    assert result.graph.nodes["y"].inputs == ("u:1",)


def test_several_signatures_have_prefixes():
    made = simple()
    one = made.signatures["serving_default"]
    made = dataclasses.replace(
        made, signatures={"a": one, "b": Signature(one.inputs, {"z": spec("n")})}
    )
    result = named(made)
    assert ends(result, "a")[1] == {"y": "a/y"}
    assert ends(result, "b")[1] == {"z": "b/z"}
    assert ends(result, "a")[0] == ends(result, "b")[0] == {"x": "a/x"}


def test_an_unused_input_stays():
    made = model(simple().graph, {"x": spec("serving_default_x")}, {"y": spec("Identity")})
    made = dataclasses.replace(
        made,
        graph=graph(*made.graph.nodes.values(), placeholder("idle")),
        signatures={
            "s": Signature({"idle": spec("idle"), "x": spec("serving_default_x")}, {"y": spec("n")})
        },
    )
    assert "idle" in named(made).graph.nodes


def test_an_init_node_keeps_its_meaning():
    """An init node called as an output wants to be called is renamed, and still runs."""
    nodes = [*simple().graph.nodes.values(), node("y", "NoOp")]
    made = model(
        graph(*nodes), {"x": spec("serving_default_x")}, {"y": spec("Identity")}, init=("y",)
    )
    result = named(made)
    assert result.init == ("y_1",)
    assert result.graph.nodes["y_1"].op == "NoOp"


@pytest.mark.parametrize(
    ("shape", "producer", "means"),
    [((), 21, None), ((), 22, ()), ((), 1882, ()), ((2, None), 21, (2, None)), (None, 1882, None)],
)
def test_the_shape_of_a_scalar_placeholder(shape, producer, means):
    assert placeholder_shape(placeholder("x", F, shape), producer) == means


@pytest.mark.parametrize(
    ("key", "name"),
    [("scope/out-1", "scope_out_1"), ("1st", "x1st"), ("_u", "x_u"), ("any", "any_"), ("ok", "ok")],
)
def test_identifiers(key, name):
    words = frozenset({"any"})
    assert ends(named(simple(key_out=key), reserved=words)) == ({"x": "x"}, {key: name})


def test_a_node_that_would_become_the_same_identifier_gives_way():
    nodes = [placeholder("p"), neg("out/y", "p"), identity("Identity", "out/y")]
    made = model(graph(*nodes), {"x": spec("p")}, {"out_y": spec("Identity")})
    found = named(made, reserved=frozenset())
    assert ends(found) == ({"x": "x"}, {"out_y": "out_y"})
    assert set(found.graph.nodes) == {"x", "out_y", "out/y_1"}
