"""StableHLO as a portable artifact, written by TensorFlow and checked by XLA.

Shapes are static. Arguments and results are in the order of the signature's keys, as the manifest says.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

from freezeflow.exports.check import Checked, check_problems
from freezeflow.exports.converted import OneSignature, finished, saved_model_folder, single
from freezeflow.exports.format import Export, ExportFormat, ExportRequest
from freezeflow.graph.profile import FUNCTIONAL, Profile
from freezeflow.params import param
from freezeflow.runtimes.runtime import FLOAT32, Names, Runtime, Subject
from freezeflow.values import Json


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


PROFILE = Profile(
    target="StableHLO",
    # XLA tells, whose kernels `tf.xla_ops` lists.
    ops=None,
    control_flow=FUNCTIONAL,
    unrolls="lists",
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


def write(request: ExportRequest) -> Export:
    """Converts, checks and publishes; see `freezeflow.exports.converted`."""
    from freezeflow.tf.to_stablehlo import to_stablehlo
    from freezeflow.tf.xla_ops import look_at_ops

    params: Params = request.params
    made = single(request, PROFILE)
    request.context.confined(look_at_ops, made.model, PROFILE)
    folder = saved_model_folder(request, made.model)
    main = request.to.name
    facts = request.context.confined(
        to_stablehlo, made.model, folder, params.stablehlo, made.folder / main
    )
    names = Names(
        {key: f"argument {place}" for place, key in enumerate(made.signature.inputs)},
        {key: f"result {place}" for place, key in enumerate(made.signature.outputs)},
    )
    return finished(
        request,
        made,
        RUNTIME,
        main=main,
        names=names,
        precision=FLOAT32,
        tools=("tensorflow",),
        facts=facts,
    )


FORMAT = ExportFormat(
    name="stablehlo",
    version=2,
    summary="A portable StableHLO artifact, for compilers that take it; static shapes.",
    write=write,
    suffixes=(".mlirbc",),
    params=Params,
    runtimes=(RUNTIME,),
    in_tensorflow=True,
    problems=problems,
)
