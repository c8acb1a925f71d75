"""Writes the matrix of models and formats in ``docs/formats.md``, as measured here and now.

Run it as ``python -m tools.make_format_matrix [FOLDER]``. It builds small models with Keras, exports each
by a recipe, and beside it converts the unfrozen SavedModel by hand, as each converter's own guide says.
SavedModels in FOLDER are measured, too. TensorFlow.js' own converter does not install beside this TensorFlow:
``TFJS_PYTHON`` names a Python that has the package tensorflowjs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PAGE = Path(__file__).resolve().parent.parent / "docs" / "formats.md"
BEGIN, END = "<!-- begin matrix, measured -->\n", "<!-- end matrix -->"

FORMATS: Mapping[str, dict[str, Any]] = {
    "onnx": {"to": "m.onnx"},
    "tflite": {"to": "m.tflite"},
    "openvino": {"to": "m.xml"},
    "tfjs": {"to": "js"},
    "stablehlo": {"to": "m.mlirbc", "batch": 2},
    "xla_aot": {"to": "aot", "batch": 2},
    "coreml": {"to": "m.mlpackage", "batch": 1},
}
BY_HAND = ("onnx", "tflite", "openvino", "tfjs", "stablehlo", "coreml")


def models(folder: Path) -> Iterator[tuple[str, dict[str, Any], Path]]:
    """Name, what all exports of it need (a batch), and the SavedModel."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(7)
    layers = keras.layers
    images, steps = layers.Input((16, 16, 3), name="x"), layers.Input((6, 4), name="x")
    ragged = layers.Input((None, 4), name="x")
    words = layers.Input((8,), dtype="int32", name="x")

    def convolutional(x: Any) -> Any:
        for filters in (8, 16):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.DepthwiseConv2D(3)(layers.MaxPool2D()(x))
        return layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling2D()(x))

    def attention(x: Any) -> Any:
        x = layers.Dense(16)(x)
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
        return layers.Dense(3)(layers.Dense(32, activation="gelu")(x))

    built: list[tuple[str, dict[str, Any], Any, Any]] = [
        ("convolutions, batch norms", {}, images, convolutional(images)),
        ("attention", {}, steps, attention(steps)),
        ("embedding", {}, words, layers.Dense(4)(layers.Embedding(50, 8)(words))),
        ("LSTM", {}, steps, layers.Dense(2)(layers.LSTM(6)(steps))),
        (
            "bidirectional GRU",
            {},
            steps,
            layers.Dense(2)(layers.Bidirectional(layers.GRU(6))(steps)),
        ),
        ("LSTM, open length", {"shapes": {"x": [2, 6, 4]}}, ragged, layers.LSTM(6)(ragged)),
    ]
    for number, (name, needs, given, gives) in enumerate(built):
        path = folder / f"model{number}"
        keras.Model(given, gives).export(str(path), verbose=False)
        yield name, needs, path

    class Branching(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([2, 3], tf.float32, name="x")])
        def serve(self, x: Any) -> Any:
            y = tf.cond(tf.reduce_sum(x) > 0, lambda: tf.nn.relu(x), lambda: -x)
            return {
                "y": tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, v * 0.5), (0, y))[1]
            }

    branching = Branching()
    path = folder / "branching"
    tf.saved_model.save(branching, str(path), signatures=branching.serve)
    yield "cond and while", {}, path


def main(folder: Path | None) -> None:
    """Measures, and writes both tables between their marks."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as scratch:
        found = list(models(Path(scratch)))
        if folder is not None:
            saved = (path.parent for path in sorted(folder.rglob("saved_model.pb")))
            found += [(path.name, {}, path) for path in saved]
        for name, needs, path in found:
            ours.append(f"| {name} | {' | '.join(exported(path, Path(scratch), needs))} |")
            print(ours[-1], flush=True)
            theirs.append(f"| {name} | {' | '.join(by_hand(path, needs))} |")
            print(theirs[-1], flush=True)
    lines = [*_table("model", FORMATS, ours), "", *_table("by hand", BY_HAND, theirs)]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + rest.partition(END)[2])


def _table(corner: str, names: Iterable[str], rows: list[str]) -> list[str]:
    head = [corner, *names]
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows]


# ---------------------------------------------------------------- by freezeflow


def exported(model: Path, scratch: Path, needs: Mapping[str, Any]) -> Iterator[str]:
    """A cell for each format."""
    folder = Path(tempfile.mkdtemp(prefix="out-", dir=scratch))
    (folder / "freezeflow.toml").touch()
    stages: list[Any] = ["load", "freeze", "strip", "fold"]
    for name, params in FORMATS.items():
        export = {**params, **needs, "format": name}
        stages.append({"export": export, "id": name, "needs": "fold"})
    recipe = folder / "r.yaml"
    recipe.write_text(
        json.dumps({"version": 1, "model": {"saved_model": str(model)}, "stages": stages})
    )
    command = [sys.executable, "-m", "freezeflow", "run", "--keep-going", "--json", str(recipe)]
    environment = {**os.environ, "FREEZEFLOW_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    for step in json.loads(done.stdout)["plans"][0]["steps"]:
        if step["stage"] == "export":
            yield _cell(step)


def _cell(step: Mapping[str, Any]) -> str:
    if step["status"] != "ran":
        error = step["error"]
        word = "wrong" if error["kind"] == "ValidationFailed" else "refused"
        return f"{word}: {_short(error['message'])}"
    facts = step["facts"]
    check = facts.get("check")
    if check is None:
        return f"structure right, {facts['seconds']:.1f} s"
    worst = max(output.get("max_abs") or 0.0 for output in check["outputs"].values())
    return f"right, {worst:.1g}, {facts['seconds']:.1f} s"


def _short(text: str) -> str:
    text = text.replace("|", "/")
    return text if len(text) <= 100 else f"{text[:97].rstrip()}..."


# ---------------------------------------------------------------- by hand


def by_hand(model: Path, needs: Mapping[str, Any]) -> Iterator[str]:
    """A cell for each converter, in a process of its own."""
    for name in BY_HAND:
        command = [sys.executable, "-m", "tools.make_format_matrix", name, str(model)]
        command.append(json.dumps(needs))
        started = time.perf_counter()
        if name == "tfjs" and not os.environ.get("TFJS_PYTHON"):
            yield "not measured"
            continue
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        seconds = time.perf_counter() - started
        told = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not told:
            last = (done.stderr.strip().splitlines() or ["no reason"])[-1]
            yield f"fails: {_short(last)}"
            continue
        error = float(told[-1].split()[1])
        if error < 0:
            yield f"structure right, {seconds:.1f} s"
            continue
        yield f"{'right' if error < 1e-3 else 'wrong'}, {error:.1g}, {seconds:.1f} s"


def convert_by_hand(name: str, model: str, needs: Mapping[str, Any]) -> None:
    """Converts a SavedModel as it is and prints how far its answers are from TensorFlow's."""
    import numpy as np
    import tensorflow as tf

    signature = tf.saved_model.load(model).signatures["serving_default"]
    ((key, spec),) = signature.structured_input_signature[1].items()
    shape = needs.get("shapes", {}).get(key) or [2 if size is None else size for size in spec.shape]
    values: Any = np.random.default_rng(0).uniform(-1, 1, shape)
    values = (values * 4 + 4 if spec.dtype.is_integer else values).astype(spec.dtype.as_numpy_dtype)
    (original,) = (value.numpy() for value in signature(**{key: tf.constant(values)}).values())
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found = _BY_HAND[name](model, values, key)
    if found is None:
        print("RESULT -1")  # it cannot be run here
        return
    error = np.max(np.abs(found - original)) if np.shape(found) == original.shape else np.inf
    print("RESULT", float("inf") if np.isnan(error) else error)


def _onnx(model: str, values: Any, key: str) -> Any:
    import onnxruntime

    command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", model]
    subprocess.run([*command, "--output", "m.onnx", "--opset", "17"], check=True)
    session = onnxruntime.InferenceSession("m.onnx")
    return session.run(None, {session.get_inputs()[0].name: values})[0]


def _tflite(model: str, values: Any, key: str) -> Any:
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    data = tf.lite.TFLiteConverter.from_saved_model(model).convert()
    runner = Interpreter(model_content=data).get_signature_runner()
    (found,) = runner(**{key: values}).values()
    return found


def _openvino(model: str, values: Any, key: str) -> Any:
    import openvino

    compiled = openvino.compile_model(openvino.convert_model(model), "CPU")
    return compiled([values])[0]


def _tfjs(model: str, values: Any, key: str) -> Any:
    from freezeflow.proof.saved_calls import load_calls, save_calls
    from freezeflow.runtimes.runtime import Names, Subject
    from freezeflow.runtimes.tfjs_runtime import RUNTIME

    command = [os.environ["TFJS_PYTHON"], "-m", "tensorflowjs.converters.converter"]
    command += ["--input_format=tf_saved_model", model, "js"]
    subprocess.run(command, check=True)
    ends = json.loads(Path("js/model.json").read_text())["signature"]
    names = Names(
        *({k: end["name"] for k, end in ends[side].items()} for side in ("inputs", "outputs"))
    )
    save_calls(Path("calls").absolute(), [{key: values}])
    signature: Any = None
    subject = Subject(
        file=Path("js/model.json").absolute(), names=names, signature_name="", signature=signature
    )
    RUNTIME.answer(subject, Path("calls").absolute(), Path("found").absolute())
    (answer,) = load_calls(Path("found").absolute())
    assert not isinstance(answer, str)
    return next(iter(answer.values()))


def _stablehlo(model: str, values: Any, key: str) -> Any:
    import tensorflow as tf
    from tensorflow.compiler.mlir.stablehlo import stablehlo
    from tensorflow.compiler.mlir.tensorflow_to_stablehlo.python import (
        pywrap_tensorflow_to_stablehlo as converting,
    )
    from tensorflow.compiler.tf2xla.python import xla

    text = converting.savedmodel_to_stablehlo(
        input_path=model, exported_model_signatures=["serving_default"], tag_names=["serve"]
    )
    module = stablehlo.serialize_portable_artifact_str(text, "1.0.0")
    kind = {"version": 9, "module": module, "Tout": [tf.float32], "platforms": ["CPU"]}
    call = tf.function(lambda x: xla.call_module([x], Sout=[tf.TensorShape(None)], **kind))
    return call(tf.constant(values))[0].numpy()


def _coreml(model: str, values: Any, key: str) -> Any:
    import coremltools

    given = coremltools.TensorType(name=f"serving_default_{key}", shape=values.shape)
    coremltools.convert(
        model, source="tensorflow", convert_to="mlprogram", inputs=[given], skip_model_load=True
    ).save("m.mlpackage")


_BY_HAND: Mapping[str, Callable[[str, Any, str], Any]] = {
    "onnx": _onnx,
    "tflite": _tflite,
    "openvino": _openvino,
    "tfjs": _tfjs,
    "stablehlo": _stablehlo,
    "coreml": _coreml,
}


if __name__ == "__main__":
    if len(sys.argv) > 2:
        convert_by_hand(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
    else:
        main(Path(sys.argv[1]).resolve() if len(sys.argv) == 2 else None)
