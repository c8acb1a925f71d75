"""Moves models between steps and the store."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path

from freezeflow.engine.executors import Executor
from freezeflow.engine.orders import KEPT, NewModel, Report, StoredModel
from freezeflow.store.actions import Outputs
from freezeflow.store.blobs import BlobLost
from freezeflow.store.store import Store
from freezeflow.values import Digest, Location

# Models whose tensors are remembered; a run has few chains at work at once.
_KNOWN_MODELS = 64


class Lost(Exception):
    """A model that a finished step gave is not all there any more.

    Args:
        message: What is lost.
        by_load: The bytes of a weight, which only ``load`` can find again; else the step itself has
            to run again.
    """

    def __init__(self, message: str, *, by_load: bool) -> None:
        super().__init__(message)
        self.message = message
        self.by_load = by_load


class Keeper:
    """Puts what steps gave into the store, and makes it ready for the steps that need it.

    Args:
        store: The store.
        executor: Where steps run.
        fetch_weights: Brings tensors into the store that are nowhere on this machine, if it can.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        fetch_weights: Callable[[Collection[Digest]], None] | None = None,
    ) -> None:
        self._store = store
        self._executor = executor
        self._fetch_weights = fetch_weights
        # Tensors of the models last handled, by the model's digest: these have a known place.
        self._tensors: OrderedDict[Digest, Collection[Digest]] = OrderedDict()

    def stored_model(self, outputs: Outputs, *, in_tensorflow: bool) -> StoredModel | None:
        """The files of a model, checked; None when the executor still has it in memory.

        Args:
            outputs: The outputs of the step that gave it.
            in_tensorflow: It is for a process with TensorFlow.

        Raises:
            Lost: Something of it is gone or damaged.
        """
        from freezeflow.graph.storage import tensor_digests

        if self._executor.holds(outputs.model, in_tensorflow=in_tensorflow):
            return None
        blobs = self._store.blobs
        try:
            blobs.read(outputs.graph)
            digests = tensor_digests(blobs.read(outputs.record))
        except BlobLost as error:
            raise Lost(f"{error.where} {error.message}", by_load=False) from error
        locations = self._store.tensors.locate(digests)
        missing = [digest for digest in digests if digest not in locations]
        if missing and self._fetch_weights is not None:
            self._fetch_weights(missing)
            locations.update(self._store.tensors.locate(missing))
        for digest in digests:
            if digest not in locations:
                raise Lost(f"the weight {digest.hex[:12]} is not where it was", by_load=True)
        self._know(outputs.model, digests)
        return StoredModel(
            graph=blobs.path(outputs.graph), record=blobs.path(outputs.record), tensors=locations
        )

    def keep(self, report: Report, given: Outputs | None, scratch: Path, log: bytes) -> Outputs:
        """Keeps what a step gave, without its files.

        Args:
            report: The step's report, without a failure.
            given: Outputs of the step whose model it worked on.
            scratch: The step's own folder, named as the executor knows the step.
            log: Its log.

        Raises:
            FreezeflowError: The store cannot be written.
        """
        log_digest = self._store.blobs.put(log) if log else None
        if report.model is None:
            assert given is not None
            outputs = Outputs(
                graph=given.graph, record=given.record, owned=given.owned, log=log_digest
            )
        else:
            outputs = self._keep_model(report.model, given, scratch, log_digest)
        self._executor.adopt(scratch.name, outputs.model)
        return dataclasses.replace(outputs, kept=self._keep_findings(scratch))

    def _keep_findings(self, scratch: Path) -> tuple[Digest, ...]:
        folder = scratch / KEPT
        if not folder.is_dir():
            return ()
        kept = tuple(Digest(path.name) for path in sorted(folder.iterdir()))
        for digest in kept:
            path = folder / digest.hex
            status = path.stat()
            size = status.st_size
            place = Location(str(path), 0, size, status.st_mtime_ns, size, status.st_ino)
            self._store.blobs.put_range(digest, place)
        return kept

    def _keep_model(
        self, model: NewModel, given: Outputs | None, scratch: Path, log: Digest | None
    ) -> Outputs:
        blobs = self._store.blobs
        known = self._tensors.get(given.model, ()) if given else ()
        new = {d: place for d, place in model.tensors.items() if d not in known}
        made = {d: place for d, place in new.items() if place.path.startswith(f"{scratch}/")}
        for digest, location in made.items():
            blobs.put_range(digest, location)
        own = f"{blobs.folder}/"
        self._store.tensors.adopt(
            {
                digest: place
                for digest, place in new.items()
                if digest not in made and not place.path.startswith(own)
            }
        )
        outputs = Outputs(
            graph=blobs.put(model.graph),
            record=blobs.put(model.record),
            owned=tuple(
                digest
                for digest, place in model.tensors.items()
                if digest in made or place.path.startswith(own)
            ),
            log=log,
        )
        self._know(outputs.model, model.tensors)
        return outputs

    def _know(self, model: Digest, tensors: Collection[Digest]) -> None:
        self._tensors[model] = frozenset(tensors)
        self._tensors.move_to_end(model)
        while len(self._tensors) > _KNOWN_MODELS:
            self._tensors.popitem(last=False)
