"""Weights in files beside a graph file, which TensorFlow maps into memory (``ImmutableConst``).

Only files below the graph's own folder are read: a graph may name any path, and what it names would
become part of what is exported.
Source of the op: upstream ``core/kernels/immutable_constant_op.cc``.
"""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path, PurePosixPath

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.weights import file_mapped_by, from_mapped_files, mapped_files
from freezeflow.sources.graph_file import location_of
from freezeflow.store.background import PendingDigest, present
from freezeflow.store.hashing import changed_while_read, hash_location
from freezeflow.values import Digest, Location, TensorRef

# Files that freezeflow wrote are named by the beginning of their digest.
_NAMED_BY_DIGEST = re.compile(r"([0-9a-f]{32})\.bin")


def with_mapped_weights(graph: Graph, folder: Path) -> Graph:
    """The graph with the files beside it as constants.

    Args:
        graph: A graph as its file has it.
        folder: The file's folder.

    Raises:
        ModelRefused: A file is missing, or not what the graph says.
    """
    return from_mapped_files(graph, lambda node: _tensor(node, folder))


def mapped_weight_files(graph: Graph, folder: Path) -> list[Path]:
    """The files beside a graph that it maps, sorted."""
    return sorted(set(mapped_paths(graph, folder).values()))


def mapped_paths(graph: Graph, folder: Path) -> dict[str, Path]:
    """What the graph names of the files beside it that it maps, each with the file."""
    found = {name: _inside(name, folder) for name in mapped_files(graph)}
    return {name: path for name, path in found.items() if path is not None}


def _inside(name: str, folder: Path) -> Path | None:
    path = PurePosixPath(name)
    return None if path.is_absolute() or ".." in path.parts else folder / path


def _tensor(node: Node, folder: Path) -> TensorRef | None:
    path = _inside(file_mapped_by(node), folder)
    if path is None:
        return None
    dtype, shape = attrs.to_type(node.attrs["dtype"]), attrs.to_shape(node.attrs["shape"])
    if shape is None or None in shape:
        return None
    known = tuple(size for size in shape if size is not None)
    location = _location(node.name, path, math.prod(known) * dtype.item_bytes)
    return TensorRef(_digest(node.name, location), dtype, known, location)


def _location(name: str, path: Path, nbytes: int) -> Location:
    try:
        location = location_of(path, 0, nbytes)
    except OSError as error:
        message = f"the weights of {name!r} cannot be read: {error.strerror}"
    else:
        if location.file_bytes >= nbytes:
            return location
        message = f"the weights of {name!r} are {location.file_bytes} bytes of {nbytes}"
    hint = "Copy the folder of weights together with the graph, or export it again."
    raise ModelRefused(message, where=str(path), hint=hint)


def _digest(name: str, location: Location) -> Digest:
    """The digest of a tensor, held against the file's name; found beside other work where that can be."""
    find = functools.partial(_checked, name, location)
    beside = present()
    if beside is None:
        return find()
    pending = beside.start(find)
    return PendingDigest(lambda: pending.result().hex)


def _checked(name: str, location: Location) -> Digest:
    digest = hash_location(location)
    if digest is None:
        raise changed_while_read(location.path)
    named = _NAMED_BY_DIGEST.fullmatch(Path(location.path).name)
    if named and location.length == location.file_bytes and not digest.hex.startswith(named[1]):
        raise ModelRefused(
            f"the weights of {name!r} are not those that the file is named after",
            where=location.path,
            hint="The file is damaged; copy it again, or export the graph again.",
        )
    return digest
