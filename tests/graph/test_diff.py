"""What differs between two models."""

from __future__ import annotations

import dataclasses

import pytest

from freezeflow.graph import attrs
from freezeflow.graph.diff import NodeRef, Sizes, diff_models
from freezeflow.graph.signature_diff import signature_changes
from freezeflow.values import DType, Signature, TensorSpec
from tests.graphs import call, const, function, graph, large_const, model, node, placeholder, spec


def small(*more, weight=None, op="AddV2", **fields):
    nodes = [
        placeholder("x", DType.FLOAT, (None,)),
        weight or const("w", [1.0, 2.0]),
        node("y", op, "x", "w", T=DType.FLOAT),
        *more,
    ]
    ends = {"x": spec("x", shape=(None,))}, {"y": spec("y", shape=(None,))}
    return model(graph(*nodes), *ends, **fields)


def test_a_model_and_itself():
    found = diff_models(small(), small())
    assert found.same
    assert not found.breaking
    assert found.before == found.after == Sizes(3, 0, 1, 8)


def test_nodes():
    more = node("z", "Identity", "y", T=DType.FLOAT)
    found = diff_models(small(), small(more, op="Mul"))
    assert found.added == (NodeRef("", "z", "Identity"),)
    assert found.removed == ()
    ((changed, fields),) = found.changed
    assert changed == NodeRef("", "y", "Mul")
    assert [tuple(field) for field in fields] == [("op", "AddV2", "Mul")]
    assert diff_models(small(more), small()).removed == found.added


def test_attributes_inputs_and_devices():
    before = node("m", "MatMul", "x", "w", T=DType.FLOAT, transpose_a=False)
    after = node("m", "MatMul", "w", "x", T=DType.FLOAT, transpose_a=True, device="/device:CPU:0")
    ((_, fields),) = diff_models(small(before), small(after)).changed
    assert [tuple(field) for field in fields] == [
        ("inputs", "x, w", "w, x"),
        ("device", "", "/device:CPU:0"),
        ("attr transpose_a", "false", "true"),
    ]


def test_what_carries_no_meaning_is_no_difference():
    written_out = node("m", "MatMul", "x", "w", "^w", "^x", T=DType.FLOAT, transpose_a=False)
    left_out = node("m", "MatMul", "x", "w", "^x", "^w", T=DType.FLOAT)
    before, after = small(written_out), small(left_out)
    backwards = dict(reversed(after.graph.nodes.items()))
    after = dataclasses.replace(after, graph=dataclasses.replace(after.graph, nodes=backwards))
    assert diff_models(before, after).same


def test_constants(tmp_path):
    found = diff_models(small(), small(weight=const("w", [1.0, 2.5])))
    assert not found.changed
    (change,) = found.constants
    assert change.node == NodeRef("", "w", "Const")
    assert change.value == (2, 1, 0.5, 0)
    reshaped = diff_models(small(), small(weight=const("w", [[1.0, 2.0]])))
    assert reshaped.constants[0].value is None
    assert reshaped.constants[0].after == (DType.FLOAT, (1, 2))


def test_a_constant_out_of_line_equals_the_same_one_inline(tmp_path):
    data = b"\x00\x00\x80\x3f\x00\x00\x00\x40"
    outside = small(weight=large_const("w", tmp_path / "w", data, (2,)))
    assert diff_models(small(), outside).same


def test_a_variable_and_the_constant_that_it_becomes():
    handle = node("w", "VarHandleOp", dtype=DType.FLOAT, shape=attrs.of_shape((2,)))
    before = small(weight=handle, variables={"w": const("w", [1.0, 2.0])})
    found = diff_models(before, small())
    assert found.changed[0].fields[0] == ("op", "VarHandleOp", "Const")
    assert found.constants == ()
    other = diff_models(before, small(weight=const("w", [1.0, 4.0])))
    assert other.constants[0].value == (2, 1, 2.0, 0)


def test_functions():
    def calling(*nodes, result="d"):
        body = function("twice", {"a": DType.FLOAT}, {"r": (result, DType.FLOAT)}, *nodes)
        made = graph(
            placeholder("x", DType.FLOAT, (None,)),
            call("y", "twice", ["x"], [DType.FLOAT], [DType.FLOAT]),
            functions=[body],
        )
        return model(made, {"x": spec("x", shape=(None,))}, {"y": spec("y")})

    double = node("d", "AddV2", "a", "a", T=DType.FLOAT)
    before = calling(double)
    after = calling(double, node("e", "Neg", "d", T=DType.FLOAT), result="e")
    found = diff_models(before, after)
    assert found.added == (NodeRef("twice", "e", "Neg"),)
    assert [tuple(change) for change in found.others] == [("function twice returns", "d", "e")]


def test_initializers():
    start = node("start", "NoOp")
    found = diff_models(small(start), small(start, init=("start",)))
    assert [tuple(change) for change in found.others] == [("init", "", "start")]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (("float32", (None, 4)), ("float32", (None, 4)), {}),
        (("float32", (None, 4)), ("float64", (None, 4)), {"dtype": (True, True)}),
        # An input that takes less breaks; an output that promises less breaks.
        (("float32", (None, 4)), ("float32", (2, 4)), {"shape": (True, False)}),
        (("float32", (2, 4)), ("float32", (None, 4)), {"shape": (False, True)}),
        (("float32", (2, 4)), ("float32", (2, 5)), {"shape": (True, True)}),
        (("float32", (2, 4)), ("float32", None), {"shape": (False, True)}),
        (("float32", None), ("float32", (2,)), {"shape": (True, False)}),
        (("float32", (4,)), ("float32", (4, 1)), {"shape": (True, True)}),
    ],
)
def test_ends_of_signatures(before, after, expected):
    def signature(end):
        spec = TensorSpec("x", DType.from_tf_name(end[0]), end[1])
        return {"s": Signature({"x": spec}, {"y": spec})}

    changes = signature_changes(signature(before), signature(after), by_tensor_name=False)
    found: dict[str, dict[str, bool]] = {}
    for change in changes:
        found.setdefault(change.what, {})[change.end] = change.breaking
    assert {
        what: (sides["input x"], sides["output y"]) for what, sides in found.items()
    } == expected


def test_keys_and_signatures_that_come_and_go():
    x, y = TensorSpec("x", DType.FLOAT, ()), TensorSpec("y", DType.FLOAT, ())
    before = {"s": Signature({"x": x}, {"y": y}), "gone": Signature({}, {})}
    after = {"s": Signature({"x": x, "more": x}, {"z": y}), "new": Signature({}, {})}
    found = [
        (change.signature, change.end, change.what, change.breaking)
        for change in signature_changes(before, after, by_tensor_name=False)
    ]
    assert found == [
        ("gone", "", "removed", True),
        ("new", "", "added", False),
        ("s", "input more", "added", True),
        ("s", "output y", "removed", True),
        ("s", "output z", "added", False),
    ]


def test_another_tensor_breaks_those_who_name_tensors():
    before = {"s": Signature({}, {"y": TensorSpec("y", DType.FLOAT, ())})}
    after = {"s": Signature({}, {"y": TensorSpec("z:1", DType.FLOAT, ())})}
    for by_tensor_name in (False, True):
        (change,) = signature_changes(before, after, by_tensor_name=by_tensor_name)
        assert change[2:] == ("tensor", "y:0", "z:1", by_tensor_name)
