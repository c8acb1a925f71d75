"""The stage ``uint8_input``: a model that takes float32 images takes bytes and scales them itself.

    stages:
      - load
      - freeze
      - uint8_input: {input: image, scale: 0.00392156862745098}
      - export: build/model.pb

Whoever serves images then sends a quarter of the bytes, and cannot forget the scaling.
"""

from __future__ import annotations

import dataclasses
import struct

from freezeflow.context import Context
from freezeflow.errors import StageFailed
from freezeflow.graph import attrs
from freezeflow.graph.constants import const
from freezeflow.graph.graph import Node, node_of
from freezeflow.graph.model import Model
from freezeflow.params import param
from freezeflow.stages.stage import Outcome, Stage, StageInput
from freezeflow.values import DType, Signature, TensorSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """What a recipe may say. Schema, defaults and help come from here."""

    input: str = param("Key of the signature's input.", shorthand=True)
    scale: float = param("What each byte is multiplied by.", default=1 / 255)


def run(given: StageInput, params: Params, context: Context) -> Outcome:
    """The stage itself: a model in, another one out, with figures for the report.

    Raises:
        StageFailed: There is no model, no such input, or it takes no float32.
    """
    if given.model is None:
        raise StageFailed("uint8_input has no model to work on", hint="put `load` before it")
    name = _placeholder(given.model, params.input)
    graph = _rewritten(given.model, name, params.scale)
    signatures = {key: _with_bytes(s, name) for key, s in given.model.signatures.items()}
    context.log(f"{name} takes uint8, times {params.scale:g}")
    model = dataclasses.replace(given.model, graph=graph, signatures=signatures)
    return Outcome(model=model, facts={"input": params.input, "scale": params.scale})


def _placeholder(model: Model, key: str) -> str:
    """The node that an input's key feeds."""
    keys = sorted({key for signature in model.signatures.values() for key in signature.inputs})
    found = [s.inputs[key] for s in model.signatures.values() if key in s.inputs]
    if not found:
        raise StageFailed(
            f"no signature has an input {key!r}", hint=f"There are: {', '.join(keys)}."
        )
    name = node_of(found[0].tensor)
    if model.graph.nodes[name].op != "Placeholder" or found[0].dtype is not DType.FLOAT:
        raise StageFailed(
            f"input {key!r} is {found[0].dtype.tf_name}, not a placeholder of float32",
            where=name,
            hint="Choose an input that takes float32.",
        )
    return name


def _rewritten(model: Model, name: str, scale: float):
    """The graph with a placeholder of uint8, a Cast and a Mul where one of float32 was.

    Graphs and nodes are values: nothing is changed in place, new ones are made.
    """
    wide, factor, scaled = (f"{name}/{part}" for part in ("float32", "scale", "scaled"))
    nodes: dict[str, Node] = {}
    for node in model.graph.nodes.values():
        if node.name == name:
            dtype = {"dtype": attrs.of_type(DType.UINT8)}
            nodes[name] = node._replace(attrs={**node.attrs, **dtype})
            casts = {"SrcT": attrs.of_type(DType.UINT8), "DstT": attrs.of_type(DType.FLOAT)}
            nodes[wide] = Node(wide, "Cast", (name,), casts)
            nodes[factor] = const(factor, DType.FLOAT, (), struct.pack("<f", scale))
            nodes[scaled] = Node(scaled, "Mul", (wide, factor), {"T": attrs.of_type(DType.FLOAT)})
        else:
            inputs = tuple(scaled if tensor == name else tensor for tensor in node.inputs)
            nodes[node.name] = node._replace(inputs=inputs)
    return dataclasses.replace(model.graph, nodes=nodes)


def _with_bytes(signature: Signature, name: str) -> Signature:
    def spec(old: TensorSpec) -> TensorSpec:
        return dataclasses.replace(old, dtype=DType.UINT8) if node_of(old.tensor) == name else old

    inputs = {key: spec(old) for key, old in signature.inputs.items()}
    return dataclasses.replace(signature, inputs=inputs)


# What freezeflow looks for. `version` goes up whenever the same model and parameters give something
# else: it is part of every key, so that results of the old version are not used any more.
STAGE = Stage(
    name="uint8_input",
    summary="Let an input take bytes, and scale them in the graph.",
    version=1,
    params=Params,
    run=run,
)
