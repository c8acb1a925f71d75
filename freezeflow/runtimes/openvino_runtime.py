"""OpenVINO on the processor, at float32: by default it computes in bfloat16 where a processor can."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freezeflow.errors import RuntimeRefused
from freezeflow.runtimes.runtime import Runtime, Subject
from freezeflow.values import Json


def answer(subject: Subject, calls: Path, answers: Path) -> Mapping[str, Json]:
    """Answers saved calls with an IR."""
    import numpy as np

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
            given = {name: call[key] for key, name in names.inputs.items()}
            result = request.infer(given)
            found.append(
                {
                    key: np.array(result[compiled.output(name)])
                    for key, name in names.outputs.items()
                }
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


RUNTIME = Runtime(name="openvino", answer=answer, tools=("openvino",))
