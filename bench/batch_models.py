"""Many small models, each another one: ``python -m bench.batch_models COUNT FOLDER``.

TensorFlow saves one; the others are that one with another number in a constant of its graph, which is
quick. Each has two convolutions with a moving-average normalization, so that there is something to fold.
With the count 0, one model is saved; a third argument says with which weights.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from freezeflow.messages import message_class

# The constant that differs; no other constant of the graph has its value.
_MARK = 0.3759765625


def save_one(folder: str, seed: int = 0) -> None:
    """Saves the model that the others are made of; the seed says with which weights."""
    import tensorflow as tf

    model = tf.Module()

    def weights(shape: list[int], *number: int) -> tf.Tensor:
        return tf.random.stateless_uniform(shape, (10 * seed + number[0], number[1]))

    model.kernels = [tf.Variable(weights([3, 3, 4, 4], n, 1)) for n in (0, 1)]
    model.scales = [tf.Variable(weights([4], n, 2) + 0.5) for n in (0, 1)]
    model.dense = tf.Variable(weights([4, 10], 0, 3))

    def call(x: tf.Tensor) -> dict[str, tf.Tensor]:
        for kernel, scale in zip(model.kernels, model.scales, strict=True):
            x = tf.nn.conv2d(x, kernel, 1, "SAME")
            x = tf.nn.relu(x * tf.math.rsqrt(scale + 1e-3) + scale)
        return {"y": tf.matmul(tf.reduce_mean(x, [1, 2]), model.dense) + tf.constant(_MARK)}

    spec = tf.TensorSpec([None, 8, 8, 4], tf.float32, name="x")
    signature = tf.function(call).get_concrete_function(spec)
    tf.saved_model.save(model, folder, signatures=signature)


def make_models(count: int, folder: Path) -> None:
    """Makes models ``m0000``, ``m0001``, ... in a folder, those that are not there yet."""
    first = save_apart(folder.with_name(f"{folder.name}-first"))
    template = (first / "saved_model.pb").read_bytes()
    for number in range(count):
        target = folder / f"m{number:04}"
        if (target / "saved_model.pb").exists():
            continue
        shutil.copytree(first / "variables", target / "variables", dirs_exist_ok=True)
        (target / "saved_model.pb").write_bytes(_changed(template, number))


def save_apart(folder: Path, seed: int = 0) -> Path:
    """The folder, with `save_one`'s model in it, which a process with TensorFlow saves if it must."""
    if not (folder / "saved_model.pb").exists():
        command = [sys.executable, "-m", "bench.batch_models", "0", str(folder), str(seed)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return folder


def _changed(template: bytes, number: int) -> bytes:
    """The model with another number in its constant."""
    saved = message_class("SavedModel").FromString(template)
    changed = 0
    for meta_graph in saved.meta_graphs:
        for function in meta_graph.graph_def.library.function:
            for node in function.node_def:
                tensor = node.attr["value"].tensor if node.op == "Const" else None
                if tensor is not None and list(tensor.float_val) == [_MARK]:
                    tensor.float_val[0] = _MARK + number
                    changed += 1
    if changed == 0:
        raise ValueError("the template has not the constant that should differ")
    data: bytes = saved.SerializeToString(deterministic=True)
    return data


def write_recipe(path: Path, models: str, stages: str) -> None:
    """Writes a recipe for models that a pattern finds."""
    path.write_text(f"version: 1\nmodels: {models!r}\nstages: [{stages}]\n", encoding="utf-8")


def main() -> None:
    _, count, folder, *seed = sys.argv
    if count == "0":
        save_one(folder, *map(int, seed))
    else:
        make_models(int(count), Path(folder))


if __name__ == "__main__":
    main()
