"""StableHLO as a portable artifact, written by TensorFlow and checked by XLA.

Shapes are static. Which argument and result is which, the manifest says.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

from freezeflow.exports.check import Checked, check_problems
from freezeflow.exports.converted import (
    Converted,
    Converter,
    OneSignature,
    Single,
    saved_model_folder,
)
from freezeflow.exports.format import ExportFormat, ExportRequest
from freezeflow.graph.profile import FUNCTIONAL, Profile
from freezeflow.graph.spelled_out import BATCH_NORMS
from freezeflow.params import param
from freezeflow.runtimes.runtime import FLOAT32, Names, Runtime, Subject
from freezeflow.values import DType, Json


def _answer(subject: Subject, calls: Path, answers: Path) -> Mapping[str, Json]:
    from freezeflow.tf.to_stablehlo import answer

    return answer(subject, calls, answers)


RUNTIME = Runtime(name="xla", answer=_answer, tools=("tensorflow",))

_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params(OneSignature, Checked):
    """Parameters of ``format: stablehlo``."""

    stablehlo: str = param(
        "The version of StableHLO that has to be able to read it; later ones can, too.",
        default="1.0.0",
    )


# XLA has them; the converter leaves them, or parts of them, as TensorFlow's. The size of what some give
# follows from values.
_LEFT = frozenset(
    (
        *("Where", "Unique", "UniqueV2"),
        *("NonMaxSuppressionV3", "NonMaxSuppressionV4"),
        *("DenseBincount", "FakeQuantWithMinMaxArgs"),
    )
)

# Of four bits its module takes bytes for what they are not.
_DTYPES = frozenset(
    (
        *(DType.FLOAT, DType.DOUBLE, DType.HALF, DType.BFLOAT16, DType.BOOL),
        *(DType.INT8, DType.INT16, DType.INT32, DType.INT64),
        *(DType.UINT8, DType.UINT16, DType.UINT32, DType.UINT64),
        *(DType.COMPLEX64, DType.COMPLEX128, DType.FLOAT8_E5M2, DType.FLOAT8_E4M3FN),
    )
)

PROFILE = Profile(
    target="StableHLO",
    # XLA tells, whose kernels `tf.xla_ops` lists.
    ops=None,
    refuses=_LEFT,
    # The converter computes in float32 in place of bfloat16, and then misses it in the results.
    dtypes=_DTYPES,
    not_given=frozenset([DType.BFLOAT16]),
    control_flow=FUNCTIONAL,
    # Its converter spells them out by itself, into ops that it then leaves as they are.
    spells_out=BATCH_NORMS | {"Einsum"},
    training_norms=False,
    unrolls="lists",
    stacks_lists="slice",
    list_loops=False,
    static="all",
)


def problems(params: Params) -> list[tuple[str, str]]:
    """Mistakes in the parameters."""
    found = check_problems(params)
    if not _has_converter():
        found.append(
            ("format", "stablehlo takes a newer TensorFlow: pip install 'tensorflow>=2.17'")
        )
    if not _VERSION.fullmatch(params.stablehlo):
        found.append(
            ("stablehlo", f"a version has three numbers, as 1.0.0, not {params.stablehlo!r}")
        )
    return found


def _has_converter() -> bool:
    """Whether the installed TensorFlow brings it; looked up without importing TensorFlow."""
    spec = importlib.util.find_spec("tensorflow")
    home = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    return (home / "compiler" / "mlir" / "tensorflow_to_stablehlo").is_dir()


def convert(request: ExportRequest, made: Single) -> Converted:
    """By TensorFlow's converter, after a look at XLA's kernels."""
    from freezeflow.tf.to_stablehlo import to_stablehlo
    from freezeflow.tf.xla_ops import look_at_ops

    params: Params = request.params
    request.context.confined(look_at_ops, made.model, PROFILE)
    folder = saved_model_folder(request, made.model)
    main = request.to.name
    order = request.context.confined(
        to_stablehlo, made.model, folder, params.stablehlo, made.folder / main
    )
    names = Names.by_place(("argument ", "result "), order)
    facts: dict[str, Json] = {"stablehlo": params.stablehlo}
    return Converted(main=main, names=names, precision=FLOAT32, facts=facts)


_CONVERTER = Converter(
    profile=lambda: PROFILE, convert=convert, runtime=RUNTIME, tools=("tensorflow",)
)

FORMAT = ExportFormat(
    name="stablehlo",
    version=8,
    summary="A portable StableHLO artifact, for compilers that take it; static shapes.",
    write=_CONVERTER.write,
    suffixes=(".mlirbc",),
    params=Params,
    runtimes=(RUNTIME,),
    in_tensorflow=True,
    problems=problems,
)
