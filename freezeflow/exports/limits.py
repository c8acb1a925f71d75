"""What keeps a model from being written as one protobuf file, said before the first byte."""

from __future__ import annotations

from freezeflow.errors import ModelRefused
from freezeflow.graph.model import Model

# No protobuf message may be larger: https://protobuf.dev/programming-guides/proto-limits/.
MAX_FILE_BYTES = 2**31 - 1

_NAMED = 3


def check_size(model: Model, nbytes: int, where: str, *, limit: int = MAX_FILE_BYTES) -> None:
    """Lets pass what fits.

    Raises:
        ModelRefused: The file would be too large.
    """
    if nbytes <= limit:
        return
    raise ModelRefused(
        f"the file would have {_size(nbytes)}; at most {_size(limit)} can be read back",
        where=where,
        hint="What helps: export fewer signatures, or a model with smaller weights. The largest"
        f" constants are {_largest(model)}.",
    )


def check_self_contained(model: Model, what: str) -> None:
    """Lets a model pass that needs no checkpoint.

    Raises:
        ModelRefused: The model has variables.
    """
    if model.variables:
        first = min(model.variables)
        raise ModelRefused(
            f"the model has {len(model.variables)} variables, which {what} cannot hold",
            where=first,
            hint="Put `freeze` before the export.",
        )


def _largest(model: Model) -> str:
    bodies = [model.graph.nodes, *(f.nodes for f in model.graph.functions.values())]
    sizes = [
        (node.tensor.nbytes, name)
        for nodes in bodies
        for name, node in nodes.items()
        if node.tensor is not None
    ]
    sizes.sort(key=lambda item: (-item[0], item[1]))
    return ", ".join(f"{name} ({_size(nbytes)})" for nbytes, name in sizes[:_NAMED])


def _size(nbytes: int) -> str:
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if nbytes >= 1024**power:
            return f"{nbytes / 1024**power:.2f} {unit}"
    return f"{nbytes} bytes"
