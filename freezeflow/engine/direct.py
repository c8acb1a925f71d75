"""One chain of stages without a store: what ``freezeflow freeze`` does.

Everything happens in this process, but for stages that need TensorFlow: these run in a confined
process of their own, as in any run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from freezeflow.engine.context import StepContext
from freezeflow.engine.executors import LocalExecutor
from freezeflow.engine.interruption import interruptible
from freezeflow.engine.orders import Limits, Order, StoredModel, Work
from freezeflow.graph.model import Model
from freezeflow.graph.storage import decode_model, encode_model
from freezeflow.graph.verify import check, remembering
from freezeflow.params import params_to_json
from freezeflow.stages.stage import Outcome, Stage, StageInput, WrittenFile
from freezeflow.store.background import background, unchecked
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

        Its constants that no file of the source holds (folded ones) are in the scratch folder, if one
        was given, else gone.
        """
        return self.outcomes[-1].model


def run_chain(
    source: ModelSource,
    stages: Sequence[tuple[Stage, Any]],
    *,
    base: Path,
    start: Model | None = None,
    recipe_digest: str | None = None,
    scratch: Path | None = None,
    check_weights: bool = True,
    on_stage: Callable[[Stage], None] = lambda stage: None,
) -> ChainResult:
    """Runs stages one after another, each on what the one before gave.

    Args:
        source: The model that the first stage loads.
        stages: Each stage with its ``Params``.
        base: The folder that relative paths in parameters start from.
        start: The model that the first stage works on; None where that is ``load``.
        recipe_digest: What manifests name as their recipe.
        scratch: A folder that is there as long as the resulting model is used; by default one that is
            removed at the end.
        check_weights: False for those who only look: weights are not read.
        on_stage: Told before each stage.

    Raises:
        FreezeflowError: A stage refuses or fails; what earlier ones published stays.
        KeyboardInterrupt: Nothing partial is left.
    """
    folder = Path(tempfile.mkdtemp(prefix="freezeflow-", dir=scratch))
    outcomes: list[Outcome] = []
    try:
        with (
            interruptible(lambda: False),
            background() if check_weights else unchecked(),
            remembering(),
            _no_collection(),
            open(os.devnull, "w") as log,
            _Apart(folder) as apart,
        ):
            context = StepContext(base, folder, recipe_digest, log)
            given = StageInput(model=start, source=source)
            for stage, params in stages:
                on_stage(stage)
                if stage.demands_of(params, source).in_tensorflow:
                    outcome = apart.run(stage, params, given, context)
                else:
                    outcome = stage.run(given, params, context)
                if outcome.model is not given.model:
                    check(outcome.model, stage=stage.name)
                given = StageInput(model=outcome.model, source=source, files=outcome.files)
                outcomes.append(outcome)
        return ChainResult(outcomes=tuple(outcomes), warnings=tuple(context.warnings))
    finally:
        if scratch is None:
            remove_tree(folder)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keeps Python from looking for cycles among a model's millions of values, which have none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _Apart:
    """Runs stages in a confined process with TensorFlow; the server starts when it is needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._executor: LocalExecutor | None = None

    def __enter__(self) -> _Apart:
        return self

    def __exit__(self, *error: object) -> None:
        if self._executor is not None:
            self._executor.stop()

    def run(self, stage: Stage, params: Any, given: StageInput, context: StepContext) -> Outcome:
        """The stage's outcome; raises what the stage raised."""
        if self._executor is None:
            self._executor = LocalExecutor(self._folder, apart=False)
        scratch = Path(tempfile.mkdtemp(prefix=f"{stage.name}-", dir=self._folder))
        order = Order(
            stage=stage.name,
            params=params_to_json(params),
            source=given.source,
            base=context.base,
            recipe_digest=context.recipe_digest,
            scratch=scratch,
            model=None if given.model is None else _in_files(given.model, scratch),
            limits=Limits(memory_bytes=None, cpu_seconds=None),
            confines_itself=stage.demands_of(params, given.source).confines_itself,
            files=tuple((str(file.path), file.sha256, file.nbytes) for file in given.files),
        )
        name = scratch.name
        self._executor.start(Work(name=name, order=order, in_tensorflow=True, model_digest=None))
        ((_, report),) = self._executor.wait()
        context.warnings.extend(report.warnings)
        if report.failure is not None:
            raise report.failure
        if report.crash is not None:
            raise RuntimeError(report.crash)
        model = given.model
        if report.model is not None:
            model = decode_model(report.model.graph, report.model.record, report.model.tensors)
        assert model is not None
        files = tuple(
            WrittenFile(path=Path(path), sha256=sha256, nbytes=nbytes)
            for path, sha256, nbytes in report.files
        )
        return Outcome(model=model, files=files, facts=report.facts)


def _in_files(model: Model, folder: Path) -> StoredModel:
    """A model written down for another process."""
    graph, record, tensors = encode_model(model)
    (folder / "given.pb").write_bytes(graph)
    (folder / "given.json").write_bytes(record)
    return StoredModel(
        graph=folder / "given.pb",
        record=folder / "given.json",
        tensors={tensor.digest: tensor.location for tensor in tensors},
    )
