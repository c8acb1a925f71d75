"""TensorFlow's own graph optimiser as a stage, for those who want its passes in the file."""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Mapping
from typing import Literal

from freezeflow.context import Context
from freezeflow.errors import ModelRefused
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.model import Model
from freezeflow.graph.walk import function_order
from freezeflow.params import param
from freezeflow.stages.cast import frozen_model
from freezeflow.stages.stage import Demands, Outcome, Stage, StageInput
from freezeflow.stages.strip import count_nodes
from freezeflow.values import Digest, TensorRef

Pass = Literal[
    "arithmetic",
    "common_subgraph_elimination",
    "constfold",
    "debug_stripper",
    "dependency",
    "function",
    "layout",
    "loop",
    "pruning",
    "remap",
    "shape",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """Parameters of ``grappler``."""

    passes: tuple[Pass, ...] = param(
        "Passes in their order, by TensorFlow's own names. `remap` and `layout` make graphs for this "
        "kind of machine; `debug_stripper` takes out Assert, CheckNumerics and Print.",
        default=("pruning", "constfold", "dependency"),
        shorthand=True,
    )
    iterations: int = param("How often all passes run.", default=2, minimum=1, maximum=10)


def run(given: StageInput, params: Params, context: Context) -> Outcome:
    """Runs the passes and brings what comes out into the canonical form.

    Raises:
        ModelRefused: The graph has ops that are not known to be harmless; the optimiser runs some.
        StageFailed: There is no frozen model, it is too large, or the optimiser fails.
    """
    from freezeflow.graph.canonical import canonical
    from freezeflow.graph.op_policy import check_runnable, uses_of
    from freezeflow.graph.strip import strip
    from freezeflow.machine import machine_facts
    from freezeflow.sources.graph_file import parse_file
    from freezeflow.tf.grappler import optimise

    model = frozen_model(given, "grappler")
    function_order(model.graph)
    try:
        check_runnable(uses_of(model.graph), model.graph.functions)
    except ModelRefused as refused:
        hint = "Grappler runs constant parts of a graph. Leave `grappler` out, or use `fold`."
        raise ModelRefused(refused.message, where=refused.where, hint=hint) from None
    path = context.scratch / "optimised.pb"
    optimise(model, params.passes, params.iterations, path)
    parsed = parse_file(path, "GraphDef")
    graph = _with_own_tensors(parsed.reader(parsed.message).graph(), model, context)
    graph = dataclasses.replace(graph, op_defs=model.graph.op_defs)
    optimised = canonical(strip(dataclasses.replace(model, graph=graph)).model)
    return Outcome(
        model=optimised,
        facts={
            "nodes_before": count_nodes(model),
            "nodes_after": count_nodes(optimised),
            "passes": list(params.passes),
            "depends_on_machine": machine_facts(),
        },
    )


def _with_own_tensors(graph: Graph, model: Model, context: Context) -> Graph:
    """The graph with its large constants where the model had them; new ones are kept."""
    known = {
        node.tensor.digest: node.tensor.location
        for nodes in (model.graph.nodes, *(f.nodes for f in model.graph.functions.values()))
        for node in nodes.values()
        if node.tensor is not None
    }

    def placed(tensor: TensorRef) -> TensorRef:
        if tensor.digest in known:
            return tensor._replace(location=known[tensor.digest])
        kept = context.put_tensor(_content(tensor), tensor.dtype, tensor.shape)
        known[Digest(kept.digest.hex)] = kept.location
        return kept

    def all_placed(nodes: Mapping[str, Node]) -> dict[str, Node]:
        return {
            name: node if node.tensor is None else node._replace(tensor=placed(node.tensor))
            for name, node in nodes.items()
        }

    functions = {
        name: dataclasses.replace(function, nodes=all_placed(function.nodes))
        for name, function in graph.functions.items()
    }
    return dataclasses.replace(graph, nodes=all_placed(graph.nodes), functions=functions)


def _content(tensor: TensorRef) -> memoryview:
    place = tensor.location
    with open(place.path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return memoryview(mapped)[place.offset : place.offset + place.length]


def demands(params: Params) -> Demands:
    """TensorFlow; and as another machine's optimiser may do something else, its key names the machine."""
    from freezeflow.machine import machine_facts

    return Demands(in_tensorflow=True, versions={"machine": machine_facts()})


STAGE = Stage(
    name="grappler",
    summary="Run chosen passes of TensorFlow's own graph optimiser; depends on the machine.",
    version=1,
    params=Params,
    run=run,
    tools=("tensorflow",),
    demands=demands,
)
