"""The action cache: what a step gave, by the key of what went into it."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from freezeflow.store.files import write_checked_later, writing_failed
from freezeflow.store.index import Index
from freezeflow.values import Digest, Json

FORMAT = "freezeflow.action/1"

# How old "last used" may grow before it is written again; it only serves `gc`.
USED_NS = 24 * 3600 * 1_000_000_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """A file that a step wrote outside the cache: path relative to the recipe's folder."""

    path: str
    sha256: str
    nbytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a step gave.

    Args:
        graph: Blob of the model's skeleton graph.
        record: Blob of the model's record.
        files: Files that it published, first the main one.
        owned: Tensors of the model that lie in blobs of the store.
        log: Blob of its log; None if it logged nothing.
        kept: Blobs of what belongs to its findings (the inputs of a proof).
    """

    graph: Digest
    record: Digest
    files: tuple[PublishedFile, ...] = ()
    owned: tuple[Digest, ...] = ()
    log: Digest | None = None
    kept: tuple[Digest, ...] = ()

    @functools.cached_property
    def model(self) -> Digest:
        """Digest of the model's content."""
        return Digest.of(f"freezeflow.model/1\n{self.graph.hex}\n{self.record.hex}\n".encode())

    def blobs(self) -> Iterator[Digest]:
        """Every blob that the action needs."""
        yield from (self.graph, self.record, *self.owned, *self.kept)
        if self.log is not None:
            yield self.log

    def to_json(self) -> Json:
        return {
            "graph": self.graph.hex,
            "record": self.record.hex,
            "files": [[file.path, file.sha256, file.nbytes] for file in self.files],
            "owned": [digest.hex for digest in self.owned],
            "log": self.log.hex if self.log else None,
            **({"kept": [digest.hex for digest in self.kept]} if self.kept else {}),
        }

    @staticmethod
    def from_json(data: Json) -> Outputs:
        return Outputs(
            graph=Digest(data["graph"]),
            record=Digest(data["record"]),
            files=tuple(
                PublishedFile(path=path, sha256=sha256, nbytes=nbytes)
                for path, sha256, nbytes in data["files"]
            ),
            owned=tuple(Digest(digits) for digits in data["owned"]),
            log=Digest(data["log"]) if data["log"] else None,
            kept=tuple(Digest(digits) for digits in data.get("kept", ())),
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A finished step.

    Args:
        key: Digest of its preimage.
        outputs: What it gave.
        facts_json: Its facts, as canonical JSON; most look-ups never read them.
    """

    key: Digest
    outputs: Outputs
    facts_json: str

    @property
    def facts(self) -> dict[str, Json]:
        facts: dict[str, Json] = json.loads(self.facts_json)
        return facts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ActionFile:
    """What an action's file holds beside the action itself.

    Args:
        action: The action.
        preimage: Everything that its key was computed from.
        recipe: The recipe file that it first ran for.
        step: The step's id there.
    """

    action: Action
    preimage: Mapping[str, Json]
    recipe: str
    step: str


class Actions:
    """The actions below a folder, one file each, and their rows in the index."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder = folder
        self._index = index
        if index.fresh:
            self.rebuild()

    def path(self, key: Digest) -> Path:
        """Where an action's file is, if it is there."""
        return self.folder / key.hex[:2] / f"{key.hex[2:]}.json"

    def get(self, keys: Collection[Digest]) -> dict[Digest, Action]:
        """Those of the actions that are known."""
        found = {}
        stale = []
        now = time.time_ns()
        query = "SELECT key, outputs, facts, used FROM actions WHERE key IN (?)"
        for digits, outputs, facts, used in self._index.rows(query, [key.hex for key in keys]):
            key = Digest(digits)
            found[key] = _action(key, outputs, facts)
            if now - used > USED_NS:
                stale.append(digits)
        for key in self._gone(stale, now):
            del found[key]
        for key in keys:
            # A process that was killed may have left a file that the index does not know.
            if key not in found and (file := self._read(self.path(key))):
                found[key] = file.action
                self._enter([file])
        return found

    def _gone(self, stale: Sequence[str], now: int) -> list[Digest]:
        """Notes that actions are used now; those that `gc` has taken before it was noted."""
        if not stale:
            return []
        with self._index.transaction():
            self._index.write(
                "UPDATE actions SET used = ? WHERE key = ?", [(now, k) for k in stale]
            )
            left = {
                key
                for (key,) in self._index.rows("SELECT key FROM actions WHERE key IN (?)", stale)
            }
        return [Digest(key) for key in stale if key not in left]

    def put(self, file: ActionFile) -> None:
        """Keeps an action; it is found again by its key, and by its recipe and step."""
        write_checked_later(self.path(file.action.key), _encode(file))
        with self._index.transaction():
            self._enter([file])
            self.note([(file.recipe, file.step, file.action.key)])

    def note(self, steps: Iterable[tuple[str, str, Digest]]) -> None:
        """Remembers which action the step (recipe, id) used last."""
        self._index.write(
            "INSERT OR REPLACE INTO steps VALUES (?,?,?)",
            [(recipe, step, key.hex) for recipe, step, key in steps],
        )

    def noted(self, places: Collection[tuple[str, str]]) -> dict[tuple[str, str], Digest]:
        """The action that each of some steps (recipe, id) used last."""
        found = {}
        by_recipe: dict[str, list[str]] = {}
        for recipe, step in places:
            by_recipe.setdefault(recipe, []).append(step)
        for recipe, steps in by_recipe.items():
            query = "SELECT step, key FROM steps WHERE recipe = ? AND step IN (?)"
            for step, key in self._index.rows(query, steps, first=(recipe,)):
                found[recipe, step] = Digest(key)
        return found

    def file(self, key: Digest) -> ActionFile | None:
        """An action's file; None if there is none, or it is damaged."""
        return self._read(self.path(key))

    @property
    def forgetting(self) -> Path:
        """A file that is written whenever actions are deleted."""
        return self.folder / ".forgetting"

    def forget(self, keys: Collection[Digest]) -> None:
        """Deletes actions; those that are not there are passed over."""
        write_checked_later(self.forgetting, b"", mode=0o644)
        for key in keys:
            try:
                self.path(key).unlink(missing_ok=True)
            except OSError as error:
                raise writing_failed(error, self.path(key)) from error
        self._index.write("DELETE FROM actions WHERE key = ?", [(key.hex,) for key in keys])

    def last_used(self) -> dict[Digest, int]:
        """Every action that the index knows, with the time of its last use (ns since the epoch)."""
        return {
            Digest(key): used for key, used in self._index.select("SELECT key, used FROM actions")
        }

    def indexed(self) -> dict[Digest, Outputs]:
        """Every action that the index knows, with its outputs as the index has them."""
        rows = self._index.select("SELECT key, outputs FROM actions")
        return {Digest(key): Outputs.from_json(json.loads(outputs)) for key, outputs in rows}

    def files(self) -> Iterator[Path]:
        """The path of every action's file, in order."""
        return iter(sorted(self.folder.glob("??/*.json")))

    def rebuild(self) -> None:
        """Fills the index from the files."""
        with self._index.transaction():
            for path in self.files():
                if file := self._read(path):
                    self._enter([file], used=path.stat().st_mtime_ns)
                    self.note([(file.recipe, file.step, file.action.key)])

    def _enter(self, files: Iterable[ActionFile], used: int | None = None) -> None:
        now = time.time_ns() if used is None else used
        self._index.write(
            "INSERT OR REPLACE INTO actions VALUES (?,?,?,?)",
            [
                (
                    file.action.key.hex,
                    json.dumps(file.action.outputs.to_json(), separators=(",", ":")),
                    file.action.facts_json,
                    now,
                )
                for file in files
            ],
        )

    def _read(self, path: Path) -> ActionFile | None:
        try:
            data = path.read_bytes()
        except OSError:
            return None
        file = decode_action_file(data)
        return file if file and self.path(file.action.key) == path else None


def key_of(preimage: Mapping[str, Json]) -> Digest:
    """The key of a step: the digest of its canonical preimage, tagged with what it is."""
    return Digest.of(b"freezeflow.key/1\n" + canonical_json(preimage))


def canonical_json(data: Json) -> bytes:
    """The one text of some JSON: sorted keys, no spaces, ASCII.

    Raises:
        ValueError: It holds NaN or an infinity.
    """
    return json.dumps(
        data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def decode_action_file(data: bytes) -> ActionFile | None:
    """What an action's file says; None when it is damaged or of another format."""
    payload, _, check = data.partition(b"\n")
    if check != Digest.of(payload).hex.encode() + b"\n":
        return None
    fields: dict[str, Any] = json.loads(payload)
    if fields["format"] != FORMAT:
        return None
    action = Action(
        key=key_of(fields["preimage"]),
        outputs=Outputs.from_json(fields["outputs"]),
        facts_json=canonical_json(fields["facts"]).decode(),
    )
    return ActionFile(
        action=action,
        preimage=fields["preimage"],
        recipe=fields["recipe"],
        step=fields["step"],
    )


def _encode(file: ActionFile) -> bytes:
    payload = canonical_json(
        {
            "format": FORMAT,
            "preimage": file.preimage,
            "outputs": file.action.outputs.to_json(),
            "facts": json.loads(file.action.facts_json),
            "recipe": file.recipe,
            "step": file.step,
        }
    )
    return payload + b"\n" + Digest.of(payload).hex.encode() + b"\n"


def _action(key: Digest, outputs: str, facts: str) -> Action:
    return Action(key=key, outputs=Outputs.from_json(json.loads(outputs)), facts_json=facts)
