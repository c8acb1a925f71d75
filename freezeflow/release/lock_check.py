"""Whether a lock holds: which lines differ, and why."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from freezeflow.engine.events import Event, StepEnded
from freezeflow.engine.results import StepResult
from freezeflow.errors import ValidationFailed
from freezeflow.plan import Plan
from freezeflow.release.lock import (
    Lock,
    LockedFile,
    LockedModel,
    built_with,
    lock_model,
    relative_files,
)
from freezeflow.spec.problems import Mark, Problem
from freezeflow.store.store import Store
from freezeflow.values import Json


class Mismatch(NamedTuple):
    """A line of a lock that does not hold.

    Args:
        model: The model.
        field: The field's path within the model's block; empty for the whole block.
        line: Its line.
        locked: What the lock says; None where it says nothing.
        now: What is so now; None where it is not there.
        why: What that means.
    """

    model: str
    field: tuple[str, ...]
    line: int
    locked: Json
    now: Json
    why: str


class LockBroken(ValidationFailed):
    """Lines of a lock do not hold: exit code 4.

    Attributes:
        mismatches: The lines.
        problems: The same, each with its place in the file.
    """

    def __init__(self, lock: Lock, found: Sequence[Mismatch]) -> None:
        lines = "a line" if len(found) == 1 else f"{len(found)} lines"
        super().__init__(
            f"{lines} of the lock {'does' if len(found) == 1 else 'do'} not hold; if the change is "
            "wanted, write the lock anew: freezeflow lock",
            where=str(lock.path),
        )
        self.mismatches = tuple(found)
        self.problems = [_problem(lock, mismatch) for mismatch in found]


def _problem(lock: Lock, found: Mismatch) -> Problem:
    source = [] if lock.text is None else lock.text.source
    line = source[found.line - 1] if 0 < found.line <= len(source) else ""
    column = len(line) - len(line.lstrip()) + 1
    message = f"{found.model}: {found.why}"
    if found.field:
        message += f": locked {_shown(found.locked)}, now {_shown(found.now)}"
    mark = Mark(found.line, column, max(1, len(line.strip())))
    return Problem(os.path.relpath(lock.path), mark, message, "", line)


# Of a digest so many characters are shown.
_SHOWN = 24


def _shown(value: Json) -> str:
    text = "nothing" if value is None else str(value)
    is_digest = text.startswith("blake3:") or len(text) == 64
    return f"{text[:_SHOWN]}..." if is_digest else text


# ---------------------------------------------------------------- without running


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LockReport:
    """What a check found that ran nothing.

    Args:
        lock: The lock.
        mismatches: Lines that do not hold.
        absent: Locked files that are not there, so that nothing can be said of them.
        built_with: What was recorded, not compared, and is different now: name to both values.
    """

    lock: Lock
    mismatches: tuple[Mismatch, ...]
    absent: tuple[Path, ...]
    built_with: Mapping[str, tuple[str, str]]

    def raise_if_broken(self) -> None:
        """Raises `LockBroken` where a line does not hold."""
        if self.mismatches:
            raise LockBroken(self.lock, self.mismatches)


def check_lock(
    lock: Lock, plans: Sequence[Plan], store: Store, *, with_files: bool = True, whole: bool = True
) -> LockReport:
    """Checks every line of a lock that can be checked without running a step.

    Keys are computed from what the lock says that each step gave; so they hold exactly if a run that
    gives the same would have them.

    Args:
        lock: The lock of a recipe.
        plans: The plans of this recipe.
        store: Where digests of unchanged files are known.
        with_files: Compare published files that are there.
        whole: These are all of the recipe's plans, so that the lock may have no other model.

    Raises:
        FreezeflowError: A file that a step reads cannot be read.
    """
    found: list[Mismatch] = []
    absent: list[Path] = []
    names = [plan.name for plan in plans]
    if whole:
        found += [_gone(lock, name) for name in lock.models if name not in names]
    for plan in plans:
        locked = lock.models.get(plan.name)
        if locked is None:
            found.append(_unknown(lock, plan.name))
            continue
        outputs = {name: step.output for name, step in locked.steps.items()}
        found += mismatches(lock, plan.name, lock_model(plan, outputs, store))
        if with_files:
            wrong, missing = _files(lock, plan, locked, store)
            found += wrong
            absent += missing
    return LockReport(
        lock=lock,
        mismatches=tuple(sorted(found, key=lambda mismatch: mismatch.line)),
        absent=tuple(absent),
        built_with=_differently_built(lock),
    )


def _gone(lock: Lock, name: str) -> Mismatch:
    why = "the recipe has no such model any more"
    return Mismatch(name, (), lock.line_of(name, ()), None, None, why)


def _unknown(lock: Lock, name: str) -> Mismatch:
    why = "the recipe has this model, and the lock does not know it"
    return Mismatch(name, (), lock.line_of(name, ()), None, None, why)


def _files(
    lock: Lock, plan: Plan, locked: LockedModel, store: Store
) -> tuple[list[Mismatch], list[Path]]:
    """Published files that differ, and those that are not there."""
    base = plan.recipe.parent
    paths = {
        Path(os.path.normpath(base / path)): (name, path, file)
        for name, step in locked.steps.items()
        for path, file in step.output.files.items()
    }
    there = {
        path: (file.sha256, file.nbytes) for path, (_, _, file) in paths.items() if path.is_file()
    }
    good = store.stats.unchanged(there)
    wrong = [
        Mismatch(
            plan.name,
            (field := ("steps", paths[path][0], "files", paths[path][1])),
            lock.line_of(plan.name, (*field, "sha256")),
            paths[path][2].sha256,
            "another one",
            f"the file {paths[path][1]} is not the one that was locked",
        )
        for path in there
        if path not in good
    ]
    return wrong, [path for path in paths if path not in there]


def _differently_built(lock: Lock) -> dict[str, tuple[str, str]]:
    now = built_with()
    return {
        name: (before, now.get(name, "absent"))
        for model in lock.models.values()
        for name, before in model.built_with.items()
        if before != now.get(name)
    }


# ---------------------------------------------------------------- lines


def mismatches(lock: Lock, name: str, now: LockedModel) -> list[Mismatch]:
    """Every line of one model's block that differs.

    Digests of digests (a step's key, the recipe's digest) only where nothing else tells why.
    """
    before, after = (
        dict(_flat((), {**model.to_json(), "built_with": None}))
        for model in (lock.models[name], now)
    )
    fields = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    sums = [field for field in fields if field[-1] in ("key", "recipe")]
    others = [field for field in fields if field not in sums]
    return [
        Mismatch(
            name, field, lock.line_of(name, field), before.get(field), after.get(field), _why(field)
        )
        for field in others or sums
    ]


def _flat(place: tuple[str, ...], value: Json) -> Iterator[tuple[tuple[str, ...], Json]]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _flat((*place, str(key)), below)
    else:
        yield place, list(value) if isinstance(value, tuple) else value


# The beginning of a field's path to what it means; * is any part, and may be named by its number.
_REASONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("recipe",), "the recipe says something else"),
    (("freezeflow",), "another version of freezeflow"),
    (("source", "files", "*"), "the model's file {2} is another one"),
    (("source", "*"), "another part of the model is asked for ({1})"),
    (("steps", "*", "stage_version"), "the stage of {1} has another version"),
    (("steps", "*", "params", "*"), "parameter {3} of {1}"),
    (("steps", "*", "input_files", "*"), "the file of {1}.{3} is another one"),
    (("steps", "*", "tools", "*"), "another version of {3}, which {1} depends on"),
    (("steps", "*", "model"), "{1} gives another model"),
    (("steps", "*", "files", "*"), "{1} gives another {3}"),
    (("steps", "*", "key"), "the key of {1}"),
    (("steps", "*"), "step {1} is another one"),
)


def _why(field: Sequence[str]) -> str:
    for pattern, words in _REASONS:
        if len(field) >= len(pattern) and all(
            part in ("*", there) for part, there in zip(pattern, field, strict=False)
        ):
            return words.format(*field)
    return "it is not what was locked"


# ---------------------------------------------------------------- while running


class LockGuard:
    """Hears of each step that ends, and stops the run at the first one that differs from the lock.

    Args:
        locks: Recipe to its lock.
        plans: The plans that run.
    """

    def __init__(self, locks: Mapping[Path, Lock], plans: Sequence[Plan]) -> None:
        self._locks = locks
        self._plans = {(plan.recipe, plan.name): plan for plan in plans}

    def __call__(self, event: Event) -> None:
        """Takes files that differ away again, and raises `LockBroken`."""
        if isinstance(event, StepEnded) and event.result.status in ("ran", "cached"):
            self._check(event.result)

    def _check(self, result: StepResult) -> None:
        plan = self._plans[result.ref.recipe, result.ref.plan]
        lock = self._locks[plan.recipe]
        step = lock.models[plan.name].steps[result.ref.step]
        files = relative_files(plan.recipe.parent, result.files)
        found = list(_output_changes(lock, plan.name, result, files))
        if not found:
            return
        for file in result.files:
            path = Path(os.path.relpath(file.path, plan.recipe.parent)).as_posix()
            if step.output.files.get(path) != files[path]:
                with contextlib.suppress(FileNotFoundError):
                    file.path.unlink()
        raise LockBroken(lock, found)


def _output_changes(
    lock: Lock, name: str, result: StepResult, files: Mapping[str, LockedFile]
) -> Iterator[Mismatch]:
    id_ = result.ref.step
    step = lock.models[name].steps[id_]
    for field, before, after in (
        ("key", step.key, result.key),
        ("model", step.output.model, result.model),
    ):
        if before != after:
            at = ("steps", id_, field)
            line = lock.line_of(name, at)
            yield Mismatch(name, at, line, str(before), str(after), _why(at))
    for path in sorted(step.output.files.keys() | files.keys()):
        locked_file, file = step.output.files.get(path), files.get(path)
        if locked_file != file:
            place = ("steps", id_, "files", path)
            line = lock.line_of(name, (*place, "sha256"))
            locked, now = (found and found.sha256 for found in (locked_file, file))
            yield Mismatch(name, place, line, locked, now, _why(place))
