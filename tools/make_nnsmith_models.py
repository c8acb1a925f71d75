#!/usr/bin/env python3
"""Generates random models with NNSmith, to be frozen and proven equal to the byte.

    python3.11 -m venv nnsmith && nnsmith/bin/pip install nnsmith tensorflow tf_keras 'z3-solver<4.13'
    nnsmith/bin/python tools/make_nnsmith_models.py FOLDER 0 500
    freezeflow run recipe.yaml --keep-going

The recipe has ``models: FOLDER/*/model/tfnet`` and the stages load, freeze, strip, fold,
``validate: {level: exact}``. NNSmith wants an environment of its own.
"""

import os

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_USE_LEGACY_KERAS="1", TF_ENABLE_ONEDNN_OPTS="0")

import pathlib
import random
import sys

import numpy as np
import tensorflow as tf
from nnsmith.graph_gen import model_gen
from nnsmith.materialize import Model, TestCase
from nnsmith.narrow_spec import auto_opset


def main(folder, first, last):
    kind = Model.init("tensorflow", backend_target="cpu")
    ops = auto_opset(kind)
    for seed in range(first, last):
        random.seed(seed)
        np.random.seed(seed)
        tf.random.set_seed(seed)
        generated = model_gen(
            opset=ops,
            method="symbolic-cinit",
            seed=seed,
            max_elem_per_tensor=2**12,
            max_nodes=10,
        )
        model = kind.from_gir(generated.make_concrete())
        model.refine_weights()
        TestCase(model, model.make_oracle()).dump(folder / str(seed))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
