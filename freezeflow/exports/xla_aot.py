"""An object file and a C++ header by XLA's ahead-of-time compiler, for programs without TensorFlow.

Shapes are static. A program includes ``model.h`` and links the object files. Which argument and result is
which, the manifest says, and the header: ``arg_feed_KEY``, ``result_fetch_KEY``. An input that nothing
depends on is no argument.
"""

from __future__ import annotations

import dataclasses
import re

from freezeflow.exports.check import Checked, check_problems
from freezeflow.exports.converted import (
    Converted,
    Converter,
    OneSignature,
    Single,
    saved_model_folder,
)
from freezeflow.exports.format import ExportFormat, ExportRequest
from freezeflow.graph.profile import CASES, FUNCTIONAL, Profile
from freezeflow.params import param
from freezeflow.runtimes import compiled
from freezeflow.runtimes.runtime import FLOAT32, Names
from freezeflow.values import DType

MAIN = "model.h"

_CLASS = re.compile(r"[A-Za-z_]\w*(::[A-Za-z_]\w*)*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params(OneSignature, Checked):
    """Parameters of ``format: xla_aot``."""

    cpp_class: str = param("The class in the header, with namespaces.", default="freezeflow::Model")
    triple: str = param("LLVM's triple of the machine that it is for.", default="x86_64-pc-linux")
    cpu: str = param(
        "LLVM's name of its processor (`haswell`); by default any of that kind.", default=""
    )


PROFILE = Profile(
    target="XLA",
    # XLA tells, whose kernels `tf.xla_ops` lists.
    ops=None,
    # Those that have an equivalent in C++.
    dtypes=frozenset(
        (
            *(DType.FLOAT, DType.DOUBLE, DType.BOOL),
            *(DType.INT8, DType.INT16, DType.INT32, DType.INT64),
            *(DType.UINT8, DType.UINT16, DType.UINT32, DType.UINT64),
        )
    ),
    control_flow=FUNCTIONAL - CASES,
    spells_out=frozenset(["Einsum"]),
    unrolls="lists",
    stacks_lists="slice",
    list_loops=False,
    static="all",
)


def problems(params: Params) -> list[tuple[str, str]]:
    """Mistakes in the parameters, and what a check lacks."""
    found = check_problems(params)
    if not _CLASS.fullmatch(params.cpp_class):
        found.append(("cpp_class", f"{params.cpp_class!r} is no name of a C++ class"))
    if params.check is not False and (lacks := compiled.missing()):
        found.append(("check", f"{lacks}; `check: false` exports unchecked"))
    return found


def convert(request: ExportRequest, made: Single) -> Converted:
    """By XLA's ahead-of-time compiler, after a look at its kernels."""
    from freezeflow.tf.to_xla_aot import to_xla_aot
    from freezeflow.tf.xla_ops import look_at_ops

    params: Params = request.params
    request.context.confined(look_at_ops, made.model, PROFILE)
    folder = saved_model_folder(request, made.model)
    facts, order = request.context.confined(
        to_xla_aot,
        made.model,
        folder,
        params.cpp_class,
        params.triple,
        params.cpu,
        made.folder,
    )
    return Converted(
        main=MAIN,
        names=Names.by_place(("arg", "result"), order),
        precision=FLOAT32,
        facts=facts,
        options={compiled.CPP_CLASS: params.cpp_class},
    )


_CONVERTER = Converter(
    profile=lambda: PROFILE, convert=convert, runtime=compiled.RUNTIME, tools=("tensorflow",)
)

FORMAT = ExportFormat(
    name="xla_aot",
    version=5,
    summary="Object files with a C++ header, a folder, for programs without TensorFlow; static shapes.",
    write=_CONVERTER.write,
    params=Params,
    runtimes=(compiled.RUNTIME,),
    in_tensorflow=True,
    problems=problems,
)
