"""Steps on their way through a run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from freezeflow.engine.keys import KeyInput, Preimage, source_digests
from freezeflow.engine.options import ALL_MEMORY, RunOptions
from freezeflow.engine.orders import Limits, Order, StoredModel
from freezeflow.engine.results import ResultFile, StepRef, StepResult
from freezeflow.errors import UsageError
from freezeflow.plan import Plan, Step
from freezeflow.store.actions import Action, PublishedFile
from freezeflow.store.blobs import Blobs
from freezeflow.suggestions import did_you_mean
from freezeflow.values import Digest


class Wish(NamedTuple):
    """A step whose result is looked for elsewhere.

    Args:
        key: Its key.
        preimage: What the key is made of.
        base: The folder to which the files that it publishes are relative; None for nowhere.
        source: The model's source on this machine; None where that is not known.
        place: What the store knows it by: recipe and step.
    """

    key: Digest
    preimage: Preimage
    base: Path | None
    source: Path | None
    place: tuple[str, str]


_NO_KEY = Digest("")


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Task:
    """A step and what is known of it so far; two tasks are never equal.

    Attributes:
        ref: Which step.
        plan: The plan that it belongs to.
        step: The step.
        needs: The tasks that must be done before; its model comes from the first.
        preimage: What its key is made of, once its inputs are known.
        key: Its key.
        action: Its result, once it has one.
        result: How it ended, once it has.
        must_run: What it gave last time has been lost.
        ran: It has run in this run.
        attempts: How often it has failed, and was tried again.
        past_peak: What it took in memory in an earlier run, once that is looked up.
    """

    ref: StepRef
    plan: Plan
    step: Step
    needs: tuple[Task, ...]
    preimage: Preimage = dataclasses.field(default_factory=dict)
    key: Digest = _NO_KEY
    action: Action | None = None
    result: StepResult | None = None
    must_run: bool = False
    ran: bool = False
    attempts: int = 0
    past_peak: int | None = None

    @property
    def given(self) -> Action | None:
        """What the step works on was given by this action; None for ``load``."""
        return self.needs[0].action if self.needs else None

    @property
    def has_begun(self) -> bool:
        """Its chain has: something that it needs is done, or what it gave has been lost."""
        return bool(self.needs) or self.must_run

    @property
    def root(self) -> Task:
        """The step that began the chain."""
        task = self
        while task.needs:
            task = task.needs[0]
        return task

    def key_input(self) -> KeyInput:
        """What its key is made from; its needs are done."""
        inputs = tuple(need.action.outputs.model for need in self.needs if need.action)
        files = {file.path: file.sha256 for file in self.needed_files()}
        return KeyInput(self.plan, self.step, inputs, files)

    def needed_files(self) -> tuple[PublishedFile, ...]:
        """What the steps that it needs have published, if it reads that."""
        if not self.step.reads_files:
            return ()
        actions = (need.action for need in self.needs if need.action)
        return tuple(file for action in actions for file in action.outputs.files)

    def wish(self) -> Wish:
        """What is looked for in a shared cache."""
        step = self.step
        return Wish(self.key, self.preimage, step.base, step.source.path, self.ref.place)

    def ended(self, status: Literal["cached", "ran"], blobs: Blobs) -> StepResult:
        """Its result, from its action."""
        action = self.action
        assert action is not None
        log = action.outputs.log
        return StepResult(
            ref=self.ref,
            stage=self.step.stage,
            status=status,
            key=action.key,
            model=action.outputs.model,
            files=published(self.step, action),
            facts_json=action.facts_json,
            log=blobs.path(log) if log else None,
        )

    def skipped(self) -> StepResult:
        """Its result, where something that it needs has failed, or nothing may begin any more."""
        return StepResult(ref=self.ref, stage=self.step.stage, status="skipped")


def order_of(task: Task, model: StoredModel | None, scratch: Path, options: RunOptions) -> Order:
    """What a process has to do for a step.

    Args:
        task: The step.
        model: What it works on; None for ``load``, and where the process has it in memory.
        scratch: A folder of its own.
        options: What the run allows.
    """
    step = task.step
    seconds = options.step_seconds
    limits = Limits(
        memory_bytes=options.mem_limit or ALL_MEMORY,
        # Many threads use up processor time faster than the clock goes.
        cpu_seconds=None if seconds is None else int(seconds * (os.cpu_count() or 1)) + 1,
    )
    files = placed(task.needed_files(), step.base)
    return Order(
        stage=step.stage,
        params=step.params,
        source=step.source,
        base=step.base,
        recipe_digest=step.recipe_digest or None,
        scratch=scratch,
        model=model,
        limits=limits if step.in_tensorflow else None,
        confines_itself=step.confines_itself,
        files=tuple((str(file.path), file.sha256, file.nbytes) for file in files),
        hashed=source_digests(task.preimage, step.source),
    )


def published(step: Step, action: Action) -> tuple[ResultFile, ...]:
    """The files of an action, where they are for a step."""
    return placed(action.outputs.files, step.base)


def placed(files: Sequence[PublishedFile], base: Path) -> tuple[ResultFile, ...]:
    """Published files, where they are below a folder."""
    # As text until the end: a run of thousands of steps does little else than make paths.
    folder = str(base)
    return tuple(
        ResultFile(
            Path(os.path.normpath(os.path.join(folder, file.path))), file.sha256, file.nbytes
        )
        for file in files
    )


def make_tasks(plan: Plan, only: str | None) -> list[Task]:
    """The steps of a plan, in its order; with `only` those of `wanted`."""
    tasks: dict[str, Task] = {}
    for step in wanted(plan, only):
        ref = StepRef(plan.recipe, plan.name, step.id)
        needs = tuple(tasks[need] for need in step.needs)
        tasks[step.id] = Task(ref=ref, plan=plan, step=step, needs=needs)
    return list(tasks.values())


def wanted(plan: Plan, only: str | None) -> Sequence[Step]:
    """The steps of a plan; with `only` those of this stage or with this id, and what they need."""
    if only is None:
        return plan.steps
    steps = tuple(plan.steps)
    names = {step.id for step in steps if only in (step.stage, step.id)}
    for step in reversed(steps):
        if step.id in names:
            names.update(step.needs)
    return tuple(step for step in steps if step.id in names)


def check_only(plans: Sequence[Plan], only: str | None) -> None:
    """Refuses an `only` that names no step of any plan.

    Raises:
        UsageError: It does not.
    """
    if only is None or any(wanted(plan, only) for plan in plans):
        return
    known = list(dict.fromkeys(step.id for plan in plans for step in plan.steps))
    raise UsageError(f"no step is called {only!r}", hint=did_you_mean(only, known))
