"""ONNX by tf2onnx, checked by the onnx checker and ONNX Runtime.

Weights lie in one file beside the model (``x.onnx.data``) where the model would be too large for one
protobuf message, or on request. Inputs and outputs are called as the signature calls them.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from freezeflow.exports.check import Checked, check_problems
from freezeflow.exports.converted import Converted, Converter, OneSignature, Single
from freezeflow.exports.format import ExportFormat, ExportRequest
from freezeflow.graph.profile import FUNCTIONAL, Profile
from freezeflow.params import param
from freezeflow.runtimes.onnx_runtime import RUNTIME
from freezeflow.runtimes.runtime import FLOAT32

TOOLS = ("tf2onnx", "onnx")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params(OneSignature, Checked):
    """Parameters of ``format: onnx``."""

    opset: int = param("Version of ONNX's operator set.", default=17, minimum=11, maximum=18)
    external_data: Literal["auto", "always"] = param(
        "Weights in a file of their own beside the model: where it is too large for one, or always.",
        default="auto",
    )


PROFILE = Profile(
    target="ONNX",
    # That depends on the opset: before it converts, `tf.to_onnx` asks the converter's own table.
    ops=None,
    control_flow=FUNCTIONAL,
    unrolls="lists",
    spells_out=True,
)


def convert(request: ExportRequest, made: Single) -> Converted:
    """By tf2onnx."""
    from freezeflow.tf.to_onnx import to_onnx

    params: Params = request.params
    main, external = request.to.name, params.external_data
    facts = request.context.confined(
        to_onnx, made.model, made.nodes, PROFILE, made.folder / main, params.opset, external
    )
    return Converted(main=main, names=made.keys, precision=FLOAT32, facts=facts)


_CONVERTER = Converter(profile=lambda: PROFILE, convert=convert, runtime=RUNTIME, tools=TOOLS)

FORMAT = ExportFormat(
    name="onnx",
    version=5,
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
