"""How two models differ: nodes, constants, signatures, sizes.

Both are compared in canonical form, so that what carries no meaning (order, debug information,
defaults written out or not, names that TensorFlow numbers anew with every export) makes no
difference. Nodes are matched by their names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from freezeflow.graph.canonical import canonical
from freezeflow.graph.graph import Function, Graph, Node
from freezeflow.graph.model import Model
from freezeflow.graph.signature_diff import SignatureChange, signature_changes
from freezeflow.graph.tensor_diff import ValueChange, compare_values, same_value, type_of
from freezeflow.graph.text import attribute_text
from freezeflow.values import DType, Shape


class NodeRef(NamedTuple):
    """A node: the function whose body it is in (empty for the main graph), its name and op."""

    function: str
    name: str
    op: str


class FieldChange(NamedTuple):
    """A field of a node or function that differs, with both values as text (empty: not there)."""

    field: str
    before: str
    after: str


class NodeChange(NamedTuple):
    """A node that is in both graphs and differs; its op is that of the later one."""

    node: NodeRef
    fields: tuple[FieldChange, ...]


class ConstantChange(NamedTuple):
    """A constant, or the value of a variable, that differs.

    Args:
        node: Which.
        before: Dtype and shape.
        after: Dtype and shape.
        value: How the elements differ; None where dtype or shape do.
    """

    node: NodeRef
    before: tuple[DType, Shape]
    after: tuple[DType, Shape]
    value: ValueChange | None


class Sizes(NamedTuple):
    """How large a model is.

    Args:
        nodes: Nodes of the main graph and of all functions.
        functions: How many functions.
        constants: How many constants and values of variables.
        constant_bytes: Their bytes (strings apart).
    """

    nodes: int
    functions: int
    constants: int
    constant_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelDiff:
    """How a later model differs from an earlier one.

    Args:
        before: Sizes of the earlier one.
        after: Sizes of the later one.
        added: Nodes that only the later one has.
        removed: Nodes that only the earlier one has.
        changed: Nodes that both have.
        constants: Constants and variables that both have, with another value.
        signatures: What callers see.
        others: What else differs: functions' arguments, initializers, assets, versions.
    """

    before: Sizes
    after: Sizes
    added: tuple[NodeRef, ...]
    removed: tuple[NodeRef, ...]
    changed: tuple[NodeChange, ...]
    constants: tuple[ConstantChange, ...]
    signatures: tuple[SignatureChange, ...]
    others: tuple[FieldChange, ...]

    @property
    def same(self) -> bool:
        """Nothing differs."""
        return not (
            self.added
            or self.removed
            or self.changed
            or self.constants
            or self.signatures
            or self.others
        )

    @property
    def breaking(self) -> bool:
        """A change of a signature breaks callers."""
        return any(change.breaking for change in self.signatures)


def diff_models(before: Model, after: Model, *, by_tensor_name: bool = False) -> ModelDiff:
    """Compares two models; constants are read block by block, and only where their digests differ.

    Args:
        before: The earlier one.
        after: The later one.
        by_tensor_name: Callers name tensors (a frozen graph), so that another tensor behind a
            signature's key breaks them.

    Raises:
        FreezeflowError: A file with a value is gone or has changed since it was read.
    """
    before, after = (canonical(model, keep_devices=True) for model in (before, after))
    old, new = _nodes(before), _nodes(after)
    shared = [(old[place], new[place], place) for place in old if place in new]
    changed = [
        NodeChange(NodeRef(place[0], place[1], there.op), fields)
        for here, there, place in shared
        if (fields := tuple(_field_changes(here, there, after.graph)))
    ]
    return ModelDiff(
        before=_sizes(before, old),
        after=_sizes(after, new),
        added=tuple(NodeRef(*place, node.op) for place, node in new.items() if place not in old),
        removed=tuple(NodeRef(*place, node.op) for place, node in old.items() if place not in new),
        changed=tuple(changed),
        constants=tuple(_constant_changes(_values(before, old), _values(after, new))),
        signatures=signature_changes(
            before.signatures, after.signatures, by_tensor_name=by_tensor_name
        ),
        others=tuple(_other_changes(before, after)),
    )


_Place = tuple[str, str]  # function (empty for the main graph), node


def _nodes(model: Model) -> dict[_Place, Node]:
    found = {("", name): node for name, node in model.graph.nodes.items()}
    for function in model.graph.functions.values():
        found.update(((function.name, name), node) for name, node in function.nodes.items())
    return found


def _values(model: Model, nodes: Mapping[_Place, Node]) -> dict[_Place, Node]:
    """Every Const with a value, and the values of variables under the names of their handles."""
    found = {
        place: node for place, node in nodes.items() if node.op == "Const" and "value" in node.attrs
    }
    found.update((("", handle), value) for handle, value in model.variables.items())
    return found


def _sizes(model: Model, nodes: Mapping[_Place, Node]) -> Sizes:
    values = _values(model, nodes).values()
    return Sizes(len(nodes), len(model.graph.functions), len(values), sum(map(_nbytes, values)))


def _nbytes(value: Node) -> int:
    if value.tensor is not None:
        return value.tensor.nbytes
    dtype, shape = type_of(value)
    count = dtype.item_bytes
    for size in shape or ():
        count *= size or 0
    return count


# ---------------------------------------------------------------- nodes


def _field_changes(before: Node, after: Node, graph: Graph) -> Iterator[FieldChange]:
    """What differs in a node, its value apart if it is a constant on both sides."""
    if before.op != after.op:
        yield FieldChange("op", before.op, after.op)
    if before.inputs != after.inputs:
        yield FieldChange("inputs", ", ".join(before.inputs), ", ".join(after.inputs))
    if before.device != after.device:
        yield FieldChange("device", before.device, after.device)
    if before.attrs is after.attrs or before.attrs == after.attrs:
        return
    both_constant = before.op == after.op == "Const"
    definition = graph.op_def(after.op)
    # Written out or not, a default is the same.
    defaults = {} if definition is None or before.op != after.op else definition.defaults
    for key in sorted(before.attrs.keys() | after.attrs.keys()):
        one, other = (node.attrs.get(key, defaults.get(key)) for node in (before, after))
        if one != other and not (both_constant and key in ("dtype", "value")):
            yield FieldChange(f"attr {key}", _text(one), _text(other))


def _text(value: bytes | None) -> str:
    return "" if value is None else attribute_text(value)


# ---------------------------------------------------------------- constants


def _constant_changes(
    before: Mapping[_Place, Node], after: Mapping[_Place, Node]
) -> Iterator[ConstantChange]:
    for place, one in before.items():
        other = after.get(place)
        if other is None:
            continue
        same = same_value(one, other)
        if same:
            continue
        types = type_of(one), type_of(other)
        value = compare_values(one, other) if types[0] == types[1] else None
        if value is None or value.differing:
            yield ConstantChange(NodeRef(*place, "Const"), *types, value)


# ---------------------------------------------------------------- the rest


def _other_changes(before: Model, after: Model) -> Iterator[FieldChange]:
    functions = before.graph.functions.keys() & after.graph.functions.keys()
    for name in sorted(functions):
        yield from _function_changes(before.graph.functions[name], after.graph.functions[name])
    yield from _change("init", _listed(before.init), _listed(after.init))
    old, new = _assets(before), _assets(after)
    for name in sorted(old.keys() | new.keys()):
        yield from _change(f"asset {name}", old.get(name, ""), new.get(name, ""))
    yield from _change("producer", str(before.graph.producer), str(after.graph.producer))
    yield from _change(
        "min_consumer", str(before.graph.min_consumer), str(after.graph.min_consumer)
    )


def _function_changes(before: Function, after: Function) -> Iterator[FieldChange]:
    where = f"function {before.name}"
    for field in ("args", "results"):
        one, other = (
            _listed(
                f"{end.name}: {end.type_attr or end.dtype.tf_name}" for end in getattr(f, field)
            )
            for f in (before, after)
        )
        yield from _change(f"{where} {field}", one, other)
    one, other = (_listed(r.tensor for r in f.results) for f in (before, after))
    yield from _change(f"{where} returns", one, other)
    one, other = (_listed(c.node for c in f.control_results) for f in (before, after))
    yield from _change(f"{where} runs", one, other)
    for key in sorted(before.attrs.keys() | after.attrs.keys()):
        yield from _change(
            f"{where} attr {key}", _text(before.attrs.get(key)), _text(after.attrs.get(key))
        )


def _change(field: str, before: str, after: str) -> Iterator[FieldChange]:
    if before != after:
        yield FieldChange(field, before, after)


def _listed(items: Iterator[str] | Sequence[str]) -> str:
    return ", ".join(items)


def _assets(model: Model) -> dict[str, str]:
    return {asset.name: f"{asset.content.digest} at {asset.tensor}" for asset in model.assets}
