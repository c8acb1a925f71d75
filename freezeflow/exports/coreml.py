"""A Core ML package (``.mlpackage``) by coremltools.

Core ML runs on Apple's systems only. What is checked is the structure: that the package is read back
as an ML program with the right inputs and outputs. The report says so.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from freezeflow.exports.converted import Converted, Converter, OneSignature, Single
from freezeflow.exports.format import ExportFormat, ExportRequest
from freezeflow.graph.profile import FUNCTIONAL, Profile
from freezeflow.graph.spelled_out import BATCH_NORMS
from freezeflow.params import param
from freezeflow.runtimes.runtime import FLOAT16, FLOAT32
from freezeflow.values import DType

TOOLS = ("coremltools",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params(OneSignature):
    """Parameters of ``format: coreml``."""

    precision: Literal["float32", "float16"] = param(
        "What is computed with, and how weights are kept.", default="float32"
    )


PROFILE = Profile(
    target="Core ML",
    # coremltools' registry tells, which `tf.to_coreml` asks.
    ops=None,
    control_flow=FUNCTIONAL,
    unrolls="all",
    list_loops=False,
    spells_out=frozenset(["Erfc", *BATCH_NORMS]),
    dtypes=frozenset((DType.FLOAT, DType.HALF, DType.INT32)),
    layout="NHWC",
)

_NOTE = "only the structure was checked: Core ML runs on Apple's systems"


def convert(request: ExportRequest, made: Single) -> Converted:
    """By coremltools; looks at the structure of what it wrote."""
    from freezeflow.tf.to_coreml import to_coreml

    params: Params = request.params
    # coremltools insists on the ending.
    package = made.folder / "model.mlpackage"
    half = params.precision == "float16"
    facts = request.context.confined(to_coreml, made.model, PROFILE, made.nodes, half, package)
    request.context.warn(f"{request.to.name}: {_NOTE}")
    return Converted(
        main="Manifest.json",
        names=made.nodes,
        precision=FLOAT16 if half else FLOAT32,
        facts={**facts, "note": _NOTE},
        folder=package,
    )


_CONVERTER = Converter(profile=lambda: PROFILE, convert=convert, runtime=None, tools=TOOLS)

FORMAT = ExportFormat(
    name="coreml",
    version=6,
    summary="A Core ML package, a folder, whose structure alone is checked; needs `freezeflow[coreml]`.",
    write=_CONVERTER.write,
    suffixes=(".mlpackage",),
    params=Params,
    extra="coreml",
    tools=TOOLS,
    in_tensorflow=True,
)
