"""Converts an unfrozen model with each converter alone, as its own guide says, and runs the result.

``prepare`` brings a model into a SavedModel where it is none (as Keras and TensorFlow do that), with inputs
and TensorFlow's answers beside it; the name of a converter converts that SavedModel, in the folder where it
is run. Both are called by `tools.make_format_matrix`. TensorFlow.js' converter has run before, in an
environment of its own, and has left its files in ``js``.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import runpy
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

Arrays = Mapping[str, Any]


class Task:
    """What there is to convert.

    Args:
        folder: What `prepare` wrote.
    """

    def __init__(self, folder: Path) -> None:
        import numpy as np

        told = json.loads((folder / "order.json").read_text())
        self.model = str(folder / "model")
        self.signature: str = told["signature"]
        self.tags: list[str] = told["tags"]
        self.allowed: float = told["allowed"]
        # Inputs of unknown rank.
        self.unranked: list[str] = told["unranked"]
        with np.load(folder / "calls.npz", allow_pickle=True) as calls:
            arrays = {key: _typed(calls[key]) for key in calls.files}
        self.inputs: Arrays = {k[3:]: v for k, v in arrays.items() if k.startswith("in:")}
        self.outputs: Arrays = {k[4:]: v for k, v in arrays.items() if k.startswith("out:")}


# ---------------------------------------------------------------- before


def prepare(order: Mapping[str, Any], folder: Path) -> None:
    """Writes ``model``, ``calls.npz`` and ``order.json``."""
    import numpy as np
    import tensorflow as tf

    folder.mkdir()
    source, model = order["source"], folder / "model"
    if "saved_model" in source:
        shutil.copytree(source["saved_model"], model)
    elif "keras" in source:
        import keras

        keras.models.load_model(source["keras"]).export(str(model), verbose=False)
    else:
        _from_graph(source, model)
    tags = source.get("tags", ["serve"])
    name = order["signature"] or "serving_default"
    run = tf.saved_model.load(str(model), tags=tags).signatures[name]
    specs = run.structured_input_signature[1]
    inputs = _inputs(specs, order)
    given = {key: tf.constant(value, specs[key].dtype) for key, value in inputs.items()}
    inputs = {key: value.numpy() for key, value in given.items()}
    outputs = {key: value.numpy() for key, value in run(**given).items()}
    calls = {f"in:{key}": value for key, value in inputs.items()}
    calls |= {f"out:{key}": value for key, value in outputs.items()}
    np.savez(folder / "calls.npz", **calls)
    told = {
        "signature": name,
        "tags": tags,
        "allowed": _allowed(run.graph.as_graph_def()),
        "unranked": sorted(key for key, spec in specs.items() if spec.shape.rank is None),
    }
    (folder / "order.json").write_text(json.dumps(told))


def _allowed(graph: Any) -> float:
    """The error up to which a result is right: more where the model itself computes in half precision."""
    import tensorflow as tf

    nodes = [*graph.node, *(node for body in graph.library.function for node in body.node_def)]
    types = {attr.type for node in nodes for attr in node.attr.values()}
    if tf.bfloat16.as_datatype_enum in types:
        return 0.1
    return 0.01 if tf.float16.as_datatype_enum in types else 0.001


def _from_graph(source: Mapping[str, Any], model: Path) -> None:
    """A checkpoint with its meta graph, or a frozen graph, as a SavedModel."""
    import tensorflow.compat.v1 as tf1

    with tf1.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        if "checkpoint" in source:
            prefix = source["checkpoint"]
            tf1.train.import_meta_graph(f"{prefix}.meta").restore(session, prefix)
        else:
            definition = tf1.GraphDef.FromString(Path(source["frozen_graph"]).read_bytes())
            tf1.import_graph_def(definition, name="")
        ends = [
            {name.partition(":")[0]: graph.get_tensor_by_name(name) for name in source[side]}
            for side in ("inputs", "outputs")
        ]
        tf1.saved_model.simple_save(session, str(model), *ends)


def _inputs(specs: Mapping[str, Any], order: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the reference, else seeded ones."""
    import numpy as np

    found = recorded(order["reference"], specs)
    if found is not None:
        return {key: _recorded(found[key], specs[key].dtype.name) for key in specs}
    random = np.random.default_rng(0)
    inputs = {}
    for key, spec in specs.items():
        fixed = [1 if size is None else size for size in spec.shape]
        values: Any = random.uniform(-1, 1, order["shapes"].get(key, fixed))
        if spec.dtype.is_integer:
            values = values * 4 + 4
        inputs[key] = values.astype(spec.dtype.as_numpy_dtype)
    return inputs


def recorded(reference: str | Path | None, keys: Collection[str]) -> dict[str, Any] | None:
    """The inputs of a reference by a signature's keys.

    Args:
        reference: A file with inputs (``in:KEY``), if there is one.
        keys: The signature's; where the reference calls them otherwise, they go by order.

    Returns:
        The arrays; None where there are none, or not as many as keys.
    """
    import numpy as np

    if reference is None:
        return None
    with np.load(reference, allow_pickle=True) as file:
        found = {name[3:]: file[name] for name in file.files if name.startswith("in:")}
    if len(found) != len(keys):
        return None
    return (
        found if found.keys() == set(keys) else dict(zip(sorted(keys), found.values(), strict=True))
    )


def _typed(values: Any) -> Any:
    """An array as it was saved: NumPy's files have no bfloat16."""
    import ml_dtypes

    return values.view(ml_dtypes.bfloat16) if values.dtype == "V2" else values


def _recorded(values: Any, dtype: str) -> Any:
    """An array of a reference, which keeps bfloat16 as its bits."""
    import ml_dtypes

    return values.view(ml_dtypes.bfloat16) if dtype == "bfloat16" else values


# ---------------------------------------------------------------- converters


def _frozen_graph(task: Task) -> Any:
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    loaded = tf.saved_model.load(task.model, tags=task.tags)
    function = loaded.signatures[task.signature]
    frozen = convert_to_constants.convert_variables_to_constants_v2(function)
    Path("m.pb").write_bytes(frozen.graph.as_graph_def().SerializeToString())
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        read = tf.compat.v1.GraphDef.FromString(Path("m.pb").read_bytes())
        tf.graph_util.import_graph_def(read, name="")
        given = _matched(task.inputs, [end.name for end in frozen.inputs])
        keys = sorted(function.structured_outputs)
        results = session.run([end.name for end in frozen.outputs], given)
    return dict(zip(keys, results, strict=True))


def _onnx(task: Task) -> Any:
    import onnxruntime

    sys.argv = ["tf2onnx", "--saved-model", task.model, "--output", "m.onnx", "--opset", "17"]
    sys.argv += ["--signature_def", task.signature, "--tag", ",".join(task.tags)]
    if task.unranked:
        # It takes those for scalars whose shape it is not told.
        shapes = {key: ",".join(map(str, value.shape)) for key, value in task.inputs.items()}
        told = (f"{key}:0[{shape}]" if shape else f"{key}:0" for key, shape in shapes.items())
        sys.argv += ["--inputs", ",".join(told)]
    runpy.run_module("tf2onnx.convert", run_name="__main__")
    session = onnxruntime.InferenceSession("m.onnx")
    given = _matched(task.inputs, [end.name for end in session.get_inputs()])
    names = [end.name for end in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True))


def _tflite(task: Task) -> Any:
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    converter = tf.lite.TFLiteConverter.from_saved_model(
        task.model, signature_keys=[task.signature], tags=set(task.tags)
    )
    runner = Interpreter(model_content=converter.convert()).get_signature_runner()
    return runner(**task.inputs)


# OpenVINO's name of it to TensorFlow's.
_NAMES = {"bf16": "bfloat16"}


def _openvino(task: Task) -> Any:
    import openvino

    # What it would tell its makers takes longer than the conversion where there is no network.
    os.environ["CI"] = "true"
    # By default it computes in bfloat16 where the processor can: that is no fault of the converter.
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.convert_model(task.model)
    # Its processor runtime takes no input of unknown rank.
    open_ends = {next(iter(port.get_names())): port for port in model.inputs}
    shapes = {name: value.shape for name, value in _matched(task.inputs, list(open_ends)).items()}
    ranked = {
        port: list(shapes[name])
        for name, port in open_ends.items()
        if port.partial_shape.rank.is_dynamic
    }
    if ranked:
        model.reshape(ranked)
    compiled = openvino.compile_model(model, "CPU", precise)
    names = {next(iter(port.get_names())): port for port in compiled.inputs}
    given = _matched(task.inputs, list(names))
    results = compiled({names[name]: value for name, value in given.items()})
    # NumPy has no bfloat16: it gets such values as float16.
    types = {port: port.get_element_type().get_type_name() for port in compiled.outputs}
    return {
        next(iter(port.get_names()), str(port)): _recorded(
            results[port], _NAMES.get(types[port], "")
        )
        for port in compiled.outputs
    }


def _tfjs(task: Task) -> Any:
    from freezeflow.proof.saved_calls import load_calls, save_calls
    from freezeflow.runtimes.runtime import Names, Subject
    from freezeflow.runtimes.tfjs_runtime import RUNTIME

    ends = json.loads(Path("js/model.json").read_text())["signature"]
    ins, outs = (
        [end["name"] for end in ends.get(side, {}).values()] for side in ("inputs", "outputs")
    )
    save_calls(Path("calls").absolute(), [_matched(task.inputs, ins)])
    signature: Any = None
    subject = Subject(
        file=Path("js/model.json").absolute(),
        names=Names({name: name for name in ins}, {name: name for name in outs}),
        signature_name="",
        signature=signature,
    )
    RUNTIME.answer(subject, Path("calls").absolute(), Path("found").absolute())
    (answer,) = load_calls(Path("found").absolute())
    if isinstance(answer, str):
        sys.exit(answer)
    return answer


def _stablehlo(task: Task) -> Any:
    import tensorflow as tf
    from tensorflow.compiler.mlir.stablehlo import stablehlo
    from tensorflow.compiler.mlir.tensorflow_to_stablehlo.python import (
        pywrap_tensorflow_to_stablehlo as converting,
    )
    from tensorflow.compiler.tf2xla.python import xla

    # Neither tells its order of inputs: what works, and of that what fits best, is taken for it.
    orders = list(itertools.islice(itertools.permutations(sorted(task.inputs)), 24))

    def converted(order: Sequence[str]) -> Any:
        shapes = (",".join(map(str, task.inputs[key].shape)) for key in order)
        return converting.savedmodel_to_stablehlo(
            input_path=task.model,
            exported_model_signatures=[task.signature],
            tag_names=task.tags,
            input_arg_shapes_str=":".join(shapes),
        )

    text = _first(converted, orders)
    module = stablehlo.serialize_portable_artifact_str(text, "1.0.0")
    kinds = [tf.as_dtype(value.dtype) for value in task.outputs.values()]
    call = tf.function(
        lambda *given: xla.call_module(
            list(given),
            version=9,
            module=module,
            Sout=[tf.TensorShape(None)] * len(kinds),
            Tout=kinds,
            platforms=["CPU"],
        )
    )

    def answers(order: Sequence[str]) -> Arrays:
        results = call(*(tf.constant(task.inputs[key]) for key in order))
        return {str(place): value.numpy() for place, value in enumerate(results)}

    return _best(answers, orders, task.outputs)


def _coreml(task: Task) -> None:
    """It cannot be run here."""
    import coremltools
    import tensorflow as tf

    # The function alone would not keep the variables.
    loaded = tf.saved_model.load(task.model, tags=task.tags)
    function = loaded.signatures[task.signature]
    own = function.inputs[: len(function.inputs) - len(function.captured_inputs)]
    names = [end.name.partition(":")[0] for end in own]
    given = [
        coremltools.TensorType(name=name, shape=value.shape)
        for name, value in _matched(task.inputs, names).items()
    ]
    coremltools.convert(
        [function], source="tensorflow", convert_to="mlprogram", inputs=given, skip_model_load=True
    ).save("m.mlpackage")


BY_HAND: Mapping[str, Callable[[Task], Any]] = {
    "frozen_graph": _frozen_graph,
    "onnx": _onnx,
    "tflite": _tflite,
    "openvino": _openvino,
    "tfjs": _tfjs,
    "stablehlo": _stablehlo,
    "coreml": _coreml,
}


def _first(make: Callable[[Any], Any], ways: Sequence[Any]) -> Any:
    """What is made in the first of some ways that works; where none does, the first one's error."""
    for way in ways:
        with contextlib.suppress(Exception):
            return make(way)
    return make(ways[0])


def _best(answers: Callable[[Any], Arrays], ways: Sequence[Any], wanted: Arrays) -> Arrays:
    """The answers nearest to what is wanted, of those that come; where none come, the first's error."""
    found = []
    for way in ways:
        with contextlib.suppress(Exception):
            found.append(answers(way))
    return min(found, key=lambda each: _error(each, wanted)) if found else answers(ways[0])


def _matched(inputs: Arrays, names: Sequence[str]) -> dict[str, Any]:
    """Inputs by the names that a converter gave them, which have the keys in them, or by order."""
    left = dict(inputs)
    given = {}
    for name in sorted(names, key=len):
        plain = name.partition(":")[0]
        keys = [key for key in left if plain == key or plain.endswith(f"_{key}")]
        if not left:
            raise ValueError(f"the result has a further input, {plain}")
        key = keys[0] if keys else next(iter(left))
        given[name] = left.pop(key)
    return given


# ---------------------------------------------------------------- after


def _error(found: Arrays, wanted: Arrays) -> float:
    """The largest difference, of outputs paired by name, or else in the order that fits best.

    Relative for outputs above 1; infinite where shapes, strings or what is not finite differ.
    """
    if found.keys() == wanted.keys():
        return max((_apart(found[key], wanted[key]) for key in wanted), default=0.0)
    if len(found) != len(wanted):
        return float("inf")
    orders = itertools.islice(itertools.permutations(found.values()), 120)
    return min(
        max(_apart(a, b) for a, b in zip(order, wanted.values(), strict=True)) for order in orders
    )


def _apart(found: Any, wanted: Any) -> float:
    import numpy as np

    found, wanted = np.asarray(found), np.asarray(wanted)
    if found.shape != wanted.shape:
        return float("inf")
    if wanted.dtype.kind in "OSU":
        return 0.0 if [*map(_text, found.flat)] == [*map(_text, wanted.flat)] else float("inf")
    a, b = found.astype(np.complex128), wanted.astype(np.complex128)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(a - b) / max(1.0, np.max(np.abs(b), initial=0.0)))
    return float(np.max(np.nan_to_num(apart, nan=np.inf), initial=0.0))


def _text(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def convert(name: str, folder: Path) -> None:
    """Converts, runs, and prints what came of it."""
    task = Task(folder)
    found = BY_HAND[name](task)
    if found is None:
        print("RESULT", json.dumps({"is": "structure right"}))
        return
    error = _error(found, task.outputs)
    print(
        "RESULT", json.dumps({"is": "right" if error < task.allowed else "wrong", "error": error})
    )


if __name__ == "__main__":
    importlib.import_module("ml_dtypes")  # names of NumPy's further types
    if sys.argv[1] == "prepare":
        prepare(json.loads(sys.argv[2]), Path(sys.argv[3]))
    else:
        convert(sys.argv[1], Path(sys.argv[2]).resolve())
