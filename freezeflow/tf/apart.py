"""Validation in a process of its own, for a setting that TensorFlow reads once, when it is imported.

oneDNN picks other kernels for a weight that is a constant than for one that is a variable, so with it
a frozen model differs from its original by some units in the last place. The exact level is therefore
judged without oneDNN, which is how `freezeflow.tf.preload` imports TensorFlow; the served level is
judged with TensorFlow's own default.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freezeflow.errors import FreezeflowError, StageFailed
from freezeflow.tf import confine
from freezeflow.values import Json

if TYPE_CHECKING:
    from freezeflow.graph.model import Model
    from freezeflow.graph.original import Original
    from freezeflow.tf.validate import Trial

ONEDNN_FLAG = "TF_ENABLE_ONEDNN_OPTS"
_ORDER = "validate.pickle"
_ANSWER = "validate.json"


def right_process(*, exact: bool) -> bool:
    """Whether this process runs TensorFlow as a level asks for."""
    return (os.environ.get(ONEDNN_FLAG) == "0") is exact


def validate_apart(
    original: Original, model: Model, trial: Trial, scratch: Path
) -> dict[str, Json]:
    """`freezeflow.tf.validate.validate` in a fresh process with the right setting.

    The process inherits the confinement of this one, and its output goes where this one's goes.

    Raises:
        FreezeflowError: What `validate` raised there.
        StageFailed: The process died.
    """
    order = (original, model, trial, scratch, confine.in_force())
    (scratch / _ORDER).write_bytes(pickle.dumps(order))
    command = [sys.executable, "-m", "freezeflow.tf.apart", str(scratch)]
    environment = _environment(exact=trial.measure.exact)
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise StageFailed(
            f"the process that ran the models ended with code {done.returncode}",
            hint="Its last lines are in the step's log.",
        )
    answer = json.loads((scratch / _ANSWER).read_text())
    if "error" in answer:
        raise FreezeflowError.from_data(answer["error"])
    verdict: dict[str, Json] = answer["verdict"]
    return verdict


def _environment(*, exact: bool) -> Mapping[str, str]:
    environment = {key: value for key, value in os.environ.items() if key != ONEDNN_FLAG}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    return {**environment, ONEDNN_FLAG: "0"} if exact else environment


def main(scratch: Path) -> None:
    """Answers the order in a folder."""
    from freezeflow.tf.validate import validate

    original, model, trial, folder, in_force = pickle.loads((scratch / _ORDER).read_bytes())
    confine.adopt(in_force)
    answer: dict[str, Any]
    try:
        answer = {"verdict": validate(original, model, trial, folder)}
    except FreezeflowError as error:
        answer = {"error": error.to_data()}
    (scratch / _ANSWER).write_text(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
