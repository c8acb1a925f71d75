"""The plain data that goes into a step's process and comes out of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from freezeflow.errors import FreezeflowError
from freezeflow.values import Digest, Json, Location, ModelSource

_ORDER = "order.json"
_REPORT = "report.json"
_GRAPH = "graph.pb"
_RECORD = "record.json"
LOG_NAME = "log.txt"

# The folder of what is kept beside a result; its files are named by their digests.
KEPT = "kept"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model in files: its skeleton, its record, and where its tensors lie."""

    graph: Path
    record: Path
    tensors: Mapping[Digest, Location]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a confined process may use: bytes of private memory, seconds of processor time."""

    memory_bytes: int | None = None
    cpu_seconds: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a process is to do.

    Args:
        stage: The stage's name.
        params: Its parameters as JSON.
        source: The recipe's model.
        base: The folder that relative paths start from.
        recipe_digest: Digest of the recipe.
        scratch: The step's own folder; everything that the process writes for itself goes there.
        model: The model to work on; None for ``load``.
        limits: Run confined, within these limits; None for a step that runs nothing of the model.
        confines_itself: The limits are for the processes that the step starts.
        files: What the steps before have published and it reads: (absolute path, SHA-256, bytes).
        hashed: Absolute path to BLAKE3 (64 hex digits) of the source's files, where its key has them.
    """

    stage: str
    params: Mapping[str, Json]
    source: ModelSource
    base: Path
    recipe_digest: str | None
    scratch: Path
    model: StoredModel | None
    limits: Limits | None
    confines_itself: bool = False
    files: tuple[tuple[str, str, int], ...] = ()
    hashed: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def log(self) -> Path:
        """Where the step's log is written."""
        return self.scratch / LOG_NAME

    def save(self) -> None:
        """Writes the order into its scratch folder."""
        data = {
            "stage": self.stage,
            "params": dict(self.params),
            "source": self.source.to_json(),
            "base": str(self.base),
            "recipe_digest": self.recipe_digest,
            "model": _model_to_json(self.model) if self.model else None,
            "limits": dataclasses.asdict(self.limits) if self.limits else None,
            "confines_itself": self.confines_itself,
            "files": self.files,
            "hashed": dict(self.hashed),
        }
        (self.scratch / _ORDER).write_text(json.dumps(data))

    @staticmethod
    def load(scratch: Path) -> Order:
        """The order that was saved in a folder."""
        data: dict[str, Any] = json.loads((scratch / _ORDER).read_text())
        return Order(
            stage=data["stage"],
            params=data["params"],
            source=ModelSource.from_json(data["source"]),
            base=Path(data["base"]),
            recipe_digest=data["recipe_digest"],
            scratch=scratch,
            model=_model_from_json(data["model"]) if data["model"] else None,
            limits=Limits(**data["limits"]) if data["limits"] else None,
            confines_itself=data["confines_itself"],
            files=tuple((path, sha256, nbytes) for path, sha256, nbytes in data["files"]),
            hashed=data["hashed"],
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A step that is to run.

    Args:
        name: Unique among the work of one executor; letters, digits and dashes.
        order: What to do.
        in_tensorflow: It needs a process with TensorFlow.
        model_digest: Content digest of the order's model; None for ``load``.
        seconds: It is ended after so long; None for no limit.
    """

    name: str
    order: Order
    in_tensorflow: bool
    model_digest: Digest | None
    seconds: float | None = None


class Ended(NamedTuple):
    """Work that has ended: its name, and what came of it."""

    name: str
    report: Report


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewModel:
    """A model that a step made: skeleton, record, and where its tensors lie."""

    graph: bytes
    record: bytes
    tensors: Mapping[Digest, Location]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of an order.

    Args:
        model: The new model; None when the step handed on the one that it got, or failed.
        files: What was published: (absolute path, SHA-256, bytes).
        facts: Figures and findings.
        warnings: What the user should see.
        seconds: Wall time of the stage.
        peak_rss_bytes: Peak memory of the process.
        own_peak_bytes: How much memory it took, or a process that it started, over what the process had
            when the step began.
        failure: Why it failed.
        crash: The traceback of a bug.
        lost: It failed because of what happened to its process, and may succeed when it is tried
            again: the process died, ran out of memory, or took too long.
    """

    model: NewModel | None = None
    files: tuple[tuple[str, str, int], ...] = ()
    facts: Mapping[str, Json] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    peak_rss_bytes: int = 0
    own_peak_bytes: int = 0
    failure: FreezeflowError | None = None
    crash: str | None = None
    lost: Literal["", "died", "memory", "timeout"] = ""

    def save(self, scratch: Path) -> None:
        """Writes the report into the step's scratch folder, its main file last."""
        tensors = None
        if self.model is not None:
            (scratch / _GRAPH).write_bytes(self.model.graph)
            (scratch / _RECORD).write_bytes(self.model.record)
            tensors = _tensors_to_json(self.model.tensors)
        data = {
            "tensors": tensors,
            "files": list(self.files),
            "facts": dict(self.facts),
            "warnings": list(self.warnings),
            "seconds": self.seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
            "own_peak_bytes": self.own_peak_bytes,
            "lost": self.lost,
            "failure": self.failure.to_data() if self.failure else None,
            "crash": self.crash,
        }
        partial = scratch / f"{_REPORT}.part"
        partial.write_text(json.dumps(data))
        partial.rename(scratch / _REPORT)

    @staticmethod
    def load(scratch: Path) -> Report | None:
        """The report that a process left in a folder; None when it did not come so far."""
        try:
            text = (scratch / _REPORT).read_text()
        except FileNotFoundError:
            return None
        data: dict[str, Any] = json.loads(text)
        model = None
        if data["tensors"] is not None:
            model = NewModel(
                graph=(scratch / _GRAPH).read_bytes(),
                record=(scratch / _RECORD).read_bytes(),
                tensors=_tensors_from_json(data["tensors"]),
            )
        return Report(
            model=model,
            files=tuple((path, sha256, nbytes) for path, sha256, nbytes in data["files"]),
            facts=data["facts"],
            warnings=tuple(data["warnings"]),
            seconds=data["seconds"],
            peak_rss_bytes=data["peak_rss_bytes"],
            own_peak_bytes=data["own_peak_bytes"],
            lost=data["lost"],
            failure=FreezeflowError.from_data(data["failure"]) if data["failure"] else None,
            crash=data["crash"],
        )


def _model_to_json(model: StoredModel) -> Json:
    return {
        "graph": str(model.graph),
        "record": str(model.record),
        "tensors": _tensors_to_json(model.tensors),
    }


def _model_from_json(data: Json) -> StoredModel:
    return StoredModel(
        graph=Path(data["graph"]),
        record=Path(data["record"]),
        tensors=_tensors_from_json(data["tensors"]),
    )


def _tensors_to_json(tensors: Mapping[Digest, Location]) -> Json:
    return [[digest.hex, *location] for digest, location in tensors.items()]


def _tensors_from_json(data: Json) -> dict[Digest, Location]:
    return {Digest(row[0]): Location(*row[1:]) for row in data}
