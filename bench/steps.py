"""What TensorFlow's part of a run takes: seconds of its steps, and memory that a proof needs."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.batch_models import make_models
from bench.groups import CLI, GIGABYTE, Sizes, build
from bench.page import Table

_MODELS = 20

_SMALL = "load, freeze, strip, fold, validate"
_LARGE = "load, freeze, strip, validate"


def steps(folder: Path, sizes: Sizes) -> Iterator[Table]:
    """Steps of small models, each in a process of its own; then a proof of a large one."""
    project = folder / "steps"
    make_models(_MODELS, project / "models")
    seconds: dict[str, list[float]] = defaultdict(list)
    for step in _run(project, "models: models/*", _SMALL, jobs=1):
        seconds[step["stage"]].append(step["facts"]["seconds"])
    yield Table(
        f"steps of {_MODELS} small models",
        "Seconds of one step, its process included; the goal is 0.3 s once the first is up.",
        [
            {
                "step": stage,
                "first s": found[0],
                "median s of the others": statistics.median(found[1:]),
                "longest s of the others": max(found[1:]),
            }
            for stage, found in seconds.items()
            if stage in ("fold", "validate")
        ],
    )
    build(int(sizes.scale * GIGABYTE), project / "large")
    (proof,) = (
        step
        for step in _run(project, "model: {saved_model: large}", _LARGE, jobs=1)
        if step["stage"] == "validate"
    )
    nbytes = proof["facts"]["tensor_bytes"]
    peak = proof["facts"]["own_peak_bytes"]
    yield Table(
        f"validate of {sizes.scale:g} GB",
        "Resident memory of the step's process at its peak, beyond what TensorFlow takes; goal: 2.2 x.",
        [
            {
                "weights MB": nbytes / 1e6,
                "peak MB": peak / 1e6,
                "ratio": peak / nbytes,
                "seconds": proof["facts"]["seconds"],
            }
        ],
    )


def _run(project: Path, models: str, stages: str, *, jobs: int) -> list[dict[str, Any]]:
    """The steps of a run with a cache of its own."""
    (project / "recipe.yaml").write_text(f"version: 1\n{models}\nstages: [{stages}]\n")
    done = subprocess.run(
        [CLI, "run", "--json", "--jobs", str(jobs), "recipe.yaml"],
        cwd=project,
        env={**os.environ, "FREEZEFLOW_CACHE_DIR": str(project / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return [step for plan in json.loads(done.stdout)["plans"] for step in plan["steps"]]
