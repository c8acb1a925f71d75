"""What a step may use of the house while it runs, seen from below: sources and stages take it, the
engine provides it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from freezeflow.values import Digest, DType, Json, TensorRef

# What a step that fails leaves in this folder of its scratch folder is shown to the user.
EVIDENCE = "evidence"

# What a proof leaves there, or in the scratch folder: the verdict, and the inputs of all calls.
VERDICT_FILE = "verdict.json"
INPUTS_FILE = "inputs.tfrecord"

# The smallest part of both graphs that shows a difference, with its inputs.
SUBGRAPH_FOLDER = "subgraph"


class Context(Protocol):
    """What a stage may use of the house while it runs."""

    @property
    def base(self) -> Path:
        """The folder that relative paths in parameters start from."""

    @property
    def scratch(self) -> Path:
        """A folder of this step's own, removed afterwards."""

    @property
    def recipe_digest(self) -> str | None:
        """Digest of the recipe, for manifests; None without one."""

    @property
    def hashed(self) -> Mapping[str, Digest]:
        """BLAKE3 of files, by absolute path, that need not be hashed again: they were, for the step's key."""

    def put_tensor(self, data: memoryview, dtype: DType, shape: tuple[int, ...]) -> TensorRef:
        """Gives new bytes (row-major, little-endian) to the tensor store."""

    def keep(self, path: Path) -> Digest:
        """Keeps a file of the scratch folder beside the step's result; its bytes' digest."""

    def confined(self, work: Callable[..., Json], *given: object) -> Json:
        """Runs a function in a confined process of its own, which may write in `scratch` only.

        Only for a step that confines itself: its process has imported TensorFlow and run no op.

        Args:
            work: The function; what it returns is JSON.
            given: Its arguments.

        Raises:
            FreezeflowError: What the function raised.
            StageFailed: The process was killed, or ended without an answer.
        """

    def log(self, line: str) -> None:
        """Adds a line to the step's log."""

    def warn(self, line: str) -> None:
        """Adds a line to the step's log that is also shown to the user."""
