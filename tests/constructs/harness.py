"""Freezes a SavedModel and runs it beside the original, in one process, under the same settings."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import tensorflow as tf

from freezeflow.engine.context import StepContext
from freezeflow.graph.verify import verify
from freezeflow.graph.write import graph_def_bytes
from freezeflow.stages import freeze, load, strip
from freezeflow.stages.stage import StageInput
from freezeflow.tf.sessions import exact_config
from freezeflow.values import ModelSource

v1 = tf.compat.v1


def freeze_model(source, scratch, **freeze_params):
    """The model after load > freeze > strip; every step's result must be a valid graph."""
    context = StepContext(Path.cwd(), Path(scratch), None, io.StringIO())
    model = None
    for stage, params in (
        (load.STAGE, load.Params()),
        (freeze.STAGE, freeze.Params(**freeze_params)),
        (strip.STAGE, strip.Params()),
    ):
        model = stage.run(StageInput(model=model, source=source), params, context).model
        assert verify(model, loaded=stage.role == "load") == (), f"after {stage.name}"
    return model


def saved_model(path, **choices):
    return ModelSource(kind="saved_model", path=Path(path), **choices)


def run_frozen(model, signature, feeds):
    """Outputs of the frozen graph, imported alone, by key."""
    graph_def = v1.GraphDef.FromString(graph_def_bytes(model.graph))
    ends = model.signatures[signature]
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        with v1.Session(config=exact_config()) as session:
            for node in model.init:
                session.run(graph.get_operation_by_name(node))

            def tensor(spec):
                name = spec.tensor if ":" in spec.tensor else f"{spec.tensor}:0"
                return graph.get_tensor_by_name(name)

            return session.run(
                {key: tensor(spec) for key, spec in ends.outputs.items()},
                {tensor(ends.inputs[key]): value for key, value in feeds.items()},
            )


def run_original(path, signature, feeds):
    """Outputs of the SavedModel by TensorFlow's own loader, by key."""
    loaded = tf.saved_model.load(str(path))
    outputs = loaded.signatures[signature](**{k: tf.constant(v) for k, v in feeds.items()})
    return {key: value.numpy() for key, value in outputs.items()}


def run_original_v1(path, signature, feeds, tags=("serve",)):
    """The same by TF1's loader, for models that the newer one does not take."""
    with tf.Graph().as_default(), v1.Session(config=exact_config()) as session:
        meta_graph = v1.saved_model.loader.load(session, list(tags), str(path))
        ends = meta_graph.signature_def[signature]
        return session.run(
            {key: info.name for key, info in ends.outputs.items()},
            {ends.inputs[key].name: value for key, value in feeds.items()},
        )


def assert_same(original, frozen):
    assert set(original) == set(frozen)
    for key, want in original.items():
        want, have = np.asarray(want), np.asarray(frozen[key])
        assert have.shape == want.shape, key
        if want.dtype == object:
            assert have.ravel().tolist() == want.ravel().tolist(), key
        else:
            assert have.dtype == want.dtype, key
            assert have.tobytes() == want.tobytes(), key


def assert_frozen_equals(path, scratch, feeds, *, signature="serving_default", v1_loader=False):
    """Freezes and compares to the byte; returns the frozen model."""
    model = freeze_model(saved_model(path, signatures=(signature,)), scratch)
    run = run_original_v1 if v1_loader else run_original
    assert_same(run(path, signature, feeds), run_frozen(model, signature, feeds))
    return model
