"""GraphDefs read: names, functions in reach, contents, and what a damaged one says."""

from __future__ import annotations

import os

import pytest

from freezeflow.errors import ModelRefused
from freezeflow.graph.read import GraphReader
from freezeflow.messages import message_class, raw_class
from freezeflow.values import Digest, DType, Location

F = int(DType.FLOAT)
MARKER = b"sixteen-byte-mar"


def graph_def(*nodes, functions=()):
    message = message_class("GraphDef")()
    for name, op, inputs, values in nodes:
        _add(message.node, name, op, inputs, values)
    for name, (args, ret, body) in dict(functions).items():
        function = message.library.function.add()
        function.signature.name = name
        for arg in args:
            function.signature.input_arg.add(name=arg, type=F)
        for key, tensor in ret.items():
            function.signature.output_arg.add(name=key, type=F)
            function.ret[key] = tensor
        for made in body:
            _add(function.node_def, *made)
    return message


def _add(nodes, name, op, inputs, values):
    node = nodes.add(name=name, op=op, input=inputs)
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            node.attr[key].func.name = value
        else:
            node.attr[key].type = value


X = ("x", "Placeholder", [], {"dtype": F})


def test_inputs_are_named_one_way():
    message = graph_def(X, ("y", "AddV2", ["x:0", "x", "^x", "^x"], {"T": F}))
    assert GraphReader(message).graph().nodes["y"].inputs == ("x", "x", "^x")


def test_control_inputs_come_last():
    message = graph_def(X, ("y", "AddV2", ["^x", "x", "x"], {"T": F}))
    assert GraphReader(message).graph().nodes["y"].inputs == ("x", "x", "^x")


def test_only_what_roots_need():
    message = graph_def(X, ("y", "Relu", ["x"], {"T": F}), ("z", "Relu", ["x"], {"T": F}))
    assert list(GraphReader(message).graph(["y"]).nodes) == ["x", "y"]


def test_outputs_of_bodies_are_numbered():
    body = [("m", "Moments", ["a"], {}), ("s", "Switch", ["a", "p"], {"T": F})]
    functions = {"f": (["a", "p"], {"r": "s:output_true:0"}, body[1:])}
    message = graph_def(X, ("y", "f", ["x", "x"], {}), functions=functions)
    assert GraphReader(message).graph().functions["f"].results[0].tensor == "s:1"


def test_outputs_of_bodies_that_are_lists():
    body = [("s", "Split", ["a", "p"], {"T": F}), ("y", "Relu", ["s:output:2"], {"T": F})]
    message = graph_def(
        X, ("y", "f", ["x", "x"], {}), functions={"f": (["a", "p"], {"r": "y:activations:0"}, body)}
    )
    message.library.function[0].node_def[0].attr["num_split"].i = 3
    function = GraphReader(message).graph().functions["f"]
    assert function.nodes["y"].inputs == ("s:2",)
    assert function.results[0].tensor == "y"


def test_functions_out_of_reach_are_not_read():
    functions = {"broken": ([], {"r": "nothing:y:0"}, [])}
    assert GraphReader(graph_def(X, functions=functions)).graph().functions == {}


def test_inferred_attributes_are_left_behind():
    message = graph_def(X)
    message.node[0].attr["_output_shapes"].list.shape.add().dim.add(size=3)
    message.node[0].attr["_class"].s = b"kept"
    assert set(GraphReader(message).graph().nodes["x"].attrs) == {"dtype", "_class"}


def entry(name, value):
    """An entry of a node's map of attributes, as the field that it is on the wire."""
    data = b"\x0a" + bytes([len(name)]) + name + b"\x12" + bytes([len(value)]) + value
    return b"\x2a" + bytes([len(data)]) + data


def written(*entries):
    """A graph with one node for each list of entries, as another writer might have written them."""
    nodes = [b"\x0a\x01" + bytes([97 + i]) + b"\x12\x04Relu" for i in range(len(entries))]
    data = [b"".join((node, *given)) for node, given in zip(nodes, entries, strict=True)]
    return raw_class("GraphDef").FromString(
        b"".join(b"\x0a" + bytes([len(node)]) + node for node in data)
    )


def test_attributes_are_sorted_and_shared_whatever_the_order_in_the_file():
    t, mark = entry(b"T", b"\x30\x01"), entry(b"_a", b"\x28\x01")
    nodes = GraphReader(written([mark, t], [t, mark], [t])).graph().nodes
    assert list(nodes["a"].attrs.items()) == [("T", b"\x30\x01"), ("_a", b"\x28\x01")]
    assert nodes["a"].attrs is nodes["b"].attrs
    assert list(nodes["c"].attrs) == ["T"]


def test_of_two_attributes_of_one_name_the_last_counts():
    message = written([entry(b"T", b"\x30\x01"), entry(b"T", b"\x30\x03")])
    in_a_map = message_class("GraphDef").FromString(message.SerializeToString())
    assert in_a_map.node[0].attr["T"].type == 3
    assert GraphReader(message).graph().nodes["a"].attrs == {"T": b"\x30\x03"}


def test_nodes_of_different_ops_share_no_attributes():
    message = graph_def(X, ("y", "Relu", ["x"], {"T": F}), ("z", "Abs", ["x"], {"T": F}))
    nodes = GraphReader(message).graph().nodes
    assert nodes["y"].attrs == nodes["z"].attrs
    assert nodes["y"].attrs is not nodes["z"].attrs


@pytest.mark.parametrize(
    "given", [b"\x2a\x02\x0a\x09", entry(b"\xff", b"\x30\x01"), entry(b"T", b"\x30")]
)
def test_a_damaged_attribute(given):
    with pytest.raises(ModelRefused, match=r"attribute .*of node 'a'.* is damaged"):
        GraphReader(written([given]))


def test_a_large_content_lies_where_it_was_cut():
    message = graph_def(("w", "Const", [], {"dtype": F}))
    tensor = message.node[0].attr["value"].tensor
    tensor.dtype = F
    tensor.tensor_shape.dim.add(size=500)
    tensor.tensor_content = MARKER + (0).to_bytes(8, "big")
    cut = (Digest.of(b"content"), Location("/file", 10, 2000, 1, 9000, 2))
    node = GraphReader(message, marker=MARKER, cuts=[cut]).graph().nodes["w"]
    assert (node.tensor.digest, node.tensor.location, node.tensor.shape) == (*cut, (500,))
    assert MARKER not in node.attrs["value"]


def damaged(message, match, roots=None):
    with pytest.raises(ModelRefused, match=match) as refused:
        GraphReader(message, where="model.pb").graph(roots)
    assert refused.value.where == "model.pb"
    assert refused.value.hint


def test_two_nodes_of_one_name():
    damaged(graph_def(X, X), "two nodes are named 'x'")


def test_two_nodes_of_one_name_in_a_function():
    body = [("n", "Relu", ["a"], {"T": F})] * 2
    functions = {"f": (["a"], {"r": "n:activations:0"}, body)}
    damaged(
        graph_def(X, ("y", "f", ["x"], {}), functions=functions), "of function 'f' are named 'n'"
    )


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31m", "a\u2028b"])
def test_a_name_that_would_break_a_message(name):
    damaged(graph_def((name, "NoOp", [], {})), "a node is called")


def test_a_root_that_is_not_there():
    damaged(graph_def(X), "node 'z' is named", ["z"])


def test_a_function_that_is_not_there():
    damaged(graph_def(("y", "PartitionedCall", [], {"f": "lost"})), "function 'lost' is called")


@pytest.mark.parametrize("tensor", ["x:", "x:one", "x:-1", "x:0:0", "x:\u0663", "x:99999999999"])
def test_an_input_that_is_no_name(tensor):
    damaged(graph_def(X, ("y", "Relu", [tensor], {"T": F})), "no tensor's name")


@pytest.mark.parametrize(
    "tensor", ["", "b", "n", "n:activations:1", "n:other:0", "n:activations:x", "m:y:0", "a:0:0"]
)
def test_a_result_that_is_not_there(tensor):
    functions = {"f": (["a"], {"r": tensor}, [("n", "Relu", ["a"], {"T": F})])}
    damaged(
        graph_def(X, ("y", "f", ["x"], {}), functions=functions), "'f' uses .*, which is not there"
    )


@pytest.mark.parametrize("number", [99, 1000])
def test_an_attribute_of_no_known_dtype(number):
    damaged(graph_def(("x", "Placeholder", [], {"dtype": number})), "holds dtype number")


def test_an_argument_of_no_known_dtype():
    message = graph_def(X, ("y", "f", ["x"], {}), functions={"f": (["a"], {"r": "a"}, [])})
    message.library.function[0].signature.input_arg[0].type = 77
    damaged(message, "dtype number 77")


def test_a_definition_of_no_known_dtype():
    definition = message_class("OpDef")(name="Mystery")
    definition.output_arg.add(name="y", type=77)
    with pytest.raises(ModelRefused, match="definition of op 'Mystery'"):
        GraphReader(graph_def(X), op_defs=[definition])


def test_a_body_that_asks_for_too_many_tensors():
    body = [("n", "Unpack", ["a"], {"T": F})]
    message = graph_def(
        X, ("y", "f", ["x"], {}), functions={"f": (["a"], {"r": "n:output:0"}, body)}
    )
    message.library.function[0].node_def[0].attr["num"].i = 2**62
    damaged(message, "num is 4611686018427387904")


def test_a_body_with_an_op_that_nobody_defines():
    body = [("n", "Mystery", ["a"], {})]
    functions = {"f": (["a"], {"r": "n:y:0"}, body)}
    damaged(graph_def(X, ("y", "f", ["x"], {}), functions=functions), "op 'Mystery' of node 'n'")


@pytest.mark.parametrize("sizes", [(499,), (-1,), (2**40, 2**40), ()])
def test_a_content_of_another_size(sizes):
    message = graph_def(("w", "Const", [], {"dtype": F}))
    tensor = message.node[0].attr["value"].tensor
    tensor.dtype = F
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = MARKER + (0).to_bytes(8, "big")
    cut = (Digest.of(os.urandom(4)), Location("/file", 10, 2000, 1, 9000, 2))
    with pytest.raises(ModelRefused, match="holds 2000 bytes, not what"):
        GraphReader(message, marker=MARKER, cuts=[cut])
