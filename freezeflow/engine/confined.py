"""Confined processes that a step starts itself, one for each thing that it runs of a model.

The step's own process stays free to publish files, and reads nothing of what they leave but JSON and
the files that it asked for. It must have one thread only: it forks.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from freezeflow.engine.orders import Limits
from freezeflow.engine.processes import killed
from freezeflow.errors import FreezeflowError, StageFailed
from freezeflow.values import Json

_PR_SET_PDEATHSIG = 1

_numbers = itertools.count(1)


def run_confined(
    work: Callable[..., Json], given: tuple[object, ...], scratch: Path, limits: Limits
) -> Json:
    """What a function gives back in a process of its own.

    Args:
        work: The function.
        given: Its arguments.
        scratch: The only folder in which it may write.
        limits: Memory and processor time that it may use.

    Raises:
        FreezeflowError: What it raised.
        StageFailed: The process was killed, or ended without an answer.
        RuntimeError: The function has a fault.
    """
    answer = scratch / f"answer-{next(_numbers)}.json"
    sys.stdout.flush()
    parent = os.getpid()
    process = os.fork()
    if process == 0:
        _answer(work, given, scratch, limits, answer, parent)
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        raise killed(-code)
    if not answer.is_file():
        raise StageFailed(f"its process ended with code {code}", hint="The end of its log follows.")
    found = json.loads(answer.read_text())
    if "error" in found:
        raise FreezeflowError.from_data(found["error"])
    if "crash" in found:
        raise RuntimeError(found["crash"])
    return found["answer"]


def _answer(
    work: Callable[..., Json],
    given: tuple[object, ...],
    scratch: Path,
    limits: Limits,
    answer: Path,
    parent: int,
) -> None:
    """In the child: works, leaves an answer, and ends the process."""
    code = 1
    try:
        _end_with(parent)
        found = _found(work, given, scratch, limits)
        partial = answer.with_suffix(".part")
        partial.write_text(json.dumps(found))
        partial.rename(answer)
        code = 0
    except BaseException:  # noqa: BLE001  nothing may return into the step's own code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _found(
    work: Callable[..., Json], given: tuple[object, ...], scratch: Path, limits: Limits
) -> Json:
    from freezeflow.tf.confine import confine

    confine([scratch], memory_bytes=limits.memory_bytes, cpu_seconds=limits.cpu_seconds)
    try:
        return {"answer": work(*given)}
    except FreezeflowError as error:
        return {"error": error.to_data()}
    except MemoryError:
        hint = "Give it more memory, or a smaller model."
        return {"error": StageFailed("ran out of memory", hint=hint).to_data()}
    except Exception:  # noqa: BLE001  a bug: the engine reports it
        return {"crash": traceback.format_exc()}


def _end_with(parent: int) -> None:
    """Has the kernel end this process when the step's own process is ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
