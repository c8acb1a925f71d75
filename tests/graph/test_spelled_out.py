import struct

import pytest

from freezeflow.graph.constants import value_of
from freezeflow.graph.spelled_out import BATCH_NORMS, spelled_out, trains
from freezeflow.graph.verify import verify
from freezeflow.values import DType
from tests.graphs import const, graph, model, node, placeholder, spec

OPS = frozenset(["Erfc", *BATCH_NORMS])


def made(*nodes):
    ends = node("y", "Identity", nodes[-1].name, T=DType.FLOAT)
    whole = graph(placeholder("x", shape=(2,)), *nodes, ends)
    return model(whole, {"x": spec("x", shape=(2,))}, {"y": spec("y", shape=(2,))})


def test_erfc_is_one_minus_erf():
    found = spelled_out(made(node("e", "Erfc", "x", T=DType.FLOAT)), OPS)
    assert verify(found) == ()
    nodes = found.graph.nodes
    assert [nodes[name].op for name in ("e/one", "e/erf", "e")] == ["Const", "Erf", "Sub"]
    assert nodes["e"].inputs == ("e/one", "e/erf")
    assert nodes["e/erf"].inputs == ("x",)


def test_names_that_are_taken_are_left_alone():
    taken = made(
        node("e/one", "Identity", "x", T=DType.FLOAT), node("e", "Erfc", "e/one", T=DType.FLOAT)
    )
    found = spelled_out(taken, OPS)
    assert verify(found) == ()
    nodes = found.graph.nodes
    assert nodes["e/one"] == taken.graph.nodes["e/one"]
    assert nodes["e"].inputs == ("e/one_", "e/erf")
    assert nodes["e/erf"].inputs == ("e/one",)


def norm(**values):
    given = {"T": DType.FLOAT, "data_format": "NHWC", "epsilon": 0.001, **values}
    return [
        const("scale", [1.0, 2.0]),
        const("none", []),
        node("n", "FusedBatchNorm", "x", "scale", "scale", "none", "none", "^scale", **given),
    ]


def test_a_batch_norm_in_training_mode_gets_its_statistics():
    found = spelled_out(made(*norm(is_training=True)), OPS)
    assert verify(found) == ()
    nodes = found.graph.nodes
    assert nodes["n"].inputs == ("x", "scale", "scale", "n/mean", "n/variance", "^scale")
    assert not trains(nodes["n"])
    assert [nodes[f"n/{part}"].op for part in ("mean", "squares", "variance")] == [
        "Mean",
        "SquaredDifference",
        "Mean",
    ]


@pytest.mark.parametrize(
    ("values", "more"),
    [
        ({"is_training": False}, []),
        ({"data_format": "HWNC"}, []),
        ({"T": DType.HALF}, []),
        ({}, [node("m", "Identity", "n:1", T=DType.FLOAT)]),
    ],
)
def test_batch_norms_that_stay(values, more):
    model = made(*norm(**{"is_training": True, **values}), *more)
    assert spelled_out(model, OPS).graph.nodes == model.graph.nodes


def test_channels_first_become_plain_arithmetic():
    found = spelled_out(made(*norm(is_training=True, data_format="NCHW")), OPS)
    assert verify(found) == ()
    assert not [node for node in found.graph.nodes.values() if "data_format" in node.attrs]
    assert found.graph.nodes["n"].op == "AddV2"
    assert found.graph.nodes["n"].inputs[-1] == "^scale"


def test_ops_that_are_not_asked_for_stay():
    model = made(*norm(is_training=True))
    assert spelled_out(model, {"Erfc"}).graph.nodes == model.graph.nodes


def test_a_band_of_a_matrix_is_a_choice():
    ends = [const(name, number, DType.INT64) for name, number in (("low", -1), ("high", 0))]
    band = node("b", "MatrixBandPart", "x", "low", "high", T=DType.FLOAT, Tindex=DType.INT64)
    found = spelled_out(made(*ends, band), {"MatrixBandPart"})
    assert verify(found) == ()
    assert found.graph.nodes["b"].op == "SelectV2"
    assert found.graph.nodes["b"].inputs == ("b/inside", "x", "b/nothing")


def test_a_rank_is_how_many_sizes_there_are():
    whole = graph(
        placeholder("x", shape=None),
        node("r", "Rank", "x", "^x", T=DType.FLOAT),
        node("y", "Identity", "r", T=DType.INT32),
    )
    given = model(whole, {"x": spec("x", shape=None)}, {"y": spec("y", DType.INT32, ())})
    found = spelled_out(given, frozenset(["Rank"]))
    assert verify(found) == ()
    nodes = found.graph.nodes
    assert [nodes[name].op for name in ("r/sizes", "r")] == ["Shape", "Size"]
    assert nodes["r/sizes"].inputs == ("x", "^x")


def chosen(condition, *shape):
    whole = graph(
        placeholder("c", DType.BOOL, condition),
        placeholder("x", shape=shape),
        node("s", "Select", "c", "x", "x", "^x", T=DType.FLOAT),
        node("y", "Identity", "s", T=DType.FLOAT),
    )
    inputs = {"c": spec("c", DType.BOOL, condition), "x": spec("x", shape=shape)}
    return model(whole, inputs, {"y": spec("y", shape=shape)})


def test_a_vector_that_chooses_rows_becomes_a_column():
    found = spelled_out(chosen((None,), None, 3, 2), frozenset(["Select"]))
    assert verify(found) == ()
    nodes = found.graph.nodes
    assert nodes["s"].op == "SelectV2"
    assert nodes["s"].inputs == ("s/column", "x", "x", "^x")
    assert value_of(nodes["s/shape"])[2] == struct.pack("<3i", -1, 1, 1)


@pytest.mark.parametrize(("condition", "shape"), [((2,), (2,)), ((2, 3), (2, 3)), ((), (2, 3))])
def test_other_choices_stay(condition, shape):
    given = chosen(condition, *shape)
    assert spelled_out(given, frozenset(["Select"])).graph.nodes == given.graph.nodes
