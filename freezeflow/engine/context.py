"""What the engine gives a stage to work with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

from freezeflow.engine.orders import KEPT, Limits
from freezeflow.store.hashing import hash_file
from freezeflow.values import Digest, DType, Json, Location, TensorRef


class StepContext:
    """The `freezeflow.stages.stage.Context` of one step.

    Args:
        base: The folder that relative paths in parameters start from.
        scratch: The step's own folder.
        recipe_digest: Digest of the recipe; None without one.
        log: Where its log goes.
        limits: What a confined process of its own may use; None where it starts none.
        hashed: BLAKE3 of files by absolute path, as far as it is known.
    """

    def __init__(
        self,
        base: Path,
        scratch: Path,
        recipe_digest: str | None,
        log: TextIO,
        limits: Limits | None = None,
        hashed: Mapping[str, Digest] = MappingProxyType({}),
    ) -> None:
        self.base = base
        self.scratch = scratch
        self.recipe_digest = recipe_digest
        self.hashed = hashed
        self.warnings: list[str] = []
        self._log = log
        self._limits = limits

    def put_tensor(self, data: memoryview, dtype: DType, shape: tuple[int, ...]) -> TensorRef:
        """Writes new bytes into the scratch folder; the engine moves them into the store."""
        data = data.cast("B") if data.nbytes else memoryview(b"")
        digest = Digest.of(data)
        path = self.scratch / "tensors" / digest.hex
        path.parent.mkdir(exist_ok=True)
        with open(path, "wb", buffering=0) as file:
            while data:
                data = data[file.write(data) :]
            status = os.fstat(file.fileno())
        size = status.st_size
        place = Location(str(path), 0, size, status.st_mtime_ns, size, status.st_ino)
        return TensorRef(digest, dtype, shape, place)

    def keep(self, path: Path) -> Digest:
        """Puts a file where the engine finds what is to be kept."""
        digest = hash_file(path)
        folder = self.scratch / KEPT
        folder.mkdir(exist_ok=True)
        path.rename(folder / digest.hex)
        return digest

    def confined(self, work: Callable[..., Json], *given: object) -> Json:
        """Runs a function in a confined process of its own, which may write in `scratch` only."""
        from freezeflow.engine.confined import run_confined

        return run_confined(work, given, self.scratch, self._limits or Limits())

    def log(self, line: str) -> None:
        """Adds a line to the step's log."""
        self._log.write(f"{line}\n")
        self._log.flush()

    def warn(self, line: str) -> None:
        """Adds a line to the step's log that is also shown to the user."""
        self.warnings.append(line)
        self.log(f"warning: {line}")
