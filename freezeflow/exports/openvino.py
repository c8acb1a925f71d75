"""OpenVINO's IR (.xml with .bin), read by it from our own file and checked on its CPU runtime."""

from __future__ import annotations

import dataclasses
from typing import Literal

from freezeflow.exports.check import Checked, check_problems
from freezeflow.exports.converted import Converted, Converter, OneSignature, Single, graph_file
from freezeflow.exports.format import ExportFormat, ExportRequest
from freezeflow.graph.profile import FUNCTIONAL, LOWERED, Profile
from freezeflow.params import param
from freezeflow.runtimes.openvino_runtime import RUNTIME
from freezeflow.runtimes.runtime import FLOAT16, FLOAT32, Names

TOOLS = ("openvino",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params(OneSignature, Checked):
    """Parameters of ``format: openvino``."""

    precision: Literal["float32", "float16"] = param(
        "How weights are kept: as they are, or in half precision.", default="float32"
    )


PROFILE = Profile(
    target="OpenVINO",
    # Its reader tells; it is asked before anything is written.
    ops=None,
    control_flow=FUNCTIONAL | LOWERED,
    wide_integers=False,
)


def convert(request: ExportRequest, made: Single) -> Converted:
    """By OpenVINO's own reader."""
    from freezeflow.tf.to_openvino import to_openvino

    params: Params = request.params
    graph = graph_file(request, made.model)
    half = params.precision == "float16"
    main = request.to.name
    facts = request.context.confined(
        to_openvino, made.model, graph, made.nodes, made.folder / main, half
    )
    precision = FLOAT16 if half else FLOAT32
    # An input that nothing depends on is none of OpenVINO's.
    names = Names({key: key for key in facts["inputs"]}, made.keys.outputs)
    return Converted(main=main, names=names, precision=precision, facts=facts)


_CONVERTER = Converter(profile=lambda: PROFILE, convert=convert, runtime=RUNTIME, tools=TOOLS)

FORMAT = ExportFormat(
    name="openvino",
    summary="OpenVINO's IR, an .xml file with its weights in a .bin file; needs `freezeflow[openvino]`.",
    write=_CONVERTER.write,
    suffixes=(".xml",),
    params=Params,
    extra="openvino",
    tools=TOOLS,
    runtimes=(RUNTIME,),
    in_tensorflow=True,
    problems=check_problems,
)
