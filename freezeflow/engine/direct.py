"""One chain of stages in this process, without a store: what ``freezeflow freeze`` does."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from freezeflow.engine.context import StepContext
from freezeflow.graph.model import Model
from freezeflow.graph.verify import check
from freezeflow.stages.stage import Outcome, Stage, StageInput
from freezeflow.store.files import remove_tree
from freezeflow.values import ModelSource


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChainResult:
    """What a chain gave: the outcome of each of its stages, in order, and all warnings."""

    outcomes: tuple[Outcome, ...]
    warnings: tuple[str, ...]

    @property
    def model(self) -> Model:
        """The last stage's model.

        Its constants that no file of the source holds (folded ones) were in a scratch folder that
        is gone.
        """
        return self.outcomes[-1].model


def run_chain(
    source: ModelSource,
    stages: Sequence[tuple[Stage, Any]],
    *,
    base: Path,
    recipe_digest: str | None = None,
    on_stage: Callable[[Stage], None] = lambda stage: None,
) -> ChainResult:
    """Runs stages one after another, each on what the one before gave.

    Args:
        source: The model that the first stage loads.
        stages: Each stage with its ``Params``.
        base: The folder that relative paths in parameters start from.
        recipe_digest: What manifests name as their recipe.
        on_stage: Told before each stage.

    Raises:
        FreezeflowError: A stage refuses or fails; what earlier ones published stays.
        KeyboardInterrupt: Nothing partial is left.
    """
    folder = Path(tempfile.mkdtemp(prefix="freezeflow-"))
    outcomes: list[Outcome] = []
    try:
        with open(os.devnull, "w") as log:
            context = StepContext(base, folder, recipe_digest, log)
            model = None
            for stage, params in stages:
                on_stage(stage)
                outcome = stage.run(StageInput(model=model, source=source), params, context)
                if outcome.model is not model:
                    check(outcome.model, stage=stage.name)
                model = outcome.model
                outcomes.append(outcome)
        return ChainResult(outcomes=tuple(outcomes), warnings=tuple(context.warnings))
    finally:
        remove_tree(folder)
