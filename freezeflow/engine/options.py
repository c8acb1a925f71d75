"""What a caller may choose about a run."""

from __future__ import annotations

import dataclasses
import os
from typing import NamedTuple

from freezeflow.store.remote.options import RemoteOptions

ALL_MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Shard(NamedTuple):
    """One of several parts of a batch, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a plan is run; nothing here changes a result.

    Args:
        jobs: Steps that run side by side.
        force: Run every step, also what is cached.
        keep_going: When a step fails, go on with those that do not need it.
        only: Run only the steps of this stage or with this id, and what they need.
        remote: The shared cache.
        step_seconds: A step that runs in a process of its own and takes longer is ended; None for no
            limit.
        retries: How often a step is tried again whose process died, ran out of memory, or took too
            long; a refusal never is.
        mem_limit: Bytes of memory that running steps may take together, and a process with
            TensorFlow alone; None for what the machine has.
    """

    jobs: int = 1
    force: bool = False
    keep_going: bool = False
    only: str | None = None
    step_seconds: float | None = 4 * 3600.0
    remote: RemoteOptions = dataclasses.field(default_factory=RemoteOptions)
    retries: int = 0
    mem_limit: int | None = None
