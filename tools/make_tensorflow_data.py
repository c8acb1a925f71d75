#!/usr/bin/env python3
"""Writes the data that lets freezeflow read TensorFlow's files without TensorFlow.

    python tools/make_tensorflow_data.py

Run it with the TensorFlow whose formats are wanted. It writes, under freezeflow/:

    data/messages.binpb   a FileDescriptorSet of TensorFlow's own messages
    graph/data/ops.binpb  an OpList: every op that TensorFlow registers, without its documentation
"""

import pathlib

from google.protobuf import descriptor_pb2
from tensorflow.core.framework import op_def_pb2
from tensorflow.core.protobuf import saved_model_pb2, tensor_bundle_pb2, trackable_object_graph_pb2
from tensorflow.core.util import saved_tensor_slice_pb2
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.framework import c_api_util  # noqa: F401  loads the library

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "freezeflow"
ROOTS = (saved_model_pb2, trackable_object_graph_pb2, tensor_bundle_pb2, saved_tensor_slice_pb2)


def descriptor_set():
    files = {}

    def visit(file):
        if file.name in files:
            return
        for dependency in file.dependencies:
            visit(dependency)
        proto = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(proto)
        files[file.name] = proto

    for root in ROOTS:
        visit(root.DESCRIPTOR)
    return descriptor_pb2.FileDescriptorSet(file=list(files.values()))


def op_list():
    buffer = pywrap_tf_session.TF_GetAllOpList()
    ops = op_def_pb2.OpList.FromString(pywrap_tf_session.TF_GetBuffer(buffer))
    for op in ops.op:
        op.summary = op.description = ""
        for documented in (*op.input_arg, *op.output_arg, *op.attr):
            documented.description = ""
        for arg in (*op.input_arg, *op.output_arg):
            arg.ClearField("experimental_full_type")
    return op_def_pb2.OpList(op=sorted(ops.op, key=lambda op: op.name))


def main():
    for name, message in (("data/messages", descriptor_set()), ("graph/data/ops", op_list())):
        path = PACKAGE / f"{name}.binpb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(message.SerializeToString(deterministic=True))
        print(f"{path.relative_to(PACKAGE.parent)}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
