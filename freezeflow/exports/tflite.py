"""TFLite by TensorFlow's converter, checked by LiteRT's own interpreter.

The file keeps the signature, so that inputs and outputs are called as it calls them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from freezeflow.exports.check import Checked, check_problems
from freezeflow.exports.converted import (
    Converted,
    Converter,
    OneSignature,
    Single,
    saved_model_folder,
)
from freezeflow.exports.format import ExportFormat, ExportRequest
from freezeflow.graph.profile import CASES, FUNCTIONAL, Profile
from freezeflow.graph.spelled_out import BATCH_NORMS
from freezeflow.params import InputPath, param
from freezeflow.runtimes.litert import RUNTIME
from freezeflow.runtimes.runtime import DYNAMIC_RANGE, FLOAT16, FLOAT32, INT8, Precision
from freezeflow.values import DType

_PRECISIONS: Mapping[str, Precision] = {
    precision.name: precision for precision in (FLOAT32, FLOAT16, DYNAMIC_RANGE, INT8)
}

_QUANTIZED_AND_BACK = frozenset(
    f"QuantizeAndDequantize{version}" for version in ("", "V2", "V3", "V4")
)

PROFILE = Profile(
    target="TFLite",
    # The converter tells; it is asked before anything is written.
    ops=None,
    # It leaves these out, and does not say so.
    refuses=_QUANTIZED_AND_BACK,
    helps=dict.fromkeys(
        _QUANTIZED_AND_BACK, "FakeQuant ops are kept; `precision: int8` has TFLite itself quantise."
    ),
    empty_outputs=False,
    control_flow=FUNCTIONAL - CASES,
    spells_out=BATCH_NORMS | {"Einsum"},
    splits_groups=frozenset(["Conv3D"]),
    # Its converter takes bfloat16 at the ends and in casts only.
    widens=True,
    unrolls="lists",
    stacks_lists="slice",
    dtypes=frozenset(
        (
            DType.FLOAT,
            DType.DOUBLE,
            DType.HALF,
            DType.INT8,
            DType.INT16,
            DType.INT32,
            DType.INT64,
            DType.UINT8,
            DType.UINT16,
            DType.UINT32,
            DType.UINT64,
            DType.BOOL,
            DType.STRING,
            DType.COMPLEX64,
            DType.COMPLEX128,
        )
    ),
    layout="NHWC",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params(OneSignature, Checked):
    """Parameters of ``format: tflite``."""

    precision: Literal["float32", "float16", "dynamic_range", "int8"] = param(
        "How numbers are kept: as they are; weights in half precision; weights in 8 bits; everything"
        " in 8 bits, by ranges taken from `representative`.",
        default="float32",
    )
    representative: InputPath | None = param(
        "For int8: a file with typical inputs, as `validate` takes them (.npz and so on).",
        default=None,
    )
    representative_samples: int = param(
        "How many of the typical inputs are looked at.", default=100, minimum=1
    )
    integer_ends: bool = param(
        "For int8: inputs and outputs are 8-bit integers, too.", default=False
    )


def problems(params: Params) -> list[tuple[str, str]]:
    """Mistakes that take more than one parameter."""
    found = check_problems(params)
    is_int8 = params.precision == "int8"
    if is_int8 and params.representative is None:
        found.append(("precision", "int8 needs `representative`, a file with typical inputs"))
    if not is_int8 and params.representative is not None:
        found.append(("representative", f"only int8 looks at it, not {params.precision}"))
    if not is_int8 and params.integer_ends:
        found.append(("integer_ends", f"only int8 has them, not {params.precision}"))
    return found


def convert(request: ExportRequest, made: Single) -> Converted:
    """By TensorFlow's converter."""
    from freezeflow.tf.to_tflite import Quantization, to_tflite

    params: Params = request.params
    given = params.representative
    quantization = Quantization(
        params.precision,
        None if given is None else Path(request.context.base, given),
        params.representative_samples,
        params.integer_ends,
    )
    folder = saved_model_folder(request, made.model)
    main = request.to.name
    facts = request.context.confined(
        to_tflite, made.model, folder, quantization, made.folder / main
    )
    precision = _PRECISIONS[params.precision]
    return Converted(main=main, names=made.keys, precision=precision, facts=facts)


_CONVERTER = Converter(
    profile=lambda: PROFILE, convert=convert, runtime=RUNTIME, tools=("tensorflow",)
)

FORMAT = ExportFormat(
    name="tflite",
    version=6,
    summary="TFLite, for LiteRT on phones and small devices; its check needs `freezeflow[tflite]`.",
    write=_CONVERTER.write,
    suffixes=(".tflite",),
    params=Params,
    extra="tflite",
    runtimes=(RUNTIME,),
    in_tensorflow=True,
    problems=problems,
)
