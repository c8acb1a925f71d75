"""The settings under which TensorFlow runs something here, and what they were."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np
import tensorflow as tf

from freezeflow.tf import confine
from freezeflow.values import Json

v1 = tf.compat.v1

# What `Session.run` raises where a kernel refuses. TensorFlow's error says what the kernel says; where
# that quotes a string which is no UTF-8, Python cannot even read it.
RUN_ERRORS = (tf.errors.OpError, UnicodeDecodeError)


def exact_config() -> Any:
    """One thread, and no optimiser that could change the graph: the same ops give the same bytes."""
    config = v1.ConfigProto(
        intra_op_parallelism_threads=1,
        inter_op_parallelism_threads=1,
        device_count={"GPU": 0},
    )
    options = config.graph_options
    options.rewrite_options.disable_meta_optimizer = True
    options.optimizer_options.opt_level = v1.OptimizerOptions.L0
    options.optimizer_options.do_function_inlining = False
    return config


def as_array(value: Any) -> np.ndarray[Any, Any]:
    """What a session or a tensor gives, as an array; strings as bytes objects.

    A single string comes as bytes, of which NumPy by itself would make its own kind of string, which
    knows no zero bytes at the end.
    """
    return np.asarray(value, dtype=object if isinstance(value, bytes) else None)


def served_config() -> Any:
    """The runtime as a user gets it: Grappler on, as many threads as there are cores."""
    return v1.ConfigProto()


def settings(*, exact: bool) -> dict[str, Json]:
    """What belongs to a verdict: a result is only comparable under the same settings.

    Returns:
        ``grappler``, ``threads`` (1 or ``"default"``), ``cores`` (that the process may use), ``onednn``
        (the flag's text), ``tensorflow``, ``numpy``, ``python``, ``machine``, and ``confinement`` (null
        where the process was not).
    """
    return {
        "grappler": not exact,
        "threads": 1 if exact else "default",
        "cores": len(os.sched_getaffinity(0)),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "confinement": confine.in_force(),
    }
