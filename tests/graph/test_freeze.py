"""Handles become values: through calls, branches, loops; writes are dropped, or refused with the path."""

from __future__ import annotations

import dataclasses

import pytest

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.freeze import freeze_variables
from freezeflow.graph.text import model_text
from freezeflow.graph.verify import verify
from freezeflow.values import DType
from tests.graphs import const, function, graph, model, node, placeholder, spec

F = DType.FLOAT
BOOL = DType.BOOL
INT = DType.INT32
R = DType.RESOURCE
FREF = attrs.encode(attrs.message(attrs.of_type(F)).__class__(type=101))


def handle(name, dtype=F):
    return node(name, "VarHandleOp", dtype=dtype, shape=attrs.of_shape(()), shared_name=name)


def read(name, resource, *control):
    return node(name, "ReadVariableOp", resource, *control, dtype=F)


def of_nodes(*nodes, functions=(), values=(("v", 2.0), ("w", 3.0)), **fields):
    there = {n.name for n in nodes}
    return model(
        graph(placeholder("p", BOOL), placeholder("x"), *nodes, functions=functions),
        {"p": spec("p", BOOL), "x": spec("x")},
        {"y": spec("y")},
        variables={name: const(name, value) for name, value in values if name in there},
        **fields,
    )


def frozen(made, **how):
    assert verify(made, loaded=True) == ()
    result = freeze_variables(made, **how)
    assert verify(result.model) == ()
    assert not result.model.variables
    return result


def test_a_variable_that_is_read(golden):
    made = of_nodes(handle("v"), read("r", "v"), node("y", "AddV2", "x", "r", T=F))
    golden("freeze/variable.txt", model_text(frozen(made).model))


def test_two_handles_of_one_variable_share_its_value():
    other = handle("v")._replace(name="again")
    made = of_nodes(
        handle("v"), other, read("r", "v"), read("s", "again"), node("y", "AddV2", "r", "s", T=F)
    )
    result = frozen(made)
    assert result.variables == 1
    nodes = result.model.graph.nodes
    assert nodes["again"].attrs["value"] == nodes["v"].attrs["value"]


def branches(body, *captured, types=(R, R)):
    return node(
        "c", "If", "p", *captured, Tcond=BOOL, Tin=list(types), Tout=[body],
        then_branch=attrs.of_function("first"), else_branch=attrs.of_function("second"),
        output_shapes=attrs.of_shapes([()]), _read_only_resource_inputs=(0, 1),
    )  # fmt: skip


def test_branches_that_capture(golden):
    first = function("first", {"a": R, "b": R}, {"r": ("y", F)}, read("y", "a"))
    second = function("second", {"a": R, "b": R}, {"r": ("y", F)}, read("y", "b"))
    made = of_nodes(
        handle("v"), handle("w"), branches(F, "v", "w"), node("y", "Neg", "c", T=F),
        functions=[first, second],
    )  # fmt: skip
    golden("freeze/branches.txt", model_text(frozen(made).model))


def test_branches_that_return_handles():
    first = function("first", {"a": R, "b": R}, {"r": ("a", R)})
    second = function("second", {"a": R, "b": R}, {"r": ("b", R)})
    made = of_nodes(
        handle("v"), handle("w"), branches(R, "v", "w"), read("y", "c"), functions=[first, second]
    )
    result = frozen(made)
    assert attrs.to_types(result.model.graph.nodes["c"].attrs["Tout"]) == (F,)
    assert result.variables == 2


def test_branches_that_return_handles_of_two_dtypes_are_refused():
    first = function("first", {"a": R, "b": R}, {"r": ("a", R)})
    second = function("second", {"a": R, "b": R}, {"r": ("b", R)})
    made = of_nodes(
        handle("v"), handle("w", INT), branches(R, "v", "w"), read("y", "c"),
        functions=[first, second], values=(("v", 1.0),),
    )  # fmt: skip
    made = dataclasses.replace(made, variables={**made.variables, "w": const("w", 1, INT)})
    with pytest.raises(ModelRefused, match=r"dtype|float32"):
        freeze_variables(made)


def loop(*inputs, types):
    return node(
        "loop", "While", *inputs, T=list(types), cond=attrs.of_function("more"),
        body=attrs.of_function("body"), output_shapes=attrs.of_shapes([()] * len(types)),
        parallel_iterations=10,
    )  # fmt: skip


def test_a_loop_that_swaps_two_handles():
    """After one round either handle may be either variable."""
    args = {"i": F, "a": R, "b": R}
    more = function("more", args, {"r": ("m", BOOL)}, node("m", "Less", "i", "i", T=F))
    body = function(
        "body", args, {"i": ("n", F), "a": ("b", R), "b": ("a", R)},
        read("r", "a"), node("n", "AddV2", "i", "r", T=F),
    )  # fmt: skip
    made = of_nodes(
        handle("v"), handle("w"), loop("x", "v", "w", types=(F, R, R)),
        node("y", "Neg", "loop", T=F), functions=[more, body],
    )  # fmt: skip
    result = frozen(made)
    assert result.variables == 2
    assert attrs.to_types(result.model.graph.nodes["loop"].attrs["T"]) == (F, F, F)


def test_one_function_for_two_variables_stays_one_if_it_is_the_same():
    reads = function("reads", {"h": R}, {"r": ("y", F)}, read("y", "h"))

    def kept(name, resource):
        return node(
            name, "RemoteCall", "target", resource, Tin=[R], Tout=[F], f=attrs.of_function("reads")
        )

    made = of_nodes(
        handle("v"), handle("w"), const("target", b"/device:CPU:0", DType.STRING),
        kept("a", "v"), kept("b", "w"), node("y", "AddV2", "a", "b", T=F), functions=[reads],
    )  # fmt: skip
    assert list(frozen(made).model.graph.functions) == ["reads"]


# ---------------------------------------------------------------- reads of every kind


@pytest.mark.parametrize(
    ("op", "values", "becomes"),
    [
        ("ResourceGather", {"Tindices": INT, "dtype": F, "batch_dims": 0}, "GatherV2"),
        ("ResourceGatherNd", {"Tindices": INT, "dtype": F}, "GatherNd"),
    ],
)
def test_gathers(op, values, becomes):
    made = of_nodes(
        handle("v"), const("i", [0], INT), node("g", op, "v", "i", **values),
        node("y", "Sum", "g", "i", T=F, Tidx=INT),
    )  # fmt: skip
    made = dataclasses.replace(made, variables={"v": const("v", [1.0, 2.0])})
    assert frozen(made).model.graph.nodes["g"].op == becomes


def test_the_shape_alone_does_not_see_a_write():
    made = of_nodes(
        handle("v"),
        node("write", "AssignVariableOp", "v", "x", dtype=F),
        node("s", "VariableShape", "v", "^write", out_type=INT),
        const("f", 1.0),
        node("y", "Fill", "s", "f", T=F, index_type=INT),
    )
    result = frozen(made)
    assert result.model.graph.nodes["s"].op == "Shape"
    assert result.writes_dropped == 1


def test_a_reference_is_read_where_a_value_is_wanted():
    """Also where the op's attribute names the reference's type."""
    made = of_nodes(
        node("v", "VariableV2", dtype=F, shape=attrs.of_shape(())), node("y", "Neg", "v", T=FREF)
    )
    assert frozen(made).model.graph.nodes["y"].attrs["T"] == attrs.of_type(F)


# ---------------------------------------------------------------- writes


def counter(*more, output="y"):
    return of_nodes(
        handle("v"),
        const("one", 1.0),
        node("write", "AssignAddVariableOp", "v", "one", dtype=F),
        *more,
    )


def test_a_write_that_an_output_sees():
    made = counter(read("y", "v", "^write"))
    with pytest.raises(
        ModelRefused, match="variable 'v' is written by AssignAddVariableOp"
    ) as refused:
        freeze_variables(made)
    assert refused.value.where == "write"
    assert "ReadVariableOp at y" in refused.value.message


def test_a_write_through_another_handle_of_the_variable():
    other = handle("v")._replace(name="again")
    made = of_nodes(
        handle("v"),
        other,
        const("one", 1.0),
        node("write", "AssignAddVariableOp", "again", "one", dtype=F),
        read("y", "v", "^write"),
        values=(("v", 2.0), ("again", 2.0)),
    )
    with pytest.raises(ModelRefused, match="is written by AssignAddVariableOp"):
        freeze_variables(made)


def test_different_variables_of_one_shared_name():
    """TensorFlow 2 tells variables apart by their objects: values that differ are theirs."""
    other = handle("v")._replace(name="again")
    made = of_nodes(
        handle("v"),
        other,
        const("one", 1.0),
        node("write", "AssignAddVariableOp", "again", "one", dtype=F),
        read("y", "v", "^write"),
        values=(("v", 2.0), ("again", 3.0)),
    )
    assert frozen(made).writes_dropped == 1


def test_a_write_that_nobody_sees():
    made = counter(node("y", "Neg", "x", "^write", T=F))
    result = frozen(made)
    assert result.writes_dropped == 1
    assert set(result.model.graph.nodes) == {"p", "x", "y"}
    assert result.model.graph.nodes["y"].inputs == ("x",)


def test_a_write_that_is_dropped_when_asked():
    made = counter(read("y", "v", "^write"))
    result = frozen(made, written="drop")
    assert result.model.graph.nodes["y"].inputs == ("v",)
    assert len(result.seen_writes) == 1


def test_a_write_in_a_function_names_its_path():
    first = function(
        "first", {"a": R, "b": R}, {"r": ("y", F)},
        const("one", 1.0), node("write", "AssignAddVariableOp", "a", "one", dtype=F),
        read("y", "a", "^write"), control_results=["write"], stateful=True,
    )  # fmt: skip
    second = function("second", {"a": R, "b": R}, {"r": ("y", F)}, read("y", "b"))
    made = of_nodes(
        handle("v"), handle("w"), branches(F, "v", "w"), node("y", "Neg", "c", T=F),
        functions=[first, second],
    )  # fmt: skip
    with pytest.raises(ModelRefused) as refused:
        freeze_variables(made)
    assert refused.value.where == "c > write"
    assert "c > y" in refused.value.message


# ---------------------------------------------------------------- refusals


def test_a_variable_without_a_value():
    made = of_nodes(handle("lost"), read("y", "lost"))
    with pytest.raises(ModelRefused, match="variable 'lost' has no value"):
        freeze_variables(made)


def test_a_variable_without_a_value_that_nobody_reads():
    made = of_nodes(
        handle("lost"), node("s", "VarIsInitializedOp", "lost"), node("y", "Neg", "x", T=F)
    )
    assert set(frozen(made).model.graph.nodes) == {"p", "x", "y"}


def test_an_op_that_does_with_a_variable_what_nobody_knows():
    made = of_nodes(handle("v"), node("y", "ResourceAccumulatorNumAccumulated", "v"))
    with pytest.raises(ModelRefused, match="takes variable v itself"):
        freeze_variables(made)


def test_a_variable_that_an_unknown_op_hands_on():
    made = of_nodes(node("m", "Mystery"), read("y", "m"))
    with pytest.raises(ModelRefused, match="ReadVariableOp takes a variable from where"):
        freeze_variables(made)


def test_python_code():
    made = of_nodes(node("y", "PyFunc", "x", Tin=[F], Tout=[F], token="pyfunc_0"))
    with pytest.raises(ModelRefused, match="calls Python code"):
        freeze_variables(made)


def test_an_initialiser_gives_a_value():
    """A local variable is not saved; the init op assigns it a constant."""
    made = of_nodes(
        handle("v"), const("start", 5.0), node("init", "AssignVariableOp", "v", "start", dtype=F),
        read("y", "v"), init=("init",), values=(),
    )  # fmt: skip
    result = frozen(made).model
    assert result.graph.nodes["v"].inputs == ("start",)
    assert result.init == ()


def test_an_initialiser_changes_a_saved_variable():
    """It adds at every start; nobody may see the checkpoint's value."""
    made = of_nodes(
        handle("v"), node("r", "RandomUniform", "p", T=DType.INT32, dtype=F),
        node("init", "AssignAddVariableOp", "v", "r", dtype=F), read("y", "v"), init=("init",),
    )  # fmt: skip
    with pytest.raises(ModelRefused, match="while the initializer runs"):
        freeze_variables(made)
    assert freeze_variables(made, written="drop").seen_writes


def test_a_handle_as_an_output():
    made = of_nodes(handle("v"), node("y", "Identity", "v", T=DType.RESOURCE))
    with pytest.raises(ModelRefused, match="output 'y' is the handle of variable v"):
        freeze_variables(made)


def test_an_op_that_takes_a_reference_and_is_not_known():
    ref = node("v", "VariableV2", dtype=F, shape=attrs.of_shape(()))
    select = node("y", "RefSelect", "p", "v", T=F, N=attrs.of_int(1))
    with pytest.raises(ModelRefused, match="RefSelect takes variable v itself"):
        freeze_variables(of_nodes(ref, select))
