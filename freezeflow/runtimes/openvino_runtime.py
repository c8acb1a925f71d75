"""OpenVINO on the processor, at float32: by default it computes in bfloat16 where a processor can."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freezeflow.errors import RuntimeRefused
from freezeflow.runtimes.runtime import Runtime, Subject
from freezeflow.values import DType, Json

if TYPE_CHECKING:
    from freezeflow.proof.dtypes import Array


def answer(subject: Subject, calls: Path, answers: Path) -> Mapping[str, Json]:
    """Answers saved calls with an IR."""
    from freezeflow.proof.saved_calls import load_calls, save_calls

    names = subject.names
    openvino = without_reports()
    try:
        compiled = openvino.Core().compile_model(
            str(subject.file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        request = compiled.create_infer_request()
        found = []
        for call in load_calls(calls):
            assert not isinstance(call, str)
            request.infer({name: _tensor(call[key]) for key, name in names.inputs.items()})
            found.append(
                {key: _array(request.get_tensor(name)) for key, name in names.outputs.items()}
            )
        save_calls(answers, found)
    except RuntimeError as error:
        raise RuntimeRefused(f"OpenVINO: {str(error).strip().splitlines()[-1]}") from error
    return {}


def without_reports() -> Any:
    """The package, which else reports its import and each conversion to its makers.

    These are 40 messages with a thread each, which come to nothing: a step's processes have no network.
    """
    os.environ["CI"] = "true"
    import openvino

    return openvino


def _tensor(array: Array) -> Any:
    """What it is fed with: NumPy has no bfloat16, and what OpenVINO takes such bits for is float16."""
    import numpy as np

    from freezeflow.proof.dtypes import numpy_dtype

    openvino = without_reports()
    if array.dtype != numpy_dtype(DType.BFLOAT16):
        return array
    return openvino.Tensor(array.view(np.uint16), array.shape, openvino.Type.bf16)


def _array(tensor: Any) -> Array:
    """A copy of what it gives, in the type that it has."""
    import numpy as np

    from freezeflow.proof.dtypes import numpy_dtype

    openvino = without_reports()
    if tensor.element_type != openvino.Type.bf16:
        return np.array(tensor.data)
    return np.array(tensor.data.view(numpy_dtype(DType.BFLOAT16)))


RUNTIME = Runtime(name="openvino", answer=answer, tools=("openvino",))
