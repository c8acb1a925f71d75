import struct

from freezeflow.graph import attrs
from freezeflow.graph.canonical import canonical
from freezeflow.graph.graph import Graph
from freezeflow.graph.verify import verify
from freezeflow.graph.widened import widened
from freezeflow.messages import message_class
from freezeflow.values import Digest, DType, Location, TensorRef
from tests.graphs import call, function, graph, large_const, model, node, placeholder, spec

B, F = DType.BFLOAT16, DType.FLOAT
# 1.0, -2.5, the largest, in bfloat16.
BITS = (0x3F80, 0xC020, 0x7F7F)
VALUES = tuple(struct.unpack("<3f", b"".join(struct.pack("<HH", 0, bits) for bits in BITS)))


def const_of(**fields):
    value = message_class("AttrValue")()
    value.tensor.dtype = int(B)
    value.tensor.tensor_shape.dim.add(size=3)
    for key, content in fields.items():
        if isinstance(content, bytes):
            setattr(value.tensor, key, content)
        else:
            getattr(value.tensor, key).extend(content)
    return node("c", "Const", dtype=B, value=attrs.encode(value))


def made(*nodes, functions=()):
    ends = {"x": spec("x", B, (3,))}, {"y": spec("y", B, (3,))}
    return canonical(model(graph(placeholder("x", B, (3,)), *nodes, functions=functions), *ends))


def put(data, dtype, shape):
    return TensorRef(Digest.of(bytes(data)), dtype, shape, Location("", 0, len(data), 0, 0, 0))


def has_narrow(found: Graph):
    bodies = [found.nodes, *(each.nodes for each in found.functions.values())]
    values = [v for body in bodies for each in body.values() for v in each.attrs.values()]
    return any(value == attrs.of_type(B) or B in attrs.to_types(value) for value in values)


def test_constants_keep_their_values():
    for content in ({"half_val": BITS}, {"tensor_content": struct.pack("<3H", *BITS)}):
        given = made(const_of(**content), node("y", "AddV2", "x", "c", T=B))
        found = widened(given, put)
        assert verify(found) == ()
        assert not has_narrow(found.graph)
        tensor = attrs.message(found.graph.nodes["c"].attrs["value"]).tensor
        content = tensor.tensor_content or struct.pack("<3f", *tensor.float_val)
        assert struct.unpack("<3f", content) == VALUES
        assert found.signatures["serving_default"].inputs["x"].dtype is F
        assert found.signatures["serving_default"].outputs["y"].dtype is F


def test_large_constants_are_put(tmp_path):
    data = struct.pack("<3H", *BITS)
    large = large_const("c", tmp_path / "c", data, (3,))
    value = message_class("AttrValue").FromString(large.attrs["value"])
    value.tensor.dtype = int(B)
    large = large._replace(
        attrs={"dtype": attrs.of_type(B), "value": attrs.encode(value)},
        tensor=large.tensor._replace(dtype=B),
    )
    kept = {}

    def keep(data, dtype, shape):
        kept[dtype, shape] = bytes(data)
        return put(data, dtype, shape)

    found = widened(made(large, node("y", "AddV2", "x", "c", T=B)), keep)
    assert kept == {(F, (3,)): struct.pack("<3f", *VALUES)}
    assert found.graph.nodes["c"].tensor.dtype is F
    assert verify(found) == ()


def test_casts_and_functions():
    half = function("f", {"a": B}, {"r": ("s", B)}, node("s", "AddV2", "a", "a", T=B))
    given = made(
        node("w", "Cast", "x", SrcT=B, DstT=F),
        node("n", "Cast", "w", SrcT=F, DstT=B),
        call("y", "f", ["n"], [B], [B]),
        functions=[half],
    )
    found = widened(given, put)
    assert verify(found) == ()
    assert not has_narrow(found.graph)
    assert [found.graph.nodes[name].op for name in "wn"] == ["Identity", "Identity"]


def test_who_looks_at_the_bytes_keeps_them_and_others_stay_the_same():
    bits = made(
        node("b", "Bitcast", "x", T=B, type=DType.INT16),
        node("y", "Bitcast", "b", T=DType.INT16, type=B),
    )
    assert widened(bits, put) is bits
    plain = canonical(
        model(
            graph(placeholder("x", F, (3,))), {"x": spec("x", F, (3,))}, {"y": spec("x", F, (3,))}
        )
    )
    assert widened(plain, put) is plain
