"""Good models made into broken ones, and what reading such a model may end in."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
from pathlib import Path

from freezeflow.engine.context import StepContext
from freezeflow.errors import ModelRefused
from freezeflow.graph.verify import check
from freezeflow.graph.write import graph_def_bytes
from freezeflow.stages import freeze, load, strip
from freezeflow.stages.stage import StageInput

_NOBODY = 65534

STAGES = (
    (load.STAGE, load.Params()),
    (freeze.STAGE, freeze.Params()),
    (strip.STAGE, strip.Params()),
)


def frozen_bytes(source, scratch):
    """The frozen graph of a source; each stage's result is checked as the engine does it."""
    context = StepContext(Path.cwd(), Path(scratch), None, io.StringIO())
    model = None
    for stage, params in STAGES:
        model = stage.run(StageInput(model=model, source=source), params, context).model
        check(model, stage=stage.name)
    return graph_def_bytes(model.graph)


def attempt(source, scratch):
    """The frozen graph, or None where the source is refused in one to three lines."""
    try:
        return frozen_bytes(source, scratch)
    except ModelRefused as refused:
        assert refused.exit_code == 5
        assert 1 <= len(str(refused).splitlines()) <= 3, str(refused)
        return None


def copy_of(source, root, folder):
    """The same source in a copy of the folder `root` that holds all its files."""
    shutil.copytree(root, folder)
    return dataclasses.replace(source, path=folder / source.path.relative_to(root))


def files_of(folder):
    """Every file that is read: not the ones that only inform."""
    idle = {"fingerprint.pb", "checkpoint"}
    found = (f for f in folder.rglob("*") if f.is_file() and f.name not in idle)
    return sorted(f for f in found if f.stat().st_size)


def holds_weights(file):
    """Whether a file is one of a checkpoint, whose bytes carry checksums."""
    return file.name.startswith(("variables.", "model.ckpt")) and file.suffix != ".meta"


def damaged(data, rng):
    """The bytes cut short, with one bit or byte changed, or with a hole."""
    data, place = bytearray(data), rng.randrange(len(data))
    kind = rng.choice(["cut", "bit", "bit", "bit", "byte", "byte", "hole"])
    if kind == "cut":
        return bytes(data[:place])
    if kind == "bit":
        data[place] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        data[place] = rng.randrange(256)
    else:
        end = min(len(data), place + rng.randrange(1, 64))
        data[place:end] = bytes(end - place)
    return bytes(data)


def closed_to_us(path):
    """Takes away the right to read a file; gives back what undoes it.

    Root may read everything, so it steps down meanwhile.
    """
    mode, user = path.stat().st_mode, os.geteuid()
    path.chmod(0)
    if user == 0:
        os.seteuid(_NOBODY)

    def undo():
        os.seteuid(user)
        path.chmod(mode)

    return undo
