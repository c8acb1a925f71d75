"""Convolutions in groups as one for each group."""

import pytest

from freezeflow.graph.grouped import split_groups
from freezeflow.graph.verify import verify
from freezeflow.values import DType
from tests.graphs import const, graph, model, node, placeholder, spec

OPS = frozenset(["Conv2D", "Conv3D"])


def made(filters, *, op="Conv2D", data_format="NHWC", shape=(1, 5, 5, 4), **values):
    conv = node(
        "c",
        op,
        "x",
        "w",
        "^w",
        T=DType.FLOAT,
        strides=[1] * len(shape),
        padding="SAME",
        data_format=data_format,
        **values,
    )
    nodes = [placeholder("x", shape=shape), const("w", zeros(filters)), conv]
    ends = node("y", "Identity", "c", T=DType.FLOAT)
    return model(
        graph(*nodes, ends), {"x": spec("x", shape=shape)}, {"y": spec("y", shape=(1, 5, 5, 6))}
    )


def zeros(shape):
    return [zeros(shape[1:]) for _ in range(shape[0])] if shape else 0.0


@pytest.mark.parametrize(
    ("filters", "values", "axis"),
    [
        ((3, 3, 2, 6), {}, 3),
        ((3, 3, 2, 6), {"data_format": "NCHW", "shape": (1, 4, 5, 5)}, 1),
        ((1, 3, 3, 2, 6), {"op": "Conv3D", "data_format": "NDHWC", "shape": (1, 2, 5, 5, 4)}, 4),
    ],
)
def test_each_group_gets_its_own(filters, values, axis):
    found = split_groups(made(filters, **values), OPS)
    assert verify(found) == ()
    nodes = found.graph.nodes
    assert nodes["c"].op == "ConcatV2"
    assert nodes["c"].inputs == ("c/group0", "c/group1", "c/axis")
    assert nodes["c/group1"].inputs == ("c/inputs:1", "c/filters:1", "^w")
    assert nodes["c/group1"].op == values.get("op", "Conv2D")
    assert nodes["c/axis"].attrs["value"] == const("a", axis, DType.INT32).attrs["value"]


def test_one_channel_a_group_is_a_depthwise_convolution():
    found = split_groups(made((3, 3, 1, 8), use_cudnn_on_gpu=True), OPS)
    assert verify(found) == ()
    assert found.graph.nodes["c"].op == "DepthwiseConv2dNative"
    assert found.graph.nodes["c"].inputs == ("x", "c/filters", "^w")


@pytest.mark.parametrize(
    ("filters", "values", "ops"),
    [
        ((3, 3, 4, 6), {}, OPS),
        ((3, 3, 2, 6), {}, {"Conv3D"}),
        ((3, 3, 2, 6), {"shape": (1, 5, 5, None)}, OPS),
        ((3, 3, 3, 6), {}, OPS),
    ],
)
def test_convolutions_that_stay(filters, values, ops):
    model = made(filters, **values)
    assert split_groups(model, ops).graph.nodes == model.graph.nodes
