"""Calls replaced by bodies: names, effects, control edges, placeholders, and what must not blow up."""

from __future__ import annotations

import dataclasses

import pytest

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs, inline
from freezeflow.graph.freeze import freeze_variables
from freezeflow.graph.graph import Arg, Result
from freezeflow.graph.inline import inline_calls, inline_model
from freezeflow.graph.text import model_text
from freezeflow.graph.verify import verify
from freezeflow.values import DType
from tests.graphs import (
    call,
    const,
    function,
    graph,
    model,
    node,
    placeholder,
    placeholder_attr,
    spec,
)

F = DType.FLOAT
BOOL = DType.BOOL
RESOURCE = DType.RESOURCE


def relu(name, *inputs):
    return node(name, "Relu", *inputs, T=F)


def guard(**more):
    """A function with an assertion that nothing but its control result needs."""
    return function(
        "guard", {"ok": BOOL, "a": F}, {"r": ("y", F)},
        const("text", b"bad", DType.STRING),
        node("assert", "Assert", "ok", "text", T=(DType.STRING,), summarize=3),
        relu("y", "a"),
        control_results=["assert"], stateful=True, **more,
    )  # fmt: skip


def double(name="double"):
    return function(name, {"a": F}, {"r": ("sum", F)}, node("sum", "AddV2", "a", "a", T=F))


def of_nodes(*nodes, functions=(), output="y"):
    return model(
        graph(placeholder("ok", BOOL), placeholder("x"), *nodes, functions=functions),
        {"ok": spec("ok", BOOL), "x": spec("x")},
        {"y": spec(output)},
    )


def inlined(made):
    assert verify(made) == ()
    result = inline_model(made)
    assert verify(result) == ()
    return result


def inputs_of(made, name):
    return made.graph.nodes[name].inputs


# ---------------------------------------------------------------- plain


def test_a_call_becomes_its_body(golden):
    made = of_nodes(
        call("twice", "double", ["x"], [F], [F]), relu("y", "twice"), functions=[double()]
    )
    golden("freeze/call.txt", model_text(inlined(made)))


def test_an_output_that_is_a_call_follows():
    made = of_nodes(call("twice", "double", ["x"], [F], [F]), functions=[double()], output="twice")
    (signature,) = inlined(made).signatures.values()
    assert signature.outputs["y"].tensor == "twice/sum"


def test_a_function_that_returns_its_argument():
    back = function("back", {"a": F, "b": F}, {"r": ("b", F), "s": ("a", F)})
    made = of_nodes(
        relu("p", "x"),
        call("c", "back", ["x", "p"], [F, F], [F, F]),
        relu("y", "c:1"),
        functions=[back],
    )
    assert inputs_of(inlined(made), "y") == ("x",)


def test_default_names_of_calls_leave_no_trace():
    made = of_nodes(
        call("StatefulPartitionedCall_3", "double", ["x"], [F], [F]),
        relu("y", "StatefulPartitionedCall_3"),
        functions=[double()],
    )
    assert inputs_of(inlined(made), "y") == ("sum",)


def test_names_that_clash_get_numbers():
    made = of_nodes(
        relu("c/sum", "x"),
        relu("c/sum_1", "x"),
        call("c", "double", ["x"], [F], [F]),
        node("y", "AddN", "c", "c/sum", "c/sum_1", T=F, N=3),
        functions=[double()],
    )
    assert inputs_of(inlined(made), "y") == ("c/sum_2", "c/sum", "c/sum_1")


def test_a_call_in_a_function_that_stays():
    """The body of an If is no call; the call in it is inlined there."""
    branch = function(
        "branch", {"a": F}, {"r": ("twice", F)}, call("twice", "double", ["a"], [F], [F])
    )
    made = of_nodes(
        node("y", "If", "ok", "x", Tcond=BOOL, Tin=[F], Tout=[F], output_shapes=attrs.of_shapes([]),
             then_branch=attrs.of_function("branch"), else_branch=attrs.of_function("double")),
        functions=[double(), branch],
    )  # fmt: skip
    result = inlined(made)
    assert [n.op for n in result.graph.functions["branch"].nodes.values()] == ["AddV2"]
    assert result.graph.functions["branch"].results[0].tensor == "twice/sum"


def test_a_function_called_by_its_name():
    made = of_nodes(node("c", "double", "x"), relu("y", "c"), functions=[double()])
    assert inputs_of(inlined(made), "y") == ("c/sum",)


def test_noinline_and_compiled_functions_are_inlined():
    marked = dataclasses.replace(double(), attrs={"_noinline": attrs.of_bool(True)})
    compiled = dataclasses.replace(double("xla"), attrs={"_XlaMustCompile": attrs.of_bool(True)})
    made = of_nodes(
        call("c", "double", ["x"], [F], [F]), call("d", "xla", ["c"], [F], [F]), relu("y", "d"),
        functions=[marked, compiled],
    )  # fmt: skip
    assert {n.op for n in inlined(made).graph.nodes.values()} == {"Placeholder", "AddV2", "Relu"}


def test_functions_that_nobody_names_any_more_are_gone():
    made = of_nodes(call("c", "double", ["x"], [F], [F]), relu("y", "c"), functions=[double()])
    assert inlined(made).graph.functions == {}


# ---------------------------------------------------------------- effects and control edges


def test_an_effect_happens_when_any_result_is_used(golden):
    made = of_nodes(
        call("c", "guard", ["ok", "x"], [BOOL, F], [F]), relu("y", "c"), functions=[guard()]
    )
    golden("freeze/effect.txt", model_text(inlined(made)))


def test_who_waits_for_a_call_waits_for_its_effects_and_its_inputs():
    made = of_nodes(
        relu("p", "x"),
        call("c", "guard", ["ok", "p"], [BOOL, F], [F]),
        relu("y", "x", "^c"),
        functions=[guard()],
    )
    result = inlined(made)
    (waits,) = [i for i in inputs_of(result, "y") if i.startswith("^")]
    assert set(result.graph.nodes[waits[1:]].inputs) == {"^ok", "^p", "^c/assert"}


def test_what_a_call_waits_for_its_effects_wait_for():
    made = of_nodes(
        const("word", b"first", DType.STRING),
        node("before", "PrintV2", "word"),
        call("c", "guard", ["ok", "x"], [BOOL, F], [F])._replace(inputs=("ok", "x", "^before")),
        relu("y", "c"),
        functions=[guard()],
    )
    result = inlined(made)
    assert "^before" in inputs_of(result, "c/assert")
    assert "^before" in inputs_of(result, "c/text")
    assert "^before" not in inputs_of(result, "c/y")


def test_an_effect_two_calls_deep():
    outer = function(
        "outer", {"ok": BOOL, "a": F}, {"r": ("inner", F)},
        call("inner", "guard", ["ok", "a"], [BOOL, F], [F])._replace(op="StatefulPartitionedCall"),
        control_results=["inner"], stateful=True,
    )  # fmt: skip
    made = of_nodes(
        call("c", "outer", ["ok", "x"], [BOOL, F], [F]), relu("y", "c"), functions=[guard(), outer]
    )
    result = inlined(made)
    reached, stack = set(), ["y"]
    while stack:
        name = stack.pop().lstrip("^")
        if name not in reached:
            reached.add(name)
            stack += inputs_of(result, name)
    assert "c/inner/assert" in reached


def test_an_init_node_that_is_a_call_keeps_its_name():
    made = dataclasses.replace(
        of_nodes(
            call("start", "guard", ["ok", "x"], [BOOL, F], [F]), relu("y", "x"), functions=[guard()]
        ),
        init=("start",),
    )
    result = inlined(made)
    assert result.graph.nodes["start"].op == "NoOp"
    assert "^start/assert" in inputs_of(result, "start")


def test_a_dead_call_stays_dead():
    """Behind a Switch a body's constants must not run when its branch is not taken."""
    always = function(
        "always", {"a": F}, {"r": ("y", F)},
        const("no", False, BOOL), const("text", b"bad", DType.STRING),
        node("assert", "Assert", "no", "text", T=(DType.STRING,), summarize=3),
        relu("y", "a"), control_results=["assert"], stateful=True,
    )  # fmt: skip
    made = of_nodes(
        node("switch", "Switch", "x", "ok", T=F),
        call("c", "always", ["switch:1"], [F], [F]),
        relu("other", "switch"),
        node("y", "Merge", "other", "c", T=F, N=2),
        functions=[always],
    )
    result = inlined(made)
    for source in ("c/no", "c/text"):
        (gate,) = inputs_of(result, source)
        assert inputs_of(result, gate[1:]) == ("switch:1",)


# ---------------------------------------------------------------- placeholders


def generic():
    """Adds as many times as the call says, in the dtype that the call says."""
    adds = node("sum", "AddN", "a", "a", T=placeholder_attr("T"), N=2)
    made = function("generic", {}, {}, adds)
    return dataclasses.replace(
        made,
        args=(Arg("a", DType.INVALID, "T"),),
        results=(Result("r", "sum", DType.INVALID, "T"),),
        attr_defs=(b"\x0a\x01T\x12\x04type",),
    )


def test_a_placeholder_gets_the_calls_value():
    made = of_nodes(node("c", "generic", "x", T=F), relu("y", "c"), functions=[generic()])
    assert attrs.to_type(inline_model(made).graph.nodes["c/sum"].attrs["T"]) is F


def test_a_placeholder_without_a_value_is_refused():
    made = of_nodes(call("c", "generic", ["x"], [F], [F]), relu("y", "c"), functions=[generic()])
    with pytest.raises(ModelRefused, match="attribute 'T' has no value"):
        inline_model(made)


def test_one_function_with_two_bindings_in_branches():
    """What an If names stays a function: one for each set of values."""
    shapes = attrs.of_shapes([])

    def choice(name, dtype, inputs):
        branch = attrs.of_function("generic", {"T": attrs.of_type(dtype)})
        return node(name, "If", "ok", *inputs, Tcond=BOOL, Tin=[dtype], Tout=[dtype],
                    output_shapes=shapes, then_branch=branch, else_branch=branch)  # fmt: skip

    made = of_nodes(
        choice("a", F, ["x"]),
        node("n", "Cast", "a", SrcT=F, DstT=DType.INT32),
        choice("b", DType.INT32, ["n"]),
        node("y", "Cast", "b", SrcT=DType.INT32, DstT=F),
        functions=[generic()],
    )
    result = inline_model(made)
    assert verify(result) == ()
    dtypes = [f.args[0].dtype for f in result.graph.functions.values()]
    assert sorted(dtypes) == [F, DType.INT32]


# ---------------------------------------------------------------- depth and size


def test_a_call_with_too_few_inputs_is_refused():
    made = of_nodes(call("c", "double", [], [], [F]), relu("y", "c"), functions=[double()])
    with pytest.raises(ModelRefused, match="gives 0 inputs, function 'double' takes 1"):
        inline_model(made)


@pytest.mark.parametrize("callee", ["self", "other"])
def test_recursion_is_refused(callee):
    one = function("self", {"a": F}, {"r": ("c", F)}, call("c", callee, ["a"], [F], [F]))
    two = function("other", {"a": F}, {"r": ("c", F)}, call("c", "self", ["a"], [F], [F]))
    made = of_nodes(call("c", "self", ["x"], [F], [F]), relu("y", "c"), functions=[one, two])
    with pytest.raises(ModelRefused, match=r"call each other in a circle: .*self -> "):
        inline_model(made)


def test_fifty_levels():
    levels = [double("f0")]
    for i in range(1, 51):
        body = [call("c", f"f{i - 1}", ["a"], [F], [F]), relu("y", "c")]
        levels.append(function(f"f{i}", {"a": F}, {"r": ("y", F)}, *body))
    made = of_nodes(call("c", "f50", ["x"], [F], [F]), relu("y", "c"), functions=levels)
    result = inlined(made)
    assert len(result.graph.nodes) == 2 + 1 + 50 + 1
    assert not result.graph.functions


def test_one_function_called_a_thousand_times():
    calls, last = [], "x"
    for i in range(1000):
        calls.append(call(f"c{i}", "double", [last], [F], [F]))
        last = f"c{i}"
    result = inlined(of_nodes(*calls, relu("y", last), functions=[double()]))
    assert len(result.graph.nodes) == 1003
    assert len({n.name for n in result.graph.nodes.values()}) == 1003


def doubling(levels, op_by_name=False):
    """Each function calls the one below twice: 2**levels additions."""

    def calling(name, callee, tensor):
        if op_by_name:
            return node(name, callee, tensor)
        return call(name, callee, [tensor], [F], [F])

    functions = [double("f0")]
    for i in range(1, levels + 1):
        body = [calling("p", f"f{i - 1}", "a"), calling("q", f"f{i - 1}", "p")]
        functions.append(function(f"f{i}", {"a": F}, {"r": ("q", F)}, *body))
    return of_nodes(calling("c", f"f{levels}", "x"), relu("y", "c"), functions=functions)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("op_by_name", [False, True])
def test_what_would_come_to_a_billion_nodes_keeps_its_calls(op_by_name):
    result = inlined(doubling(30, op_by_name))
    everything = [result.graph.nodes, *(f.nodes for f in result.graph.functions.values())]
    assert sum(map(len, everything)) < 10_000
    assert {n.op for n in result.graph.nodes.values()} == {"Placeholder", "PartitionedCall", "Relu"}


def test_calls_that_are_kept_take_variables(monkeypatch):
    """As every other op with functions: the handle becomes the value."""
    monkeypatch.setattr(inline, "MAX_INLINED_NODES", 2)
    monkeypatch.setattr(inline, "_SMALL_FUNCTION", 0)
    reads = function(
        "reads", {"h": RESOURCE}, {"r": ("v", F)}, node("v", "ReadVariableOp", "h", dtype=F)
    )
    made = of_nodes(
        node("w", "VarHandleOp", dtype=F, shape=attrs.of_shape(())),
        node("c", "reads", "w"),
        call("d", "reads", ["w"], [RESOURCE], [F]),
        node("y", "AddV2", "c", "d", T=F),
        functions=[reads],
    )
    made = dataclasses.replace(made, variables={"w": const("w", 3.0)})
    frozen = freeze_variables(inline_model(made)).model
    assert verify(frozen) == ()
    assert [frozen.graph.nodes[n].op for n in ("w", "c", "d")] == [
        "Const",
        *["PartitionedCall"] * 2,
    ]
    (body,) = frozen.graph.functions.values()
    assert body.args[0].dtype is F


def test_targets_and_tensors_of_a_graph():
    """What follows a restore op: it has no signature."""
    made = of_nodes(
        call("c", "guard", ["ok", "x"], [BOOL, F], [F]), functions=[guard()], output="x"
    )
    result = inline_calls(made.graph, ["c", "x"], ["c"])
    assert result.tensors["x"] == "x"
    assert result.graph.nodes[result.tensors["c"]].op == "Identity"
    assert result.graph.nodes["c"].op == "NoOp"
