"""How much memory steps take: measured, learned from what they took before, and shared out."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable
from typing import NamedTuple

from freezeflow.machine import available_bytes, field

# What a step takes besides the model, before anything is known of it: mostly code and small objects.
_BASE_BYTES = {False: 48 << 20, True: 160 << 20}

# What it takes for each byte of the model: without TensorFlow weights stay in their files; with it there
# is the original beside the result.
_FACTOR = {False: 0.0, True: 2.2}

# Room left to all else that runs on the machine, where no limit is given.
_SHARE = 0.9


class Wanted(NamedTuple):
    """A step for which memory is wanted.

    Args:
        stage: Its stage.
        in_tensorflow: It runs in TensorFlow.
        model_bytes: Bytes of the model that it works on.
        past_peak: What it took the last time; 0 where that is not known.
        attempts: How often it has run out of memory, or has died, in this run.
    """

    stage: str
    in_tensorflow: bool
    model_bytes: int
    past_peak: int
    attempts: int


def first_estimate(model_bytes: int, *, in_tensorflow: bool) -> int:
    """How many bytes a step will probably take of which nothing is known but its model's size."""
    return _BASE_BYTES[in_tensorflow] + int(_FACTOR[in_tensorflow] * model_bytes)


class Memory:
    """Shares out memory among the steps of a run.

    Args:
        limit: Bytes that they may take together; None for most of what is free now.
        available: Tells how much is free.
    """

    def __init__(self, limit: int | None, available: Callable[[], int] | None = None) -> None:
        self._limit = limit if limit is not None else int((available or available_bytes)() * _SHARE)
        self._taken: dict[str, int] = {}
        # By stage, what it took for each byte of the model over the base.
        self._factors: dict[str, float] = {}

    def fits(self, wanted: Wanted) -> bool:
        """Whether a step may start now; when nothing runs, any may."""
        if not self._taken:
            return True
        if wanted.attempts:
            return False  # it has failed beside others: it gets the machine for itself
        return sum(self._taken.values()) + self.estimate(wanted) <= self._limit

    def estimate(self, wanted: Wanted) -> int:
        """How many bytes a step will probably take."""
        if wanted.past_peak:
            return wanted.past_peak
        factor = self._factors.get(wanted.stage, _FACTOR[wanted.in_tensorflow])
        return _BASE_BYTES[wanted.in_tensorflow] + int(factor * wanted.model_bytes)

    def start(self, name: str, wanted: Wanted) -> None:
        self._taken[name] = self.estimate(wanted)

    def end(self, name: str, wanted: Wanted, peak: int) -> None:
        """A step has ended, and took so much."""
        self._taken.pop(name, None)
        over = peak - _BASE_BYTES[wanted.in_tensorflow]
        if over > 0 and wanted.model_bytes > 0:
            before = self._factors.get(wanted.stage, 0.0)
            self._factors[wanted.stage] = max(before, over / wanted.model_bytes)


# ---------------------------------------------------------------- measuring


def start_measuring() -> int:
    """Sets this process's peak back to what it has now; returns that, in bytes."""
    # The kernel may not allow it; then the peak is that of the process's whole life.
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _status("VmRSS")


def peak_bytes() -> int:
    """The most memory that this process has had since `start_measuring`, in bytes."""
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_of_children_bytes() -> int:
    """The most memory that any process had which this one has started and waited for, in bytes."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def _status(name: str) -> int:
    """A figure of ``/proc/self/status``, in bytes; 0 where there is none."""
    return field("/proc/self/status", name)
