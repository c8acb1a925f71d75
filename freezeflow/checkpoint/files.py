"""From the prefix that a user gives to an open checkpoint, or to a refusal that helps."""

from __future__ import annotations

import re
from pathlib import Path

from freezeflow.checkpoint.bundle import Bundle
from freezeflow.checkpoint.contents import Checkpoint
from freezeflow.checkpoint.v1 import TableCheckpoint
from freezeflow.errors import ModelRefused

_INDEX = ".index"
_DATA_FILE = re.compile(r"(?P<prefix>.*)\.(index|meta|data-\d{5,}-of-\d{5,})")
_V1_SHARD = re.compile(r"(?P<prefix>.*)-(?P<number>\d{5,})-of-(?P<count>\d{5,})")

# Prefixes that a hint names.
_LISTED = 5


def open_checkpoint(prefix: Path | str) -> Checkpoint:
    """Opens a checkpoint of either format; which one its files tell.

    Args:
        prefix: What its files' names start with. A folder, best with a trailing slash, stands for
            the checkpoint in it whose files have no name before the dot (``folder/.index``).

    Raises:
        ModelRefused: There is none, or its index is damaged.
    """
    text = str(prefix)
    if Path(text + _INDEX).is_file():
        return Bundle(text)
    if Path(text).is_dir() and Path(text, _INDEX).is_file():
        return Bundle(text.rstrip("/") + "/")
    if Path(text).is_file() and not _DATA_FILE.fullmatch(Path(text).name):
        return TableCheckpoint([Path(text)])
    shards = _v1_shards(Path(text))
    if shards:
        return TableCheckpoint(shards)
    raise _not_found(text)


def _v1_shards(prefix: Path) -> list[Path]:
    """The files of a sharded V1 checkpoint, in order; empty where there is none."""
    found = {}
    counts = set()
    for path in _listing(prefix.parent):
        match = _V1_SHARD.fullmatch(path.name)
        if match and match["prefix"] == prefix.name:
            found[int(match["number"])] = path
            counts.add(int(match["count"]))
    if not found:
        return []
    if len(counts) > 1 or sorted(found) != list(range(max(counts))):
        raise ModelRefused(
            f"{len(found)} files of a checkpoint in {max(counts)} parts are here",
            where=str(prefix),
            hint="Copy all of them.",
        )
    return [found[number] for number in sorted(found)]


def _not_found(prefix: str) -> ModelRefused:
    match = _DATA_FILE.fullmatch(prefix)
    if match and Path(match["prefix"] + _INDEX).is_file():
        hint = f"A checkpoint is named without the end of its files' names: {match['prefix']}"
        return ModelRefused("this is one file of a checkpoint", where=prefix, hint=hint)
    folder = Path(prefix) if Path(prefix).is_dir() else Path(prefix).parent
    near = sorted(
        path.name.removesuffix(_INDEX) for path in _listing(folder) if path.suffix == _INDEX
    )
    if near:
        listed = ", ".join(str(folder / name) for name in near[:_LISTED])
        more = f" and {len(near) - _LISTED} more" if len(near) > _LISTED else ""
        hint = f"In that folder are: {listed}{more}."
    else:
        hint = "Copy all files of the model. A checkpoint is named by its .index file without that ending."
    return ModelRefused("no checkpoint here", where=prefix, hint=hint)


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
