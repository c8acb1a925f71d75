"""What an op takes and gives: its arguments, attributes, and whether it has state.

The standard ops come from a table made out of TensorFlow's own registry and kept as data
(``data/ops.binpb``, made by ``tools/make_tensorflow_data.py``); a SavedModel adds the definitions
that it carries, custom ops included. Source of the format: upstream ``core/framework/op_def.proto``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

from freezeflow.graph import attrs
from freezeflow.messages import message_class
from freezeflow.values import DType

# More tensors than any node takes or gives; a damaged file may ask for 2**63.
_MAX_TENSORS = 1_000_000


class ArgDef(NamedTuple):
    """An input or output argument of an op; it stands for one tensor or for a list of them.

    Args:
        name: Its name.
        dtype: The fixed dtype, or INVALID where an attribute tells it.
        type_attr: The attribute that holds the dtype.
        number_attr: The attribute that holds how many tensors there are.
        type_list_attr: The attribute that holds one dtype for each tensor.
        is_ref: It takes or gives a reference to a variable (TF1).
    """

    name: str
    dtype: DType
    type_attr: str
    number_attr: str
    type_list_attr: str
    is_ref: bool


class OpDef(NamedTuple):
    """The definition of an op.

    Args:
        name: Its name.
        inputs: Input arguments in order.
        outputs: Output arguments in order.
        attr_types: Attribute name to kind: ``type``, ``int``, ``list(shape)``, ``func``.
        defaults: Attribute name to default value, as ``AttrValue`` bytes.
        is_stateful: TensorFlow calls it stateful. Not a safety mark: some ops write files without it.
    """

    name: str
    inputs: tuple[ArgDef, ...]
    outputs: tuple[ArgDef, ...]
    attr_types: Mapping[str, str]
    defaults: Mapping[str, bytes]
    is_stateful: bool


def from_message(message: Any) -> OpDef:
    """The definition that an ``OpDef`` message holds."""
    return OpDef(
        name=message.name,
        inputs=tuple(_arg(arg) for arg in message.input_arg),
        outputs=tuple(_arg(arg) for arg in message.output_arg),
        attr_types={attr.name: attr.type for attr in message.attr},
        defaults={
            attr.name: attrs.encode(attr.default_value)
            for attr in message.attr
            if attr.HasField("default_value")
        },
        is_stateful=message.is_stateful,
    )


def to_message(definition: OpDef) -> Any:
    """The ``OpDef`` message of a definition."""
    message = message_class("OpDef")(name=definition.name, is_stateful=definition.is_stateful)
    for args, target in (
        (definition.inputs, message.input_arg),
        (definition.outputs, message.output_arg),
    ):
        for arg in args:
            target.add(
                name=arg.name,
                type=int(arg.dtype),
                type_attr=arg.type_attr,
                number_attr=arg.number_attr,
                type_list_attr=arg.type_list_attr,
                is_ref=arg.is_ref,
            )
    for name, kind in definition.attr_types.items():
        attr = message.attr.add(name=name, type=kind)
        if name in definition.defaults:
            attr.default_value.MergeFromString(definition.defaults[name])
    return message


def _arg(arg: Any) -> ArgDef:
    number = arg.type
    return ArgDef(
        arg.name,
        DType(number - 100 if number > 100 else number),
        arg.type_attr,
        arg.number_attr,
        arg.type_list_attr,
        arg.is_ref,
    )


@functools.cache
def _standard_messages() -> dict[str, Any]:
    data = resources.files(__package__).joinpath("data/ops.binpb").read_bytes()
    return {op.name: op for op in message_class("OpList").FromString(data).op}


@functools.cache
def standard_op(name: str) -> OpDef | None:
    """TensorFlow's own op of that name, or None."""
    found = _standard_messages().get(name)
    return None if found is None else from_message(found)


def arg_types(
    args: tuple[ArgDef, ...], node_attrs: Mapping[str, bytes], defaults: Mapping[str, bytes]
) -> tuple[tuple[DType, ...], ...]:
    """For each argument, the dtypes of its tensors on a node with these attributes.

    Raises:
        KeyError: An attribute that tells a dtype or a number is missing; its name is the argument.
        ValueError: An attribute tells a dtype that is not known, or a number that cannot be.
    """
    return tuple(_types_of(arg, node_attrs, defaults) for arg in args)


def _types_of(
    arg: ArgDef, node_attrs: Mapping[str, bytes], defaults: Mapping[str, bytes]
) -> tuple[DType, ...]:
    if arg.type_list_attr:
        return attrs.to_types(_attr(arg.type_list_attr, node_attrs, defaults))
    dtype = arg.dtype
    if arg.type_attr:
        dtype = attrs.to_type(_attr(arg.type_attr, node_attrs, defaults))
    if arg.number_attr:
        number = attrs.to_int(_attr(arg.number_attr, node_attrs, defaults))
        if not 0 <= number <= _MAX_TENSORS:
            raise ValueError(f"{arg.number_attr} is {number}")
        return (dtype,) * number
    return (dtype,)


def _attr(name: str, node_attrs: Mapping[str, bytes], defaults: Mapping[str, bytes]) -> bytes:
    found = node_attrs.get(name)
    return defaults[name] if found is None else found
