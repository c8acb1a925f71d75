from freezeflow.graph.attrs import of_shape
from freezeflow.graph.single import with_one_signature
from freezeflow.graph.verify import verify
from freezeflow.values import DType
from tests.graphs import const, graph, model, node, placeholder, spec


def with_a_default(*names):
    whole = graph(
        placeholder("x", shape=(2,)),
        const("one", [1.0, 1.0]),
        node("rate", "PlaceholderWithDefault", "one", dtype=DType.FLOAT, shape=of_shape((2,))),
        node("y", "Mul", "x", "rate", T=DType.FLOAT),
    )
    inputs = {name: spec(name, shape=(2,)) for name in names}
    return with_one_signature(model(whole, inputs, {"y": spec("y", shape=(2,))}), None)


def test_a_default_that_nobody_can_replace_is_its_value():
    found = with_a_default("x")
    assert verify(found) == ()
    assert found.graph.nodes["rate"].op == "Identity"
    assert found.graph.nodes["rate"].inputs == ("one",)


def test_an_input_keeps_its_default():
    found = with_a_default("x", "rate")
    assert found.graph.nodes["rate"].op == "PlaceholderWithDefault"
