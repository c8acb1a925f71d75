import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezeflow.errors import ModelRefused, StageFailed
from freezeflow.graph import attrs, node_rules, verify
from freezeflow.graph.graph import Node, Result
from freezeflow.graph.model import Asset
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.ops import standard_op
from freezeflow.values import DType
from tests.graphs import (
    attr,
    call,
    const,
    function,
    graph,
    large_const,
    model,
    node,
    placeholder,
    placeholder_attr,
    spec,
)

F = DType.FLOAT
INT = DType.INT32


def valid_parts():
    """Nodes and functions of a valid model that uses a bit of everything."""
    double = function("double", {"a": F}, {"r": ("sum", F)}, node("sum", "AddV2", "a", "a", T=F))
    generic = dataclasses.replace(
        function("generic", {"a": DType.INVALID}, {"r": ("a", DType.INVALID)}),
        results=(Result("r", "id", DType.INVALID, "T"),),
        nodes={"id": node("id", "Identity", "a", T=placeholder_attr("T"))},
    )
    generic = dataclasses.replace(generic, args=(generic.args[0]._replace(type_attr="T"),))
    test = function(
        "test",
        {"a": F},
        {"r": ("less", DType.BOOL)},
        const("ten", 10.0),
        node("less", "Less", "a", "ten", T=F),
    )
    nodes = [
        placeholder("x", F, (None, 2)),
        const("w", [[1.0], [2.0]]),
        node("y", "MatMul", "x", "w", "^w", T=F),
        call("called", "double", ["y"], [F], [F]),
        node(
            "if",
            "StatelessIf",
            "flag",
            "called",
            then_branch=attrs.of_function("double"),
            else_branch=attrs.of_function("double"),
            Tcond=DType.BOOL,
            Tin=(F,),
            Tout=(F,),
        ),
        const("flag", True, DType.BOOL),
        node(
            "loop",
            "StatelessWhile",
            "if",
            cond=attrs.of_function("test"),
            body=attrs.of_function("double"),
            T=(F,),
        ),
        node(
            "case",
            "StatelessCase",
            "zero",
            "loop",
            branches=attrs.of_functions([("double", {}), ("double", {})]),
            Tin=(F,),
            Tout=(F,),
        ),
        const("zero", 0, INT),
        node(
            "bound",
            "PartitionedCall",
            "case",
            f=attrs.of_function("generic", {"T": attr(F)}),
            Tin=(F,),
            Tout=(F,),
        ),
        node("parts", "Unpack", "bound", T=F, num=2, axis=0),
        node("z", "AddV2", "parts", "parts:1", T=F),
        node("ready", "NoOp"),
    ]
    return nodes, (double, generic, test)


def build(change=None, *, functions=None, **fields):
    """The valid model with some nodes exchanged or added."""
    nodes, library = valid_parts()
    by_name = {n.name: n for n in nodes}
    for n in change or ():
        by_name[n.name] = n
    library = {f.name: f for f in (*library, *(functions or ()))}
    fields.setdefault("init", ("ready",))
    return model(
        graph(*by_name.values(), functions=library.values()),
        {"x": spec("x", F, (None, 2))},
        {"z": spec("z", F, ())},
        **fields,
    )


def test_a_valid_model_has_no_findings():
    assert verify.verify(build()) == ()
    verify.check(build(), stage="freeze")


BROKEN = {
    "bad name": ([node("a b", "NoOp")], "names", "not a name"),
    "leading underscore": ([node("_a", "NoOp")], "names", "not a name"),
    "dangling": ([node("y", "MatMul", "x", "gone", T=F)], "inputs", "'gone', which is not there"),
    "dangling control": ([node("ready", "NoOp", "^gone")], "inputs", "waits for 'gone'"),
    "control on a tensor": ([node("ready", "NoOp", "^parts:1")], "inputs", "waits for"),
    "output number": ([node("z", "AddV2", "parts", "parts:2", T=F)], "inputs", "has 2 outputs"),
    "first output by number": ([node("z", "AddV2", "parts:0", "y", T=F)], "inputs", "is written"),
    "data behind control": ([node("y", "MatMul", "^w", "x", "w", T=F)], "inputs", "behind"),
    "too few": ([node("y", "MatMul", "x", T=F)], "types", "has 1 data inputs and needs 2"),
    "too many": ([node("y", "MatMul", "x", "w", "w", T=F)], "types", "has 3 data inputs"),
    "wrong dtype": ([const("w", [[1], [2]], INT)], "types", "needs float32 as input 1"),
    "missing attribute": ([node("y", "MatMul", "x", "w")], "attributes", "lacks attribute 'T'"),
    "missing other attribute": ([node("x", "Placeholder", shape=F)], "attributes", "lacks"),
    "attribute of another kind": (
        [node("y", "MatMul", "x", "w", T=F, transpose_a=1)],
        "attributes",
        "not a bool",
    ),
    "no such dtype": (
        [node("y", "MatMul", "x", "w", T=b"\x30\x63")],
        "attributes",
        "names no dtype",
    ),
    "function of a call": ([call("called", "gone", ["y"], [F], [F])], "functions", "'gone'"),
    "function in an extra attribute": (
        [node("ready", "NoOp", _f=attrs.of_function("gone"))],
        "functions",
        "'gone'",
    ),
    "call of other types": (
        [call("called", "double", ["zero"], [INT], [F])],
        "calls",
        "argument 0",
    ),
    "call of other results": ([call("called", "double", ["y"], [F], [INT])], "calls", "result 0"),
    "call of other number": ([call("called", "double", [], [], [F])], "calls", "1 arguments"),
    "a cycle": ([node("y", "MatMul", "z", "w", T=F)], "cycles", "no loop"),
    "a cycle by control": ([const("w", [[1.0], [2.0]])._replace(inputs=("^z",))], "cycles", "y"),
    "assign to a value": (
        [node("set", "Assign", "w", "w", T=F)],
        "references",
        "needs a variable as input 0",
    ),
    "short content": (
        [
            const("w", [[1.0], [2.0]])._replace(
                attrs={
                    "dtype": attr(F),
                    "value": const("w", [[1.0], [2.0]])
                    .attrs["value"]
                    .replace(b"\x08\x02", b"\x08\x03", 1),
                }
            )
        ],
        "tensors",
        "bytes are kept where",
    ),
    "value of another dtype": (
        [
            const("w", [[1], [2]], INT)._replace(
                attrs={**const("w", [[1], [2]], INT).attrs, "dtype": attr(F)}
            )
        ],
        "tensors",
        "not float32",
    ),
    "variable": (
        [
            node("v", "VarHandleOp", dtype=F, shape=attrs.of_shape((2, 1))),
            node("w", "ReadVariableOp", "v", dtype=F),
        ],
        "variables",
        "left in a frozen graph",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_node_is_found(name):
    change, rule, message = BROKEN[name]
    findings = [f for f in verify.verify(build(change)) if f.rule == rule]
    assert findings
    assert message in findings[0].message


def changed_nodes(valid, nodes):
    return dataclasses.replace(valid, graph=dataclasses.replace(valid.graph, nodes=nodes))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_node_is_found_among_remembered_ones(name):
    valid = build()
    broken = changed_nodes(valid, {**valid.graph.nodes, **{n.name: n for n in BROKEN[name][0]}})
    with verify.remembering():
        assert verify.verify(valid) == ()
        assert verify.verify(broken) == verify.verify(broken) != ()
        found = verify.verify(broken)
    assert set(found) == set(verify.verify(broken))


@pytest.mark.parametrize("gone", sorted(n.name for n in valid_parts()[0]))
def test_a_node_that_is_gone_is_missed_among_remembered_ones(gone):
    valid = build()
    rest = {name: n for name, n in valid.graph.nodes.items() if name != gone}
    with verify.remembering():
        assert verify.verify(valid) == ()
        found = verify.verify(changed_nodes(valid, rest))
    assert set(found) == set(verify.verify(changed_nodes(valid, rest)))


@pytest.mark.parametrize("change", ["gone", "argument", "result", "node"])
def test_a_changed_function_is_found_among_remembered_ones(change):
    valid = build()
    double = valid.graph.functions["double"]
    functions = {
        "gone": {},
        "argument": {
            "double": dataclasses.replace(double, args=(double.args[0]._replace(dtype=INT),))
        },
        "result": {"double": dataclasses.replace(double, results=(Result("r", "gone", F),))},
        "node": {
            "double": dataclasses.replace(double, nodes={"sum": node("sum", "AddV2", "a", T=F)})
        },
    }[change]
    rest = {name: f for name, f in valid.graph.functions.items() if name != "double"}
    broken = dataclasses.replace(
        valid, graph=dataclasses.replace(valid.graph, functions={**rest, **functions})
    )
    with verify.remembering():
        assert verify.verify(valid) == ()
        found = verify.verify(broken)
    assert found
    assert set(found) == set(verify.verify(broken))


def test_nothing_is_remembered_longer_than_asked_for():
    valid = build()
    with verify.remembering():
        assert verify.verify(valid) == ()
        unchanged = valid.graph.nodes["y"]
        del valid.graph.nodes["y"].attrs["T"]  # nobody may; it is not looked at again
        assert valid.graph.nodes["y"] is unchanged
        assert verify.verify(valid) == ()
    assert verify.verify(valid)


def only(findings):
    (finding,) = findings
    return finding


def test_branches_must_agree():
    other = function("other", {"a": F}, {"r": ("i", INT)}, const("i", 1, INT))
    change = node(
        "if", "StatelessIf", "flag", "called",
        then_branch=attrs.of_function("double"), else_branch=attrs.of_function("other"),
        Tcond=DType.BOOL, Tin=(F,), Tout=(F,),
    )  # fmt: skip
    finding = only(verify.verify(build([change], functions=[other])))
    assert (finding.rule, finding.node) == ("calls", "if")
    assert "else_branch: result 0 is int32, the call has float32" in finding.message


def test_the_condition_of_a_loop_gives_one_tensor():
    two = function(
        "two", {"a": F}, {"r": ("b", DType.BOOL), "s": ("b", DType.BOOL)},
        const("b", True, DType.BOOL),
    )  # fmt: skip
    change = node(
        "loop", "StatelessWhile", "if",
        cond=attrs.of_function("two"), body=attrs.of_function("double"), T=(F,),
    )  # fmt: skip
    finding = only(verify.verify(build([change], functions=[two])))
    assert "cond: it has 2 results, not one" in finding.message


def test_what_a_loop_carries_keeps_its_dtype():
    body = function("body", {"a": F}, {"r": ("i", INT)}, const("i", 1, INT))
    change = node(
        "loop", "StatelessWhile", "if",
        cond=attrs.of_function("test"), body=attrs.of_function("body"), T=(F,),
    )  # fmt: skip
    finding = only(verify.verify(build([change], functions=[body])))
    assert "body: result 0 is int32" in finding.message


def test_a_bound_placeholder_is_compared():
    change = node(
        "bound", "PartitionedCall", "case",
        f=attrs.of_function("generic", {"T": attr(INT)}), Tin=(F,), Tout=(F,),
    )  # fmt: skip
    assert {f.rule for f in verify.verify(build([change]))} == {"calls"}


def test_results_and_control_results_must_exist():
    bad = function(
        "bad", {"a": F}, {"r": ("gone", F), "s": ("a", INT)}, control_results=["nothing"]
    )
    findings = verify.verify(build([call("c", "bad", ["y"], [F], [F, INT])], functions=[bad]))
    assert [f.rule for f in findings] == ["results"] * 3
    assert findings[0].node == "function bad/"


def test_findings_in_functions_name_the_function():
    bad = function("bad", {"a": F}, {"r": ("s", F)}, node("s", "AddV2", "a", "gone", T=F))
    finding = only(verify.verify(build([call("c", "bad", ["y"], [F], [F])], functions=[bad])))
    assert finding.node == "function bad/s"


def test_a_node_may_not_have_an_arguments_name():
    bad = function("bad", {"a": F}, {"r": ("a", F)}, const("a", 1.0))
    findings = verify.verify(build([call("c", "bad", ["y"], [F], [F])], functions=[bad]))
    assert [f.rule for f in findings] == ["names"]


def test_a_function_that_calls_itself_is_found():
    bad = function("bad", {"a": F}, {"r": ("c", F)}, call("c", "bad", ["a"], [F], [F]))
    finding = only(verify.verify(build([call("c", "bad", ["y"], [F], [F])], functions=[bad])))
    assert (finding.rule, finding.node) == ("recursion", "function bad")


def test_names_and_keys_agree():
    made = build()
    made.graph.nodes["other"] = made.graph.nodes["ready"]
    made.graph.functions["else"] = made.graph.functions["test"]
    assert [f.rule for f in verify.verify(made)] == ["names", "names"]


def test_signature_ends_must_exist_with_their_dtype():
    made = build()
    made.signatures["other"] = made.signatures["serving_default"].__class__(
        {"a": spec("gone"), "b": spec("x:1")}, {"c": spec("z", INT), "d": spec("z:0", F)}
    )
    findings = verify.verify(made)
    assert [f.rule for f in findings] == ["signatures"] * 3
    assert "output 'c' of signature 'other' is float32 in the graph, not int32" in str(findings)


def test_init_nodes_and_assets_must_exist(tmp_path):
    content = large_const("a", tmp_path / "a", bytes(4), (1,)).tensor
    assets = (
        Asset(name="a.txt", tensor="gone", content=content),
        Asset(name="b.txt", tensor="x", content=content),
    )
    findings = verify.verify(build(init=("gone",), assets=assets))
    assert [f.rule for f in findings] == ["init", "assets", "assets"]


def test_values_of_variables_fit_their_handles():
    change = [
        node("v", "VarHandleOp", dtype=F, shape=attrs.of_shape((2, 1))),
        node("w", "ReadVariableOp", "v", dtype=F),
    ]
    assert verify.verify(build(change, variables={"v": const("v", [[1.0], [2.0]])})) == ()
    assert verify.verify(build(change), loaded=True) == ()
    wrong = {"v": const("v", [1], INT), "gone": const("gone", 1.0), "x": placeholder("x")}
    findings = verify.verify(build(change, variables=wrong))
    assert [(f.rule, f.node) for f in findings] == [
        ("variables", "v"),
        ("variables", "gone"),
        ("variables", "x"),
    ]


def test_a_variable_in_a_function_is_found_if_it_is_reached():
    read = function(
        "read", {"v": DType.RESOURCE}, {"r": ("a", F)}, node("a", "ReadVariableOp", "v", dtype=F)
    )
    handle = node("table", "HashTableV2", key_dtype=INT, value_dtype=F)
    change = [handle, call("c", "read", ["table"], [DType.RESOURCE], [F])]
    assert verify.verify(build(change, functions=[read])) == ()
    change.append(node("z", "AddV2", "c", "parts", T=F))
    finding = only(verify.verify(build(change, functions=[read])))
    assert finding.node == "function read/a"


def test_tensors_out_of_line_have_the_bytes_of_their_shape(tmp_path):
    good = large_const("w", tmp_path / "w", bytes(8), (2, 1))
    assert verify.verify(build([good])) == ()
    short = good._replace(tensor=large_const("w", tmp_path / "v", bytes(4), (2, 1)).tensor)
    other = good._replace(tensor=good.tensor._replace(shape=(1, 2)))
    ints = good._replace(tensor=good.tensor._replace(dtype=INT))
    for bad in (short, other, ints):
        assert only(verify.verify(build([bad]))).rule == "tensors"
    moved = node("ready", "NoOp")._replace(tensor=good.tensor)
    assert only(verify.verify(build([moved]))).rule == "tensors"


def test_ops_without_a_definition_are_skipped_and_counted():
    change = [node("y", "Mystery", "x", "w"), node("z", "Mystery", "y:7", "parts")]
    made = build(change)
    assert verify.verify(made) == ()
    assert verify.unknown_ops(made) == {"Mystery": 2}
    custom = standard_op("MatMul")._replace(name="Mystery")
    made = dataclasses.replace(
        made, graph=dataclasses.replace(made.graph, op_defs={"Mystery": custom})
    )
    assert verify.unknown_ops(made) == {}
    assert "lacks attribute 'T'" in str(verify.verify(made))


def test_references_of_tf1_variables_pass():
    change = [
        node("v", "VariableV2", dtype=F, shape=attrs.of_shape((2, 1))),
        node("switch", "Switch", "v", "flag", T=b"\x30\x65"),
        node("set", "Assign", "v", "w", T=F),
        node("set_too", "Assign", "switch:1", "w", T=F),
    ]
    assert verify.verify(build(change)) == ()


def test_a_loop_of_tf1_passes():
    change = [
        node("enter", "Enter", "y", T=F, frame_name="f"),
        node("merge", "Merge", "enter", "next", T=F, N=2),
        node("finite", "IsFinite", "merge", T=F),
        node("way", "Switch", "merge", "finite", T=F),
        node("next", "NextIteration", "way:1", T=F),
    ]
    assert verify.verify(build(change)) == ()


def test_the_error_says_who_gave_the_graph():
    bad = build([node("y", "MatMul", "x", "gone", T=F)])
    with pytest.raises(ModelRefused, match="y: takes 'gone', which is not there"):
        verify.check(bad, stage="load")
    with pytest.raises(StageFailed, match="strip gave a graph that is not valid") as caught:
        verify.check(bad, stage="strip")
    assert caught.value.where == "y"
    many = build([node(f"n{i}", "NoOp", "^gone") for i in range(9)])
    with pytest.raises(StageFailed, match=r"\(and 4 more\)"):
        verify.check(many, stage="fold")


@given(
    st.lists(
        st.sampled_from(
["x", "w", "flag", "parts:1", "parts:2", "parts:0", "gone", "^w", "^gone", "^x:1"]
),
        max_size=4,
    ),
    st.sampled_from(["AddV2", "Shape", "NoOp", "Assign", "AddN", "Unknown", "double", "_x"]),
    st.dictionaries(
        st.sampled_from(["T", "N", "out_type", "_class", "odd"]),
        st.sampled_from([*map(attr, (F, INT, 2, "s", (F,))), placeholder_attr("T"), b""]),
    ),
    st.sampled_from(["new", "new node", "_new"]),
)  # fmt: skip
def test_the_quick_looks_never_miss_a_breach(inputs, op, values, name):
    made = build([Node(name, op, tuple(inputs), values)]).graph
    body = node_rules.main_body(made, NodeTypes(made))
    ends = body.types.ends(made.nodes[name])
    every = [
        finding
        for rule in (*node_rules.OWN_RULES, *node_rules.EDGE_RULES)
        for finding in rule(body, name, made.nodes[name], ends)
    ]
    assert list(node_rules.node_findings(body, name)) == every


def test_a_chain_of_a_hundred_thousand_nodes():
    nodes = [placeholder("n0", F, ())]
    for i in range(1, 100_000):
        nodes.append(Node(f"n{i}", "AddV2", (f"n{i - 1}", "n0"), {"T": attr(F)}))
    made = model(graph(*nodes), {}, {"y": spec("n99999")})
    assert verify.verify(made) == ()
