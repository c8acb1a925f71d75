"""What converters have in common: they raise anything, and say it at length."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import traceback
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from freezeflow.errors import FreezeflowError, ModelRefused
from freezeflow.graph.model import Model
from freezeflow.graph.profile import refuse_ops
from freezeflow.graph.write import graph_def_bytes, read_range

GraphDef = tf.compat.v1.GraphDef

_MOST_CHARACTERS = 300


# How converters list the ops that they do not take.
_LISTS = (
    re.compile(r"(?:Flex|Custom|TF Select) ops: ([\w, ]+)"),
    re.compile(r"No translator found for operation\(s\): ([\w, ]+)", re.IGNORECASE),
    re.compile(r"No conversion rule found for operations: ([\w, ]+)"),
    re.compile(r"No registered '(\w+)' OpKernel for XLA"),
    re.compile(r"TensorFlow op[^:\n]*: (\w+)"),
    re.compile(r"Conversion for TF op '(\w+)' not implemented"),
    re.compile(r"Op type not registered '(\w+)'"),
    re.compile(r"'tf\.(\w+)' op requires"),
    re.compile(r"failed to legalize operation 'tf\.(\w+)'"),
)


@dataclasses.dataclass
class At:
    """The node that a converter is at, as far as that can be seen; empty before the first."""

    op: str = ""
    node: str = ""


@contextlib.contextmanager
def converter(name: str, model: Model, hint: str = "") -> Iterator[At]:
    """Runs a converter; what it raises is kept in the step's log, and told in one line.

    Whoever runs it keeps what it is given up to date, so that the line names the node.

    Args:
        name: What it is called.
        model: What it converts; if it names ops that it does not take, their nodes are looked up.
        hint: What helps against most refusals.

    Raises:
        ModelRefused: It cannot convert the model.
    """
    at = At()
    try:
        yield at
    except FreezeflowError:
        raise
    except Exception as error:
        traceback.print_exc()
        text = str(error).strip()
        listed = [match for pattern in _LISTS for match in pattern.findall(text)]
        ops = {op.strip() for found in listed for op in found.split(",")} - {""}
        if ops:
            refuse_ops(model, name, ops, hint)
        told = " ".join((text or type(error).__name__).splitlines()[0].split())
        what = f"{at.op} ({at.node})" if at.node else "the model"
        raise ModelRefused(
            f"{name} cannot convert {what}: {told[:_MOST_CHARACTERS]}",
            where=at.node,
            hint=hint or "The whole report of the converter is in the log of the step.",
        ) from error


def graph_def_of(model: Model) -> Any:
    """The model as a message of TensorFlow's; it may be larger than what can be serialised."""
    graph_def = GraphDef.FromString(graph_def_bytes(model.graph, skeleton=True))
    bodies = [(graph_def.node, model.graph.nodes)]
    bodies += [
        (function.node_def, model.graph.functions[function.signature.name].nodes)
        for function in graph_def.library.function
    ]
    for written, nodes in bodies:
        for node_def in written:
            tensor = nodes[node_def.name].tensor
            if tensor is not None:
                node_def.attr["value"].tensor.tensor_content = read_range(tensor.location)
            for key in [key for key in node_def.attr if key.startswith("_freezeflow")]:
                del node_def.attr[key]
    return graph_def
