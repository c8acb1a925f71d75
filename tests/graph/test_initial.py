"""Values that the init op gives to variables which no checkpoint holds."""

from __future__ import annotations

import dataclasses

import pytest

from freezeflow.graph import attrs
from freezeflow.graph.initial import initial_values
from freezeflow.values import DType
from tests.graphs import const, graph, model, node

F = DType.FLOAT


def values(*nodes, init=("init",)):
    handle = node("v", "VarHandleOp", dtype=F, shape=attrs.of_shape(()))
    return initial_values(model(graph(handle, *nodes), {}, {}, init=init))


def assign(value, handle="v"):
    return node("init", "AssignVariableOp", handle, value, dtype=F)


def test_a_constant():
    assert values(const("c", 1.0), assign("c")) == {"v": "c"}


def test_what_is_computed_from_constants():
    assert values(const("c", 1.0), node("n", "Neg", "c", T=F), assign("n")) == {"v": "n"}


def test_through_an_identity():
    same = node("i", "Identity", "v", T=DType.RESOURCE)
    assert values(const("c", 1.0), same, assign("c", "i")) == {"v": "c"}


def test_an_assignment_that_no_init_op_runs():
    assert values(const("c", 1.0), assign("c"), init=()) == {}


@pytest.mark.parametrize(
    "value",
    [
        node("c", "RandomUniform", "shape", T=DType.INT32, dtype=F),
        node("c", "ReadVariableOp", "v", dtype=F),
        node("c", "Mystery"),
    ],
    ids=lambda n: n.op,
)
def test_what_differs_from_run_to_run(value):
    assert values(const("shape", [], DType.INT32), value, assign("c")) == {}


def test_a_variable_that_is_written_twice():
    add = node("add", "AssignAddVariableOp", "v", "c", dtype=F)
    assert values(const("c", 1.0), add, assign("c"), init=("init", "add")) == {}


def test_a_value_from_a_saved_variable_that_the_initialiser_writes_too():
    nodes = [
        node("v", "VarHandleOp", dtype=F, shape=attrs.of_shape(())),
        node("u", "VarHandleOp", dtype=F, shape=attrs.of_shape(())),
        const("c", 1.0),
        node("first", "AssignVariableOp", "u", "c", dtype=F),
        node("r", "ReadVariableOp", "u", dtype=F),
        assign("r"),
    ]
    local = model(graph(*nodes), {}, {}, init=("first", "init"))
    assert initial_values(local) == {"u": "c", "v": "r"}
    saved = dataclasses.replace(local, variables={"u": const("u", 2.0)})
    assert initial_values(saved) == {"u": "c"}
