from freezeflow.graph.spelled_out import spelled_out
from freezeflow.graph.verify import verify
from freezeflow.values import DType
from tests.graphs import graph, model, node, placeholder, spec


def made(*nodes):
    ends = node("y", "Identity", nodes[-1].name, T=DType.FLOAT)
    whole = graph(placeholder("x", shape=(2,)), *nodes, ends)
    return model(whole, {"x": spec("x", shape=(2,))}, {"y": spec("y", shape=(2,))})


def test_erfc_is_one_minus_erf():
    found = spelled_out(made(node("e", "Erfc", "x", T=DType.FLOAT)))
    assert verify(found) == ()
    nodes = found.graph.nodes
    assert [nodes[name].op for name in ("e/one", "e/erf", "e")] == ["Const", "Erf", "Sub"]
    assert nodes["e"].inputs == ("e/one", "e/erf")
    assert nodes["e/erf"].inputs == ("x",)


def test_what_cannot_be_spelled_out_stays():
    taken = made(
        node("e/one", "Identity", "x", T=DType.FLOAT), node("e", "Erfc", "e/one", T=DType.FLOAT)
    )
    assert spelled_out(taken).graph.nodes == taken.graph.nodes
