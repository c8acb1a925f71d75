"""Proof without TensorFlow: metrics, inputs, verdicts, and where two graphs begin to differ."""
