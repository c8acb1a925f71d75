import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs, walk
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.ops import standard_op
from freezeflow.values import DType
from tests.graphs import call, const, function, graph, node, placeholder

F = DType.FLOAT


def relu(name, *inputs):
    return node(name, "Relu", *inputs, T=F)


def test_data_and_control_edges_are_followed():
    made = graph(
        placeholder("x"), placeholder("y"), node("wait", "NoOp", "^y"), relu("z", "x", "^wait")
    )
    assert walk.reached_nodes(made.nodes, ["z:0"]) == {"x", "y", "wait", "z"}
    assert walk.reached_nodes(made.nodes, ["x"]) == {"x"}


def test_output_numbers_lead_to_the_node():
    made = graph(const("n", [1.0]), node("two", "Unpack", "n", num=1, T=F), relu("z", "two:1"))
    assert walk.reached_nodes(made.nodes, ["z"]) == {"n", "two", "z"}


def library():
    leaf = function("leaf", {"a": F}, {"r": ("a", F)})
    bound = function("bound", {"a": F}, {"r": ("a", F)})
    legacy = function("legacy", {"a": F}, {"r": ("c", F)}, call("c", "leaf", ["a"], [F], [F]))
    unused = function("unused", {"a": F}, {"r": ("a", F)})
    gradient = function("gradient", {"a": F}, {"r": ("a", F)})
    return (leaf, bound, legacy, unused, gradient)


def test_functions_are_reached_by_attribute_binding_op_and_gradient():
    nested = attrs.of_function("bound", {"f": attrs.of_function("leaf")})
    made = graph(
        placeholder("x"),
        node("a", "PartitionedCall", "x", f=nested, Tin=(F,), Tout=(F,)),
        node("b", "legacy", "a"),
        node("g", "SymbolicGradient", "x", f=attrs.of_function("gradient"), Tin=(F,), Tout=(F,)),
        functions=library(),
    )
    assert walk.reached_functions(made, made.nodes.values()) == [
        "bound",
        "leaf",
        "legacy",
        "gradient",
    ]


def test_prune_drops_nodes_functions_and_definitions():
    custom = standard_op("Relu")._replace(name="Custom")
    made = graph(
        placeholder("x"),
        node("a", "Custom", "x", T=F),
        node("b", "legacy", "x"),
        functions=library(),
    )
    made = Graph(nodes=made.nodes, functions=made.functions, op_defs={"Custom": custom})
    pruned = walk.prune(made, ["b"])
    assert list(pruned.nodes) == ["x", "b"]
    assert sorted(pruned.functions) == ["leaf", "legacy"]
    assert pruned.op_defs == {}
    assert walk.prune(made, ["a"]).op_defs == {"Custom": custom}


def test_order_breaks_ties_by_name():
    made = graph(relu("d", "b"), placeholder("c"), placeholder("b"), relu("a", "c"))
    assert walk.topological_order(made.nodes) == ["b", "c", "a", "d"]


@given(st.integers(0, 2**32))
def test_order_does_not_depend_on_the_order_of_the_mapping(seed):
    chance = random.Random(seed)
    names = [f"n{i}" for i in range(12)]
    nodes = [
        node(name, "AddN", *(chance.sample(names[:i], min(i, 2))), N=min(i, 2), T=F)
        for i, name in enumerate(names)
    ]
    expected = walk.topological_order({n.name: n for n in nodes})
    chance.shuffle(nodes)
    shuffled = {n.name: n for n in nodes}
    assert walk.topological_order(shuffled) == expected
    for n in nodes:
        assert all(expected.index(i) < expected.index(n.name) for i in n.inputs)


def loop():
    return graph(
        placeholder("x"),
        node("enter", "Enter", "x", T=F, frame_name="f"),
        node("merge", "Merge", "enter", "next", T=F, N=2),
        node("next", "NextIteration", "merge", T=F),
    )


def test_a_loop_of_tf1_is_no_cycle():
    assert walk.topological_order(loop().nodes) == ["x", "enter", "merge", "next"]
    assert walk.find_cycle(loop().nodes) == ()


def test_a_cycle_is_named():
    nodes = graph(relu("a", "c"), relu("b", "a"), relu("c", "b"), relu("after", "c")).nodes
    cycle = walk.find_cycle(nodes)
    assert cycle[0] == cycle[-1]
    assert sorted(cycle[1:]) == ["a", "b", "c"]
    for source, consumer in itertools.pairwise(cycle):
        assert source in nodes[consumer].inputs
    with pytest.raises(ModelRefused, match="cycle that is no loop"):
        walk.topological_order(nodes)


def test_a_control_edge_to_itself_is_a_cycle():
    assert walk.find_cycle(graph(node("a", "NoOp", "^a")).nodes) == ("a", "a")


def test_recursive_functions_are_found():
    first = function("first", {}, {}, call("c", "second", [], [], []))
    second = function("second", {}, {}, call("c", "first", [], [], []))
    made = graph(call("c", "first", [], [], []), functions=(first, second))
    assert sorted(set(walk.find_recursion(made))) == ["first", "second"]
    with pytest.raises(ModelRefused, match="circle"):
        walk.function_order(made)


def test_callees_come_before_callers():
    made = graph(node("b", "legacy", "x"), functions=library())
    order = walk.function_order(made)
    assert order.index("leaf") < order.index("legacy")
    assert walk.find_recursion(made) == ()


def test_consumers_count_each_node_once():
    made = graph(placeholder("x"), node("y", "AddV2", "x", "x", "^x", T=F))
    assert walk.consumers(made.nodes) == {"x": ["y"]}


def test_long_chains_and_deep_calls_need_no_recursion():
    count = 100_000
    nodes = {"n0": placeholder("n0")}
    for i in range(1, count):
        nodes[f"n{i}"] = Node(f"n{i}", "Relu", (f"n{i - 1}",), {"T": attrs.of_type(F)})
    assert len(walk.reached_nodes(nodes, [f"n{count - 1}"])) == count
    assert walk.topological_order(dict(reversed(nodes.items()))) == list(nodes)
    functions = [function(f"f{i}", {}, {}, call("c", f"f{i + 1}", [], [], [])) for i in range(50)]
    functions.append(function("f50", {}, {}))
    made = graph(call("c", "f0", [], [], []), functions=functions)
    assert len(walk.prune(made, ["c"]).functions) == 51
    assert walk.function_order(made)[0] == "f50"
