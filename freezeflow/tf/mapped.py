"""Frozen graphs, whose weights may lie in files beside them, brought into a TensorFlow process.

Source of the op: upstream ``core/kernels/immutable_constant_op.cc``; what it names is a path.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError

from freezeflow.errors import ModelRefused

v1 = tf.compat.v1

_REGION = "memory_region_name"

_BUFFER_BYTES = 1024 * 1024


def load_graph(path: Path, manifest: Path, *, verify: bool) -> Any:
    """The ``GraphDef`` in a file, its constants' files named by absolute paths.

    Args:
        path: The ``.pb`` or ``.pbtxt`` file.
        manifest: Its manifest; read only to verify.
        verify: Hash every file that the manifest lists first.

    Raises:
        ModelRefused: The file holds no graph, a file of weights is missing or too short, or a file
            is not what the manifest says.
    """
    if verify:
        _verify(path, manifest)
    graph = _read(path)
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    for node in itertools.chain(*bodies):
        if node.op == "ImmutableConst":
            file = path.parent / node.attr[_REGION].s.decode()
            _check_weights(node, file)
            node.attr[_REGION].s = str(file).encode()
    return graph


def _read(path: Path) -> Any:
    try:
        data = path.read_bytes()
        if path.suffix == ".pbtxt":
            return text_format.Parse(data.decode(), v1.GraphDef())
        return v1.GraphDef.FromString(data)
    except OSError as error:
        raise ModelRefused(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (DecodeError, text_format.ParseError, UnicodeDecodeError):
        raise ModelRefused("this is no GraphDef", where=str(path)) from None


def _check_weights(node: Any, file: Path) -> None:
    """A file that is too short would kill the process when its end is read."""
    shape = [dim.size for dim in node.attr["shape"].shape.dim]
    needed = math.prod(shape) * tf.as_dtype(node.attr["dtype"].type).size
    try:
        found = file.stat().st_size
    except OSError as error:
        message = f"the weights of {node.name!r} cannot be read: {error.strerror}"
    else:
        if found >= needed:
            return
        message = f"the weights of {node.name!r} are {found} bytes of {needed}"
    hint = "Copy the folder of weights together with the graph, or export it again."
    raise ModelRefused(message, where=str(file), hint=hint)


def _verify(path: Path, manifest: Path) -> None:
    try:
        listed = json.loads(manifest.read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelRefused("there is no manifest to verify with", where=str(manifest)) from None
    for name, entry in listed.items():
        try:
            found = _sha256(path.parent / name)
        except OSError as error:
            raise ModelRefused(
                f"cannot be read: {error.strerror}", where=str(path.parent / name)
            ) from None
        if found != entry["sha256"]:
            raise ModelRefused(
                "is not what the manifest says",
                where=str(path.parent / name),
                hint="Copy the graph with its weights again, or export it again.",
            )


def _sha256(path: Path) -> str:
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
    return hasher.hexdigest()
