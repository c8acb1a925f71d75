"""Which ops XLA compiles for the processor, as the installed TensorFlow itself tells."""

from __future__ import annotations

import dataclasses

import tensorflow as tf
from tensorflow.python.framework import kernels

from freezeflow.graph.model import Model
from freezeflow.graph.profile import Profile, look
from freezeflow.values import DType, Json

_DEVICE = "XLA_CPU_JIT"

_HELP = "`fold` before the export, or a signature without them, may leave them out."


def look_at_ops(model: Model, profile: Profile) -> Json:
    """Lets a model pass whose ops XLA has kernels for, with the element types that these are for.

    It is for a process of its own: once XLA has compiled for here and now, its ahead-of-time compiler
    uses kernels that it cannot write down.

    Raises:
        ModelRefused: It has others; the message names ops and nodes.
    """
    # TensorFlow registers the kernels when something is compiled for the first time.
    tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(1))
    found: dict[str, list[dict[str, set[DType]]]] = {}
    for kernel in kernels.get_all_registered_kernels().kernel:
        if kernel.device_type == _DEVICE:
            found.setdefault(kernel.op, []).append(
                {
                    each.name: {DType(number) for number in each.allowed_values.list.type}
                    for each in kernel.constraint
                }
            )
    ops = found.keys() | model.graph.functions.keys()
    look(model, dataclasses.replace(profile, ops=ops, typed=found))
    return len(found)
