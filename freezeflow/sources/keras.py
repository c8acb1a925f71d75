"""A Keras file (``.keras``, ``.h5``) as a Model.

Only Keras can turn a Keras file into a graph, and a file may bring code of its own, so this runs in
a confined process with TensorFlow; what it saves there is then read like any SavedModel.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from freezeflow.context import Context
from freezeflow.errors import ModelRefused
from freezeflow.graph.model import Model
from freezeflow.sources.saved_model import load_saved_model
from freezeflow.values import ModelSource


def load_keras(source: ModelSource, context: Context) -> Model:
    """Loads the file with Keras, saves it as a SavedModel in the scratch folder, and reads that.

    Raises:
        ModelRefused: The file is damaged, holds only weights, or needs code that is not there.
    """
    from freezeflow.tf.keras_files import export_keras_file

    (path,) = keras_files(source)
    folder = context.scratch / "keras"
    export_keras_file(path, folder, source.custom_objects)
    exported = ModelSource(kind="saved_model", path=folder)
    return dataclasses.replace(load_saved_model(exported, context), source_kind="keras")


def keras_files(source: ModelSource) -> tuple[Path, ...]:
    """The Keras file itself.

    Raises:
        ModelRefused: There is none.
    """
    if not source.path.is_file():
        raise ModelRefused("there is no such file", where=str(source.path))
    return (source.path,)
