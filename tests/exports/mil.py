"""Runs the programs of Core ML packages in NumPy, op by op: as much of them as the tests take."""

import coremltools
import numpy as np
from coremltools.converters.mil.frontend.milproto.load import load

_BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "real_div": np.divide,
    "greater": np.greater,
    "less": np.less,
    "not_equal": np.not_equal,
    "maximum": np.maximum,
}
_UNARY = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "square": np.square,
    "sqrt": np.sqrt,
}
_REDUCE = {"reduce_sum": np.sum, "reduce_max": np.max, "reduce_mean": np.mean}


def answer(package, inputs):
    """The outputs of a package by name."""
    spec = coremltools.utils.load_spec(str(package))
    weights = package / "Data" / "com.apple.CoreML" / "weights"
    program = load(spec, spec.specificationVersion, str(weights))
    main = program.functions["main"]
    for name, given in main.inputs.items():
        assert tuple(given.shape) == inputs[name].shape, name
    known = {given: inputs[name] for name, given in main.inputs.items()}
    return {each.name: value for each, value in zip(main.outputs, _run(main, known), strict=True)}


def _run(block, known):
    def value_of(var):
        return np.asarray(var.val) if var.val is not None else known[var]

    for op in block.operations:
        given = op.inputs
        if op.op_type == "const":
            continue
        if op.op_type == "cond":
            results = _run(op.blocks[0 if value_of(given["pred"]) else 1], known)
        else:
            results = [_result(op, {k: value_of(v) for k, v in given.items() if _is_var(v)})]
        known |= dict(zip(op.outputs, results, strict=True))
    return [value_of(each) for each in block.outputs]


def _is_var(given):
    return hasattr(given, "val") or hasattr(given, "sym_type")


def _result(op, given):
    kind = op.op_type
    if kind in _BINARY:
        return _BINARY[kind](given["x"], given["y"])
    if kind in _UNARY:
        return _UNARY[kind](given["x"])
    if kind in _REDUCE:
        axes = tuple(given["axes"].tolist()) if "axes" in given else None
        return _REDUCE[kind](given["x"], axis=axes, keepdims=bool(given.get("keep_dims", False)))
    if kind == "cast":
        dtypes = {"fp32": np.float32, "int32": np.int32, "bool": np.bool_, "fp16": np.float16}
        return given["x"].astype(dtypes[str(given["dtype"])])
    if kind == "select":
        return np.where(given["cond"], given["a"], given["b"])
    if kind == "reshape":
        return given["x"].reshape(given["shape"].tolist())
    if kind == "transpose":
        return given["x"].transpose(given["perm"].tolist())
    if kind == "squeeze":
        return given["x"].reshape(op.outputs[0].shape)
    raise NotImplementedError(kind)
