"""TensorFlow's own ways to freeze: ``python -m bench.rivals tf2|tf1|tool SAVED_MODEL OUT.pb``."""

from __future__ import annotations

import sys

import tensorflow as tf


def freeze_tf2(folder: str) -> bytes:
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    model = tf.saved_model.load(folder)
    frozen = convert_variables_to_constants_v2(model.signatures["serving_default"])
    data: bytes = frozen.graph.as_graph_def().SerializeToString()
    return data


def freeze_tf1(folder: str) -> bytes:
    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        meta_graph = v1.saved_model.loader.load(session, ["serve"], folder)
        outputs = meta_graph.signature_def["serving_default"].outputs.values()
        nodes = [info.name.partition(":")[0] for info in outputs]
        frozen = v1.graph_util.convert_variables_to_constants(session, session.graph_def, nodes)
    data: bytes = frozen.SerializeToString()
    return data


def freeze_by_tool(folder: str, out: str) -> None:
    """``freeze_graph``, the script that TensorFlow installs, for the models of `bench.models`."""
    from tensorflow.python.tools.freeze_graph import freeze_graph

    freeze_graph(
        input_graph=None,
        input_saver="",
        input_binary=True,
        input_checkpoint=None,
        output_node_names="StatefulPartitionedCall",
        restore_op_name="",
        filename_tensor_name="",
        output_graph=out,
        clear_devices=True,
        initializer_nodes="",
        input_saved_model_dir=folder,
    )


def main() -> None:
    _, way, folder, out = sys.argv
    if way == "tool":
        freeze_by_tool(folder, out)
        return
    data = {"tf2": freeze_tf2, "tf1": freeze_tf1}[way](folder)
    with open(out, "wb") as file:
        file.write(data)


if __name__ == "__main__":
    main()
