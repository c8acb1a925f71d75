import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from freezeflow.errors import RuntimeRefused
from freezeflow.proof.saved_calls import save_calls
from freezeflow.runtimes.onnx_runtime import answer
from freezeflow.runtimes.runtime import Names, Subject
from freezeflow.values import Signature


def saved_model(path, op, dtype, inputs=("x",)):
    """A model of one node over vectors of any length."""
    ends = [helper.make_tensor_value_info(name, dtype, ["n"]) for name in inputs]
    result = helper.make_tensor_value_info("y", dtype, ["m", 2] if op == "Reshape" else ["n"])
    graph = helper.make_graph([helper.make_node(op, list(inputs), ["y"])], "one", ends, [result])
    if op == "Reshape":
        graph.input[1].type.tensor_type.elem_type = TensorProto.INT64
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("op", "dtype", "call", "text"),
    [
        # Each raises a class of its own in ONNX Runtime: no kernel, and a failure in a kernel.
        ("Cosh", TensorProto.DOUBLE, {"x": np.zeros(2)}, "NOT_IMPLEMENTED"),
        (
            "Reshape",
            TensorProto.FLOAT,
            {"x": np.zeros(3, np.float32), "s": np.array([2, 2])},
            "Reshape",
        ),
    ],
)
def test_whatever_it_raises_is_a_refusal(tmp_path, op, dtype, call, text):
    saved_model(tmp_path / "m.onnx", op, dtype, tuple(call))
    save_calls(tmp_path / "calls", [call])
    subject = Subject(
        file=tmp_path / "m.onnx",
        names=Names({key: key for key in call}, {"y": "y"}),
        signature_name="serving_default",
        signature=Signature({}, {}),
    )
    with pytest.raises(RuntimeRefused, match=f"ONNX Runtime: .*{text}"):
        answer(subject, tmp_path / "calls", tmp_path / "answers")
