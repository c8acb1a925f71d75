"""A process that performs one order after another: steps without TensorFlow, side by side.

It reads a line of JSON for each command and writes one for each order that is done:

    to it      {"run": name, "scratch": folder, "model": digest or null}    {"keep": name, "digest": digest}
    from it    {"done": name, "gives": name or null}

Models stay in its memory between the steps of a chain: ``keep`` tells the digest of what an order
gave, if it ``gives`` a model that can stay, and an order for a model with that digest needs no files.
When its input closes it ends, and when its owner is gone it ends at once, also in the middle of a step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from freezeflow.engine.forkserver import redirect
from freezeflow.engine.orders import Order, Report
from freezeflow.values import Digest, Json

if TYPE_CHECKING:
    from freezeflow.graph.model import Model

# The last model, and the one before it where a chain branches.
KEPT_MODELS = 2


class Models:
    """The models that a process has in memory, those last used."""

    def __init__(self) -> None:
        self._given: dict[str, Model] = {}
        self._models: OrderedDict[Digest, Model] = OrderedDict()

    def get(self, digest: Digest | None) -> Model | None:
        return None if digest is None else self._models.get(digest)

    def give(self, name: str, report: Report, model: Model | None, scratch: Path) -> None:
        """Some work gave a model; one whose tensors lie in the folder that is removed is not kept."""
        self._given.clear()
        if model is not None and not _uses(report, scratch):
            self._given[name] = model

    def gives(self, name: str) -> bool:
        """Whether some work gave a model that can be kept."""
        return name in self._given

    def keep(self, name: str, digest: Digest) -> None:
        """The model that some work gave has this digest."""
        model = self._given.pop(name, None)
        if model is None:
            return
        self._models[digest] = model
        self._models.move_to_end(digest)
        while len(self._models) > KEPT_MODELS:
            self._models.popitem(last=False)

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._models

    def clear(self) -> None:
        self._models.clear()


def _uses(report: Report, scratch: Path) -> bool:
    """Whether the model's tensors lie in the scratch folder, which is removed."""
    if report.model is None:
        return False
    below = f"{scratch}/"
    return any(location.path.startswith(below) for location in report.model.tensors.values())


def serve(owner: int) -> None:
    """The process's side: performs orders until its input closes.

    Args:
        owner: The reading end of a pipe that the owner holds open.
    """
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()
    commands, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    models = Models()
    for line in commands:
        command: Mapping[str, Json] = json.loads(line)
        if "keep" in command:
            models.keep(command["keep"], Digest(command["digest"]))
            continue
        _perform(command, models)
        gives = command["run"] if models.gives(command["run"]) else None
        os.write(replies, json.dumps({"done": command["run"], "gives": gives}).encode() + b"\n")


def _end_with(owner: int) -> None:
    os.read(owner, 1)
    os.killpg(0, signal.SIGKILL)


def _perform(command: Mapping[str, Json], models: Models) -> None:
    from freezeflow.engine.worker import perform

    scratch = Path(command["scratch"])
    redirect(scratch)
    digest = command["model"]
    model = models.get(Digest(digest)) if digest else None
    report, given = perform(Order.load(scratch), model, sys.stdout)
    models.give(command["run"], report, given, scratch)
    sys.stdout.flush()
    sys.stderr.flush()
    report.save(scratch)
