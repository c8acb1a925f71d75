"""Batches of small models: ``python -m bench.batch [FREEZE_ONLY] [WITH_PROOF]`` (numbers of models).

Freezes many models, runs again with nothing to do, proves some, and does the same with a shell loop over a
TensorFlow script. Prints seconds a model; run it on a quiet machine.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from bench.batch_models import make_models, write_recipe
from bench.measure import Run, measure

_FREEZE = 'load, freeze, strip, export: "out/{model}.pb"'
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


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]]
    freeze_only, proven = (*counts, *(1000, 100)[len(counts) :])
    with tempfile.TemporaryDirectory(prefix="freezeflow-batch-") as name:
        folder = Path(name)
        (folder / "freezeflow.toml").touch()
        make_models(max(freeze_only, proven), folder / "models")
        write_recipe(folder / "freeze.yaml", _first(folder, freeze_only, "few"), _FREEZE)
        write_recipe(folder / "prove.yaml", _first(folder, proven, "proven-models"), _PROVE)
        _tell("freeze only, cold", _run(folder, "freeze.yaml"), freeze_only)
        for label in ("looked up", "nothing to do", "nothing to do"):
            _tell(f"freeze only, {label}", _run(folder, "freeze.yaml"), freeze_only)
        _tell("with fold and validate, cold", _run(folder, "prove.yaml"), proven)
        _tell("shell loop of TensorFlow scripts", _loop(folder), _LOOPED)


def _first(folder: Path, count: int, name: str) -> str:
    """A pattern for the first models: a folder of links to them."""
    (folder / name).mkdir()
    for model in sorted((folder / "models").iterdir())[:count]:
        (folder / name / model.name).symlink_to(model)
    return f"{name}/*"


def _run(folder: Path, recipe: str) -> Run:
    command = [str(Path(sys.executable).with_name("freezeflow")), "run", str(folder / recipe)]
    found, failure = measure(command, _environment(folder))
    if failure:
        raise SystemExit(failure)
    return found


def _loop(folder: Path) -> Run:
    (folder / "script.py").write_text(_SCRIPT)
    models = " ".join(str(folder / "models" / f"m{number:04}") for number in range(_LOOPED))
    script = f"{sys.executable} {folder}/script.py $m {folder}/loop-$(basename $m).pb"
    found, failure = measure(
        ["sh", "-ec", f"for m in {models}; do {script}; done"], _environment(folder)
    )
    if failure:
        raise SystemExit(failure)
    return found


def _environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "FREEZEFLOW_CACHE_DIR": str(folder / "cache"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _tell(what: str, run: Run, models: int) -> None:
    print(
        f"{what:40} {models:6} models  {run.wall:8.2f} s  {1000 * run.wall / models:8.1f} ms a model"
        f"  cpu {run.cpu:7.2f} s  peak {run.peak / 1e6:6.0f} MB",
        flush=True,
    )


if __name__ == "__main__":
    main()
