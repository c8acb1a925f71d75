"""Calls in files, for processes that have nothing in common: another Python, Node, a C++ program.

``NAME.json`` is a list with an entry for each call: ``{"refused": MESSAGE}``, or ``{"arrays": {KEY:
{"dtype": NAME, "shape": [...], "offset": N, "nbytes": N}}}``; a string tensor has ``"lengths": [...]``,
too. ``NAME.bin`` holds the bytes: row-major, little-endian. Nothing in them is ever executed.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from freezeflow.errors import StageFailed
from freezeflow.values import Json

Array = np.ndarray[Any, Any]

# An array for each key, or the message with which a call was refused.
Saved = Mapping[str, Array] | str


def save_calls(path: Path, calls: Sequence[Saved]) -> None:
    """Writes ``path.json`` and ``path.bin``."""
    index: list[Json] = []
    with open(f"{path}.bin", "wb") as file:
        for call in calls:
            if isinstance(call, str):
                index.append({"refused": call})
                continue
            arrays: dict[str, Json] = {}
            for key, array in call.items():
                data, described = _encoded(np.asarray(array))
                arrays[key] = {**described, "offset": file.tell(), "nbytes": len(data)}
                file.write(data)
            index.append({"arrays": arrays})
    Path(f"{path}.json").write_text(json.dumps(index))


def load_calls(path: Path) -> list[dict[str, Array] | str]:
    """What `save_calls`, or another program, has written.

    Raises:
        StageFailed: It is not there, or something else.
    """
    try:
        index = json.loads(Path(f"{path}.json").read_text())
        data = Path(f"{path}.bin").read_bytes()
        return [
            call["refused"]
            if "refused" in call
            else {key: _decoded(entry, data) for key, entry in call["arrays"].items()}
            for call in index
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageFailed(f"the runtime's answer cannot be read: {error}") from error


def _encoded(array: Array) -> tuple[bytes, dict[str, Json]]:
    described: dict[str, Json] = {"dtype": array.dtype.name, "shape": list(array.shape)}
    if array.dtype.kind in "OSU":
        words = [w.encode() if isinstance(w, str) else bytes(w) for w in array.ravel().tolist()]
        described |= {"dtype": "string", "lengths": [len(word) for word in words]}
        return b"".join(words), described
    return np.ascontiguousarray(array).tobytes(), described


def _decoded(entry: Mapping[str, Json], data: bytes) -> Array:
    part = data[entry["offset"] : entry["offset"] + entry["nbytes"]]
    shape = tuple(entry["shape"])
    if entry["dtype"] == "string":
        ends = list(itertools.accumulate(entry["lengths"], initial=0))
        words = np.empty(len(ends) - 1, object)
        words[:] = [part[start:end] for start, end in itertools.pairwise(ends)]
        return words.reshape(shape)
    return np.frombuffer(part, _dtype(entry["dtype"])).reshape(shape)


def _dtype(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:
        # Types that NumPy learns from this package: bfloat16, the float8 family.
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return found
