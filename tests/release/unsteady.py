"""A stage whose result is another one each time, or depends on what no key covers."""

from __future__ import annotations

import dataclasses
import os
import time

from freezeflow.context import Context
from freezeflow.errors import StageFailed
from freezeflow.graph.constants import const
from freezeflow.params import param
from freezeflow.stages.stage import Outcome, Stage, StageInput
from freezeflow.values import DType

VARIABLE = "FREEZEFLOW_TEST_UNSTEADY"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """None."""

    unused: bool = param("Nothing.", default=False)


def run(given: StageInput, params: Params, context: Context) -> Outcome:
    """Changes the last bits of the first float constant, or fails, or takes long."""
    how = os.environ.get(VARIABLE, "")
    if how == "fail":
        raise StageFailed("this build is broken")
    if how == "slow":
        time.sleep(30)
    assert given.model is not None
    graph = given.model.graph
    noise = os.urandom(4) if how == "random" else how.encode().ljust(4, b"\0")[:4]
    nodes = dict(graph.nodes)
    name = next(n for n in sorted(nodes) if n.endswith("batchnorm/add/y"))
    nodes[name] = const(name, DType.FLOAT, (), noise[:3] + b"\x3a")
    return Outcome(
        model=dataclasses.replace(given.model, graph=dataclasses.replace(graph, nodes=nodes))
    )


STAGE = Stage(name="test-unsteady", summary="", version=1, params=Params, run=run)
