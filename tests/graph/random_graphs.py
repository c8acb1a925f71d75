"""Strategies for graphs that are well formed, whether or not TensorFlow would run them."""

from __future__ import annotations

from hypothesis import strategies as st

from freezeflow.graph import attrs
from freezeflow.graph.graph import Graph
from freezeflow.values import DType
from tests.graphs import call, const, function, graph, node, placeholder

F = DType.FLOAT

_NAMES = st.text("abcXYZ019_./-", min_size=1, max_size=6).map("n".__add__)
_FLOATS = st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=6)
_SHAPES = st.one_of(
    st.none(), st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=3).map(tuple)
)


def _some(names):
    """Up to two of the names."""
    return st.lists(st.sampled_from(names), max_size=2, unique=True) if names else st.just([])


@st.composite
def _body(draw, given, functions, count):
    """Nodes that take the given tensors and each other's outputs."""
    nodes, tensors = [], list(given)
    names = draw(st.lists(_NAMES, min_size=count, max_size=count, unique_by=str.lower))
    for name in (n for n in names if n not in given):
        inputs = draw(st.lists(st.sampled_from(tensors), min_size=2, max_size=2))
        control = [f"^{n}" for n in draw(_some([n.name for n in nodes]))]
        kind = draw(st.sampled_from(["Const", "AddV2", "Unpack", "call", "strings"]))
        if kind == "Const":
            nodes.append(const(name, draw(_FLOATS))._replace(inputs=tuple(control)))
            tensors.append(name)
        elif kind == "strings":
            values = draw(st.lists(st.binary(max_size=5), min_size=1, max_size=3))
            nodes.append(const(name, values, DType.STRING))
        elif kind == "Unpack":
            made = node(name, "Unpack", inputs[0], *control, T=F, num=3, axis=0)
            nodes.append(made)
            tensors += [name, f"{name}:1", f"{name}:2"]
        elif kind == "call" and functions:
            made = call(name, draw(st.sampled_from(functions)), inputs, [F, F], [F])
            nodes.append(made._replace(inputs=(*inputs, *control)))
            tensors.append(name)
        else:
            device = draw(st.sampled_from(["", "/device:CPU:0"]))
            nodes.append(node(name, "AddV2", *inputs, *control, device=device, T=F))
            tensors.append(name)
    return nodes, tensors


@st.composite
def graphs(draw) -> Graph:
    """A graph with up to three functions, each of which may call those before it."""
    functions = []
    for number in range(draw(st.integers(0, 3))):
        nodes, tensors = draw(
            _body(["a", "b"], [f.name for f in functions], draw(st.integers(0, 5)))
        )
        functions.append(
            function(
                f"f{number}", {"a": F, "b": F}, {"r": (draw(st.sampled_from(tensors)), F)}, *nodes,
                control_results=sorted(draw(_some([n.name for n in nodes]))),
                stateful=draw(st.booleans()), _noinline=draw(st.booleans()),
            )
        )  # fmt: skip
    shape = draw(_SHAPES)
    inputs = [
        placeholder("x", F, shape),
        node("shaped", "Placeholder", dtype=F, shape=attrs.of_shape(shape)),
    ]
    nodes, _ = draw(_body(["x", "shaped"], [f.name for f in functions], draw(st.integers(0, 8))))
    return graph(*inputs, *nodes, functions=sorted(functions, key=lambda f: f.name))
