import dataclasses

from freezeflow.graph import attrs
from freezeflow.graph.canonical import canonical
from freezeflow.graph.graph import Result
from freezeflow.graph.model import Asset
from freezeflow.graph.text import model_lines, model_text
from freezeflow.messages import message_class
from freezeflow.values import DType
from tests.graph.test_canonical import noisy
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

F = DType.FLOAT


def everything(tmp_path):
    generic = dataclasses.replace(
        function(
            "generic", {"a": DType.INVALID}, {},
            node("id", "Identity", "a", T=placeholder_attr("T")),
            node("check", "Assert", "flag", "a", T=(F,)),
            control_results=["check"], stateful=True,
        ),
        results=(Result("r", "id", DType.INVALID, "T"),),
    )  # fmt: skip
    arg = generic.args[0]._replace(type_attr="T", attrs={"_kept": attrs.of_int(3)})
    generic = dataclasses.replace(generic, args=(arg,))
    words = large_const("words", tmp_path / "words", b"abcd" * 3, (3,)).tensor
    empty = attrs.encode(message_class("AttrValue")())
    nodes = [
        placeholder("x", F, (None, 2)),
        placeholder("any", DType.RESOURCE, None),
        large_const("w", tmp_path / "w", bytes(range(80)), (2, 10)),
        const("many", [float(i) for i in range(17)]),
        const("two", [1.0, -0.5])._replace(device="/CPU:0"),
        const("names", [b"a b", b"\xff"], DType.STRING),
        const("long", b"x" * 300, DType.STRING),
        const("none", [], DType.INT32),
        node("y", "MatMul", "x", "w", "^any", T=F, transpose_a=False, odd=1.5, f=-3),
        node("p", "PartitionedCall", "y", f=attrs.of_function("generic", {"T": attrs.of_type(F)}),
             Tin=(F,), Tout=(F,)),
        node("parts", "Unpack", "p", T=F, num=2, empty=empty, text="a\tb", long="y" * 300),
        node("lists", "Mystery", "parts:1", ints=attrs.of_ints([1, 2]), nothing=attrs.of_types([]),
             shapes=attrs.of_shapes([None, (1, None), ()]), ref=b"\x30\x65"),
        node("strange name", "NoOp"),
    ]  # fmt: skip
    return model(
        graph(*nodes, functions=[generic]),
        {"x": spec("x", F, (None, 2))},
        {"y": spec("parts:1", F, None)},
        init=("strange name", "y"),
        variables={"v": const("v", 1.0)},
        assets=(Asset(name="words.txt", tensor="names", content=words),),
    )


def test_every_kind_of_value(tmp_path, golden):
    golden("text/everything.txt", model_text(everything(tmp_path)))


def test_canonical_form(golden):
    golden("canonical/noisy.txt", model_text(canonical(noisy())))


def test_lines_are_the_text(tmp_path):
    made = everything(tmp_path)
    assert "\n".join(model_lines(made)) + "\n" == model_text(made)


def test_where_a_tensor_lies_does_not_show(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one, two = (model_text(everything(folder)) for folder in folders)
    assert one == two


def test_a_constant_that_cannot_be_decoded_says_so():
    value = message_class("AttrValue")()
    value.tensor.dtype = int(F)
    value.tensor.tensor_content = b"abc"
    made = model(graph(node("c", "Const", dtype=F, value=attrs.encode(value))))
    assert "c = Const() <float32[] (3 bytes do not hold 1 elements of float32)>" in model_text(made)


def test_a_call_shows_its_function():
    inner = function("double", {"a": F}, {"r": ("s", F)}, node("s", "AddV2", "a", "a", T=F))
    made = model(graph(placeholder("x"), call("y", "double", ["x"], [F], [F]), functions=[inner]))
    text = model_text(made)
    assert "  y = PartitionedCall(x) {Tin=(float32), Tout=(float32), f=@double} : float32\n" in text
    assert "function double(a : float32) -> (r = s : float32)\n  s = AddV2(a, a)" in text
