"""What a target takes, as data, and the look at a graph that comes before any converter.

A converter's own report comes too late and names its own things. The look names the model's nodes,
and what helps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.einsum import ELLIPSIS
from freezeflow.graph.graph import Graph, Node, data_inputs, node_of
from freezeflow.graph.model import Model
from freezeflow.graph.spelled_out import BATCH_NORMS, trains
from freezeflow.graph.stacked import Kept, Setting
from freezeflow.graph.tensor_values import elements
from freezeflow.graph.walk import inputs_first, reached_functions
from freezeflow.values import DType, Shape, Signature

CASES = frozenset(["Case", "StatelessCase"])
FUNCTIONAL = frozenset(["If", "StatelessIf", "While", "StatelessWhile"]) | CASES
LOWERED = frozenset(["Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond", "_SwitchN"])

# In every graph, and nothing to any target.
_PLAIN = frozenset(["Const", "Identity", "NoOp", "Placeholder", "PlaceholderWithDefault"])

_NAMED = 4

# What a converter seldom refuses an op for.
_USUAL_TYPES = frozenset(["float32", "int32", "int64", "bool"])

_WIDE = frozenset([DType.INT64, DType.UINT64, DType.UINT32])

_UNROLLING = (
    "A loop is unrolled where the number of its rounds is known: `fold` before the export, fix what is open"
    " (`shapes: {KEY: [...]}`, `batch: N`), and allow as many rounds as it has (`unroll: N`)."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """What a target takes.

    Args:
        target: What it is called.
        ops: The ops that it takes; None where only its converter knows.
        refuses: Ops that it does not take, whatever else names them.
        control_flow: Ops of control flow that it takes.
        static: What of the shapes of inputs has to be known: nothing, ranks, or all dimensions.
        constant_outputs: Takes outputs that no input reaches.
        empty_outputs: Takes outputs without elements.
        reserved: Names of inputs and outputs have to be identifiers, and other ones than these words; None
            where they may be any.
        dtypes: Element types of inputs and outputs that it takes; None for all.
        lacks: Element types that it does not have, with the ops that may have them all the same.
        widens: bfloat16 is replaced by float32 first (`freezeflow.graph.widened`).
        not_given: Element types that inputs may have and outputs may not.
        constants: Element types of constants that it takes; None for all.
        typed: Op to the element types that it takes it with, by attribute, in one or several ways; what is
            not in here it takes with any.
        layout: The layout of images that its kernels take (``NHWC``), empty for any.
        spells_out: Ops that are replaced by others first (`freezeflow.graph.spelled_out`).
        splits_groups: Convolutions that are cut into their groups first (`freezeflow.graph.grouped`).
        helps: Op to what helps where the target does not take it.
        unrolls: Which loops are unrolled first (`freezeflow.graph.unroll`), where that can be done: none,
            those that carry lists, or all.
        stacks_lists: How an element is set in the tensors that take the place of lists
            (`freezeflow.graph.stacked`), where that can be done; None leaves lists alone.
        list_loops: Takes loops that carry lists of tensors, whatever their length.
        wide_integers: Its runtime computes with integers of 64 bits as such, not in 32.
        training_norms: Takes batch norms that take their statistics from the batch.
    """

    target: str
    ops: Collection[str] | None
    refuses: frozenset[str] = frozenset()
    control_flow: frozenset[str] = FUNCTIONAL
    static: Literal["none", "ranks", "all"] = "none"
    constant_outputs: bool = True
    empty_outputs: bool = True
    reserved: frozenset[str] | None = None
    dtypes: frozenset[DType] | None = None
    lacks: Mapping[DType, frozenset[str]] = dataclasses.field(default_factory=dict)
    widens: bool = False
    not_given: frozenset[DType] = frozenset()
    constants: frozenset[DType] | None = None
    typed: Mapping[str, Sequence[Mapping[str, Collection[DType]]]] = dataclasses.field(
        default_factory=dict
    )
    layout: Literal["", "NHWC"] = ""
    spells_out: frozenset[str] = frozenset()
    splits_groups: frozenset[str] = frozenset()
    unrolls: Literal["none", "lists", "all"] = "none"
    stacks_lists: Setting | None = None
    list_loops: bool = True
    wide_integers: bool = True
    training_norms: bool = True
    helps: Mapping[str, str] = dataclasses.field(default_factory=dict)


class _Use(NamedTuple):
    """A node and where it stands: its path, through the function that holds it."""

    path: str
    node: Node


def look(model: Model, profile: Profile, kept: Kept | None = None) -> None:
    """Lets a model with one signature pass that a target takes.

    Args:
        model: The model.
        profile: What the target takes.
        kept: Why lists stay that were to be replaced.

    Raises:
        ModelRefused: It does not; the message names the ops and nodes, the hint what helps.
    """
    _look_at_ends(model, profile)
    uses = list(_uses(model.graph))
    _look_at_control_flow(uses, profile)
    _look_at_lists(uses, profile, kept)
    _look_at_ops(uses, profile)
    _look_at_constants(uses, profile)
    _look_at_types(uses, profile)
    _look_at_kernels(uses, profile)
    _look_at_layout(uses, profile)
    _look_at_integers(uses, profile)
    _look_at_norms(uses, profile)
    _look_at_einsums(uses, profile)


def _look_at_einsums(uses: Iterable[_Use], profile: Profile) -> None:
    """Refuses an ellipsis that could not be written out."""
    if "Einsum" not in profile.spells_out:
        return
    for path, node in uses:
        if node.op == "Einsum" and ELLIPSIS.encode() in attrs.to_bytes(node.attrs["equation"]):
            raise ModelRefused(
                f"{profile.target} takes no ellipsis in Einsum, and it is not certain what this one stands"
                f" for: {path}",
                where=path,
                hint="Fix what is open (`batch: N`, `shapes: {KEY: [...]}`), or write the equation with a"
                " letter for each dimension.",
            )


def _look_at_norms(uses: Iterable[_Use], profile: Profile) -> None:
    """Refuses batch norms in training mode that could not be spelled out."""
    if profile.training_norms:
        return
    met = [use for use in uses if use.node.op in BATCH_NORMS and trains(use.node)]
    if met:
        raise ModelRefused(
            f"{profile.target} does not take batch norms in training mode: {_listed(met)}",
            where=met[0].path,
            hint="Export the model for inference (`training=False`, `is_training=False`).",
        )


def _look_at_integers(uses: Iterable[_Use], profile: Profile) -> None:
    """Refuses small constants that have more than 32 bits; the largest of 64 stand for "to the end"."""
    if profile.wide_integers:
        return
    for path, node in uses:
        if node.op != "Const" or node.tensor is not None:
            continue
        tensor = attrs.message(node.attrs["value"]).tensor
        if DType(tensor.dtype) not in _WIDE:
            continue
        if any(
            -(2**63) < value < -(2**31) or 2**31 <= value < 2**63 - 1 for value in elements(tensor)
        ):
            raise ModelRefused(
                f"{profile.target} computes with integers of 32 bits, and a constant has more",
                where=path,
                hint="Compute with such numbers outside of the model, or in floating point.",
            )


def refuse_ops(model: Model, target: str, ops: Collection[str], hint: str) -> None:
    """Refuses a model for ops that a converter itself has named, if the model has any of them.

    Raises:
        ModelRefused: It has; the message names the nodes.
    """
    foreign = [use for use in _uses(model.graph) if use.node.op in ops]
    if not foreign:
        return
    types = {
        attrs.to_type(value).tf_name
        for use in foreign
        for value in use.node.attrs.values()
        if attrs.kind(value) == "type"
    }
    rare = ", ".join(sorted(types - _USUAL_TYPES))
    raise ModelRefused(
        f"{target} does not take {_listed(foreign)}" + (f", of types {rare}" if rare else ""),
        where=foreign[0].path,
        hint=hint,
    )


def _uses(graph: Graph) -> Iterator[_Use]:
    for node in graph.nodes.values():
        yield _Use(node.name, node)
    for name in reached_functions(graph, graph.nodes.values()):
        for node in graph.functions[name].nodes.values():
            yield _Use(f"{name}/{node.name}", node)


def _look_at_ends(model: Model, profile: Profile) -> None:
    ((name, signature),) = model.signatures.items()
    all_types = frozenset(DType) if profile.dtypes is None else profile.dtypes
    for side, ends, known in (
        ("input", signature.inputs, all_types),
        ("output", signature.outputs, all_types - profile.not_given),
    ):
        for key, spec in ends.items():
            if spec.dtype not in known:
                raise ModelRefused(
                    f"{profile.target} has no {spec.dtype.tf_name} {side}s: {key!r}",
                    where=name,
                    hint=f"It takes {_names(known)}.",
                )
    for key, spec in signature.outputs.items():
        if not profile.empty_outputs and spec.shape is not None and 0 in spec.shape:
            raise ModelRefused(
                f"{profile.target} takes no output without elements: {key!r} is {_shown(spec.shape)}",
                where=name,
                hint="It says nothing: export a signature without it.",
            )
    if not profile.constant_outputs:
        _look_for_constants(model.graph, name, signature, profile)
    if profile.static == "none":
        return
    for key, spec in signature.inputs.items():
        if spec.shape is None or (profile.static == "all" and _is_open(spec.shape)):
            shown = "of unknown rank" if spec.shape is None else _shown(spec.shape)
            wanted = "known shapes" if profile.static == "all" else "inputs of known rank"
            raise ModelRefused(
                f"{profile.target} takes {wanted} only, and input {key!r} is {shown}",
                where=name,
                hint=f"`batch: N` fixes an open first dimension, `shapes: {{{key}: [...]}}` all of them.",
            )


def _look_for_constants(graph: Graph, name: str, signature: Signature, profile: Profile) -> None:
    """Refuses outputs that are the same in every call."""
    reached = {node_of(spec.tensor) for spec in signature.inputs.values()}
    for each in inputs_first(graph.nodes):
        if any(node_of(tensor) in reached for tensor in data_inputs(graph.nodes[each])):
            reached.add(each)
    constant = [
        key for key, spec in signature.outputs.items() if node_of(spec.tensor) not in reached
    ]
    if constant:
        raise ModelRefused(
            f"{profile.target} takes no output that no input reaches: {', '.join(map(repr, constant))}",
            where=name,
            hint="It is the same in every call: export a signature without it, and keep its value beside"
            " the model.",
        )


def _look_at_control_flow(uses: list[_Use], profile: Profile) -> None:
    for known, form, other in (
        (LOWERED, "lowered", "functional"),
        (FUNCTIONAL, "functional", "lowered"),
    ):
        met = [use for use in uses if use.node.op in known - profile.control_flow]
        if not met:
            continue
        takes_other = bool(profile.control_flow & (FUNCTIONAL if form == "lowered" else LOWERED))
        hint = (
            f"It takes {other} control flow, which this could not be brought into: export the model again"
            " from TensorFlow 2."
            if takes_other
            else _UNROLLING + " Bind the input that decides a branch (`freeze: {bind: ...}`)."
        )
        raise ModelRefused(
            f"{profile.target} does not take {form} control flow: {_listed(met)}",
            where=met[0].path,
            hint=hint,
        )


def _look_at_lists(uses: list[_Use], profile: Profile, kept: Kept | None) -> None:
    """Loops that could not be unrolled, and whose lists are no tensors."""
    if profile.list_loops:
        return
    met = [
        use
        for use in uses
        if use.node.op in ("While", "StatelessWhile")
        and DType.VARIANT in attrs.to_types(use.node.attrs["T"])
    ]
    if met:
        because = f"; no tensor can take the place of {kept.path}: {kept.reason}" if kept else ""
        raise ModelRefused(
            f"{profile.target} does not take loops that carry lists: {_listed(met)}{because}",
            where=kept.path if kept else met[0].path,
            hint=_UNROLLING,
        )


def _look_at_ops(uses: list[_Use], profile: Profile) -> None:
    refused = profile.refuses
    if profile.ops is None:
        foreign = [use for use in uses if use.node.op in refused]
    else:
        known = {*profile.ops, *_PLAIN, *FUNCTIONAL, *LOWERED} - refused
        foreign = [use for use in uses if use.node.op not in known]
    if not foreign:
        return
    helps = {profile.helps[use.node.op]: None for use in foreign if use.node.op in profile.helps}
    raise ModelRefused(
        f"{profile.target} does not take {_listed(foreign)}",
        where=foreign[0].path,
        hint=" ".join(helps)
        or "`fold` before the export, or a signature without them, may leave them out.",
    )


def _look_at_types(uses: list[_Use], profile: Profile) -> None:
    for dtype, takers in profile.lacks.items():
        met = [use for use in uses if use.node.op not in takers and _has_type(use.node, dtype)]
        if met:
            raise ModelRefused(
                f"{profile.target} does not take {dtype.tf_name}: {_listed(met)}",
                where=met[0].path,
                hint="Export the model from TensorFlow with another dtype, or a signature that does without.",
            )


def _has_type(node: Node, dtype: DType) -> bool:
    return attrs.of_type(dtype) in node.attrs.values()


def _look_at_constants(uses: Iterable[_Use], profile: Profile) -> None:
    known = profile.constants
    if known is None:
        return
    for path, node in uses:
        if node.op == "Const" and (dtype := attrs.to_type(node.attrs["dtype"])) not in known:
            raise ModelRefused(
                f"{profile.target} has no {dtype.tf_name} constants",
                where=path,
                hint=f"It takes {_names(known)}: compute in one of these.",
            )


def _look_at_kernels(uses: Iterable[_Use], profile: Profile) -> None:
    """Refuses ops that the target takes, but not with these element types."""
    for path, node in uses:
        ways = profile.typed.get(node.op, ())
        keys = sorted({key for way in ways for key in way} & node.attrs.keys())
        # What a function's caller gives is no type yet.
        given = {
            key: attrs.to_type(node.attrs[key])
            for key in keys
            if attrs.kind(node.attrs[key]) == "type"
        }
        if not ways or any(
            all(dtype in way.get(key, (dtype,)) for key, dtype in given.items()) for way in ways
        ):
            continue
        taken = dict.fromkeys(
            " and ".join(f"{key}: {_names(way[key])}" for key in sorted(way)) for way in ways
        )
        raise ModelRefused(
            f"{profile.target} does not take {node.op} with"
            f" {', '.join(f'{key} {dtype.tf_name}' for key, dtype in given.items())}: {path}",
            where=path,
            hint=f"It takes {node.op} with {'; or '.join(taken)}.",
        )


def _names(dtypes: Iterable[DType]) -> str:
    return ", ".join(sorted(dtype.tf_name for dtype in dtypes))


def _look_at_layout(uses: list[_Use], profile: Profile) -> None:
    if not profile.layout:
        return
    for use in uses:
        data = use.node.attrs.get("data_format")
        if data is not None and attrs.to_bytes(data) not in (
            b"",
            profile.layout.encode(),
            b"NDHWC",
        ):
            found = attrs.to_bytes(data).decode()
            raise ModelRefused(
                f"{profile.target} takes images as {profile.layout} only, and {use.node.op} is {found}",
                where=use.path,
                hint="Export the model from TensorFlow with channels last.",
            )


def _listed(uses: list[_Use]) -> str:
    """Ops with the number of their nodes and the name of the first."""
    nodes: dict[str, list[str]] = {}
    for use in uses:
        nodes.setdefault(use.node.op, []).append(use.path)
    shown = [
        f"{op} ({paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''})"
        for op, paths in sorted(nodes.items())
    ]
    more = len(shown) - _NAMED
    return ", ".join(shown[:_NAMED]) + (f" and {more} more ops" if more > 0 else "")


def _is_open(shape: Shape) -> bool:
    return shape is None or None in shape


def _shown(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('?' if dim is None else str(dim) for dim in shape)}]"
