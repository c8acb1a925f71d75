"""What has an effect, and which control edges therefore stay."""

from __future__ import annotations

import pytest

from freezeflow.graph import attrs
from freezeflow.graph.effects import Effects, awaited, drop_idle_control, order_matters
from freezeflow.values import DType
from tests.graphs import call, const, function, graph, node, placeholder

F = DType.FLOAT


@pytest.mark.parametrize(
    ("op", "effect"),
    [
        ("Assert", True), ("PrintV2", True), ("WriteFile", True), ("PyFunc", True),
        ("AssignVariableOp", True), ("LookupTableInsertV2", True), ("InitializeTableV2", True),
        ("Mystery", True), ("ReadVariableOp", False), ("VarHandleOp", False), ("HashTableV2", False),
        ("RandomUniform", False), ("LookupTableFindV2", False), ("AddV2", False), ("TensorArrayV3", False),
    ],
)  # fmt: skip
def test_ops(op, effect):
    assert Effects(graph()).node(node("n", op)) is effect


def test_a_call_does_what_its_function_does():
    quiet = function("quiet", {"a": F}, {"r": ("a", F)})
    loud = function("loud", {"a": F}, {"r": ("a", F)}, node("say", "PrintV2", "a"))
    outer = function("outer", {"a": F}, {"r": ("c", F)}, call("c", "loud", ["a"], [F], [F]))
    made = graph(functions=[quiet, loud, outer])
    effects = Effects(made)
    found = {n: effects.node(call("n", n, ["x"], [F], [F])) for n in made.functions}
    assert found == {"quiet": False, "loud": True, "outer": True}
    assert effects.node(node("n", "loud", "x"))


def test_recursion_ends():
    again = function("again", {"a": F}, {"r": ("c", F)}, call("c", "again", ["a"], [F], [F]))
    assert not Effects(graph(functions=[again])).function("again")


def test_control_edges_on_what_nobody_waits_for_go():
    made = graph(
        placeholder("x"), const("c", 1.0), node("say", "PrintV2", "x"), node("after", "NoOp", "^say"),
        node("y", "Neg", "x", "^c", "^after", T=F),
    )  # fmt: skip
    kept = drop_idle_control(
        made.nodes, awaited(made.nodes, order_matters(made, called=made.nodes))
    )
    assert kept["y"].inputs == ("x", "^after")


def test_behind_a_switch_control_edges_stay():
    made = graph(
        placeholder("x"), placeholder("p", DType.BOOL), node("s", "Switch", "x", "p", T=F),
        node("pivot", "Identity", "s:1", T=F), const("c", 1.0)._replace(inputs=("^pivot",)),
    )  # fmt: skip
    kept = drop_idle_control(
        made.nodes, awaited(made.nodes, order_matters(made, called=made.nodes))
    )
    assert kept["c"].inputs == ("^pivot",)


def test_a_read_before_a_write_is_waited_for():
    def ordered(*more):
        made = graph(
            node("t", "MutableHashTableV2", key_dtype=F, value_dtype=F), placeholder("x"), const("d", 0.0),
            node("find", "LookupTableFindV2", "t", "x", "d", Tin=F, Tout=F), *more,
        )  # fmt: skip
        return order_matters(made, called=made.nodes)(made.nodes["find"])

    insert = node("put", "LookupTableInsertV2", "t", "x", "x", "^find", Tin=F, Tout=F)
    assert ordered(insert)
    assert not ordered()


def test_what_only_initializers_change_orders_no_call():
    insert = node("put", "LookupTableInsertV2", "t", "x", "x", Tin=F, Tout=F)
    made = graph(
        node("t", "MutableHashTableV2", key_dtype=F, value_dtype=F), placeholder("x"), insert,
        node("size", "LookupTableSizeV2", "t"),
    )  # fmt: skip
    assert not order_matters(made, called=["t", "size"])(made.nodes["size"])


def test_a_loop_that_reads_a_variable_has_no_effect():
    body = function("body", {"h": DType.RESOURCE}, {"r": ("h", DType.RESOURCE)},
                    node("r", "ReadVariableOp", "h", dtype=F))  # fmt: skip
    loop = node("n", "While", "h", T=[DType.RESOURCE], cond=attrs.of_function("body"),
                body=attrs.of_function("body"))  # fmt: skip
    assert not Effects(graph(functions=[body])).node(loop)
