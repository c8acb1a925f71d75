"""Weights from another place than the model's own: a newer checkpoint, or moving averages.

Source of the names: upstream ``python/training/moving_averages.py`` for the averages,
``python/trackable`` for the keys of object checkpoints (paths through the object graph).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

from freezeflow.checkpoint import Checkpoint
from freezeflow.errors import ModelRefused
from freezeflow.graph.restore import SavedTensor

_AVERAGE = "/ExponentialMovingAverage"


def matching_keys(
    saved: Mapping[str, SavedTensor], checkpoint: Checkpoint, prefix: Path
) -> dict[str, SavedTensor]:
    """The keys of another checkpoint for variables whose keys in the model's own are known.

    A key is found as it is, or (an object checkpoint of an object that holds the model) as the end
    of the only key that ends so.

    Raises:
        ModelRefused: A variable is not in the checkpoint, or it is not clear which entry it is.
    """
    there = checkpoint.keys()
    return {handle: _matching(s, there, prefix) for handle, s in saved.items()}


def _matching(saved: SavedTensor, there: Iterable[str], prefix: Path) -> SavedTensor:
    if saved.key in there:
        return saved
    ending = [key for key in there if key.endswith("/" + saved.key)]
    if len(ending) == 1:
        return saved._replace(key=ending[0])
    if ending:
        message = f"{len(ending)} entries of the checkpoint end in {saved.key!r}"
        raise ModelRefused(message, where=str(prefix), hint=f"They are {', '.join(ending[:4])}.")
    near = difflib.get_close_matches(saved.key, there, n=2)
    hint = f"Near is {' and '.join(near)}." if near else "It is of another model."
    raise ModelRefused(f"the checkpoint has no {saved.key!r}", where=str(prefix), hint=hint)


def averaged_keys(
    saved: Mapping[str, SavedTensor], checkpoint: Checkpoint, prefix: Path
) -> dict[str, SavedTensor]:
    """The keys of the moving averages of variables; those that have none keep their own.

    Raises:
        ModelRefused: No variable has a moving average.
    """
    there = set(checkpoint.keys())
    averaged = {
        handle: s._replace(key=s.key + _AVERAGE)
        for handle, s in saved.items()
        if s.key + _AVERAGE in there
    }
    if saved and not averaged:
        raise ModelRefused(
            "the checkpoint holds no moving averages of these variables",
            where=str(prefix),
            hint="Leave `averages` out.",
        )
    return {**saved, **averaged}
