"""What a recipe gives, to the byte, and everything that it depends on.

Format ``freezeflow.lock/1``; ``docs/release.md`` describes it.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from freezeflow.engine.keys import KeyInput, Preimage, preimages
from freezeflow.errors import FreezeflowError, UsageError
from freezeflow.plan import Plan, Step
from freezeflow.release.lock_file import LockText, parse_lock_text, read_lock_file, write_lock_file
from freezeflow.store.actions import key_of
from freezeflow.store.store import Store
from freezeflow.values import Digest, Json
from freezeflow.version import VERSION

FORMAT = "freezeflow.lock/1"


class LockedFile(NamedTuple):
    """A file that a step publishes: SHA-256 and bytes."""

    sha256: str
    nbytes: int


class StepOutput(NamedTuple):
    """What a step gave: the digest of its model, and its files by their path from the recipe."""

    model: Digest
    files: Mapping[str, LockedFile]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LockedStep:
    """A step of a locked model.

    Args:
        stage: Its stage.
        stage_version: The stage's version.
        params: All parameters that can change the result, defaults filled in.
        needs: Ids of the steps that it needs.
        input_files: Parameter to the digest of the file that it names.
        tools: Package to version, as far as they are part of the key.
        kernels: Its result was computed by another package's kernels, which may give other bits on
            another processor: that package.
        key: Its key.
        output: What it gave.
    """

    stage: str
    stage_version: int
    params: Mapping[str, Json]
    needs: tuple[str, ...]
    input_files: Mapping[str, str]
    tools: Mapping[str, str]
    kernels: str | None
    key: Digest
    output: StepOutput

    def to_json(self) -> Json:
        data: dict[str, Json] = {
            "stage": self.stage,
            "stage_version": self.stage_version,
            "params": dict(self.params),
            "key": str(self.key),
            "model": str(self.output.model),
        }
        optional = {
            "needs": list(self.needs),
            "input_files": dict(self.input_files),
            "tools": dict(self.tools),
            "kernels": self.kernels,
            "files": {
                path: {"sha256": file.sha256, "bytes": file.nbytes}
                for path, file in self.output.files.items()
            },
        }
        return {**data, **{key: value for key, value in optional.items() if value}}

    @staticmethod
    def from_json(data: Json) -> LockedStep:
        files = {
            path: LockedFile(file["sha256"], file["bytes"])
            for path, file in data.get("files", {}).items()
        }
        return LockedStep(
            stage=data["stage"],
            stage_version=data["stage_version"],
            params=data["params"],
            needs=tuple(data.get("needs", ())),
            input_files=data.get("input_files", {}),
            tools=data.get("tools", {}),
            kernels=data.get("kernels"),
            key=Digest.parse(data["key"]),
            output=StepOutput(Digest.parse(data["model"]), files),
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LockedModel:
    """A model of a lock.

    Args:
        recipe: Digest of what the recipe says about it.
        freezeflow: The version, which manifests name.
        source: Where it comes from: kind, chosen parts, and the digest of each file.
        steps: Its steps by id.
        built_with: Python, machine and packages with which it was built. They are not compared: no
            byte depends on them, as the project's tests check; they are told when one does differ.
    """

    recipe: str
    freezeflow: str
    source: Mapping[str, Json]
    steps: Mapping[str, LockedStep]
    built_with: Mapping[str, str]

    def to_json(self) -> Json:
        return {
            "recipe": self.recipe,
            "freezeflow": self.freezeflow,
            "source": dict(self.source),
            "steps": {name: step.to_json() for name, step in self.steps.items()},
            "built_with": dict(self.built_with),
        }

    @staticmethod
    def from_json(data: Json) -> LockedModel:
        return LockedModel(
            recipe=data["recipe"],
            freezeflow=data["freezeflow"],
            source=data["source"],
            steps={name: LockedStep.from_json(step) for name, step in data["steps"].items()},
            built_with=data["built_with"],
        )

    def files(self) -> dict[str, LockedFile]:
        """Every file that its steps publish."""
        return {
            path: file for step in self.steps.values() for path, file in step.output.files.items()
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A recipe's lock.

    Args:
        path: Its file.
        models: Model to what is locked of it.
        text: The file as it was read; None for one that was just made.
    """

    path: Path
    models: Mapping[str, LockedModel]
    text: LockText | None = None

    def write(self) -> None:
        """Writes its file.

        Raises:
            FreezeflowError: It cannot be written.
        """
        write_lock_file(self.path, self.to_json())

    def to_json(self) -> Json:
        models = {name: model.to_json() for name, model in self.models.items()}
        return {"format": FORMAT, "models": models}

    def line_of(self, model: str, field: Sequence[str]) -> int:
        """The line at which a field of a model stands, or what holds it where it is not there."""
        place: tuple[str | int, ...] = ("models", model, *field)
        lines = {} if self.text is None else self.text.lines
        while place and place not in lines:
            place = place[:-1]
        return lines.get(place, 1)


def read_lock(path: Path) -> Lock:
    """Reads a lock.

    Raises:
        UsageError: There is none, or it is damaged or of another format.
    """
    return _parsed(read_lock_file(path), path)


def parse_lock(text: str, path: Path) -> Lock:
    """Reads a lock's text.

    Args:
        text: The text.
        path: Its file, for errors.

    Raises:
        UsageError: It is damaged or of another format.
    """
    return _parsed(parse_lock_text(text, path), path)


def _parsed(text: LockText, path: Path) -> Lock:
    try:
        if text.data["format"] != FORMAT:
            raise ValueError(f"its format is {text.data['format']!r}")
        models = {name: LockedModel.from_json(data) for name, data in text.data["models"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"this is no {FORMAT}: {what}",
            where=str(path),
            hint="Write the lock anew: freezeflow lock RECIPE.",
        ) from None
    return Lock(path=path, models=models, text=text)


# ---------------------------------------------------------------- making one


def lock_model(plan: Plan, outputs: Mapping[str, StepOutput], store: Store) -> LockedModel:
    """What is to be locked of a plan whose steps gave these outputs.

    Args:
        plan: The plan of one model.
        outputs: Step to what it gave; one that is not there has given nothing yet.
        store: Where digests of unchanged files are known.

    Raises:
        FreezeflowError: A file that a step reads cannot be read.
    """
    wanted = [
        KeyInput(
            plan,
            step,
            tuple(_output(outputs, need).model for need in step.needs),
            {
                path: file.sha256
                for need in step.needs
                for path, file in _output(outputs, need).files.items()
            },
        )
        for step in plan.steps
    ]
    found: dict[str, Preimage] = {}
    for step, preimage in zip(plan.steps, preimages(wanted, store), strict=True):
        if isinstance(preimage, FreezeflowError):
            raise preimage
        found[step.id] = preimage
    return LockedModel(
        recipe=plan.digest,
        freezeflow=VERSION,
        source=_source(found.values()),
        steps={
            step.id: _lock_step(step, found[step.id], _output(outputs, step.id))
            for step in plan.steps
        },
        built_with=built_with(),
    )


def _output(outputs: Mapping[str, StepOutput], step: str) -> StepOutput:
    return outputs.get(step, StepOutput(Digest(""), {}))


def _source(found: Iterable[Preimage]) -> Mapping[str, Json]:
    for preimage in found:
        source = preimage["source"]
        if source is not None:
            files = {name: f"blake3:{digits}" for name, digits in source["files"].items()}
            return {**source, "files": files}
    return {}


def _lock_step(step: Step, preimage: Preimage, output: StepOutput) -> LockedStep:
    computes = step.in_tensorflow and step.role != "check"
    return LockedStep(
        stage=step.stage,
        stage_version=step.stage_version,
        params=preimage["params"],
        needs=step.needs,
        input_files={name: f"blake3:{digits}" for name, digits in preimage["input_files"].items()},
        tools=preimage["tools"],
        kernels="tensorflow" if computes else None,
        key=key_of(preimage),
        output=output,
    )


def built_with() -> dict[str, str]:
    """Python, machine, and the versions of the packages that freezeflow itself needs."""
    import re
    from importlib.metadata import PackageNotFoundError, requires, version

    found = {"python": platform.python_version(), "machine": platform.machine()}
    for requirement in requires("freezeflow") or ():
        name = re.match(r"[\w.-]+", requirement)
        if name is None or "extra ==" in requirement:
            continue
        try:
            found[name[0]] = version(name[0])
        except PackageNotFoundError:
            found[name[0]] = "absent"
    return found


def relative_files(base: Path, files: Sequence[tuple[Path, str, int]]) -> dict[str, LockedFile]:
    """Files by their path from the recipe's folder, sorted."""
    found = {
        Path(os.path.relpath(path, base)).as_posix(): LockedFile(sha256, nbytes)
        for path, sha256, nbytes in files
    }
    return dict(sorted(found.items()))
