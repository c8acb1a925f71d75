"""A model with one signature, as runtimes take it that know a graph with inputs and outputs only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from freezeflow.errors import ModelRefused, UsageError
from freezeflow.graph import attrs
from freezeflow.graph.canonical import canonical
from freezeflow.graph.model import Model
from freezeflow.graph.rename import name_ends
from freezeflow.suggestions import did_you_mean
from freezeflow.values import Shape, Signature, TensorSpec

_USUAL = "serving_default"


def with_one_signature(
    model: Model, name: str | None, reserved: frozenset[str] | None = None
) -> Model:
    """The part of a model that one signature needs; each of its outputs is a node of its own.

    An input with a default that the signature does not name is its default: nobody feeds it any more.

    Args:
        model: A frozen model.
        name: Which signature; None for ``serving_default``, else the only one.
        reserved: As for `name_ends`.

    Raises:
        UsageError: There is none of that name, or no usual one.
    """
    chosen = name or (_USUAL if _USUAL in model.signatures else None)
    if chosen is None and len(model.signatures) == 1:
        (chosen,) = model.signatures
    if chosen is None or chosen not in model.signatures:
        raise UsageError(
            f"the model has no signature {name!r}" if name else "the format holds one signature",
            hint=f"`signature` names it; there are: {', '.join(model.signatures)}.",
        )
    alone = dataclasses.replace(model, signatures={chosen: model.signatures[chosen]}, init=())
    # What initialises tables stays as long as a table does.
    named = _with_defaults(name_ends(alone, reserved=reserved))
    if model.init and (tables := _tables(named)):
        raise ModelRefused(
            f"the signature reads {len(tables)} look-up tables, which are filled before the first call",
            where=tables[0],
            hint="`freeze: {tables: inline}` turns static tables into plain ops.",
        )
    return named


def _with_defaults(model: Model) -> Model:
    ((_, signature),) = model.signatures.items()
    fed = {spec.tensor for spec in signature.inputs.values()}
    nodes = {
        name: node._replace(op="Identity", attrs={"T": node.attrs["dtype"]})
        if node.op == "PlaceholderWithDefault" and name not in fed
        else node
        for name, node in model.graph.nodes.items()
    }
    return dataclasses.replace(model, graph=dataclasses.replace(model.graph, nodes=nodes))


def without_aliases(model: Model) -> tuple[Model, dict[str, str]]:
    """A model with one signature in which each input has one key: the first of those that name its tensor.

    Signatures of TensorFlow 1 may name a placeholder twice; its session feeds it by either name, and no
    other runtime takes it.

    Returns:
        The model, and each key that is left out with the one that stays.
    """
    ((name, signature),) = model.signatures.items()
    firsts: dict[str, str] = {}
    for key, spec in signature.inputs.items():
        firsts.setdefault(spec.tensor, key)
    kept = {key: signature.inputs[key] for key in firsts.values()}
    aliases = {
        key: firsts[spec.tensor] for key, spec in signature.inputs.items() if key not in kept
    }
    return (
        dataclasses.replace(model, signatures={name: Signature(kept, signature.outputs)}),
        aliases,
    )


def with_shapes(model: Model, batch: int | None, shapes: Mapping[str, tuple[int, ...]]) -> Model:
    """A model with one signature whose inputs have the given shapes.

    Args:
        model: The model.
        batch: What an unknown first dimension becomes; None leaves it unknown.
        shapes: Input key to its whole shape.

    Raises:
        UsageError: There is no such input, or it cannot have that shape.
    """
    ((name, signature),) = model.signatures.items()
    for key in shapes:
        if key not in signature.inputs:
            raise UsageError(
                f"the signature has no input {key!r}",
                hint=did_you_mean(key, signature.inputs),
            )
    inputs, nodes = {}, dict(model.graph.nodes)
    for key, spec in signature.inputs.items():
        shape = _shape(key, spec, batch, shapes)
        inputs[key] = dataclasses.replace(spec, shape=shape)
        node = nodes[spec.tensor]
        nodes[spec.tensor] = node._replace(
            attrs={**node.attrs, "shape": attrs.of_shape(shape)},
        )
    outputs = {
        key: dataclasses.replace(spec, shape=_batched(spec.shape, batch))
        for key, spec in signature.outputs.items()
    }
    graph = dataclasses.replace(model.graph, nodes=nodes)
    made = dataclasses.replace(model, graph=graph, signatures={name: Signature(inputs, outputs)})
    return canonical(made)


def _tables(model: Model) -> list[str]:
    return [name for name, node in model.graph.nodes.items() if "HashTable" in node.op]


def _shape(
    key: str, spec: TensorSpec, batch: int | None, shapes: Mapping[str, tuple[int, ...]]
) -> Shape:
    wanted = shapes.get(key)
    if wanted is None:
        return _batched(spec.shape, batch)
    fits = spec.shape is None or (
        len(spec.shape) == len(wanted)
        and all(dim in (None, want) for dim, want in zip(spec.shape, wanted, strict=True))
    )
    if not fits:
        raise UsageError(f"input {key!r} has the shape {spec.shape}, not {list(wanted)}")
    return wanted


def _batched(shape: Shape, batch: int | None) -> Shape:
    if batch is None or not shape or shape[0] is not None:
        return shape
    return (batch, *shape[1:])
