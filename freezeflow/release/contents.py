"""What a release holds and says, gathered from a finished run."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from freezeflow.engine.keys import source_name
from freezeflow.engine.results import RunResult, StepResult
from freezeflow.errors import UsageError
from freezeflow.plan import Plan
from freezeflow.release.lock import Lock, LockedModel
from freezeflow.release.lock_file import lock_text
from freezeflow.release.revision import Revision
from freezeflow.sources.registry import source_files
from freezeflow.store.hashing import reading_failed
from freezeflow.store.store import Store
from freezeflow.values import Json

ARTIFACTS = "artifacts"


class Artifact(NamedTuple):
    """A published file of a model.

    Args:
        path: Its path in the release.
        step: The step that published it.
        file: Where it is now.
        sha256: SHA-256 of its bytes.
        nbytes: Its size.
    """

    path: str
    step: str
    file: Path
    sha256: str
    nbytes: int


class Finding(NamedTuple):
    """Something that a user of the release should know, and that ``--strict`` refuses.

    Args:
        code: ``dirty_tree``, ``no_revision``, ``no_lock``, ``not_validated``, ``ops_allowed``.
        where: The model, step or file.
        text: What it is, in words.
    """

    code: str
    where: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedModel:
    """A model of a release.

    Args:
        name: Its name.
        locked: What its lock says.
        artifacts: What it consists of.
        verdicts: Step to the verdict of its validation.
        validated: Steps whose artifacts hold the very model that was validated.
        source: Name of each file of the source to its SHA-256.
        inputs: Parameter to the SHA-256 of a file that a step reads: ``validate.inputs``.
    """

    name: str
    locked: LockedModel
    artifacts: tuple[Artifact, ...]
    verdicts: Mapping[str, Json]
    validated: frozenset[str]
    source: Mapping[str, str]
    inputs: Mapping[str, str]

    def validated_artifacts(self) -> list[Artifact]:
        """The artifacts that hold what was validated."""
        return [artifact for artifact in self.artifacts if artifact.step in self.validated]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Everything that a release is made from.

    Args:
        name: What it is called.
        version: Its version, as its maker counts; empty for none.
        recipe_name: The recipe's file name.
        recipe: The recipe's text as it was used.
        lock: The lock's text as it was used.
        variables: Values that were set for the recipe's variables.
        models: Its models, by name.
        findings: What a user should know.
        revision: The git revision that it was built from.
        date: Seconds since the epoch that stand for now (``SOURCE_DATE_EPOCH``); None for no date.
        card: Text that the user wrote for the model card.
    """

    name: str
    version: str
    recipe_name: str
    recipe: bytes
    lock: bytes
    variables: Mapping[str, str]
    models: tuple[ReleasedModel, ...]
    findings: tuple[Finding, ...]
    revision: Revision | None
    date: int | None
    card: str = ""

    def artifacts(self) -> Iterator[Artifact]:
        """Every artifact of every model."""
        for model in self.models:
            yield from model.artifacts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the caller says about a release; see `Contents`."""

    name: str = ""
    version: str = ""
    card: str = ""
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)


def gather(
    plans: Sequence[Plan],
    result: RunResult,
    lock: Lock,
    revision: Revision | None,
    wishes: Wishes,
    store: Store,
) -> Contents:
    """Gathers what a release of some plans of one recipe holds.

    Args:
        plans: The plans.
        result: What they gave; every step has a result.
        lock: What is locked of them; without a text where the recipe has no lock of its own.
        revision: The git revision.
        wishes: What the caller says.
        store: Where digests of unchanged files are known.

    Raises:
        UsageError: ``SOURCE_DATE_EPOCH`` is no number, or two files would have one path.
        FreezeflowError: A file cannot be read.
    """
    recipe = plans[0].recipe
    steps: dict[str, list[StepResult]] = {}
    for step in result.steps:
        steps.setdefault(step.ref.plan, []).append(step)
    models = tuple(_model(plan, steps[plan.name], lock, store) for plan in plans)
    _check_paths(models)
    return Contents(
        name=wishes.name or (plans[0].name if len(plans) == 1 else recipe.stem),
        version=wishes.version,
        recipe_name=recipe.name,
        recipe=_read(recipe),
        lock=_lock_bytes(lock),
        variables=wishes.variables,
        models=models,
        findings=tuple(_findings(models, lock, revision)),
        revision=revision,
        date=source_date(),
        card=wishes.card,
    )


def _model(plan: Plan, steps: Sequence[StepResult], lock: Lock, store: Store) -> ReleasedModel:
    verdicts = {s.ref.step: s.facts["verdict"] for s in steps if "verdict" in s.facts}
    proven = {step.model for step in steps if step.ref.step in verdicts}
    return ReleasedModel(
        name=plan.name,
        locked=lock.models[plan.name],
        artifacts=tuple(_artifacts(plan, steps)),
        verdicts=verdicts,
        validated=frozenset(s.ref.step for s in steps if s.files and s.model in proven),
        source=_source(plan, store),
        inputs=_inputs(plan, store),
    )


def _artifacts(plan: Plan, steps: Sequence[StepResult]) -> Iterator[Artifact]:
    for step in steps:
        for file in step.files:
            relative = os.path.relpath(file.path, plan.recipe.parent)
            # A path outside the recipe's folder stays inside the release.
            parts = ["_" if part == ".." else part for part in Path(relative).parts]
            path = str(PurePosixPath(ARTIFACTS, *parts))
            yield Artifact(path, step.ref.step, file.path, file.sha256, file.nbytes)


def _source(plan: Plan, store: Store) -> dict[str, str]:
    source = plan.steps[0].source
    files = source_files(source)
    digests = store.stats.sha256s(files)
    names = {source_name(str(path), str(source.path)): digests[path] for path in files}
    return dict(sorted(names.items()))


def _inputs(plan: Plan, store: Store) -> dict[str, str]:
    paths = {
        f"{step.id}.{name}": path
        for step in plan.steps
        for name, path in sorted(step.input_files.items())
    }
    digests = store.stats.sha256s(list(paths.values()))
    return {name: digests[path] for name, path in paths.items()}


def _check_paths(models: Sequence[ReleasedModel]) -> None:
    seen: dict[str, Path] = {}
    for artifact in (artifact for model in models for artifact in model.artifacts):
        other = seen.setdefault(artifact.path, artifact.file)
        if other != artifact.file:
            raise UsageError(
                f"{other} and {artifact.file} would both be {artifact.path} of the release",
                hint="Let the recipe write one of them to another path.",
            )


def _lock_bytes(lock: Lock) -> bytes:
    return _read(lock.path) if lock.text is not None else lock_text(lock.to_json()).encode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise reading_failed(error, path) from error


def source_date() -> int | None:
    """``SOURCE_DATE_EPOCH``; None where it is not set.

    Raises:
        UsageError: It is no number.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    # Tar has room for so much; it lasts for two hundred years.
    if not (text.isascii() and text.isdecimal() and int(text[:12]) < 8**11 and len(text) < 12):
        raise UsageError(
            f"SOURCE_DATE_EPOCH is {text!r}, not seconds since the epoch",
            hint="Set it to what `git log -1 --pretty=%ct` prints, or unset it.",
        )
    return int(text)


# ---------------------------------------------------------------- findings


def _findings(
    models: Sequence[ReleasedModel], lock: Lock, revision: Revision | None
) -> Iterator[Finding]:
    if revision is None:
        yield Finding("no_revision", "", "The recipe is in no git repository.")
    elif revision.changed:
        text = f"Built from files that differ from the commit: {revision.changes()}."
        yield Finding("dirty_tree", revision.commit, text)
    if lock.text is None:
        text = "The recipe had no lock; the one here was made with the release."
        yield Finding("no_lock", lock.path.name, text)
    for model in models:
        for step in dict.fromkeys(artifact.step for artifact in model.artifacts):
            if step not in model.validated:
                text = "The model was exported without a validation of this very model."
                yield Finding("not_validated", f"{model.name}/{step}", text)
        for name, step_lock in model.locked.steps.items():
            for op, reason in (step_lock.params.get("allow_ops") or {}).items():
                text = f"The recipe lets {op} run although it is not known to be harmless: {reason}"
                yield Finding("ops_allowed", f"{model.name}/{name}", text)


def json_bytes(data: Json) -> bytes:
    """JSON as it stands in a release: sorted, indented, ASCII."""
    return (json.dumps(data, indent=2, sort_keys=True, ensure_ascii=True) + "\n").encode()
