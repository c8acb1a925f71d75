"""Which ops may run: the lists against TensorFlow's table, and what a refusal says."""

import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.op_policy import (
    FOLDABLE,
    RUNNABLE,
    SAME_BYTES,
    Use,
    check_runnable,
    is_runnable,
)
from freezeflow.graph.ops import standard_op

v1 = tf.compat.v1

# They write files, start programs, open connections, or run code that came with the model.
DANGEROUS = [
    "CacheDataset",
    "CacheDatasetV2",
    "CollectiveReduce",
    "CreateSummaryDbWriter",
    "CreateSummaryFileWriter",
    "DataServiceDataset",
    "DataServiceDatasetV4",
    "DatasetToTFRecord",
    "DebugIdentity",
    "DebugIdentityV2",
    "DebugIdentityV3",
    "DebugNanCount",
    "DebugNumericSummary",
    "DebugNumericSummaryV2",
    "DumpTensor",
    "EagerPyFunc",
    "ExperimentalDatasetToTFRecord",
    "FixedLengthRecordDataset",
    "FixedLengthRecordReaderV2",
    "ImmutableConst",
    "ImportEvent",
    "InitializeTableFromDataset",
    "LMDBDataset",
    "LoadAndRemapMatrix",
    "LoadDataset",
    "MatchingFiles",
    "MergeV2Checkpoints",
    "PyFunc",
    "PyFuncStateless",
    "QueueEnqueueV2",
    "ReadFile",
    "ReaderReadV2",
    "Recv",
    "RegisterDatasetV2",
    "RemoteCall",
    "RpcCall",
    "RpcClient",
    "RpcServer",
    "Save",
    "SaveDataset",
    "SaveDatasetV2",
    "SaveSlices",
    "SaveV2",
    "Send",
    "SnapshotDataset",
    "SnapshotDatasetV2",
    "SqlDataset",
    "TFRecordDataset",
    "TFRecordReader",
    "TFRecordReaderV2",
    "TextLineDataset",
    "TextLineReaderV2",
    "WholeFileReaderV2",
    "WriteFile",
    "WriteGraphSummary",
    "WriteScalarSummary",
    "WriteSummary",
    "XlaCallModule",
]


def test_every_name_is_an_op():
    assert [name for name in sorted(RUNNABLE) if standard_op(name) is None] == []
    assert [name for name in DANGEROUS if standard_op(name) is None] == []


def test_what_folds_has_no_state_and_no_function():
    for name in FOLDABLE:
        definition = standard_op(name)
        assert not definition.is_stateful, name
        assert definition.inputs, name
        assert "func" not in definition.attr_types.values(), name
        assert not any(output.is_ref for output in definition.outputs), name


def test_the_lists_contain_each_other():
    assert SAME_BYTES < FOLDABLE < RUNNABLE


@pytest.mark.parametrize("op", DANGEROUS)
def test_dangerous_ops_are_on_no_list(op):
    assert not is_runnable(Use("node", op, {}))


@pytest.mark.parametrize(
    ("stream", "runs"),
    [(b"stderr", True), (b"stdout", True), (b"file:///tmp/x", False), (b"", False)],
)
def test_print_may_not_write_files(stream, runs):
    use = Use("print", "PrintV2", {"output_stream": attrs.of_bytes(stream)})
    assert is_runnable(use) is runs


def test_a_refusal_names_op_node_and_what_to_do():
    uses = [
        Use("a", "Add", {}),
        Use("loop_body/w", "WriteFile", {}),
        Use("r", "ReadFile", {}),
        Use("later", "ReadFile", {}),
        Use("call", "my_function", {}),
    ]
    with pytest.raises(ModelRefused) as caught:
        check_runnable(uses, {"my_function"})
    assert "ReadFile, WriteFile" in caught.value.message
    assert caught.value.where == "r"
    assert "allow_ops" in caught.value.hint
    with pytest.raises(ModelRefused) as caught:
        check_runnable(uses, {"my_function"}, {"ReadFile": "reads its own vocabulary"})
    assert caught.value.where == "loop_body/w"
    check_runnable(uses, {"my_function"}, ("ReadFile", "WriteFile"))


def test_custom_ops_have_to_be_allowed():
    with pytest.raises(ModelRefused, match="MyCompanyOp"):
        check_runnable([Use("x", "MyCompanyOp", {})], ())


@pytest.mark.parametrize(
    "op",
    ["InterleaveDataset", "ScanDataset", "RewriteDataset", "UnbatchDataset", "ScalarSummary"],
)
def test_pipelines_in_memory_and_summaries_may_run(op):
    check_runnable([Use("node", op, {})], ())


@pytest.mark.parametrize(
    "op",
    [
        "TextLineDataset",
        "CacheDatasetV2",
        "SaveDatasetV2",
        "GeneratorDataset",
        "WriteScalarSummary",
    ],
)
def test_pipelines_that_reach_out_may_not(op):
    with pytest.raises(ModelRefused, match=op):
        check_runnable([Use("node", op, {})], ())


def test_the_gradient_of_a_tf1_loop_runs():
    """It keeps what a round needs on stacks, and gradients in tensor arrays of their own."""
    v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default() as graph:
            x = v1.placeholder(tf.float32, [4, 3])
            rows = tf.TensorArray(tf.float32, 4)
            step = lambda i, a: (i + 1, a.write(i, tf.tanh(x[i])))  # noqa: E731
            _, rows = v1.while_loop(lambda i, _: i < 4, step, [0, rows])
            v1.gradients(rows.stack() ** 2, x)
    finally:
        v1.enable_control_flow_v2()
    ops = {node.type for node in graph.get_operations()}
    assert "TensorArrayGradV3" in ops
    assert ops - RUNNABLE == set()
