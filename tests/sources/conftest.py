"""Good models, built once."""

from __future__ import annotations

import pytest

from tests.sources import built

KINDS = (
    "tf2_module",
    "keras_export",
    "tf1_saved_model",
    "checkpoint",
    "checkpoint_v1",
    "frozen_graph",
)


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """Kind of model to its source and the folder that holds all its files."""
    made = {}

    def get(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind) / "model"
            made[kind] = getattr(built, kind)(folder), folder
        return made[kind]

    return get
