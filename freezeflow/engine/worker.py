"""Runs one stage: in this process, or as the whole work of a step's own process."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from freezeflow.engine.context import StepContext
from freezeflow.engine.memory import peak_bytes, peak_of_children_bytes, start_measuring
from freezeflow.engine.orders import NewModel, Order, Report, StoredModel
from freezeflow.errors import FreezeflowError, StageFailed
from freezeflow.values import Digest, Json

if TYPE_CHECKING:
    from freezeflow.graph.model import Model


def perform_saved_order(scratch: Path) -> None:
    """The work of a step's own process: reads the order in a folder and leaves the report there.

    The process's output already goes into the step's log.
    """
    order = Order.load(scratch)
    report, _ = perform(order, None, sys.stdout)
    report.save(scratch)


def perform(order: Order, model: Model | None, log: TextIO) -> tuple[Report, Model | None]:
    """Runs the stage of an order; never raises for what goes wrong inside.

    Args:
        order: What to do.
        model: The model of the order, if this process has it in memory.
        log: Where the step's log goes.

    Returns:
        The report, and the model that the stage gave (None when it failed).
    """
    hashed = {path: Digest(digest) for path, digest in order.hashed.items()}
    context = StepContext(order.base, order.scratch, order.recipe_digest, log, order.limits, hashed)
    started = time.perf_counter()
    before, before_of_children = start_measuring(), peak_of_children_bytes()
    try:
        report, result = _run_stage(order, model, context)
    except FreezeflowError as error:
        report, result = Report(failure=error), None
    except MemoryError:
        hint = "Give it more memory, or a smaller model."
        failure = StageFailed("ran out of memory", hint=hint)
        report, result = Report(failure=failure, lost="memory"), None
    except Exception:  # noqa: BLE001  a bug: the engine reports it
        report, result = Report(crash=traceback.format_exc()), None
    peak, peak_of_children = peak_bytes(), peak_of_children_bytes()
    if peak_of_children <= before_of_children:
        peak_of_children = 0  # an earlier step's
    report = dataclasses.replace(
        report,
        warnings=tuple(context.warnings),
        seconds=time.perf_counter() - started,
        peak_rss_bytes=peak,
        own_peak_bytes=max(0, max(peak, peak_of_children) - before),
    )
    return report, result


def _run_stage(order: Order, model: Model | None, context: StepContext) -> tuple[Report, Model]:
    from freezeflow.graph import storage
    from freezeflow.graph.verify import check
    from freezeflow.params import params_from_json
    from freezeflow.stages.registry import stage_named
    from freezeflow.stages.stage import StageInput, WrittenFile

    stage = stage_named(order.stage)
    params = params_from_json(stage.params_for(order.params), order.params)
    if model is None and order.model is not None:
        model = _decode(order.model)
    facts = _confine(order)
    files = tuple(WrittenFile(path=Path(p), sha256=s, nbytes=n) for p, s, n in order.files)
    given = StageInput(model=model, source=order.source, files=files)
    outcome = stage.run(given, params, context)
    new = None
    if outcome.model is not model:
        check(outcome.model, stage=order.stage)
        graph, record, tensors = storage.encode_model(outcome.model)
        facts["model_bytes"] = len(graph) + sum(tensor.nbytes for tensor in tensors)
        new = NewModel(
            graph=graph,
            record=record,
            tensors={tensor.digest: tensor.location for tensor in tensors},
        )
    report = Report(
        model=new,
        files=tuple((str(file.path), file.sha256, file.nbytes) for file in outcome.files),
        facts={**facts, **_size_facts(outcome.model), **_plain(outcome.facts)},
    )
    return report, outcome.model


def _decode(stored: StoredModel) -> Model:
    from freezeflow.graph import storage

    return storage.decode_model(
        stored.graph.read_bytes(), stored.record.read_bytes(), stored.tensors
    )


def _confine(order: Order) -> dict[str, Json]:
    if order.limits is None or order.confines_itself:
        return {}
    from freezeflow.tf.confine import confine

    limits = order.limits
    in_force = confine(
        [order.scratch], memory_bytes=limits.memory_bytes, cpu_seconds=limits.cpu_seconds
    )
    return {"confinement": in_force}


def _size_facts(model: Model) -> dict[str, Json]:
    from freezeflow.graph.storage import model_tensors

    graph = model.graph
    sizes = {tensor.digest: tensor.nbytes for tensor in model_tensors(model)}
    return {
        "nodes": len(graph.nodes) + sum(len(f.nodes) for f in graph.functions.values()),
        "tensor_bytes": sum(sizes.values()),
    }


def _plain(data: Json) -> Json:
    """Facts as strict JSON: a number that JSON does not know becomes its name."""
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    return data
