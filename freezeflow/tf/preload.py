"""What the forkserver imports, so that a step's process has TensorFlow ready in 0.1 s.

Importing only: a process that has run one op has threads that a fork does not get, and hangs.
One BLAS thread, for the same reason and because a step's processes share the cores. Without oneDNN,
whose kernels depend on what is a constant, so that folding and freezing change no bit.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import tensorflow  # noqa: F401

import freezeflow.tf.evaluate
import freezeflow.tf.validate  # noqa: F401
