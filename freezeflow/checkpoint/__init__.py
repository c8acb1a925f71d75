"""TensorFlow's checkpoints without TensorFlow: tensor bundles (V2) and V1 tables read, bundles written."""

from freezeflow.checkpoint.bundle_writer import write_bundle
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
    "write_bundle",
]
