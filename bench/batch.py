"""Batches of small models: frozen, looked up again, proven; beside a shell loop over a TensorFlow script."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.batch_models import make_models, write_recipe
from bench.groups import CLI, Sizes
from bench.measure import Run, measure
from bench.page import Table

_FREEZE = 'load, freeze, strip, export: "out/{model}.pb"'
_FREEZE_ELSEWHERE = _FREEZE.replace("out/", "many/")
_PROVE = 'load, freeze, strip, fold, validate, export: "proven/{model}.pb"'

# What people write who have no freezeflow: load, freeze, fold by Grappler, compare, write.
_SCRIPT = """
import sys
import numpy, tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
source, target = sys.argv[1:]
model = tf.saved_model.load(source)
signature = model.signatures["serving_default"]
frozen = convert_variables_to_constants_v2(signature)
x = tf.random.stateless_uniform([2, 8, 8, 4], (1, 2))
expected, found = signature(x=x)["y"], frozen(x)[0]
numpy.testing.assert_allclose(expected, found, 1e-5)
tf.io.write_graph(frozen.graph, ".", target, as_text=False)
"""

# Models in the shell loop: its time for each model does not depend on how many there are.
_LOOPED = 3


def batches(folder: Path, sizes: Sizes) -> Iterator[Table]:
    """One run of each, in seconds a model."""
    scale = min(sizes.scale, 1.0)
    few, many, proven = (max(10, int(count * scale)) for count in (1000, 3000, 100))
    project = folder / "batch"
    project.mkdir()
    (project / "freezeflow.toml").touch()
    make_models(many, project / "models")
    write_recipe(project / "few.yaml", _first(project, few, "few-models"), _FREEZE)
    write_recipe(project / "many.yaml", "models/*", _FREEZE_ELSEWHERE)
    write_recipe(project / "prove.yaml", _first(project, proven, "proven-models"), _PROVE)
    frozen = [
        _row(f"freeze only, {label}", _run(project, "few.yaml"), few)
        for label in ("first", "nothing to do")
    ]
    frozen += [
        _row(f"three times as many, {label}", _run(project, "many.yaml"), many)
        for label in ("first", "nothing to do")
    ]
    proof = _row("with fold and validate, first", _run(project, "prove.yaml"), proven)
    loop = _row("shell loop of TensorFlow scripts", _loop(project), _LOOPED)
    factor = float(loop["ms a model"]) / float(proof["ms a model"])
    note = (
        "Whole processes, one run of each. For each model the shell loop takes"
        f" {factor:.1f} times as long as the run that does the same."
    )
    yield Table("batches of small models", note, [*frozen, proof, loop])


def _first(folder: Path, count: int, name: str) -> str:
    """A pattern for the first models: a folder of links to them."""
    (folder / name).mkdir()
    for model in sorted((folder / "models").iterdir())[:count]:
        (folder / name / model.name).symlink_to(model)
    return f"{name}/*"


def _run(folder: Path, recipe: str) -> Run:
    command = [CLI, "run", str(folder / recipe)]
    found, failure = measure(command, _environment(folder))
    if failure:
        raise RuntimeError(failure)
    return found


def _loop(folder: Path) -> Run:
    (folder / "script.py").write_text(_SCRIPT)
    models = " ".join(str(folder / "models" / f"m{number:04}") for number in range(_LOOPED))
    script = f"{sys.executable} {folder}/script.py $m {folder}/loop-$(basename $m).pb"
    found, failure = measure(
        ["sh", "-ec", f"for m in {models}; do {script}; done"], _environment(folder)
    )
    if failure:
        raise RuntimeError(failure)
    return found


def _environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "FREEZEFLOW_CACHE_DIR": str(folder / "cache"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _row(name: str, run: Run, models: int) -> dict[str, str | int | float]:
    return {
        "batch": name,
        "models": models,
        "wall s": run.wall,
        "ms a model": 1000 * run.wall / models,
        "CPU s": run.cpu,
        "peak MB": round(run.first_peak / 1e6),
        "peak MB of the largest process": round(run.peak / 1e6),
    }
