"""Large constants, block by block: looked at, and written anew in another dtype."""

from __future__ import annotations

import dataclasses
import math
import mmap
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from freezeflow.graph import attrs
from freezeflow.graph.constants import const
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.wire import LARGE_TENSOR_BYTES
from freezeflow.values import DType, TensorRef

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Put = Callable[[memoryview, DType, tuple[int, ...]], TensorRef]

# About how many bytes of a weight are in memory at a time.
_BLOCK_BYTES = 4 * 1024 * 1024


class Weight(NamedTuple):
    """A float32 constant.

    Args:
        place: The function that it is in; empty for the main graph.
        node: The Const.
        data: Its elements, mapped from where they lie.
    """

    place: str
    node: Node
    data: Array


def weights_of(graph: Graph, min_elements: int) -> Iterator[Weight]:
    """The float32 constants of a graph and its functions that have so many elements."""
    bodies: list[tuple[str, Mapping[str, Node]]] = [("", graph.nodes)]
    bodies += [(name, function.nodes) for name, function in sorted(graph.functions.items())]
    for place, nodes in bodies:
        for node in nodes.values():
            data = _elements(node)
            if data is not None and data.ndim and data.size >= max(1, min_elements):
                yield Weight(place, node, data)


def _elements(node: Node) -> Array | None:
    """A float32 Const's elements; None for others, and for one that repeats a value in few bytes."""
    import numpy as np

    if node.op != "Const" or attrs.to_type(node.attrs["dtype"]) is not DType.FLOAT:
        return None
    if node.tensor is not None:
        place = node.tensor.location
        if not place.length:
            return None
        raw = np.memmap(place.path, np.uint8, "r", place.offset, (place.length,))
        return raw.view(np.float32).reshape(node.tensor.shape)
    tensor = attrs.message(node.attrs["value"]).tensor
    if not tensor.tensor_content:
        return None
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    return np.frombuffer(tensor.tensor_content, np.float32).reshape(shape)


def blocks(data: Array) -> Iterator[tuple[slice, Array]]:
    """A tensor in slices along its first axis, a few megabytes at a time."""
    rows = max(1, _BLOCK_BYTES // max(1, data[:1].nbytes))
    for begin in range(0, len(data), rows):
        part = slice(begin, min(begin + rows, len(data)))
        yield part, data[part]


def written_anew(
    weight: Weight,
    name: str,
    dtype: DType,
    convert: Callable[[slice, Array], Array],
    put: Put,
    scratch: Path,
) -> Node:
    """A Const of another dtype whose elements are computed block by block.

    Args:
        weight: Where the elements come from.
        name: The Const's name.
        dtype: Its dtype.
        convert: Gives a block's new elements.
        put: Keeps the bytes of a large constant.
        scratch: A folder for the bytes until they are kept.
    """
    shape, nbytes = weight.data.shape, weight.data.size * dtype.item_bytes
    if nbytes <= LARGE_TENSOR_BYTES:
        data = b"".join(convert(part, block).tobytes() for part, block in blocks(weight.data))
        return const(name, dtype, shape, data)
    path = scratch / "converted"
    with open(path, "wb") as file:
        file.writelines(convert(part, block).data for part, block in blocks(weight.data))
    try:
        with open(path, "rb") as written:
            mapped = mmap.mmap(written.fileno(), 0, access=mmap.ACCESS_READ)
        with mapped, memoryview(mapped) as view:
            reference = put(view, dtype, shape)
    finally:
        path.unlink()
    return const(name, dtype, shape, reference)


# ---------------------------------------------------------------- what is lost


class Loss:
    """What smaller weights differ from the original ones by."""

    def __init__(self) -> None:
        self.tensors = 0
        self.bytes_before = 0
        self.bytes_after = 0
        self.max_abs = 0.0
        self.left: dict[str, str] = {}
        self._error = 0.0
        self._signal = 0.0
        self._worst: tuple[float, str] = (0.0, "")

    def add(self, weight: Weight, narrowed: Narrowed) -> None:
        """Compares a weight with what the graph will make of it, block by block."""
        import numpy as np

        self.tensors += 1
        self.bytes_before += weight.data.nbytes
        self.bytes_after += narrowed.nbytes
        error = signal = 0.0
        for part, block in blocks(weight.data):
            # NaN and infinities are kept as they are; they would drown all else.
            finite = np.isfinite(block)
            exact = np.where(finite, block, 0.0).astype(np.float64)
            difference = exact - np.where(finite, narrowed.restored(part, block), 0.0)
            error += float(np.sum(difference * difference))
            signal += float(np.sum(exact * exact))
            self.max_abs = max(self.max_abs, float(np.max(np.abs(difference), initial=0.0)))
        self._error += error
        self._signal += signal
        self._worst = max(self._worst, (_relative(error, signal), weight.node.name))

    def facts(self) -> dict[str, Any]:
        """``tensors``, bytes before and after, the largest error of an element, the error's root mean
        square over that of the weights, in all and of the worst tensor, and what was left and why."""
        return {
            "tensors": self.tensors,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "max_abs_error": self.max_abs,
            "relative_error": _relative(self._error, self._signal),
            "worst": {"tensor": self._worst[1], "relative_error": self._worst[0]},
            "left": dict(sorted(self.left.items())),
        }


def _relative(error: float, signal: float) -> float:
    return math.sqrt(error / signal) if signal else 0.0


# ---------------------------------------------------------------- graphs with other constants


class Narrowed(NamedTuple):
    """A weight in fewer bytes.

    Args:
        nodes: What takes the Const's place; the last has its name.
        nbytes: Bytes of what is stored.
        restored: Gives what the graph makes of a block's elements.
    """

    nodes: tuple[Node, ...]
    nbytes: int
    restored: Callable[[slice, Array], Array]


def narrow_weights(
    graph: Graph,
    narrow: Callable[[Weight], Narrowed | str | None],
    *,
    min_elements: int,
    keep: Sequence[str],
    fixed: Collection[str],
) -> tuple[Graph, Loss]:
    """Stores a graph's float32 constants in fewer bytes.

    Args:
        graph: The graph.
        narrow: Gives what takes a weight's place; why it has to stay; None where it is none of its kind.
        min_elements: Smaller constants stay as they are.
        keep: Patterns of names that stay as they are.
        fixed: Nodes of the main graph that a caller replaces.

    Returns:
        The graph, and what the new weights differ by.
    """
    loss = Loss()
    made: dict[str, dict[str, tuple[Node, ...]]] = {}
    for weight in weights_of(graph, min_elements):
        name = weight.node.name
        if any(fnmatchcase(name, pattern) for pattern in keep):
            continue
        if not weight.place and name in fixed:
            continue
        found = narrow(weight)
        if isinstance(found, str):
            loss.left[name] = found
        elif found is not None:
            made.setdefault(weight.place, {})[name] = found.nodes
            loss.add(weight, found)
    return _with_nodes(graph, made), loss


def _with_nodes(graph: Graph, made: Mapping[str, Mapping[str, tuple[Node, ...]]]) -> Graph:
    """The graph with some nodes replaced by several, of which the last has the old one's name.

    Args:
        graph: The graph.
        made: Function (empty for the main graph) to name to what takes its place.
    """
    functions = {
        name: dataclasses.replace(function, nodes=_replaced(function.nodes, made.get(name, {})))
        for name, function in graph.functions.items()
    }
    return dataclasses.replace(
        graph, nodes=_replaced(graph.nodes, made.get("", {})), functions=functions
    )


def _replaced(nodes: Mapping[str, Node], made: Mapping[str, tuple[Node, ...]]) -> dict[str, Node]:
    out: dict[str, Node] = {}
    for name, node in nodes.items():
        for new in made.get(name, (node,)):
            out[new.name] = new
    return out


def unique(nodes: Container[str], name: str) -> str:
    """A name that no node has yet."""
    while name in nodes:
        name += "_"
    return name


def body_of(graph: Graph, place: str) -> Mapping[str, Node]:
    """The nodes of a function, or of the main graph."""
    return graph.functions[place].nodes if place else graph.nodes
