"""Signatures for tests, without a graph behind them."""

from freezeflow.values import Signature, TensorSpec


def signature(**inputs):
    """A signature with inputs of (dtype, shape), and no outputs."""
    return Signature({k: TensorSpec(f"{k}:0", *spec) for k, spec in sorted(inputs.items())}, {})


def one(**inputs):
    return {"serving_default": signature(**inputs)}
