"""Times two models call by call in turn, each in a process of its own.

Own processes, so that memory is that of one side; in turn, so that what else the machine does falls on
both. The processes inherit the confinement of this one and import TensorFlow with its own defaults.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from freezeflow.context import INPUTS_FILE
from freezeflow.errors import FreezeflowError, StageFailed
from freezeflow.graph.graph import Graph
from freezeflow.graph.model import Model
from freezeflow.graph.original import Original
from freezeflow.graph.write import graph_def_pieces, size_of
from freezeflow.proof.calls import Call, Wanted, kept_requests
from freezeflow.proof.judge import Refusal, told
from freezeflow.proof.requests import encode_requests
from freezeflow.tf import confine
from freezeflow.tf.apart import ONEDNN_FLAG
from freezeflow.values import Json

FORMAT = "freezeflow.benchmark/1"

SIDES = ("original", "result")

# Calls after the first one that are not counted: threads and caches come up in them.
_WARM_UP = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What is called, and how.

    Args:
        signature: The signature.
        wanted: The inputs; of several calls the first one that the original answers is taken.
        calls: Timed calls of each side.
        threads: Threads of both; None for TensorFlow's choice.
        grappler: Whether Grappler optimises.
    """

    signature: str
    wanted: Wanted
    calls: int
    threads: int | None
    grappler: bool


def measure(
    original: Original, model: Model, course: Course, source_bytes: int, scratch: Path
) -> dict[str, Json]:
    """Measures both sides.

    Args:
        original: The original.
        model: The result, frozen.
        course: What is called.
        source_bytes: Size of the original's files.
        scratch: A folder for files between the processes.

    Returns:
        ``format``, ``samples``, ``signature``, ``call`` (where its inputs are from), ``assumed`` (what those
        that were made up look like), ``original`` and ``result`` (``bytes``, ``nodes``,
        ``load_seconds``, ``first_call_seconds``, ``p50_seconds``, ``p90_seconds``, ``p99_seconds``,
        ``peak_bytes`` of the process, ``memory_bytes`` that it took on for the model), ``settings``.

    Raises:
        StageFailed: The inputs do not fit, or a side answers with an error or dies.
    """
    call, assumed = _chosen(original, model, course)
    (scratch / INPUTS_FILE).write_bytes(encode_requests(kept_requests([call])))
    found: dict[str, dict[str, Json]] = {
        "original": {"bytes": source_bytes, "nodes": _nodes(original.graph)},
        "result": {
            "bytes": size_of(list(graph_def_pieces(model.graph))),
            "nodes": _nodes(model.graph),
        },
    }
    order = (original, model, course, dict(call.inputs), confine.in_force())
    (scratch / "benchmark.pickle").write_bytes(pickle.dumps(order))
    with contextlib.ExitStack() as stack:
        racers = [stack.enter_context(_Racer(side, scratch)) for side in SIDES]
        for racer in racers:
            found[racer.side].update(racer.ask("load"))
        times: dict[str, list[float]] = {side: [] for side in SIDES}
        for number in range(_WARM_UP + course.calls):
            # Each goes first as often as the other.
            for racer in racers if number % 2 else reversed(racers):
                seconds = racer.ask("call")["seconds"]
                if number >= _WARM_UP:
                    times[racer.side].append(seconds)
        for racer in racers:
            found[racer.side].update(_percentiles(times[racer.side]))
            end = racer.ask("end")
            settings = end.pop("settings")
            found[racer.side].update(end)
    return {
        "format": FORMAT,
        "samples": course.calls,
        "signature": course.signature,
        "call": told(call),
        "assumed": assumed,
        **found,
        "settings": settings,
    }


def _chosen(original: Original, model: Model, course: Course) -> tuple[Call, Mapping[str, str]]:
    """The call that is timed, and what its inputs were taken to look like."""
    from freezeflow.tf.asking import ask
    from freezeflow.tf.sides import original_side

    signatures = {course.signature: model.signatures[course.signature]}
    side = original_side(original, model.bound, exact=False)
    asked = ask(original, side, signatures, course.wanted, _config(course))
    call = next(
        call
        for call, answer in zip(asked.calls, asked.answers, strict=True)
        if not isinstance(answer, Refusal)
    )
    return call, asked.assumed.get(course.signature, {})


def _nodes(graph: Graph) -> int:
    return len(graph.nodes) + sum(len(f.nodes) for f in graph.functions.values())


def _percentiles(times: Sequence[float]) -> dict[str, Json]:
    values = np.quantile(times, [0.5, 0.9, 0.99], method="inverted_cdf")
    names = ("p50_seconds", "p90_seconds", "p99_seconds")
    return {name: float(value) for name, value in zip(names, values, strict=True)}


class _Racer:
    """One side in its process, which does what it is told line by line."""

    def __init__(self, side: str, scratch: Path) -> None:
        self.side = side
        environment = {key: value for key, value in os.environ.items() if key != ONEDNN_FLAG}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "freezeflow.tf.benchmark", str(scratch), side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def __enter__(self) -> _Racer:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, what: str) -> dict[str, Json]:
        """The answer to a word.

        Raises:
            StageFailed: It reports an error, or has died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{what}\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            raise StageFailed(
                f"the process of the {self.side} died with code {code}",
                hint="The end of its log follows.",
            )
        answer: dict[str, Json] = json.loads(line)
        if "error" in answer:
            raise FreezeflowError.from_data(answer["error"])
        return answer


# ---------------------------------------------------------------- in a side's process


def main(scratch: Path, side: str) -> None:
    """Answers words from standard input, a line of JSON each."""
    # Whatever TensorFlow prints must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    work = _work(scratch, side)
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = work.send(line.strip())
        except FreezeflowError as error:
            answer = {"error": error.to_data()}
        answers.write(f"{json.dumps(answer)}\n")
        answers.flush()


def _work(scratch: Path, side: str) -> Generator[dict[str, Any], str, None]:
    """A generator that is sent words and gives answers; it is ready for the first one."""
    steps = _steps(scratch, side)
    next(steps)
    return steps


def _steps(scratch: Path, side: str) -> Generator[dict[str, Any], str, None]:
    from freezeflow.tf.sessions import settings
    from freezeflow.tf.sides import original_side, result_side

    original, model, course, inputs, in_force = pickle.loads(
        (scratch / "benchmark.pickle").read_bytes()
    )
    confine.adopt(in_force)
    before = _peak()
    yield {}
    own = scratch / side
    own.mkdir()
    started = time.perf_counter()
    loaded = (
        original_side(original, model.bound, exact=False)
        if side == "original"
        else result_side(model, own, exact=False)
    )
    session = loaded.opened(_config(course))
    load = time.perf_counter() - started
    first = _timed(loaded, session, course, inputs)
    yield {"load_seconds": load, "first_call_seconds": first}
    for _ in range(_WARM_UP + course.calls):
        yield {"seconds": _timed(loaded, session, course, inputs)}
    peak = _peak()
    in_use = {**settings(exact=False), "grappler": course.grappler}
    yield {
        "peak_bytes": peak,
        "memory_bytes": max(peak - before, 0),
        "settings": {**in_use, "threads": course.threads or "default"},
    }


def _config(course: Course) -> Any:
    from freezeflow.tf.sessions import served_config

    config = served_config()
    if course.threads is not None:
        config.intra_op_parallelism_threads = course.threads
        config.inter_op_parallelism_threads = course.threads
    config.graph_options.rewrite_options.disable_meta_optimizer = not course.grappler
    return config


def _timed(side: Any, session: Any, course: Course, inputs: Mapping[str, Any]) -> float:
    calls = [(course.signature, inputs)]
    started = time.perf_counter()
    (answer,) = side.answers(session, calls, course.wanted.seconds)
    seconds = time.perf_counter() - started
    if isinstance(answer, Refusal):
        raise StageFailed(
            f"the call is answered with an error: {answer.message}",
            hint="Say what its inputs look like: benchmark: {random: {KEY: {shape: ..., low: ...}}}.",
        )
    return seconds


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
