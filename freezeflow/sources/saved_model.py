"""A SavedModel folder as a Model, without TensorFlow.

Source of the layout: upstream ``core/protobuf/saved_model.proto`` and ``meta_graph.proto``, and
``python/saved_model/constants.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from freezeflow.context import Context
from freezeflow.errors import ModelRefused
from freezeflow.graph.model import Model
from freezeflow.graph.original import WARMUP_REQUESTS
from freezeflow.sources.graph_file import parse_file
from freezeflow.sources.meta_graph import read_model
from freezeflow.values import ModelSource

GRAPH_FILES = ("saved_model.pb", "saved_model.pbtxt")
_CHUNKED = "saved_model.cpb"


def load_saved_model(source: ModelSource, context: Context) -> Model:
    """Reads the chosen meta graph and signatures, and the variables that they reach.

    Raises:
        ModelRefused: The folder is no SavedModel, is damaged, or lacks what was asked for.
    """
    path = graph_file(source.path)
    parsed = parse_file(path, "SavedModel")
    meta_graph = choose_meta_graph(parsed.message, source, path)
    prefix = source.path / "variables" / "variables"
    return read_model(parsed, meta_graph, source, prefix, source.path / "assets", context)


def saved_model_files(source: ModelSource) -> tuple[Path, ...]:
    """Every file of a SavedModel that can change what comes out or is asked of it, sorted."""
    folder = source.path
    found = [graph_file(folder)]
    for name in ("variables", "assets"):
        if (folder / name).is_dir():
            found += [path for path in (folder / name).rglob("*") if path.is_file()]
    if (folder / WARMUP_REQUESTS).is_file():
        found.append(folder / WARMUP_REQUESTS)
    return tuple(sorted(found))


def graph_file(folder: Path) -> Path:
    """The file with the graph.

    Raises:
        ModelRefused: There is none, or it is of the chunked kind.
    """
    for name in GRAPH_FILES:
        if (folder / name).is_file():
            return folder / name
    if (folder / _CHUNKED).is_file():
        raise ModelRefused(
            "the SavedModel is stored in chunks (.cpb), which released TensorFlow cannot read in Python",
            where=str(folder / _CHUNKED),
            hint="Save the model again without chunking: it writes saved_model.pb.",
        )
    raise ModelRefused(
        "no SavedModel here: neither saved_model.pb nor saved_model.pbtxt",
        where=str(folder),
        hint="Give the folder that tf.saved_model.save or model.export wrote.",
    )


# ---------------------------------------------------------------- choosing


def choose_meta_graph(message: Any, source: ModelSource, path: Path) -> Any:
    """The meta graph with the wanted tags; without any wanted: ``serve``, else the only one.

    Raises:
        ModelRefused: There is no such one.
    """
    by_tags = {frozenset(m.meta_info_def.tags): m for m in message.meta_graphs}
    wanted = frozenset(("serve",) if source.tags is None else source.tags)
    if wanted in by_tags:
        return by_tags[wanted]
    if source.tags is None and len(by_tags) == 1:
        return next(iter(by_tags.values()))
    there = "; ".join(sorted(",".join(sorted(tags)) or "(none)" for tags in by_tags))
    raise ModelRefused(
        f"no meta graph has the tags {','.join(sorted(wanted)) or '(none)'}",
        where=str(path),
        hint=f"Choose one of the tag sets that are there: {there}."
        if there
        else "The file is empty.",
    )
