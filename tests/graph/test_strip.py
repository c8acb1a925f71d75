import dataclasses

from freezeflow.graph import attrs, verify
from freezeflow.graph.strip import order_matters, strip
from freezeflow.graph.text import model_text
from freezeflow.values import DType, Signature
from tests.graphs import call, const, function, graph, model, node, placeholder, spec

F = DType.FLOAT
BOOL = DType.BOOL


def identity(name, *inputs, **values):
    return node(name, "Identity", *inputs, T=F, **values)


def relu(name, *inputs):
    return node(name, "Relu", *inputs, T=F)


def with_debugging():
    """A model that checks and prints in the main graph and in a function."""
    guard = function(
        "guard", {"flag": BOOL, "a": F}, {"r": ("checked", F)},
        const("text", b"bad", DType.STRING),
        node("assert", "Assert", "flag", "text", T=(DType.STRING,), summarize=3),
        node("pivot", "NoOp", "^assert"),
        node("checked", "CheckNumerics", "a", "^pivot", T=F, message="in"),
        control_results=["assert"], stateful=True,
    )  # fmt: skip
    unused = function("unused", {"a": F}, {"r": ("a", F)})
    nodes = [
        placeholder("x"),
        placeholder("unused_input"),
        placeholder("forgotten"),
        relu("left_over", "forgotten"),
        node("positive", "IsFinite", "x", T=F),
        const("message", b"not finite", DType.STRING),
        node("assert", "Assert", "positive", "message", T=(DType.STRING,), summarize=3),
        node("checked", "CheckNumerics", "x", "^assert", T=F, message="x"),
        node("shown", "Print", "checked", "message", T=F, U=(DType.STRING,)),
        node("say", "PrintV2", "message", "^assert"),
        node("call", "StatefulPartitionedCall", "positive", "shown", "^say",
             f=attrs.of_function("guard"), Tin=(BOOL, F), Tout=(F,)),
        node("idle", "NoOp", "^x"),
        relu("y", "call", "^idle"),
        node("table", "HashTableV2", key_dtype=DType.INT32, value_dtype=F),
        const("keys", [1, 2], DType.INT32),
        const("values", [1.0, 2.0]),
        node("fill", "InitializeTableV2", "table", "keys", "values", Tkey=DType.INT32, Tval=F),
    ]  # fmt: skip
    return model(
        graph(*nodes, functions=[guard, unused]),
        {"x": spec("x"), "unused": spec("unused_input")},
        {"y": spec("y")},
        init=("fill",),
    )


def stripped(made, **options):
    result = strip(made, **options)
    assert verify.verify(made) == ()
    assert verify.verify(result.model) == ()
    return result


def test_what_nobody_needs_goes(golden):
    result = stripped(with_debugging())
    golden("strip/plain.txt", model_text(result.model))
    assert result.removed == {}
    assert "unused_input" in result.model.graph.nodes
    assert "forgotten" not in result.model.graph.nodes
    assert result.model.graph.nodes["y"].inputs == ("call",)
    assert result.model.graph.nodes["checked"].inputs == ("x", "^assert")
    assert list(result.model.graph.functions) == ["guard"]


def test_debugging_ops_go_by_name(golden):
    result = stripped(with_debugging(), remove=["Assert", "CheckNumerics", "Print", "PrintV2"])
    golden("strip/debugging.txt", model_text(result.model))
    assert result.removed == {"Assert": 2, "CheckNumerics": 2, "Print": 1, "PrintV2": 1}
    assert result.model.graph.nodes["call"].inputs == ("positive", "x")
    guard = result.model.graph.functions["guard"]
    assert guard.nodes == {}
    assert guard.results[0].tensor == "a"
    assert guard.control_results == ()


def test_what_is_not_asked_for_stays():
    result = stripped(with_debugging(), remove=["Assert"])
    ops = {n.op for n in result.model.graph.nodes.values()}
    assert {"CheckNumerics", "Print", "PrintV2"} <= ops
    assert "Assert" not in ops
    # The message is still printed before the call.
    assert result.model.graph.nodes["call"].inputs == ("positive", "shown", "^say")
    assert result.model.graph.nodes["say"].inputs == ("message",)


def test_a_debugging_op_at_an_end_keeps_its_name():
    made = model(
        graph(placeholder("x"), node("y", "CheckNumerics", "x", T=F, message="")),
        {"x": spec("x")},
        {"y": spec("y")},
    )
    assert stripped(made, remove=["CheckNumerics"]).model.graph.nodes["y"] == identity("y", "x")


def test_an_assert_in_a_loop_of_tf1_goes_on_waiting():
    nodes = [
        placeholder("x"),
        node("enter", "Enter", "x", T=F, frame_name="f"),
        node("merge", "Merge", "enter", "next", T=F, N=2),
        node("zero", "Const", "^merge", **const("zero", 0.0).attrs),
        node("less", "Less", "merge", "zero", T=F),
        node("assert", "Assert", "less", "merge", T=(F,), summarize=3),
        node("cond", "LoopCond", "less"),
        node("switch", "Switch", "merge", "cond", T=F),
        relu("step", "switch:1", "^assert"),
        node("next", "NextIteration", "step", T=F),
        node("exit", "Exit", "switch", T=F),
    ]
    made = model(graph(*nodes), {"x": spec("x")}, {"y": spec("exit")})
    result = stripped(made, remove=["Assert"]).model.graph.nodes
    assert result["assert"] == node("assert", "NoOp", "^less", "^merge")
    assert result["step"].inputs == ("switch:1", "^assert")
    assert result["zero"].inputs == ("^merge",)
    kept = stripped(made, drop_identities=True)
    assert kept.identities == 0


def test_identities_go_only_where_that_is_the_same(golden):
    inner = function(
        "inner", {"a": F}, {"r": ("out", F), "s": ("kept", F)},
        identity("mid", "a"), identity("out", "mid"), identity("kept", "a"),
        control_results=["kept"],
    )  # fmt: skip
    pred = const("pred", True, BOOL)
    nodes = [
        placeholder("x"),
        pred,
        identity("a", "x"),
        identity("b", "a"),
        identity("waits", "b", "^say"),
        node("say", "PrintV2", "text"),
        const("text", b"t", DType.STRING),
        identity("awaited", "b"),
        relu("after", "waits", "^awaited"),
        node("switch", "Switch", "after", "pred", T=F),
        identity("pivot", "switch:1"),
        identity("before", "after"),
        node("merge", "Merge", "before", "pivot", T=F, N=2),
        identity("marked", "merge", _mark=1),
        relu("deep", "marked"),
        identity("c", "deep"),
        call("call", "inner", ["c"], [F], [F, F]),
        node("sum", "AddV2", "call", "call:1", T=F),
        identity("y", "sum"),
    ]
    made = model(graph(*nodes, functions=[inner]), {"x": spec("x")}, {"y": spec("y")})
    result = stripped(made, drop_identities=True)
    golden("strip/identities.txt", model_text(result.model))
    gone = made.graph.nodes.keys() - result.model.graph.nodes.keys()
    # Nobody needs to wait for an Identity of a placeholder, so `awaited` is out of reach first.
    assert gone == {"a", "b", "awaited", "c", "pivot", "before", "marked"}
    body = result.model.graph.functions["inner"]
    assert body.nodes == {}
    assert [r.tensor for r in body.results] == ["a", "a"]
    assert result.identities == 9
    assert stripped(made).identities == 0


def test_an_identity_of_a_tf1_variable_stays():
    nodes = [
        node("v", "VariableV2", dtype=F, shape=attrs.of_shape(())),
        identity("read", "v"),
        relu("y", "read"),
    ]
    made = model(graph(*nodes), {}, {"y": spec("y")}, variables={"v": const("v", 1.0)})
    result = stripped(made, drop_identities=True).model
    assert "read" in result.graph.nodes
    assert list(result.variables) == ["v"]


def table(change):
    """A table that is looked up before `change` happens."""
    nodes = [
        node("table", "MutableHashTableV2", key_dtype=DType.INT32, value_dtype=F),
        const("key", 1, DType.INT32),
        const("default", 0.0),
        node("find", "LookupTableFindV2", "table", "key", "default", Tin=DType.INT32, Tout=F),
        relu("seen", "find"),
        change,
        relu("y", "seen", f"^{change.name}"),
    ]
    return model(graph(*nodes), {}, {"y": spec("y")})


def test_a_read_is_not_overtaken_by_a_write():
    write = node(
        "write", "LookupTableInsertV2", "table", "key", "default", "^seen", Tin=DType.INT32, Tout=F
    )
    result = stripped(table(write)).model.graph
    assert result.nodes["write"].inputs == ("table", "key", "default", "^seen")
    assert order_matters(result, called=set(result.nodes))(result.nodes["find"])


def test_reads_alone_need_no_order():
    read = node(
        "again", "LookupTableFindV2", "table", "key", "default", "^seen", Tin=DType.INT32, Tout=F
    )
    result = stripped(table(read)).model.graph
    assert list(result.nodes) == ["table", "key", "default", "find", "seen", "y"]
    assert not order_matters(result, called=set(result.nodes))(result.nodes["find"])


def test_an_unknown_op_may_do_anything():
    result = stripped(table(node("odd", "Mystery", "table", "^seen"))).model.graph
    assert result.nodes["odd"].inputs == ("table", "^seen")
    assert result.nodes["y"].inputs == ("seen", "^odd")


def test_tf1_assignments_keep_their_order():
    nodes = [
        node("v", "VariableV2", dtype=F, shape=attrs.of_shape(())),
        identity("read", "v"),
        const("one", 1.0),
        node("add", "AssignAdd", "v", "one", "^read", T=F),
        relu("y", "read", "^add"),
    ]
    made = model(graph(*nodes), {}, {"y": spec("y")}, variables={"v": const("v", 1.0)})
    assert stripped(made).model.graph.nodes["add"].inputs == ("v", "one", "^read")


def test_variables_that_nothing_reaches_go():
    nodes = [
        node("v", "VarHandleOp", dtype=F, shape=attrs.of_shape(())),
        node("w", "VarHandleOp", dtype=F, shape=attrs.of_shape(())),
        node("y", "ReadVariableOp", "v", dtype=F),
    ]
    values = {"v": const("v", 1.0), "w": const("w", 1.0)}
    made = model(graph(*nodes), {}, {"y": spec("y")}, variables=values)
    assert list(stripped(made).model.variables) == ["v"]


def test_every_signature_is_kept():
    made = with_debugging()
    more = {**made.signatures, "other": Signature({}, {"z": spec("left_over")})}
    made = dataclasses.replace(made, signatures=more)
    assert "left_over" in stripped(made).model.graph.nodes


def test_stripping_twice_changes_nothing():
    options = {"remove": ["Assert", "Print"], "drop_identities": True}
    once = stripped(with_debugging(), **options).model
    assert stripped(once, **options).model == once


def test_what_has_nothing_to_strip_stays_the_same_objects():
    once = stripped(with_debugging()).model
    twice = stripped(once).model
    assert twice.graph.nodes is once.graph.nodes
    assert twice.graph.functions["guard"] is once.graph.functions["guard"]
