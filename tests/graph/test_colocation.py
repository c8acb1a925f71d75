from freezeflow.graph import attrs
from freezeflow.graph.colocation import drop_dangling
from freezeflow.messages import message_class
from tests.graphs import graph, node


def places(*names):
    value = message_class("AttrValue")()
    value.list.s.extend(names)
    return attrs.encode(value)


def test_only_wishes_that_can_be_met_stay():
    nodes = graph(
        node("a", "NoOp", _class=places(b"loc:@b", b"loc:@gone", b"other")),
        node("b", "NoOp", _class=places(b"loc:@gone"), kept=1),
        node("c", "NoOp", _class=places()),
        node("d", "NoOp", _class=places(b"loc:@a")),
    ).nodes
    kept = drop_dangling(nodes)
    assert list(attrs.message(kept["a"].attrs["_class"]).list.s) == [b"loc:@b", b"other"]
    assert list(kept["b"].attrs) == ["kept"]
    assert kept["c"].attrs == {}
    assert kept["d"] is nodes["d"]
