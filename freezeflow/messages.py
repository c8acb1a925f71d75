"""TensorFlow's protobuf messages from a descriptor pool of our own.

A private pool keeps them apart from the classes that TensorFlow registers, so that both can live in
one process, in either order. They are wire-compatible, and unknown fields survive a round trip.

A second pool says of a node's attributes that they are a list of bytes, which on the wire they are: a
large graph is read without a message for each attribute, most of which are the same few.
Source of the formats: upstream ``tensorflow/core/framework`` and ``core/protobuf``; the descriptor
set is made by ``tools/make_tensorflow_data.py``.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_NODE_DEF = "tensorflow/core/framework/node_def.proto"


@functools.cache
def _pool(raw: bool) -> descriptor_pool.DescriptorPool:
    data = resources.files(__package__).joinpath("data/messages.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        if raw and file.name == _NODE_DEF:
            _make_attributes_bytes(file)
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _make_attributes_bytes(file: descriptor_pb2.FileDescriptorProto) -> None:
    """A map is a repeated field of entries, and a message in it is on the wire what bytes are."""
    (node,) = (message for message in file.message_type if message.name == "NodeDef")
    (entry,) = (message for message in node.nested_type if message.name == "AttrEntry")
    entry.options.ClearField("map_entry")
    (value,) = (field for field in entry.field if field.name == "value")
    (attr,) = (field for field in node.field if field.name == "attr")
    for field in (value, attr):
        field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
        field.ClearField("type_name")


@functools.cache
def message_class(name: str) -> type[Any]:
    """The class of a message of package ``tensorflow``, by its short name: ``"NodeDef"``."""
    return _class_in(_pool(raw=False), name)


@functools.cache
def raw_class(name: str) -> type[Any]:
    """As `message_class`, but ``attr`` of a node is a list of entries, each as its bytes.

    ``raw_class("NodeDef.AttrEntry")`` reads one: ``value`` is the bytes of an ``AttrValue``.
    """
    return _class_in(_pool(raw=True), name)


def _class_in(pool: descriptor_pool.DescriptorPool, name: str) -> type[Any]:
    descriptor = pool.FindMessageTypeByName(f"tensorflow.{name}")
    found: type[Any] = message_factory.GetMessageClass(descriptor)
    return found
