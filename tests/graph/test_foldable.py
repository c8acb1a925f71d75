"""What is planned to be folded, without TensorFlow: values here are zeros of the stated sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezeflow.graph import attrs
from freezeflow.graph.fold import Folding, Value, fold
from freezeflow.graph.foldable import (
    Scope,
    candidates,
    constant_bytes,
    node_bytes,
    same_bytes_source,
    select,
    string_bound,
)
from freezeflow.graph.graph import data_inputs
from freezeflow.graph.verify import verify
from freezeflow.messages import message_class
from freezeflow.values import Digest, DType, Location, TensorRef
from tests.graphs import (
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

FLOAT = DType.FLOAT


def binary(name, op, *inputs):
    return node(name, op, *inputs, T=FLOAT)


def found_in(made, *wanted, fed=(), banned=(), max_bytes=2**30):
    scope = Scope(made.nodes, frozenset(wanted), frozenset(fed))
    return candidates(made, scope, max_bytes=max_bytes, banned=banned)


class Zeros:
    """An evaluation that gives zeros: every result has as many floats as `counts` says."""

    def __init__(self, found, counts):
        self.counts = counts
        self.sizes = {name: (counts.get(name, 1) * 4,) for name in found.foldable}

    def shape(self, tensor):
        return (self.counts.get(tensor, 1),)

    def values(self, tensors):
        for tensor in tensors:
            shape = self.shape(tensor)
            yield tensor, Value(FLOAT, shape, memoryview(bytes(shape[0] * 4)))


def put(data, dtype, shape):
    location = Location("/dev/zero", 0, data.nbytes, 0, data.nbytes, 0)
    return TensorRef(Digest.of(data), dtype, shape, location)


def fold_zeros(made, counts, **limits):
    options = {"max_bytes": 2**30, "max_growth": 0, **limits}
    folding = Folding(evaluate=lambda _, found: Zeros(found, counts), put=put, **options)
    return fold(made, folding).model


# ---------------------------------------------------------------- candidates


def test_a_node_is_constant_when_all_its_inputs_are():
    made = graph(
        placeholder("x"),
        const("a", 1.0),
        const("b", 2.0),
        binary("sum", "AddV2", "a", "b"),
        binary("product", "Mul", "sum", "x"),
        binary("root", "Sqrt", "sum"),
    )
    found = found_in(made, "product", "root")
    assert list(found.foldable) == ["sum", "root"]
    assert set(found.constants) == {"a", "b"}


@pytest.mark.parametrize("op", ["RandomStandardNormal", "DebugIdentity", "CheckNumerics", "MyOp"])
def test_other_ops_are_never_constant(op):
    made = graph(const("a", 1.0), node("y", op, "a", T=FLOAT, dtype=FLOAT))
    assert found_in(made, "y").foldable == {}


def test_fed_and_banned_nodes_are_not_constant():
    made = graph(const("a", 1.0), binary("b", "Sqrt", "a"), binary("c", "Sqrt", "b"))
    assert found_in(made, "c", fed=("a",)).foldable == {}
    assert list(found_in(made, "c", banned=("c",)).foldable) == ["b"]


def test_what_a_constant_waits_for_is_carried_along():
    made = graph(
        placeholder("x"),
        binary("check", "Sqrt", "x"),
        const("a", 1.0)._replace(inputs=("^check",)),
        const("b", 1.0),
        binary("sum", "AddV2", "a", "b")._replace(inputs=("a", "b", "^b")),
    )
    assert found_in(made, "sum").carried["sum"] == ("check",)


def test_attributes_that_a_call_gives_are_not_known():
    made = graph(const("a", 1.0), node("y", "Sqrt", "a", T=placeholder_attr("T")))
    assert found_in(made, "y").foldable == {}


def test_constants_over_the_bound_are_left_out():
    made = graph(const("a", [1.0] * 10), binary("y", "Sqrt", "a"))
    assert found_in(made, "y", max_bytes=39).foldable == {}
    assert list(found_in(made, "y", max_bytes=40).foldable) == ["y"]


def test_bytes_of_constants():
    assert constant_bytes(const("a", [[1.0, 2.0]])) == 8
    assert constant_bytes(const("s", [b"abc", b""], DType.STRING)) == 3 + 2 * 16
    assert constant_bytes(node("n", "Const", dtype=FLOAT)) == -1


def test_bounds_of_strings():
    join = node("j", "StringJoin", "a", "b", separator="--", N=2)
    assert string_bound(join, [3, 4]) == 3 + 4 + 4
    assert string_bound(node("u", "StringUpper", "a", encoding="utf-8"), [4]) == 12
    assert string_bound(node("r", "Reshape", "a", "s"), [4]) == 4
    assert string_bound(node("r", "Reshape", "a", "s"), []) == 0


# ---------------------------------------------------------------- selection


def test_only_the_edge_of_a_folded_part_needs_a_value():
    made = graph(
        placeholder("x"),
        const("a", 1.0),
        binary("b", "Sqrt", "a"),
        binary("c", "Sqrt", "b"),
        binary("y", "Mul", "x", "c"),
    )
    scope = Scope(made.nodes, frozenset({"y"}))
    found = candidates(made, scope, max_bytes=100, banned=())
    chosen = select(scope, found, {"b": (4,), "c": (4,)}, budget=0)
    assert chosen.folded == {"b", "c"}
    assert chosen.frontier == {"c": (0,)}
    assert chosen.growth < 0


def test_the_large_result_stays_and_what_leads_to_it_is_folded():
    made = graph(
        placeholder("x"),
        const("dims", 1.0),
        binary("half", "Sqrt", "dims"),
        binary("filled", "Sqrt", "half"),
        binary("y", "Mul", "x", "filled"),
    )
    folded = fold_zeros(model(made, {"x": spec("x")}, {"y": spec("y")}), {"filled": 10**6})
    assert folded.graph.nodes["filled"].op == "Sqrt"
    assert folded.graph.nodes["half"].op == "Const"


def test_a_large_result_is_folded_when_asked():
    made = model(
        graph(
            placeholder("x"),
            const("a", 1.0),
            binary("b", "Sqrt", "a"),
            binary("y", "Mul", "x", "b"),
        ),
        {"x": spec("x")},
        {"y": spec("y")},
    )
    assert fold_zeros(made, {"b": 500}).graph.nodes["b"].op == "Sqrt"
    folded = fold_zeros(made, {"b": 500}, max_growth=2000)
    assert folded.graph.nodes["b"].op == "Const"


@st.composite
def models(draw):
    """A random graph over one input, small and large constants; and sizes for results."""
    nodes = [placeholder("n0")]
    nodes += [const(f"n{i}", [0.0] * draw(st.integers(0, 300))) for i in (1, 2, 3)]
    counts = {}
    for index in range(4, 4 + draw(st.integers(1, 12))):
        sources = [f"n{draw(st.integers(0, index - 1))}" for _ in range(2)]
        name = f"n{index}"
        if draw(st.booleans()):
            nodes.append(node(name, "Identity", sources[0], T=FLOAT))
        else:
            nodes.append(binary(name, draw(st.sampled_from(["AddV2", "Mul"])), *sources))
        counts[name] = draw(st.sampled_from([1, 10, 300, 5000]))
    outputs = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3))
    ends = {f"y{i}": spec(n.name) for i, n in enumerate(outputs)}
    return model(graph(*nodes), {"n0": spec("n0")}, ends), counts


@given(models(), st.sampled_from([0, 1000, 10**6]))
def test_it_never_grows_beyond_what_was_asked(made, max_growth):
    before, counts = made
    after = fold_zeros(before, counts, max_growth=max_growth)
    size_before = sum(map(node_bytes, before.graph.nodes.values()))
    size_after = sum(map(node_bytes, after.graph.nodes.values()))
    assert size_after <= size_before + max_growth
    for end in after.signatures["serving_default"].outputs.values():
        assert end.tensor in after.graph.nodes
    for kept in after.graph.nodes.values():
        assert all(tensor in after.graph.nodes for tensor in data_inputs(kept))


# ---------------------------------------------------------------- rewriting


def test_the_bytes_behind_reshapes_are_found(tmp_path):
    weight = large_const("w", tmp_path / "w", bytes(4000), (1000,))
    made = graph(
        weight,
        const("shape", [10, 100], DType.INT32),
        node("r", "Reshape", "w", "shape", T=FLOAT, Tshape=DType.INT32),
        node("n", "IdentityN", "shape", "r", T=[DType.INT32, FLOAT]),
        binary("s", "Sqrt", "w"),
    )
    scope = Scope(made.nodes, frozenset())
    assert same_bytes_source(scope, "n:1") == weight
    assert same_bytes_source(scope, "n") is None
    assert same_bytes_source(scope, "s") is None


def test_what_passes_a_tensor_on_is_taken_out_of_functions_too():
    body = function(
        "f",
        {"a": FLOAT},
        {"r": ("i2", FLOAT)},
        node("i", "Identity", "a", T=FLOAT),
        binary("q", "Sqrt", "i"),
        node("i2", "Identity", "q", T=FLOAT),
    )
    made = model(
        graph(placeholder("x"), call("y", "f", ["x"], [FLOAT], [FLOAT]), functions=[body]),
        {"x": spec("x")},
        {"y": spec("y")},
    )
    folded = fold_zeros(made, {})
    (after,) = folded.graph.functions.values()
    assert list(after.nodes) == ["q"]
    assert after.nodes["q"].inputs == ("a",)
    assert after.results[0].tensor == "q"
    assert verify(folded) == ()


def test_an_identity_that_waits_or_is_known_stays():
    made = model(
        graph(
            placeholder("p", DType.BOOL),
            node("check", "Assert", "p", "p", T=(DType.BOOL,), summarize=3),
            placeholder("x"),
            node("waits", "Identity", "x", "^check", T=FLOAT),
            node("y", "Identity", "waits", T=FLOAT),
        ),
        {"x": spec("x"), "p": spec("p", DType.BOOL)},
        {"y": spec("y")},
    )
    assert fold_zeros(made, {}) == made


def test_the_wish_to_lie_beside_a_folded_node_goes_with_it():
    wish = message_class("AttrValue")()
    wish.list.s.append(b"loc:@b")
    product = binary("y", "Mul", "x", "b")
    values = {**product.attrs, "_class": attrs.encode(wish)}
    product = product._replace(attrs=values, device="/device:CPU:0")
    parts = [placeholder("x"), const("a", 1.0), binary("b", "Sqrt", "a")]
    kept = fold_zeros(model(graph(*parts, product), {"x": spec("x")}, {"y": spec("y")}), {})
    assert "_class" in kept.graph.nodes["y"].attrs
    through = node("b", "Identity", "x", T=FLOAT)
    gone = fold_zeros(
        model(graph(placeholder("x"), through, product), {"x": spec("x")}, {"y": spec("y")}), {}
    )
    assert "_class" not in gone.graph.nodes["y"].attrs
