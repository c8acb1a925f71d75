"""What the rewrites take out and what they must leave, without TensorFlow."""

from __future__ import annotations

import pytest

from freezeflow.graph import attrs
from freezeflow.graph.constants import const as constant
from freezeflow.graph.foldable import Scope
from freezeflow.graph.rewrites.compact import compacted
from freezeflow.graph.rewrites.simplify import simplify
from freezeflow.graph.tensor_values import elements
from freezeflow.messages import message_class
from freezeflow.values import DType
from tests.graphs import call, const, function, graph, large_const, node, placeholder

FLOAT, INT = DType.FLOAT, DType.INT32


def unary(name, op, *inputs, **values):
    return node(name, op, *inputs, T=FLOAT, **values)


def pack(name, *inputs):
    return node(name, "Pack", *inputs, T=INT, N=len(inputs), axis=0)


def first(name, tensor):
    """A StridedSlice ``tensor[0]`` with its constants."""
    return [
        const(f"{name}/0", [0], INT),
        const(f"{name}/1", [1], INT),
        node(
            name,
            "StridedSlice",
            tensor,
            *(f"{name}/0", f"{name}/1", f"{name}/1"),
            T=INT,
            Index=INT,
            begin_mask=0,
            end_mask=0,
            ellipsis_mask=0,
            new_axis_mask=0,
            shrink_axis_mask=1,
        ),
    ]


def shape_of(name, tensor):
    return node(name, "Shape", tensor, T=FLOAT, out_type=INT)


def reshape(name, tensor, target, *more):
    return node(name, "Reshape", tensor, target, *more, T=FLOAT, Tshape=INT)


def checked(name, *inputs):
    return node(name, "Assert", *inputs, T=(FLOAT,), summarize=3)


def simplified(*nodes, wanted=("y",), fed=("x",), functions=()):
    made = graph(*nodes, functions=functions)
    return simplify(made, Scope(made.nodes, frozenset(wanted), frozenset(fed)))


def ops(nodes):
    return sorted(n.op for n in nodes.values())


# ---------------------------------------------------------------- nodes that pass on


def test_a_chain_of_identities_goes_and_the_ends_stay():
    nodes = simplified(
        placeholder("x"), unary("a", "Identity", "x"), unary("b", "StopGradient", "a"),
        unary("y", "Identity", "b"),
    )  # fmt: skip
    assert list(nodes) == ["x", "y"]
    assert nodes["y"].inputs == ("x",)


def test_who_waited_for_an_identity_waits_for_its_source():
    nodes = simplified(
        placeholder("x"), node("r", "MyOp", "x"), unary("a", "Neg", "r"),
        unary("b", "Identity", "a"), unary("y", "Identity", "x", "^b"),
    )  # fmt: skip
    assert nodes["y"].inputs == ("x", "^r")


@pytest.mark.parametrize(
    "kept",
    [
        unary("a", "Identity", "x", "^check"),
        unary("a", "Identity", "x", device="/device:CPU:0"),
    ],
    ids=["it waits", "it asks for a device"],
)
def test_an_identity_that_does_something_stays(kept):
    nodes = simplified(
        placeholder("x"), placeholder("p", DType.BOOL), checked("check", "p", "x"), kept,
        unary("y", "Neg", "a"), fed=("x", "p"),
    )  # fmt: skip
    assert "a" in nodes


def test_an_identity_on_the_device_of_its_source_goes():
    device = {"device": "/device:CPU:0"}
    nodes = simplified(
        placeholder("x"), unary("a", "Neg", "x", **device), unary("b", "Identity", "a", **device),
        unary("y", "Relu", "b"),
    )  # fmt: skip
    assert "b" not in nodes


def test_a_reader_of_a_reference_stays():
    nodes = simplified(
        node("v", "VariableV2", dtype=FLOAT, shape=attrs.of_shape(())),
        unary("a", "Identity", "v"), unary("y", "Neg", "a"), fed=(),
    )  # fmt: skip
    assert "a" in nodes


def test_wishes_to_lie_beside_others_go_where_nothing_asks_for_a_device():
    wish = attrs.encode(message_class("AttrValue")(list={"s": [b"loc:@x"]}))

    def nodes_with(device):
        return simplified(placeholder("x"), unary("y", "Neg", "x", device=device, _class=wish))

    assert "_class" not in nodes_with("")["y"].attrs
    assert "_class" in nodes_with("/device:CPU:0")["y"].attrs


def test_an_identity_behind_a_switch_that_is_awaited_stays():
    nodes = simplified(
        placeholder("x"), placeholder("p", DType.BOOL), unary("s", "Switch", "x", "p"),
        unary("pivot", "Identity", "s:1"), const("c", 1.0)._replace(inputs=("^pivot",)),
        node("y", "Merge", "s", "c", T=FLOAT, N=2), fed=("x", "p"),
    )  # fmt: skip
    assert "pivot" in nodes


def test_a_noop_between_two_goes():
    assertion = node("assert", "Assert", "p", "x", T=(FLOAT,), summarize=3)
    nodes = simplified(
        placeholder("x"), placeholder("p", DType.BOOL), assertion,
        node("gate", "NoOp", "^assert"), unary("y", "Neg", "x", "^gate"), fed=("x", "p"),
    )  # fmt: skip
    assert nodes["y"].inputs == ("x", "^assert")
    assert nodes["assert"] == assertion


def test_a_noop_that_saves_edges_stays():
    gathered = [unary(f"r{i}", op, "x") for i, op in enumerate(("Relu", "Tan", "Sin"))]
    waiting = [unary(f"w{i}", "Neg", f"r{i}", "^gate") for i in range(3)]
    nodes = simplified(
        placeholder("x"), *[unary(f"g{i}", "Exp", f"r{i}") for i in range(3)], *gathered,
        node("gate", "NoOp", "^g0", "^g1", "^g2", "^x"), *waiting,
        node("y", "AddN", "w0", "w1", "w2", T=FLOAT, N=3),
    )  # fmt: skip
    assert "gate" in nodes


def test_a_wait_that_another_input_implies_goes():
    nodes = simplified(
        placeholder("x"), placeholder("p", DType.BOOL), checked("a", "p", "x"),
        unary("b", "Neg", "x", "^a"), unary("c", "Exp", "b", "^a"), unary("y", "Sub", "c", "x", "^a"),
        fed=("x", "p"),
    )  # fmt: skip
    assert [n.name for n in nodes.values() if "^a" in n.inputs] == ["b"]


def test_who_waits_for_a_pure_op_waits_for_its_inputs():
    nodes = simplified(
        placeholder("x"), placeholder("p", DType.BOOL), checked("a", "p", "x"),
        unary("gate", "Identity", "x", "^a"), unary("y", "Neg", "x", "^gate"), fed=("x", "p"),
    )  # fmt: skip
    assert nodes["y"].inputs == ("x", "^a")
    assert "gate" not in nodes


# ---------------------------------------------------------------- idle ops


def matrix(*shape):
    return placeholder("x", FLOAT, shape)


@pytest.mark.parametrize(
    ("target", "shape", "goes"),
    [
        ([2, 3], (2, 3), True),
        ([-1, 3], (None, 3), True),
        ([-1, 3], (None, 4), False),
        ([3, 2], (2, 3), False),
        ([2, -1], (None, 3), False),
        ([-1], (None,), True),
        ([-1, 0], (None, 0), False),
        ([-1, 3], None, False),
    ],
)
def test_a_reshape_goes_where_the_shape_is_the_same_for_certain(target, shape, goes):
    given = placeholder("x", FLOAT, shape)
    nodes = simplified(
        given, const("t", target, INT), reshape("r", "x", "t"), unary("y", "Neg", "r")
    )
    assert ("r" not in nodes) is goes


@pytest.mark.parametrize(
    ("given", "promised", "again", "goes"),
    [
        ((None, 3), (None, 3), (None, 3), True),
        ((None, None), (None, 3), (None, 3), True),
        (None, (2, 3), (2, 3), True),
        (None, (None, 3), (2, 3), False),
        (None, None, (None, 3), False),
        ((None,), (None, 3), (None, 3), False),  # it refuses whatever it is given
    ],
)
def test_a_promise_that_was_kept_is_not_asked_for_again(given, promised, again, goes):
    nodes = simplified(
        placeholder("x", FLOAT, given),
        unary("a", "EnsureShape", "x", shape=attrs.of_shape(promised)),
        unary("b", "Neg", "a"),
        unary("c", "EnsureShape", "b", shape=attrs.of_shape(again)),
        unary("y", "Neg", "c"),
    )
    assert ("c" not in nodes) is goes


def test_an_old_scalar_placeholder_may_be_anything():
    made = graph(
        placeholder("x"), const("t", [1], INT), reshape("r", "x", "t"), shape_of("y", "x"),
        unary("z", "Neg", "r"), producer=21,
    )  # fmt: skip
    nodes = simplify(made, Scope(made.nodes, frozenset(["y", "z"]), frozenset("x")))
    assert nodes["y"].op == "Shape"


def test_a_reshape_to_its_own_computed_shape_goes():
    nodes = simplified(
        matrix(None, 4), shape_of("s", "x"), *first("n", "s"), const("four", 4, INT),
        pack("t", "n", "four"), reshape("r", "x", "t"), unary("y", "Neg", "r"),
    )  # fmt: skip
    assert ops(nodes) == ["Neg", "Placeholder"]


def test_a_reshape_gets_a_constant_for_a_computed_target():
    nodes = simplified(
        matrix(None, 12), shape_of("s", "x"), *first("n", "s"), const("three", 3, INT),
        const("four", 4, INT), pack("t", "n", "three", "four"), reshape("y", "x", "t"),
    )  # fmt: skip
    assert ops(nodes) == ["Const", "Placeholder", "Reshape"]
    made = nodes[nodes["y"].inputs[1]]
    assert elements(attrs.message(made.attrs["value"]).tensor) == [-1, 3, 4]


def test_a_reshape_keeps_a_target_that_need_not_fit():
    nodes = simplified(
        matrix(None, 12), placeholder("z", FLOAT, (None,)), shape_of("s", "z"), *first("n", "s"),
        const("four", 4, INT), pack("t", "n", "four"), reshape("r", "x", "t"),
        unary("y", "Neg", "r", "^z"), fed=("x", "z"),
    )  # fmt: skip
    assert "t" in nodes


def test_a_shape_stays_where_its_tensor_may_refuse_an_input():
    """Nobody but the Shape asks for the product, which fails for other sizes of x."""
    product = node("m", "MatMul", "x", "w", T=FLOAT, transpose_a=False, transpose_b=False)
    given = [matrix(2, None), const("w", [[1.0, 2.0]]), product, shape_of("s", "m")]
    nodes = simplified(*given, node("y", "Cast", "s", SrcT=INT, DstT=FLOAT, Truncate=False))
    assert "m" in nodes
    nodes = simplified(
        *given, node("y", "Cast", "s", SrcT=INT, DstT=FLOAT, Truncate=False), unary("z", "Neg", "m"),
        wanted=("y", "z"),
    )  # fmt: skip
    assert "Shape" not in ops(nodes)


@pytest.mark.parametrize(("order", "goes"), [([0, 1], True), ([1, 0], False)])
def test_a_transpose(order, goes):
    nodes = simplified(
        matrix(None, None), const("p", order, INT),
        node("t", "Transpose", "x", "p", T=FLOAT, Tperm=INT), unary("y", "Neg", "t"),
    )  # fmt: skip
    assert ("t" not in nodes) is goes


def test_adding_a_zero_stays_for_floats_and_goes_for_integers():
    def nodes_with(dtype, zero):
        return simplified(
            placeholder("x", dtype, (None,)), const("zero", zero, dtype),
            node("a", "AddV2", "x", "zero", T=dtype), node("y", "Neg", "a", T=dtype),
        )  # fmt: skip

    assert "a" in nodes_with(FLOAT, 0.0)
    assert "a" not in nodes_with(INT, 0)


@pytest.mark.parametrize(
    ("before", "op", "number", "goes"),
    [
        ("Mul", "Mul", 1.0, True),
        ("MatMul", "RealDiv", 1.0, True),
        ("Neg", "Mul", 1.0, False),  # a signalling NaN comes through
        ("Mul", "Mul", 2.0, False),
        ("Mul", "Sub", 0.0, True),
        ("Mul", "Sub", -0.0, False),
        ("Mul", "AddV2", -0.0, True),
        ("Mul", "AddV2", 0.0, False),  # may be -0.0
        ("plus 3", "AddV2", 0.0, True),
        ("plus 0", "AddV2", 0.0, True),
        ("plus -0", "AddV2", 0.0, False),
        ("plus tiny", "AddV2", 0.0, False),  # what is left of a difference may be flushed to -0.0
    ],
)
def test_arithmetic_that_changes_no_bit_of_the_result_of_arithmetic_goes(before, op, number, goes):
    added = {"plus 3": 3.0, "plus 0": 0.0, "plus -0": -0.0, "plus tiny": 1e-38}
    first = {
        "MatMul": node("a", "MatMul", "x", "x", T=FLOAT),
        "Neg": unary("a", "Neg", "x"),
    }.get(before, node("a", "AddV2" if before in added else "Mul", "x", "c", T=FLOAT))
    nodes = simplified(
        placeholder("x", FLOAT, (None, 4)), const("c", added.get(before, 3.0)), first,
        const("n", number), node("b", op, "a", "n", T=FLOAT), unary("y", "Neg", "b"),
    )  # fmt: skip
    assert ("b" not in nodes) is goes


@pytest.mark.parametrize(
    ("sizes", "layout", "goes"),
    [
        ((None, 2), "NHWC", True),
        ((None, None), "NHWC", False),  # it refuses another number of channels
        ((2, 5), "NHWC", False),
        ((None, 2, 4, 4), "NCHW", True),
    ],
)
def test_a_bias_of_nothing_goes_where_its_size_is_right_for_certain(sizes, layout, goes):
    nodes = simplified(
        placeholder("x", FLOAT, sizes), const("c", 3.0), node("a", "AddV2", "x", "c", T=FLOAT),
        const("n", [0.0, 0.0]), node("b", "BiasAdd", "a", "n", T=FLOAT, data_format=layout),
        unary("y", "Neg", "b"),
    )  # fmt: skip
    assert ("b" not in nodes) is goes


def test_the_ends_of_an_interval_go_where_they_are_0_and_1():
    drawn = node("u", "RandomUniform", "s", T=INT, dtype=FLOAT, seed=0, seed2=0)
    nodes = simplified(
        const("s", [2], INT), drawn, const("one", 1.0), const("zero", 0.0),
        unary("m", "Mul", "u", "one"), unary("a", "Add", "m", "zero"), unary("y", "Neg", "a"), fed=(),
    )  # fmt: skip
    assert nodes["y"].inputs == ("u",)


def test_what_may_leave_a_tensor_dead_stays():
    """A target that waits in one branch of a TF1 cond: without it the tensor would be alive in both."""
    nodes = simplified(
        matrix(2), placeholder("p", DType.BOOL), unary("s", "Switch", "x", "p"),
        unary("pivot", "Identity", "s:1"),
        const("t", [2], INT)._replace(inputs=("^pivot",)), reshape("r", "x", "t"),
        node("y", "Merge", "s", "r", T=FLOAT, N=2), fed=("x", "p"),
    )  # fmt: skip
    assert "r" in nodes


# ---------------------------------------------------------------- duplicates


def test_the_same_op_on_the_same_tensors_is_there_once():
    nodes = simplified(
        placeholder("x"), const("a", 1.0), const("b", 1.0), unary("c", "Mul", "x", "a"),
        unary("d", "Mul", "x", "b"), unary("y", "Sub", "c", "d"),
    )  # fmt: skip
    assert sorted(nodes) == ["a", "c", "x", "y"]
    assert nodes["y"].inputs == ("c", "c")


def test_zeros_of_either_sign_are_two_constants():
    nodes = simplified(
        placeholder("x"), const("a", 0.0), const("b", -0.0), unary("c", "Div", "x", "a"),
        unary("d", "Div", "x", "b"), unary("y", "Sub", "c", "d"),
    )  # fmt: skip
    assert {"a", "b", "c", "d"} <= set(nodes)


def test_large_constants_of_one_digest_are_one(tmp_path):
    data = bytes(range(256)) * 8
    nodes = simplified(
        placeholder("x", FLOAT, (None,)), large_const("a", tmp_path / "a", data, (512,)),
        large_const("b", tmp_path / "b", data, (512,)), unary("c", "Mul", "x", "a"),
        unary("y", "Add", "c", "b"),
    )  # fmt: skip
    assert ops(nodes).count("Const") == 1


@pytest.mark.parametrize(
    "op", ["RandomStandardNormal", "Placeholder", "FractionalMaxPool", "MyCustomOp"]
)
def test_what_may_give_something_else_each_time_is_left_alone(op):
    values = {"dtype": FLOAT, "T": INT} if op == "RandomStandardNormal" else {"dtype": FLOAT}
    given = () if op == "Placeholder" else ("s",)
    nodes = simplified(
        placeholder("x"), const("s", [2], INT), node("a", op, *given, **values),
        node("b", op, *given, **values), unary("y", "Sub", "a", "b", "^s", "^x"),
    )  # fmt: skip
    assert {"a", "b"} <= set(nodes)


def test_of_duplicates_the_one_that_is_known_outside_stays():
    nodes = simplified(
        placeholder("x"), unary("a", "Neg", "x"), unary("y", "Neg", "x"), unary("z", "Exp", "a"),
        unary("y2", "Neg", "x"), wanted=("y", "y2", "z"),
    )  # fmt: skip
    assert sorted(nodes) == ["x", "y", "y2", "z"]


def test_calls_are_not_merged():
    random = function("f", {"a": FLOAT}, {"r": ("a", FLOAT)})
    nodes = simplified(
        placeholder("x"), call("c", "f", ["x"], [FLOAT], [FLOAT]),
        call("d", "f", ["x"], [FLOAT], [FLOAT]), unary("y", "Sub", "c", "d"), functions=[random],
    )  # fmt: skip
    assert {"c", "d"} <= set(nodes)


# ---------------------------------------------------------------- constants in few bytes


def values_of(made):
    return elements(attrs.message(made.attrs["value"]).tensor)


def test_a_constant_of_one_value_is_written_once(tmp_path):
    small = compacted(const("c", [0.5] * 100))
    assert len(small.attrs["value"]) < 30
    assert values_of(small) == [0.5] * 100
    data = bytes(4) * 100_000
    large = compacted(large_const("c", tmp_path / "c", data, (100_000,)))
    assert large.tensor is None
    assert values_of(large) == [0.0] * 100_000


def test_a_tail_of_one_value_is_written_once():
    made = compacted(const("c", [3, 1, *[2] * 60], DType.INT64))
    assert len(made.attrs["value"]) < 30
    assert values_of(made) == [3, 1, *[2] * 60]


def test_zeros_are_written_once():
    """An empty list would do for TensorFlow; OpenCV does not read it."""
    made = compacted(const("c", [0.0] * 30))
    assert list(attrs.message(made.attrs["value"]).tensor.float_val) == [0.0]
    assert values_of(made) == [0.0] * 30
    assert compacted(made) == made


@pytest.mark.parametrize("values", [[1.0, 2.0] * 30, [2.0] * 30 + [1.0] * 3, [1.0], -0.0])
def test_other_constants_stay_as_they_are(values):
    made = const("c", values)
    assert compacted(made) == made


def test_a_nan_stays_bit_for_bit():
    data = bytes.fromhex("0100807f") * 50
    made = constant("c", FLOAT, (50,), data)
    assert compacted(made) == made


def test_minus_zero_keeps_its_sign():
    made = compacted(const("c", [-0.0] * 20))
    assert str(values_of(made)[19]) == "-0.0"
