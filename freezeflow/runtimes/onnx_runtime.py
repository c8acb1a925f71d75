"""ONNX Runtime on the processor, as it is by default."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from freezeflow.errors import RuntimeRefused
from freezeflow.runtimes.runtime import Names, Runtime, Subject
from freezeflow.values import Json

# What onnx's own operators are filed under.
DOMAINS = ("", "ai.onnx")

# Parameters of an op's types with those that a kernel takes, as ``tensor(float)``.
Kernel = Mapping[str, Sequence[str]]

# Errors only; a warning about every initializer helps nobody.
_QUIET = 3


def answer(subject: Subject, calls: Path, answers: Path) -> Mapping[str, Json]:
    """Answers saved calls with a model file."""
    import onnx
    import onnxruntime

    from freezeflow.proof.saved_calls import load_calls, save_calls

    try:
        onnx.checker.check_model(str(subject.file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise RuntimeRefused(f"the onnx checker: {_first_line(error)}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    try:
        session = onnxruntime.InferenceSession(
            str(subject.file), options, providers=["CPUExecutionProvider"]
        )
        save_calls(answers, [_answer(session, call, subject.names) for call in load_calls(calls)])
    except _refusals() as error:
        raise RuntimeRefused(f"ONNX Runtime: {_first_line(error)}") from error
    return {}


def kernels(version: int) -> dict[str, list[Kernel]]:
    """ONNX Runtime's kernels for a processor, by op.

    Args:
        version: Of the operator set.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found: dict[str, list[Kernel]] = collections.defaultdict(list)
    for kernel in state.get_all_opkernel_def():
        first, last = kernel.version_range
        ours = kernel.provider == "CPUExecutionProvider" and kernel.domain in DOMAINS
        if ours and first <= version <= last:
            found[kernel.op_name].append(kernel.type_constraints)
    return found


def _refusals() -> tuple[type[Exception], ...]:
    """What it raises: a class of its own, without a common base, for each of its status codes."""
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    own = (c for c in vars(states).values() if isinstance(c, type) and issubclass(c, Exception))
    return (RuntimeError, ValueError, *own)


def _answer(session: Any, call: Any, names: Names) -> dict[str, Any]:
    keys = list(names.outputs)
    feeds = {names.inputs[key]: _fed(value) for key, value in call.items() if key in names.inputs}
    found = session.run([names.outputs[key] for key in keys], feeds)
    return dict(zip(keys, found, strict=True))


def _fed(value: Any) -> Any:
    """Strings as text: of bytes ONNX Runtime would take what Python prints for them."""
    if value.dtype.kind != "O":
        return value
    import numpy as np

    return np.array([word.decode() for word in value.ravel()], object).reshape(value.shape)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


RUNTIME = Runtime(
    name="onnxruntime",
    answer=answer,
    tools=("onnxruntime", "onnx"),
    narrowed={"bfloat16": "float32"},
)
