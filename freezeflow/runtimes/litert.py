"""LiteRT's own interpreter, TFLite's runtime, with its usual kernels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freezeflow.errors import RuntimeRefused
from freezeflow.runtimes.runtime import Names, Runtime, Subject
from freezeflow.values import Json


def answer(subject: Subject, calls: Path, answers: Path) -> Mapping[str, Json]:
    """Answers saved calls with a TFLite file, by its signature."""
    from ai_edge_litert.interpreter import Interpreter

    from freezeflow.proof.saved_calls import load_calls, save_calls

    try:
        interpreter = Interpreter(model_path=str(subject.file))
        ((name, ends),) = interpreter.get_signature_list().items()
        _check_names(ends, subject.names)
        runner = interpreter.get_signature_runner(name)
        save_calls(answers, [_answer(runner, call) for call in load_calls(calls)])
    except (RuntimeError, ValueError) as error:
        raise RuntimeRefused(f"LiteRT: {str(error).strip().splitlines()[0]}") from error
    return {}


def _check_names(ends: Mapping[str, Any], names: Names) -> None:
    for side, keys in (("inputs", names.inputs), ("outputs", names.outputs)):
        if set(ends[side]) != set(keys):
            raise RuntimeRefused(f"its {side} are {sorted(ends[side])}, not {sorted(keys)}")


def _answer(runner: Any, call: Any) -> dict[str, Any]:
    given, gives = runner.get_input_details(), runner.get_output_details()
    inputs = {key: _quantised(call[key], detail) for key, detail in given.items()}
    found = runner(**inputs)
    return {key: _real(found[key], detail) for key, detail in gives.items()}


def _quantised(value: Any, detail: Mapping[str, Any]) -> Any:
    """A real input as the integers that a fully quantised file takes."""
    import numpy as np

    wanted = np.dtype(detail["dtype"])
    scale, zero = detail["quantization"]
    if value.dtype.kind != "f" or wanted.kind not in "iu" or not scale:
        return value
    limits = np.iinfo(wanted)
    return np.clip(np.round(value / scale + zero), limits.min, limits.max).astype(wanted)


def _real(value: Any, detail: Mapping[str, Any]) -> Any:
    import numpy as np

    scale, zero = detail["quantization"]
    if value.dtype not in (np.int8, np.uint8, np.int16) or not scale:
        return value
    return ((value.astype(np.float32) - zero) * scale).astype(np.float32)


RUNTIME = Runtime(
    name="litert",
    answer=answer,
    tools=("ai-edge-litert",),
    narrowed={"bfloat16": "float32"},
)
