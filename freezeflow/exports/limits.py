"""What keeps a model from being written as one protobuf file, said before the first byte."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from freezeflow.errors import ModelRefused
from freezeflow.graph.model import Model
from freezeflow.graph.weights import largest_constants

# No protobuf message may be larger: https://protobuf.dev/programming-guides/proto-limits/.
MAX_FILE_BYTES = 2**31 - 1

_NAMED = 3

_SMALLER = "export fewer signatures, or a model with smaller weights"


def check_size(
    model: Model,
    nbytes: int,
    where: str,
    *,
    limit: int = MAX_FILE_BYTES,
    ways: Sequence[str] = (),
) -> None:
    """Lets pass what fits.

    Args:
        model: What is to be written.
        nbytes: The file's size.
        where: The file.
        limit: What it may have.
        ways: What can be written instead.

    Raises:
        ModelRefused: The file would be too large.
    """
    if nbytes <= limit:
        return
    raise ModelRefused(
        f"the file would have {_size(nbytes)}; at most {_size(limit)} can be read back",
        where=where,
        hint=f"What helps: {'; '.join((*ways, _SMALLER))}. The largest constants are {_largest(model)}.",
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
            hint="Put `freeze` before the export. Variables that it keeps (written: keep) need a"
            " SavedModel.",
        )


def _largest(model: Model) -> str:
    largest = itertools.islice(largest_constants(model.graph), _NAMED)
    return ", ".join(f"{name} ({_size(nbytes)})" for name, nbytes in largest)


def _size(nbytes: int) -> str:
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if nbytes >= 1024**power:
            return f"{nbytes / 1024**power:.2f} {unit}"
    return f"{nbytes} bytes"
