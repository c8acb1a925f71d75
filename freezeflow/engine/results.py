"""What a run gives back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from freezeflow.errors import FreezeflowError
from freezeflow.values import Digest, Json


class StepRef(NamedTuple):
    """A step of a run: the recipe that it belongs to, the name of its plan, and its id there."""

    recipe: Path
    plan: str
    step: str

    def __str__(self) -> str:
        return f"{self.recipe.name}: {self.step if self._is_only else self.label}"

    @property
    def label(self) -> str:
        """The step by the name of its model."""
        return f"{self.plan}: {self.step}"

    @property
    def place(self) -> tuple[str, str]:
        """How the store knows the step: the recipe, and what it is there."""
        return str(self.recipe), self.step if self._is_only else f"{self.plan}:{self.step}"

    @property
    def _is_only(self) -> bool:
        """The plan has no name but its recipe's."""
        return self.plan == self.recipe.stem


class ResultFile(NamedTuple):
    """A file that a step published: absolute path, SHA-256, bytes."""

    path: Path
    sha256: str
    nbytes: int


StepStatus = Literal["cached", "ran", "failed", "skipped"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """How a step ended.

    Args:
        ref: Which step.
        stage: Its stage.
        status: ``cached``: nothing had to run; ``skipped``: something that it needs failed.
        key: Its key; None where what it needs has no result.
        model: Digest of the content of the model that it gave.
        files: What it published, first the main file.
        facts_json: Its facts, as JSON text.
        error: Why it failed.
        log_end: The last lines of its log, when it failed.
        log: The file that holds its log, or None.
        evidence: The folder that explains its failure, or None.
    """

    ref: StepRef
    stage: str
    status: StepStatus
    key: Digest | None = None
    model: Digest | None = None
    files: tuple[ResultFile, ...] = ()
    facts_json: str = "{}"
    error: FreezeflowError | None = None
    log_end: str = ""
    log: Path | None = None
    evidence: Path | None = None

    @property
    def facts(self) -> Mapping[str, Json]:
        """Figures and findings of the stage, with those of the engine.

        The engine's are ``seconds`` (wall time when it ran), ``peak_rss_bytes`` (of the process
        that ran it), ``nodes`` and ``tensor_bytes`` of the model that it gave, ``model_bytes`` where it
        made a new one (skeleton and tensors), and for a confined step ``confinement``.
        """
        facts: Mapping[str, Json] = json.loads(self.facts_json)
        return facts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended: its steps in the plan's order, and its wall time in seconds."""

    steps: tuple[StepResult, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Every step has a result."""
        return all(step.status in ("cached", "ran") for step in self.steps)

    @property
    def failures(self) -> tuple[StepResult, ...]:
        """The steps that failed (not those that were skipped because of them)."""
        return tuple(step for step in self.steps if step.status == "failed")
