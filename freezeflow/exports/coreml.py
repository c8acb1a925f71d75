"""A Core ML package (``.mlpackage``) by coremltools.

Core ML runs on Apple's systems only. What is checked is the structure: that the package is read back
as an ML program with the right inputs and outputs. The report says so.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from freezeflow.exports.converted import OneSignature, published, single
from freezeflow.exports.format import Export, ExportFormat, ExportRequest
from freezeflow.graph.profile import FUNCTIONAL, Profile
from freezeflow.installed import version_of
from freezeflow.params import param
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
    spells_out=True,
    dtypes=frozenset((DType.FLOAT, DType.HALF, DType.INT32)),
    layout="NHWC",
)

_NOTE = "only the structure was checked: Core ML runs on Apple's systems"


def write(request: ExportRequest) -> Export:
    """Converts, looks at the structure, and publishes; see `freezeflow.exports.converted`."""
    from freezeflow.tf.to_coreml import to_coreml

    params: Params = request.params
    made = single(request, PROFILE)
    main = "Manifest.json"
    # coremltools insists on the ending.
    package = made.folder / "model.mlpackage"
    half = params.precision == "float16"
    facts = request.context.confined(to_coreml, made.model, PROFILE, made.nodes, half, package)
    told = {
        "format": FORMAT.name,
        "precision": params.precision,
        "inputs": dict(made.nodes.inputs),
        "outputs": dict(made.nodes.outputs),
        "tools": {name: version_of(name) for name in TOOLS},
    }
    request.context.warn(f"{request.to.name}: {_NOTE}")
    files = published(request, made.model, package, main, export=told)
    return Export(files, {**facts, "check": None, "note": _NOTE})


FORMAT = ExportFormat(
    name="coreml",
    version=3,
    summary="A Core ML package, a folder, whose structure alone is checked; needs `freezeflow[coreml]`.",
    write=write,
    suffixes=(".mlpackage",),
    params=Params,
    extra="coreml",
    tools=TOOLS,
    in_tensorflow=True,
)
