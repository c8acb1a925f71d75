"""TensorFlow's protobuf messages from a descriptor pool of our own.

A private pool keeps them apart from the classes that TensorFlow registers, so that both can live in
one process, in either order. They are wire-compatible, and unknown fields survive a round trip.
Source of the formats: upstream ``tensorflow/core/framework`` and ``core/protobuf``; the descriptor
set is made by ``tools/make_tensorflow_data.py``.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    data = resources.files(__package__).joinpath("data/messages.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


@functools.cache
def message_class(name: str) -> type[Any]:
    """The class of a message of package ``tensorflow``, by its short name: ``"NodeDef"``."""
    descriptor = _pool().FindMessageTypeByName(f"tensorflow.{name}")
    found: type[Any] = message_factory.GetMessageClass(descriptor)
    return found
