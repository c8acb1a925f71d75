"""What a run gives back."""

from __future__ import annotations

import dataclasses
import itertools
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

from freezeflow.alike import Alike
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

    def to_data(self) -> dict[str, Any]:
        """Plain data that `from_data` turns back into it."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **data,
            "ref": [str(self.ref.recipe), *self.ref[1:]],
            "key": self.key.hex if self.key else None,
            "model": self.model.hex if self.model else None,
            "files": [[str(file.path), *file[1:]] for file in self.files],
            "error": self.error.to_data() if self.error else None,
            "log": str(self.log) if self.log else None,
            "evidence": str(self.evidence) if self.evidence else None,
        }

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> StepResult:
        recipe, *rest = data["ref"]
        files = (ResultFile(Path(path), sha256, nbytes) for path, sha256, nbytes in data["files"])
        return StepResult(
            **{
                **data,
                "ref": StepRef(Path(recipe), *rest),
                "key": Digest(data["key"]) if data["key"] else None,
                "model": Digest(data["model"]) if data["model"] else None,
                "files": tuple(files),
                "error": FreezeflowError.from_data(data["error"]) if data["error"] else None,
                "log": Path(data["log"]) if data["log"] else None,
                "evidence": Path(data["evidence"]) if data["evidence"] else None,
            }
        )


_Place = tuple[Path, str]


class StepResults(Sequence[StepResult]):
    """How the steps of a run ended, in the order of its plans; each is made when it is looked at.

    Those of thousands of plans say nearly the same; packed, they take little memory.

    Args:
        places: Recipe and name of each plan, in order.

    Attributes:
        statuses: How many steps ended in which way.
    """

    def __init__(self, places: Iterable[_Place]) -> None:
        self._numbers = {place: number for number, place in enumerate(places)}
        self._packed = [b""] * len(self._numbers)
        self._counts = [0] * len(self._numbers)
        self._alike: Alike | None = None
        self.statuses: Counter[StepStatus] = Counter()

    @staticmethod
    def of(results: Iterable[StepResult]) -> StepResults:
        """The results of whole plans, those of a plan after one another."""
        grouped = [list(group) for _, group in itertools.groupby(results, lambda r: r.ref[:2])]
        found = StepResults(group[0].ref[:2] for group in grouped)
        for group in grouped:
            found.put(group)
        return found

    def put(self, results: Sequence[StepResult]) -> None:
        """Keeps all results of a plan, once."""
        number = self._numbers[results[0].ref[:2]]
        text = json.dumps([result.to_data() for result in results]).encode()
        if self._alike is None:
            self._alike = Alike(text)
        self._packed[number] = self._alike.pack(text)
        self._counts[number] = len(results)
        self.statuses.update(result.status for result in results)

    def of_plan(self, recipe: Path, name: str) -> list[StepResult]:
        """Those of one plan."""
        return self._unpack(self._numbers[recipe, name])

    def by_plan(self) -> Iterator[list[StepResult]]:
        """Those of each plan that has some."""
        return filter(None, map(self._unpack, range(len(self._packed))))

    def _unpack(self, number: int) -> list[StepResult]:
        if self._alike is None or not self._counts[number]:
            return []
        text = self._alike.unpack(self._packed[number])
        return [StepResult.from_data(data) for data in json.loads(text)]

    def __len__(self) -> int:
        return sum(self._counts)

    def __iter__(self) -> Iterator[StepResult]:
        return itertools.chain.from_iterable(self.by_plan())

    @overload
    def __getitem__(self, place: int) -> StepResult: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[StepResult, ...]: ...

    def __getitem__(self, place: int | slice) -> StepResult | tuple[StepResult, ...]:
        if isinstance(place, slice):
            return tuple(self)[place]
        place = range(len(self))[place]
        ends = list(itertools.accumulate(self._counts))
        number = bisect_right(ends, place)
        return self._unpack(number)[place - ends[number]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended: its steps in the plans' order, and its wall time in seconds."""

    steps: StepResults
    seconds: float

    @property
    def ok(self) -> bool:
        """Every step has a result."""
        return self.statuses.keys() <= {"cached", "ran"}

    @property
    def is_idle(self) -> bool:
        """Nothing had to run."""
        return self.statuses.keys() <= {"cached"}

    @property
    def statuses(self) -> Mapping[StepStatus, int]:
        """How many steps ended in which way; none where it is 0."""
        return self.steps.statuses

    @property
    def failures(self) -> tuple[StepResult, ...]:
        """The steps that failed (not those that were skipped because of them)."""
        if "failed" not in self.statuses:
            return ()
        return tuple(step for step in self.steps if step.status == "failed")
