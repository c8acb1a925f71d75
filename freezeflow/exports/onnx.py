"""ONNX by tf2onnx, checked by the onnx checker and ONNX Runtime.

Weights lie in one file beside the model (``x.onnx.data``) where the model would be too large for one
protobuf message, or on request. Inputs and outputs are called as the signature calls them.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Literal

from freezeflow.exports.check import Checked, check_problems
from freezeflow.exports.converted import Converted, Converter, OneSignature, Single
from freezeflow.exports.format import ExportFormat, ExportRequest
from freezeflow.graph.canonical import canonical
from freezeflow.graph.model import Model
from freezeflow.graph.onnx_form import onnx_form, with_counter_shapes
from freezeflow.graph.own_names import with_own_names
from freezeflow.graph.profile import CASES, FUNCTIONAL, Profile
from freezeflow.graph.spelled_out import BATCH_NORMS, spelled_out
from freezeflow.params import param
from freezeflow.runtimes.onnx_runtime import RUNTIME
from freezeflow.runtimes.runtime import FLOAT32, Names
from freezeflow.values import DType

TOOLS = ("tf2onnx", "onnx")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params(OneSignature, Checked):
    """Parameters of ``format: onnx``."""

    opset: int = param("Version of ONNX's operator set.", default=17, minimum=11, maximum=18)
    external_data: Literal["auto", "always"] = param(
        "Weights in a file of their own beside the model: where it is too large for one, or always.",
        default="auto",
    )


# Element types that ONNX has and its runtime keeps.
_NUMBERS = (
    *(DType.FLOAT, DType.DOUBLE, DType.HALF, DType.BOOL, DType.STRING),
    *(DType.INT8, DType.INT16, DType.INT32, DType.INT64),
    *(DType.UINT8, DType.UINT16, DType.UINT32, DType.UINT64),
)

# From which on ScatterND can add; tf2onnx lets the last of equal indices win.
_ADDING_OPSET = 16

# Fourier transforms and what brings them back to real numbers: tf2onnx takes them in groups.
_TRANSFORMS = frozenset(["RFFT", "RFFT2D", "ComplexAbs"])

# Comparing, it turns what is no fraction into one, and strings are none.
_COMPARED = frozenset(_NUMBERS) - {DType.STRING}

PROFILE = Profile(
    target="ONNX",
    # That depends on the opset: before it converts, `tf.to_onnx` asks the converter's own table.
    ops=None,
    control_flow=FUNCTIONAL - CASES,
    unrolls="lists",
    # Its checker wants the shape of every input; tf2onnx would write that they are scalars.
    static="ranks",
    spells_out=frozenset(["Erfc", "Rank", *BATCH_NORMS]),
    splits_groups=frozenset(["Conv3D"]),
    # tf2onnx turns bfloat16 into float16, which overflows, and ONNX Runtime computes with neither on a
    # processor.
    widens=True,
    typed={op: ({"T": _COMPARED},) for op in ("Equal", "NotEqual")},
    dtypes=frozenset(_NUMBERS),
    lacks={
        dtype: _TRANSFORMS if dtype in (DType.COMPLEX64, DType.COMPLEX128) else frozenset()
        for dtype in DType
        if dtype not in (*_NUMBERS, DType.RESOURCE, DType.VARIANT)
    },
)


def convert(request: ExportRequest, made: Single) -> Converted:
    """By tf2onnx."""
    from freezeflow.tf.to_onnx import to_onnx

    params: Params = request.params
    main, names = request.to.name, _names(made)
    model = made.model
    if params.opset >= _ADDING_OPSET:
        model = canonical(spelled_out(model, ("ScatterNd",)))
    facts = request.context.confined(
        to_onnx,
        with_counter_shapes(model),
        made.nodes,
        names,
        PROFILE,
        made.folder / main,
        params.opset,
        params.external_data,
        params.check is not False,
    )
    return Converted(main=main, names=names, precision=FLOAT32, facts=facts)


def _names(made: Single) -> Names:
    """The signature's keys; an output that has an input's key gets another name: one graph has both."""
    inputs, outputs = made.keys
    taken, found = {*inputs, *outputs}, dict(outputs)
    for key in sorted(inputs.keys() & outputs.keys()):
        found[key] = next(
            name for number in itertools.count(1) if (name := f"{key}_{number}") not in taken
        )
        taken.add(found[key])
    return Names(inputs, found)


def _form(model: Model) -> Model:
    return with_own_names(onnx_form(model))


_CONVERTER = Converter(
    profile=lambda: PROFILE, convert=convert, runtime=RUNTIME, tools=TOOLS, form=_form
)

FORMAT = ExportFormat(
    name="onnx",
    version=11,
    summary="ONNX, for ONNX Runtime and whatever else reads it; needs `freezeflow[onnx]`.",
    write=_CONVERTER.write,
    suffixes=(".onnx",),
    params=Params,
    extra="onnx",
    tools=TOOLS,
    runtimes=(RUNTIME,),
    in_tensorflow=True,
    problems=check_problems,
)
