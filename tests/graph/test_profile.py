import pytest

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.graph import Graph
from freezeflow.graph.model import Model
from freezeflow.graph.profile import LOWERED, Profile, look, refuse_ops
from freezeflow.values import DType, Signature, TensorSpec
from tests.graphs import const, node

F = DType.FLOAT


def made(*nodes, shape=(None, 4), dtype=F):
    x = node("x", "Placeholder", dtype=dtype, shape=attrs.of_shape(shape))
    ends = Signature({"x": TensorSpec("x", dtype, shape)}, {"y": TensorSpec("y", dtype, shape)})
    y = node("y", "Identity", nodes[-1].name if nodes else "x", T=dtype)
    graph = Graph(nodes={each.name: each for each in (x, *nodes, y)})
    return Model(graph=graph, signatures={"serving_default": ends})


def refusal(found, **fields):
    with pytest.raises(ModelRefused) as caught:
        look(found, Profile(target="Toaster", **{"ops": None, **fields}))
    return caught.value


RELU = node("relu", "Relu", "x", T=F)
AUDIO = [node(f"a{i}", "AudioSpectrogram", "x") for i in range(3)]


def test_what_a_target_takes_passes():
    look(made(RELU), Profile(target="Toaster", ops={"Relu"}, static="none"))
    look(made(RELU, shape=(1, 4)), Profile(target="Toaster", ops=None, static="all"))


def test_ops_are_named_with_their_nodes_and_what_helps():
    error = refusal(made(RELU, *AUDIO), ops={"Relu"}, helps={"AudioSpectrogram": "Toast less."})
    assert error.message == "Toaster does not take AudioSpectrogram (a0 and 2 more)"
    assert error.where == "a0"
    assert error.hint == "Toast less."


def test_control_flow():
    error = refusal(made(node("s", "Switch", "x", "x")))
    assert "does not take lowered control flow: Switch (s)" in error.message
    assert "functional" in error.hint
    error = refusal(made(node("w", "While", "x")), control_flow=frozenset())
    assert "functional control flow: While (w)" in error.message
    assert "(`unroll: N`)" in error.hint
    look(made(node("s", "Switch", "x", "x")), Profile(target="T", ops=None, control_flow=LOWERED))


def test_shapes_and_dtypes():
    error = refusal(made(), static="all")
    assert "input 'x' is [?, 4]" in error.message
    assert "`batch: N`" in error.hint
    error = refusal(made(dtype=DType.STRING), dtypes=frozenset([F]))
    assert "has no string inputs: 'x'" in error.message


@pytest.mark.parametrize(
    ("value", "is_taken"),
    [(7, True), (2**31 - 1, True), (2**31, False), (-(2**31) - 1, False), (2**63 - 1, True)],
)
def test_integers_that_a_runtime_would_cut(value, is_taken):
    found = made(const("c", value, DType.INT64))
    look(found, Profile(target="Toaster", ops=None))
    if is_taken:
        look(found, Profile(target="Toaster", ops=None, wide_integers=False))
        return
    error = refusal(found, wide_integers=False)
    assert "Toaster computes with integers of 32 bits" in error.message
    assert error.where == "c"


def test_layout():
    conv = node("c", "Conv2D", "x", "x", data_format=attrs.of_bytes(b"NCHW"))
    error = refusal(made(conv), layout="NHWC")
    assert error.where == "c"
    assert "takes images as NHWC only, and Conv2D is NCHW" in error.message


def test_batch_norms_in_training_mode():
    norm = made(node("n", "FusedBatchNorm", "x", "x", "x", "x", "x", T=F))
    look(norm, Profile(target="Toaster", ops=None))
    error = refusal(norm, training_norms=False)
    assert error.where == "n"
    assert "does not take batch norms in training mode: FusedBatchNorm (n)" in error.message


def test_element_types():
    cast = node("half", "Cast", "x", SrcT=F, DstT=DType.HALF)
    more = node("sum", "AddV2", "half", "half", T=DType.HALF)
    error = refusal(made(cast, more), lacks={DType.HALF: frozenset(["Cast"])})
    assert error.message == "Toaster does not take float16: AddV2 (sum)"
    assert error.where == "sum"
    assert error.hint
    look(made(cast), Profile(target="Toaster", ops=None, lacks={DType.HALF: frozenset(["Cast"])}))


def test_types_that_only_outputs_lack():
    found = made(dtype=DType.BFLOAT16)
    error = refusal(found, not_given=frozenset([DType.BFLOAT16]))
    assert error.message == "Toaster has no bfloat16 outputs: 'y'"


def test_types_of_constants():
    error = refusal(made(const("c", 1, DType.INT32)), constants=frozenset([F]))
    assert error.message == "Toaster has no int32 constants"
    assert error.where == "c"
    assert "float32" in error.hint


def test_types_of_ops():
    cast = node("cast", "Cast", "x", SrcT=F, DstT=DType.INT16)
    ways = ({"SrcT": {F}, "DstT": {DType.INT32}}, {"SrcT": {DType.INT16}, "DstT": {F}})
    error = refusal(made(cast), typed={"Cast": ways})
    assert error.message == "Toaster does not take Cast with DstT int16, SrcT float32: cast"
    assert error.hint == (
        "It takes Cast with DstT: int32 and SrcT: float32; or DstT: float32 and SrcT: int16."
    )
    look(made(cast), Profile(target="Toaster", ops=None, typed={"Relu": ({"T": {F}},)}))
    look(made(cast), Profile(target="Toaster", ops=None, typed={"Cast": ({"SrcT": {F}},)}))


def test_outputs_that_no_input_reaches():
    found = made(const("c", 1.0), node("relu", "Relu", "c", T=F))
    look(found, Profile(target="Toaster", ops=None))
    error = refusal(found, constant_outputs=False)
    assert error.message == "Toaster takes no output that no input reaches: 'y'"
    look(made(RELU), Profile(target="Toaster", ops=None, constant_outputs=False))


def test_ranks():
    look(made(RELU), Profile(target="Toaster", ops=None, static="ranks"))
    error = refusal(made(RELU, shape=None), static="ranks")
    assert "takes inputs of known rank only, and input 'x' is of unknown rank" in error.message


def test_what_a_converter_refuses_is_told_with_rare_types():
    found = made(node("sum", "AddV2", "x", "x", T=DType.UINT8), node("r", "Relu", "sum", T=F))
    with pytest.raises(ModelRefused) as caught:
        refuse_ops(found, "Toaster", {"AddV2"}, "Toast less.")
    assert caught.value.message == "Toaster does not take AddV2 (sum), of types uint8"
    with pytest.raises(ModelRefused) as caught:
        refuse_ops(found, "Toaster", {"Relu"}, "Toast less.")
    assert caught.value.message == "Toaster does not take Relu (r)"
    refuse_ops(found, "Toaster", {"Softmax"}, "Toast less.")
