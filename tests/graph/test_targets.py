"""Graphs for older releases of TensorFlow."""

from __future__ import annotations

import dataclasses

import pytest

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.targets import for_release, releases
from freezeflow.values import DType
from tests.graphs import graph, model, node, placeholder, spec

F = DType.FLOAT


def product(**more):
    """``MatMul`` got ``grad_a`` and ``grad_b`` with 2.16."""
    nodes = [placeholder("x"), placeholder("w"), node("y", "MatMul", "x", "w", T=F, **more)]
    made = graph(*nodes)
    return model(made, {"x": spec("x"), "w": spec("w")}, {"y": spec("y")})


def with_producer(made, number, **more):
    return dataclasses.replace(made, graph=dataclasses.replace(made.graph, producer=number, **more))


def test_the_releases_are_in_order():
    assert releases()[0] == "1.15"
    assert {"2.4", "2.16", "2.21"} <= set(releases())


def test_attributes_that_came_later_go_at_their_default():
    made = product(grad_a=attrs.of_bool(False), grad_b=attrs.of_bool(False))
    assert not {"grad_a", "grad_b"} & set(for_release(made, "2.15").graph.nodes["y"].attrs)
    assert {"grad_a", "grad_b"} <= set(for_release(made, "2.16").graph.nodes["y"].attrs)


def test_attributes_with_another_value_are_refused():
    made = product(grad_a=attrs.of_bool(True))
    with pytest.raises(ModelRefused, match=r"grad_a of MatMul came with .*not at its default"):
        for_release(made, "2.15")
    assert for_release(made, "2.16").graph.nodes["y"].attrs["grad_a"] == attrs.of_bool(True)


def test_ops_that_came_later_are_listed():
    made = model(
        graph(placeholder("x"), node("y", "Softsign", "x", T=F), node("z", "LeakyRelu", "y", T=F)),
        {"x": spec("x")},
        {"z": spec("z")},
    )
    assert for_release(made, "1.15").graph.nodes == made.graph.nodes
    key = node("k", "StatelessRandomGetKeyCounter", "x", Tseed=DType.INT64)
    later = model(graph(placeholder("x", DType.INT64), key), {}, {"k": spec("k", DType.UINT64)})
    with pytest.raises(ModelRefused, match="op StatelessRandomGetKeyCounter came with") as error:
        for_release(later, "2.3")
    assert "later release" in error.value.hint


def test_the_graphs_version_is_that_of_the_release():
    assert for_release(with_producer(product(), 2474), "2.4").graph.producer == 561
    assert for_release(with_producer(product(), 27), "2.4").graph.producer == 27
    with pytest.raises(ModelRefused, match="asks for readers of version 900"):
        for_release(with_producer(product(), 2474, min_consumer=900), "2.4")
