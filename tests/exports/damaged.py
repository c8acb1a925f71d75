"""Exports with a writer that damages what it writes, in a process that has run no op and may fork.

``python -m tests.exports.damaged SAVED_MODEL TO FORMAT FAULT`` prints the error as JSON; FAULT is none,
``graph`` (another op than the model has), ``weight`` (another number), or ``cut`` (the end is missing).
"""

import json
import sys
import tempfile
from pathlib import Path

from freezeflow.engine.context import StepContext
from freezeflow.engine.orders import Limits
from freezeflow.errors import FreezeflowError
from freezeflow.exports import frozen_graph, saved_model
from freezeflow.graph.write import materialise
from freezeflow.messages import message_class
from freezeflow.stages import export, freeze, load
from freezeflow.stages.stage import StageInput
from freezeflow.values import ModelSource

SIGNATURES = ("serving_default", "words")


def with_fault(pieces, fault):
    """The pieces of a graph file, damaged."""
    if fault == "cut":
        return [materialise(pieces)[:-3]]
    graph = message_class("GraphDef").FromString(materialise(pieces))
    if fault == "graph":
        (node,) = [node for node in graph.node if node.op == "Relu"]
        node.op = "Abs"
    if fault == "weight":
        largest = max(graph.node, key=lambda node: len(node.attr["value"].tensor.tensor_content))
        content = largest.attr["value"].tensor.tensor_content
        largest.attr["value"].tensor.tensor_content = content[:-1] + bytes([content[-1] ^ 1])
    return [graph.SerializeToString()]


def main(model, to, form, fault, scratch):
    for writer in (frozen_graph, saved_model):
        honest = writer.graph_def_pieces
        writer.graph_def_pieces = lambda graph, honest=honest: with_fault(honest(graph), fault)
    context = StepContext(Path.cwd(), scratch, None, sys.stderr, Limits())
    source = ModelSource(kind="saved_model", path=Path(model), signatures=SIGNATURES)
    made = None
    for stage in (load.STAGE, freeze.STAGE):
        made = stage.run(StageInput(model=made, source=source), stage.params(), context).model
    params = export.params_of(form)(to=to, format=form, check=True)
    try:
        export.STAGE.run(StageInput(model=made, source=source), params, context)
    except FreezeflowError as error:
        return {"kind": type(error).__name__, "message": error.message}
    return {}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(json.dumps(main(*sys.argv[1:], Path(folder))) + "\n")
