"""Exports with a writer that damages what it writes, in a process that has run no op and may fork.

``python -m tests.exports.damaged SAVED_MODEL [[TO, FORMAT, FAULT]...]`` prints the errors as JSON; FAULT is
none, ``graph`` (another op than the model has), ``weight`` (another number), or ``cut`` (the end is missing).
"""

import contextlib
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


@contextlib.contextmanager
def damaging(fault):
    """Both writers of TensorFlow's formats write graphs with the fault."""
    writers = (frozen_graph, saved_model)
    honest = [writer.graph_def_pieces for writer in writers]
    for writer, pieces_of in zip(writers, honest, strict=True):
        writer.graph_def_pieces = lambda graph, own=pieces_of: with_fault(own(graph), fault)
    yield
    for writer, pieces_of in zip(writers, honest, strict=True):
        writer.graph_def_pieces = pieces_of


def told(model, to, form, fault):
    """What an export says; nothing if it was published."""
    with tempfile.TemporaryDirectory() as scratch, damaging(fault):
        context = StepContext(Path.cwd(), Path(scratch), None, sys.stderr, Limits())
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
    exports = json.loads(sys.argv[2])
    sys.stdout.write(json.dumps([told(sys.argv[1], *each) for each in exports]) + "\n")
