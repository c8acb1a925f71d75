"""From a frozen graph to an object file and a C++ header, by XLA's ahead-of-time compiler."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from freezeflow.graph.model import Model
from freezeflow.tf.converting import converter
from freezeflow.values import Json

_STEM = "model"

# It holds options of the compiler in a map, which has another order each time.
_METADATA = f"{_STEM}_metadata.o"


def to_xla_aot(model: Model, folder: Path, cpp_class: str, target: str, cpu: str, to: Path) -> Json:
    """Writes ``model.h`` and the object files that go with it.

    Args:
        model: A frozen model with one signature, its inputs of known shape.
        folder: The same as a SavedModel.
        cpp_class: The class in the header, with its namespaces.
        target: LLVM's triple of the machine that it is for.
        cpu: Its processor as LLVM calls it; empty for any of that kind.
        to: The folder to write into.

    Returns:
        Facts: ``objects``, and ``varies``: which of them have other bytes in each run.

    Raises:
        ModelRefused: XLA does not take the model.
    """
    from tensorflow.python.tools import saved_model_aot_compile, saved_model_utils

    ((name, _),) = model.signatures.items()
    meta_graph = saved_model_utils.get_meta_graph_def(str(folder), "serve")
    # The compiler writes its prefix into the header and the symbols: it must not be a path.
    with _inside(to), converter("XLA's ahead-of-time compiler", model):
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
    return {"objects": sorted(path.name for path in to.glob("*.o")), "varies": [_METADATA]}


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
