"""TensorFlow's checkpoints read without TensorFlow: tensor bundles (V2) and the older V1 tables."""

from freezeflow.checkpoint.contents import (
    INLINE_BYTES,
    Checkpoint,
    Entry,
    PutTensor,
    Request,
    Value,
)
from freezeflow.checkpoint.files import open_checkpoint

__all__ = [
    "INLINE_BYTES",
    "Checkpoint",
    "Entry",
    "PutTensor",
    "Request",
    "Value",
    "open_checkpoint",
]
