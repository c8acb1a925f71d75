"""Faults put into models: whether validation finds them."""

import os

# As the exact level runs; TensorFlow reads it once, when it is imported.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
