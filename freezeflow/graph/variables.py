"""The ops that hold, read, write and pass on variables, as tables.

Source: the op registrations in upstream ``core/ops/resource_variable_ops.cc``, ``state_ops.cc``,
``training_ops.cc``, ``control_flow_ops.cc`` and ``functional_ops.cc``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Ops that are a variable: TF2's resource handle, TF1's references.
RESOURCE_HANDLE = "VarHandleOp"
REF_VARIABLES = frozenset({"Variable", "VariableV2", "AutoReloadVariable"})
HANDLES = REF_VARIABLES | {RESOURCE_HANDLE}

# Ops that change a variable: their first input, or each input that is a handle.
WRITES = re.compile(
    r"(Assign(Add|Sub)?(VariableOp)?|AssignVariableXlaConcatND"
    r"|(Resource)?(Sparse)?Apply[A-Z]\w*|Resource(Scatter|StridedSliceAssign)\w*"
    r"|Scatter(Nd)?(Update|Add|Sub|Mul|Div|Min|Max)|StridedSliceAssign"
    r"|(Resource)?CountUpTo|Rng(ReadAndSkip|Skip)"
    r"|Stateful(StandardNormal(V2)?|TruncatedNormal|Uniform(FullInt|Int)?|RandomBinomial)"
    r"|DestroyResourceOp|DestroyTemporaryVariable)$"
)

# Those that give the value from before the write.
OLD_VALUE_WRITES = frozenset({"CountUpTo", "ResourceCountUpTo", "RngReadAndSkip"})

# Ops on a handle that neither read nor write the value, and have no outputs.
IGNORED = frozenset({"DisableCopyOnRead"})

# Ops that call a Python function by a number that only the process that built the graph knows.
PYTHON_CALLS = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})

# TF1's control flow on references has a twin for values.
REF_TWINS = {
    f"Ref{op}": op for op in ("Switch", "Merge", "Enter", "Exit", "NextIteration", "Identity")
}


class FunctionUse(NamedTuple):
    """How a node hands its inputs to one of its functions.

    Args:
        attr: The attribute that names the function, or a list of functions.
        inputs: The op's input arguments that become the function's arguments, in order.
        leading: How many arguments of the function come before these; None when they come last.
        returns: The function's results are the op's outputs.
        loops: The results are the arguments of the next call.
    """

    attr: str
    inputs: tuple[str, ...]
    leading: int | None = 0
    returns: bool = False
    loops: bool = False


def _branches(*names: str) -> tuple[FunctionUse, ...]:
    return tuple(FunctionUse(name, ("input",), returns=True) for name in names)


def _captures(*pairs: tuple[str, str]) -> tuple[FunctionUse, ...]:
    return tuple(FunctionUse(attr, (inputs,), leading=None) for attr, inputs in pairs)


_CALL = (FunctionUse("f", ("args",), returns=True),)
_IF = _branches("then_branch", "else_branch")
_WHILE = (
    FunctionUse("cond", ("input",)),
    FunctionUse("body", ("input",), returns=True, loops=True),
)
_MAP = _captures(("f", "other_arguments"))
_FILTER = _captures(("predicate", "other_arguments"))

# Every op through which a variable can be captured by a function.
FUNCTION_USES: dict[str, tuple[FunctionUse, ...]] = {
    **dict.fromkeys(("PartitionedCall", "StatefulPartitionedCall"), _CALL),
    **dict.fromkeys(("RemoteCall", "TPUPartitionedCall"), _CALL),
    **dict.fromkeys(("If", "StatelessIf", "_If"), _IF),
    **dict.fromkeys(("Case", "StatelessCase"), _branches("branches")),
    **dict.fromkeys(("While", "StatelessWhile", "_While"), _WHILE),
    "For": (FunctionUse("body", ("input",), leading=1, returns=True, loops=True),),
    "BatchFunction": (FunctionUse("f", ("in_tensors", "captured_tensors"), returns=True),),
    "MapDefun": (FunctionUse("f", ("arguments", "captured_inputs")),),
    **dict.fromkeys(
        [
            "MapDataset",
            "ParallelMapDataset",
            "ParallelMapDatasetV2",
            "ExperimentalMapDataset",
            "FlatMapDataset",
            "InterleaveDataset",
            "ParallelInterleaveDataset",
            "ParallelInterleaveDatasetV2",
            "ParallelInterleaveDatasetV3",
            "ParallelInterleaveDatasetV4",
            "LegacyParallelInterleaveDatasetV2",
            "ExperimentalParallelInterleaveDataset",
            "MapAndBatchDataset",
            "ExperimentalMapAndBatchDataset",
            "ReduceDataset",
            "ScanDataset",
            "ExperimentalScanDataset",
        ],
        _MAP,
    ),
    **dict.fromkeys(
        [
            "FilterDataset",
            "ParallelFilterDataset",
            "TakeWhileDataset",
            "ExperimentalTakeWhileDataset",
        ],
        _FILTER,
    ),
    **dict.fromkeys(
        ("GroupByWindowDataset", "ExperimentalGroupByWindowDataset"),
        _captures(
            ("key_func", "key_func_other_arguments"),
            ("reduce_func", "reduce_func_other_arguments"),
            ("window_size_func", "window_size_func_other_arguments"),
        ),
    ),
    **dict.fromkeys(
        ("GroupByReducerDataset", "ExperimentalGroupByReducerDataset"),
        _captures(
            ("key_func", "key_func_other_arguments"),
            ("init_func", "init_func_other_arguments"),
            ("reduce_func", "reduce_func_other_arguments"),
            ("finalize_func", "finalize_func_other_arguments"),
        ),
    ),
    "GeneratorDataset": _captures(
        ("init_func", "init_func_other_args"),
        ("next_func", "next_func_other_args"),
        ("finalize_func", "finalize_func_other_args"),
    ),
}
