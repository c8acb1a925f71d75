"""Builds a recipe again from nothing and compares: the proof that others can, too.

Nothing is overwritten: what is built goes into a folder of its own, and the cache is an empty one. Exit
codes are those of ``nix-build --check``: https://nix.dev/manual/nix/2.24/command-ref/status-build-failure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Literal, NamedTuple

from freezeflow.engine.cached import cached_model
from freezeflow.engine.events import OnEvent
from freezeflow.engine.options import RunOptions
from freezeflow.engine.results import RunResult
from freezeflow.engine.run import run_plans
from freezeflow.errors import FreezeflowError, UsageError
from freezeflow.graph.diff import diff_models
from freezeflow.graph.model import Model
from freezeflow.params import PathParam, with_paths
from freezeflow.plan import Plan, Step
from freezeflow.release.compare import PartDiff
from freezeflow.release.lock import Lock, LockedFile
from freezeflow.release.operands import Reader
from freezeflow.stages.registry import stage_named
from freezeflow.store.files import remove_tree
from freezeflow.store.hashing import sha256_of_file
from freezeflow.store.store import Store

Outcome = Literal["same", "failed", "timeout", "mismatch", "not_deterministic"]

EXIT_CODES: Mapping[Outcome, int] = {
    "same": 0,
    "failed": 100,
    "timeout": 101,
    "mismatch": 102,
    "not_deterministic": 104,
}


class Difference(NamedTuple):
    """Something that was built otherwise.

    Args:
        model: The model.
        step: The step that gave it.
        file: The file, by its path from the recipe; empty for the step's model.
        expected: What it should be: a digest; empty where it should not be there.
        found: What it is; empty where it is missing.
    """

    model: str
    step: str
    file: str
    expected: str
    found: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What came of a rebuild.

    Args:
        outcome: ``same``; ``failed``; ``timeout``; ``mismatch``: it is built otherwise than it was, in the
            same way each time; ``not_deterministic``: it is built otherwise each time.
        compared_with: ``lock``, or ``files`` where there is none.
        files: How many files were compared.
        differences: What differs from the lock or the published files; where it is not deterministic, of
            one build from the other.
        parts: How the models behind the differences differ, where both can still be read.
        result: How the steps of the last build ended; None where the time was over.
    """

    outcome: Outcome
    compared_with: Literal["lock", "files"]
    files: int = 0
    differences: tuple[Difference, ...] = ()
    parts: tuple[PartDiff, ...] = ()
    result: RunResult | None = None


class _Output(NamedTuple):
    """What a step of a build gave: its model's digest (empty if unknown) and its files."""

    model: str
    files: Mapping[str, LockedFile]


_Outputs = Mapping[tuple[str, str], _Output]  # by model and step


class _Build(NamedTuple):
    """A finished build: its plans, its store, what each step gave, how the steps ended."""

    plans: Sequence[Plan]
    store: Store
    outputs: _Outputs
    result: RunResult


class TimeIsOver(BaseException):
    """The time that a rebuild may take is over; like Ctrl-C, it passes everything that cleans up."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RebuildOptions:
    """How to rebuild; nothing here changes a result.

    Args:
        jobs: Steps that run side by side.
        seconds: How long each build may take; None for no limit. Outside the main thread it holds for
            each step with TensorFlow only.
        mem_limit: As `RunOptions.mem_limit`.
    """

    jobs: int
    seconds: float | None
    mem_limit: int | None


def rebuild(
    plans: Sequence[Plan],
    lock: Lock | None,
    store: Store,
    options: RebuildOptions,
    on_event: OnEvent,
) -> Rebuilt:
    """Builds plans of one recipe from nothing, twice where the first build differs.

    Args:
        plans: The plans.
        lock: What they are compared with; None for the files that they have published.
        store: The usual store, where the models of an earlier build may be found for a comparison.
        options: How.
        on_event: Told what happens.

    Raises:
        UsageError: There is nothing to compare with.
        FreezeflowError: Something cannot be read or written.
    """
    compared_with: Literal["lock", "files"] = "files" if lock is None else "lock"
    expected = _published(plans) if lock is None else _locked(plans, lock)
    count = sum(len(output.files) for output in expected.values())
    with ExitStack() as kept:
        builder = _Builder(plans, options, on_event, kept)
        try:
            first = builder.build()
            differences = _differences(expected, first)
            if first.result.ok and not differences:
                return Rebuilt(
                    outcome="same", compared_with=compared_with, files=count, result=first.result
                )
            second = builder.build() if first.result.ok else first
        except TimeIsOver:
            return Rebuilt(outcome="timeout", compared_with=compared_with)
        if not second.result.ok:
            return Rebuilt(outcome="failed", compared_with=compared_with, result=second.result)
        unstable = _differences(first.outputs, second)
        if unstable:
            parts = _parts(unstable, lambda d: _model_of(first, d), second)
        else:
            parts = _parts(differences, lambda d: _earlier(plans, d, store, kept), second)
        return Rebuilt(
            outcome="not_deterministic" if unstable else "mismatch",
            compared_with=compared_with,
            files=count,
            differences=tuple(unstable or differences),
            parts=tuple(parts),
            result=second.result,
        )


# ---------------------------------------------------------------- building


class _Builder:
    """Builds the same plans again and again, each time from nothing and into a new folder."""

    def __init__(
        self, plans: Sequence[Plan], options: RebuildOptions, on_event: OnEvent, kept: ExitStack
    ) -> None:
        self._plans = plans
        self._options = options
        self._on_event = on_event
        self._kept = kept

    def build(self) -> _Build:
        """One build.

        Raises:
            TimeIsOver: It took too long.
        """
        folder = Path(tempfile.mkdtemp(prefix="freezeflow-rebuild-"))
        self._kept.callback(remove_tree, folder)
        store = Store.open(folder / "cache")
        self._kept.callback(store.close)
        aside = [_aside(plan, folder / "out" / str(n)) for n, plan in enumerate(self._plans)]
        options = RunOptions(
            jobs=self._options.jobs,
            # In the main thread the clock below covers each step, too.
            step_seconds=None if _in_main_thread() else self._options.seconds,
            mem_limit=self._options.mem_limit,
        )
        with _limited(self._options.seconds):
            result = run_plans(aside, store, options, self._on_event)
        return _Build(aside, store, _outputs(self._plans, aside, result), result)


def _aside(plan: Plan, folder: Path) -> Plan:
    """A plan that writes each step's files into a folder of its own below `folder`."""
    steps = tuple(_step_aside(step, folder / step.id) for step in plan.steps)
    return dataclasses.replace(plan, steps=steps)


def _step_aside(step: Step, folder: Path) -> Step:
    if not step.output_files:
        return step
    places: dict[str, Path] = {}

    def moved(param: PathParam) -> str:
        if not param.output:
            return param.text
        # One folder for each file, which keeps its name: what lies beside it comes along.
        place = folder / str(len(places)) / Path(param.text).name
        places[param.text] = place
        return str(place)

    params = with_paths(stage_named(step.stage).params_for(step.params), step.params, moved)
    return dataclasses.replace(step, params=params, output_files=tuple(places.values()))


def _outputs(plans: Sequence[Plan], aside: Sequence[Plan], result: RunResult) -> _Outputs:
    """What each step gave, its files by the paths that they would have had."""
    steps = {
        (plan.name, step.id): (plan, step, moved)
        for plan, other in zip(plans, aside, strict=True)
        for step, moved in zip(plan.steps, other.steps, strict=True)
    }
    found = {}
    for done in result.steps:
        plan, step, moved = steps[done.ref.plan, done.ref.step]
        homes = {
            new.parent: old.parent
            for old, new in zip(step.output_files, moved.output_files, strict=True)
        }
        files = {}
        for file in done.files:
            new = next(home for home in homes if home in file.path.parents)
            path = homes[new] / file.path.relative_to(new)
            name = Path(os.path.relpath(path, plan.recipe.parent)).as_posix()
            files[name] = LockedFile(file.sha256, file.nbytes)
        found[plan.name, step.id] = _Output("" if done.model is None else str(done.model), files)
    return found


@contextlib.contextmanager
def _limited(seconds: float | None) -> Iterator[None]:
    """Raises `TimeIsOver` inside when the time is over."""
    if seconds is None or not _in_main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _raise)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _raise(number: int, frame: FrameType | None) -> None:
    raise TimeIsOver


# ---------------------------------------------------------------- comparing


def _locked(plans: Sequence[Plan], lock: Lock) -> _Outputs:
    for plan in plans:
        if plan.name not in lock.models:
            raise UsageError(
                f"the lock does not know the model {plan.name!r}",
                where=str(lock.path),
                hint="Write the lock anew: freezeflow lock.",
            )
    return {
        (plan.name, name): _Output(str(step.output.model), step.output.files)
        for plan in plans
        for name, step in lock.models[plan.name].steps.items()
    }


def _published(plans: Sequence[Plan]) -> _Outputs:
    """The files that are there now, of steps whose models nobody has written down."""
    found = {}
    for plan in plans:
        for step in plan.steps:
            files = {
                Path(os.path.relpath(path, plan.recipe.parent)).as_posix(): LockedFile(
                    sha256_of_file(path), path.stat().st_size
                )
                for output in step.output_files
                for path in _files_at(output)
            }
            if files:
                found[plan.name, step.id] = _Output("", files)
    if not found:
        raise UsageError(
            "there is neither a lock nor a published file to compare with",
            where=str(plans[0].recipe),
            hint="Run the recipe, or lock it, first.",
        )
    return found


def _files_at(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path] if path.is_file() else []


def _differences(expected: _Outputs, built: _Build) -> list[Difference]:
    """What a build gave otherwise, in the order of its steps; a model only where both are known."""
    found: list[Difference] = []
    for plan in built.plans:
        for step in plan.steps:
            place = (plan.name, step.id)
            one, other = expected.get(place), built.outputs.get(place)
            if one is None or other is None:
                continue
            if one.model and other.model and one.model != other.model:
                found.append(Difference(*place, "", one.model, other.model))
            # Without a lock, what lies beside the main file is not known.
            names = one.files.keys() | (other.files.keys() if one.model else set())
            for name in sorted(names):
                before, after = one.files.get(name), other.files.get(name)
                if before != after:
                    shas = ("" if file is None else file.sha256 for file in (before, after))
                    found.append(Difference(*place, name, *shas))
    return found


def _parts(
    differences: Sequence[Difference],
    earlier: Callable[[Difference], Model | None],
    built: _Build,
) -> Iterator[PartDiff]:
    """The first difference of each model, seen as graphs."""
    seen = set()
    for difference in differences:
        if difference.model in seen:
            continue
        before, after = earlier(difference), _model_of(built, difference)
        if before is None or after is None:
            continue
        diff = diff_models(before, after)
        if not diff.same:
            seen.add(difference.model)
            name = f"{difference.model}/{difference.step}"
            yield PartDiff(name=name, diff=diff, before_bytes=None, after_bytes=None)


def _model_of(built: _Build, difference: Difference) -> Model | None:
    """The model that a step of a build gave."""
    plan = next(plan for plan in built.plans if plan.name == difference.model)
    try:
        return cached_model(plan, difference.step, built.store)
    except FreezeflowError:
        return None


def _earlier(
    plans: Sequence[Plan], difference: Difference, store: Store, kept: ExitStack
) -> Model | None:
    """The model of the earlier build: from the usual cache, else from a published file."""
    plan = next(plan for plan in plans if plan.name == difference.model)
    with contextlib.suppress(FreezeflowError):
        found = cached_model(plan, difference.step, store)
        if not difference.file:
            return found
    if not difference.file:
        return None
    path = plan.recipe.parent / difference.file
    reader = kept.enter_context(
        Reader(lambda recipe: plans, lambda p, s: cached_model(p, s, store))
    )
    with contextlib.suppress(FreezeflowError):
        (part,) = reader.operand(os.fspath(path)).parts.values()
        return part.load()
    return None
