"""From a frozen graph to an object file and a C++ header, by XLA's ahead-of-time compiler."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from freezeflow.errors import StageFailed
from freezeflow.graph.model import Model
from freezeflow.tf.converting import converter
from freezeflow.values import Json, TensorSpec

_STEM = "model"

# It holds options of the compiler in a map, which has another order each time.
_METADATA = f"{_STEM}_metadata.o"

# Where the header names the arguments and results, one after the other.
_ARGUMENT = re.compile(r"void set_arg_feed_(\w+)_data\(")
_RESULT = re.compile(r"^  [^\n(]*\* result_fetch_(\w+)_data\(\) \{$", re.MULTILINE)


def to_xla_aot(
    model: Model, folder: Path, cpp_class: str, target: str, cpu: str, to: Path
) -> tuple[dict[str, Json], tuple[list[str], list[str]]]:
    """Writes ``model.h`` and the object files that go with it.

    Args:
        model: A frozen model with one signature, its inputs of known shape.
        folder: The same as a SavedModel.
        cpp_class: The class in the header, with its namespaces.
        target: LLVM's triple of the machine that it is for.
        cpu: Its processor as LLVM calls it; empty for any of that kind.
        to: The folder to write into.

    Returns:
        Facts (``objects``, and ``varies``: which of them have other bytes in each run); the keys in the order
        of arguments, and of results.

    Raises:
        ModelRefused: XLA does not take the model.
        StageFailed: This TensorFlow does not tell the order.
    """
    from tensorflow.python.tools import saved_model_aot_compile, saved_model_utils

    ((name, signature),) = model.signatures.items()
    meta_graph = saved_model_utils.get_meta_graph_def(str(folder), "serve")
    # The compiler writes its prefix into the header and the symbols: it must not be a path.
    with (
        _inside(to),
        _by_name(saved_model_aot_compile),
        converter("XLA's ahead-of-time compiler", model),
    ):
        saved_model_aot_compile.aot_compile_cpu_meta_graph_def(
            checkpoint_path=None,
            meta_graph_def=meta_graph,
            output_prefix=_STEM,
            signature_def_key=name,
            cpp_class=cpp_class,
            target_triple=target,
            target_cpu=cpu,
            variables_to_feed=(),
            multithreading=False,
        )
    # It names folders of this machine.
    (to / f"{_STEM}_makefile.inc").unlink(missing_ok=True)
    header = (to / f"{_STEM}.h").read_text()
    arguments = _keys(signature.inputs, _ARGUMENT.findall(header))
    results = _keys(signature.outputs, _RESULT.findall(header))
    if len(results) != len(signature.outputs):
        raise StageFailed(f"TensorFlow {tf.__version__} does not name the results in the header")
    facts = {"objects": sorted(path.name for path in to.glob("*.o")), "varies": [_METADATA]}
    return facts, (arguments, results)


@contextlib.contextmanager
def _by_name(compiler: Any) -> Iterator[None]:
    """Lets the compiler number arguments and results by name: it takes a map's order, which varies."""
    configure = compiler._signature_to_tf2xla_config

    def ordered(*args: Any, **options: Any) -> Any:
        config = configure(*args, **options)
        for ends in (config.feed, config.fetch):
            ends.sort(key=lambda end: end.name)
        return config

    compiler._signature_to_tf2xla_config = ordered
    try:
        yield
    finally:
        compiler._signature_to_tf2xla_config = configure


def _keys(ends: Mapping[str, TensorSpec], names: Sequence[str]) -> list[str]:
    """The keys that a header names, in its order."""
    keys = {key.replace("/", "_"): key for key in ends}
    return [keys[name] for name in names]


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
