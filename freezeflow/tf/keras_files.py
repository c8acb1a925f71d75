"""Loads a Keras file and saves it as a SavedModel with one signature; runs confined."""

from __future__ import annotations

import importlib
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import keras
import tensorflow as tf

from freezeflow.errors import ModelRefused
from freezeflow.store.stand_ins import stand_in

_MISSING = re.compile(r"(Could not locate|Unknown) [^.\n]{0,80}'[^'\n]{1,100}'")


def export_keras_file(path: Path, folder: Path, modules: Sequence[str]) -> None:
    """Saves the model of a Keras file as a SavedModel, with its training flag False.

    The signature is called serving_default. Inputs have Keras's names, outputs the names of a dict
    result, else ``output_0`` and so on, as Keras's own export calls them.

    Args:
        path: A ``.keras`` or HDF5 file, of Keras 3 or of Keras 2.
        folder: Where the SavedModel goes.
        modules: Python modules that register the model's custom objects when they are imported.

    Raises:
        ModelRefused: The file is damaged, holds only weights, or needs code that is not there.
    """
    _check_file(path)
    custom = _custom_objects(modules, path)
    model = _load(path, custom)
    names = [tensor.name.split(":")[0] for tensor in model.inputs]
    structure = getattr(model, "_inputs_struct", None)

    def call(*tensors: Any) -> dict[str, Any]:
        given = list(tensors) if structure is None else tf.nest.pack_sequence_as(structure, tensors)
        alone = isinstance(given, list) and len(given) == 1
        result = model(given[0] if alone else given, training=False)
        if isinstance(result, dict):
            return result
        return {f"output_{i}": tensor for i, tensor in enumerate(tf.nest.flatten(result))}

    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=name)
        for name, tensor in zip(names, model.inputs, strict=True)
    ]
    # Not the model: with it would be saved what Keras makes of it, which trains where nobody says not to.
    module = tf.Module()
    module.resources = _resources(model)
    try:
        module.serve = tf.function(call, input_signature=specs).get_concrete_function()
        module.captured = list(module.serve.graph.variables)
        tf.saved_model.save(module, str(folder), signatures=module.serve)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ModelRefused(
            f"Keras cannot export this model: {_first_line(error)}", where=str(path)
        ) from None


def _resources(model: Any) -> list[Any]:
    """Tables and assets of a model's layers, which a saver has to know of beside the variables."""
    kinds = (tf.saved_model.experimental.TrackableResource, tf.saved_model.Asset)
    return [item for item in tf.train.TrackableView(model).descendants() if isinstance(item, kinds)]


def _check_file(path: Path) -> None:
    """Tells damaged files and files without an architecture from those that Keras can load."""
    refused = stand_in(path)
    if refused is not None:
        raise refused
    if path.suffix == ".keras":
        if not zipfile.is_zipfile(path):
            raise ModelRefused(
                "this is no Keras archive",
                where=str(path),
                hint="The file is damaged or cut short; copy or write it again.",
            )
        return
    try:
        with h5py.File(path, "r") as file:
            whole = "model_config" in file.attrs
    except OSError as error:
        raise ModelRefused(
            f"this is no HDF5 file: {_first_line(error)}",
            where=str(path),
            hint="The file is damaged or cut short; copy or write it again.",
        ) from None
    if not whole:
        raise ModelRefused(
            "the file holds only weights, no architecture",
            where=str(path),
            hint="Build the model in Python, load_weights, and save the whole model:"
            " model.save('model.keras').",
        )


def _custom_objects(modules: Sequence[str], path: Path) -> dict[str, Any]:
    """The classes and functions of the named modules, by name."""
    found: dict[str, Any] = {}
    for name in modules:
        try:
            module: ModuleType = importlib.import_module(name)
        except ImportError as error:
            raise ModelRefused(
                f"module {name!r} of custom_objects cannot be imported: {error}", where=str(path)
            ) from None
        found.update({key: v for key, v in vars(module).items() if not key.startswith("_")})
    return found


def _load(path: Path, custom: dict[str, Any]) -> Any:
    """The model; what Keras 3 cannot load goes to Keras 2 (tf_keras) where that is installed."""
    try:
        return keras.models.load_model(path, custom_objects=custom, compile=False)
    except Exception as error:  # noqa: BLE001  whatever the file's classes raise
        reason = _first_line(error)
    try:
        import tf_keras
    except ImportError:
        hint = "If it was written by Keras 2: pip install freezeflow[keras2]."
        raise _not_loaded(path, reason, hint) from None
    try:
        return tf_keras.models.load_model(path, custom_objects=custom, compile=False)
    except Exception:  # noqa: BLE001  the same
        hint = "Name the modules of its own layers and functions in the recipe: custom_objects."
        raise _not_loaded(path, reason, hint) from None


def _not_loaded(path: Path, reason: str, hint: str) -> ModelRefused:
    return ModelRefused(f"Keras cannot load this file: {reason}", where=str(path), hint=hint)


def _first_line(error: Exception) -> str:
    """What a person needs of an error that may be a page long."""
    text = str(error)
    missing = _MISSING.search(text)
    if missing:
        return missing[0]
    lines = text.strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
