"""OpenVINO's IR (.xml with .bin), read by it from our own file and checked on its CPU runtime."""

from __future__ import annotations

import dataclasses
from typing import Literal

from freezeflow.exports.check import Checked, check_problems
from freezeflow.exports.converted import OneSignature, finished, graph_file, single
from freezeflow.exports.format import Export, ExportFormat, ExportRequest
from freezeflow.graph.profile import FUNCTIONAL, LOWERED, Profile
from freezeflow.params import param
from freezeflow.runtimes.openvino_runtime import RUNTIME
from freezeflow.runtimes.runtime import FLOAT16, FLOAT32

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
)


def write(request: ExportRequest) -> Export:
    """Converts, checks and publishes; see `freezeflow.exports.converted`."""
    from freezeflow.tf.to_openvino import to_openvino

    params: Params = request.params
    made = single(request, PROFILE)
    graph = graph_file(request, made.model)
    half = params.precision == "float16"
    main = request.to.name
    facts = request.context.confined(
        to_openvino, made.model, graph, made.nodes, made.folder / main, half
    )
    return finished(
        request,
        made,
        RUNTIME,
        main=main,
        names=made.keys,
        precision=FLOAT16 if half else FLOAT32,
        tools=TOOLS,
        facts=facts,
    )


FORMAT = ExportFormat(
    name="openvino",
    summary="OpenVINO's IR, an .xml file with its weights in a .bin file; needs `freezeflow[openvino]`.",
    write=write,
    suffixes=(".xml",),
    params=Params,
    extra="openvino",
    tools=TOOLS,
    runtimes=(RUNTIME,),
    in_tensorflow=True,
    problems=check_problems,
)
