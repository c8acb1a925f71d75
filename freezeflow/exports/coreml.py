"""A Core ML package (``.mlpackage``) by coremltools.

Core ML runs on Apple's systems only. What is checked is the structure: that the package is read back
as an ML program with the right inputs and outputs. The report says so.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from freezeflow.exports.converted import Converted, Converter, OneSignature, Single
from freezeflow.exports.format import ExportFormat, ExportRequest
from freezeflow.graph.coreml_form import AS_INT32, BRANCHES, coreml_form
from freezeflow.graph.profile import Profile
from freezeflow.params import param
from freezeflow.runtimes.runtime import FLOAT16, FLOAT32, Names
from freezeflow.values import DType

TOOLS = ("coremltools",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params(OneSignature):
    """Parameters of ``format: coreml``."""

    precision: Literal["float32", "float16"] = param(
        "What is computed with, and how weights are kept.", default="float32"
    )


# Element types that its programs compute with, or that coremltools turns into one of these.
_INNER = (
    *(DType.FLOAT, DType.HALF, DType.DOUBLE, DType.BOOL, DType.INT8, DType.UINT8, DType.INT16),
    *(DType.UINT16, DType.INT32, DType.INT64, DType.VARIANT, DType.RESOURCE),
)

# Words of the language of its programs: coremltools, ``converters/mil/mil/passes/defs/preprocess.py``.
_WORDS = """
    any bool program func tensor list dict tuple true false string bf16 fp16 fp32 fp64 int8 int16 int32 int64
    uint8 uint16 uint32 uint64 state
"""

PROFILE = Profile(
    target="Core ML",
    # coremltools' registry tells, which `tf.to_coreml` asks.
    ops=None,
    # Of loops its reader takes the first two values for a counter and a limit, and leaves them out.
    control_flow=BRANCHES,
    unrolls="all",
    # Batch norms in training mode coremltools spells out itself; of others it wants statistics as constants.
    spells_out=frozenset(["Einsum", "Erfc", "Rank"]),
    widens=True,
    static="ranks",
    constant_outputs=False,
    reserved=frozenset(_WORDS.split()),
    dtypes=frozenset((DType.FLOAT, DType.HALF, DType.INT32, *AS_INT32)),
    lacks={dtype: frozenset() for dtype in DType if dtype not in _INNER},
    # It turns integers of 64 bits into such of 32.
    wide_integers=False,
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
    # An input that has no effect is none of the package's.
    inputs = {key: node for key, node in made.nodes.inputs.items() if node in facts["inputs"]}
    return Converted(
        main="Manifest.json",
        names=Names(inputs, made.nodes.outputs),
        precision=FLOAT16 if half else FLOAT32,
        facts={**facts, "note": _NOTE},
        folder=package,
    )


_CONVERTER = Converter(
    profile=lambda: PROFILE, convert=convert, runtime=None, tools=TOOLS, form=coreml_form
)

FORMAT = ExportFormat(
    name="coreml",
    version=7,
    summary="A Core ML package, a folder, whose structure alone is checked; needs `freezeflow[coreml]`.",
    write=_CONVERTER.write,
    suffixes=(".mlpackage",),
    params=Params,
    extra="coreml",
    tools=TOOLS,
    in_tensorflow=True,
)
