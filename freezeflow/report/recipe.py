"""Recipes written for a model: the one that ``freeze`` stands for, and a starter."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from freezeflow.graph.inspection import Inspection, SignatureFacts
from freezeflow.report.text import shape_text
from freezeflow.sources.tensor_names import SIGNATURE
from freezeflow.values import ModelSource, TensorSpec

# Names that every other model has, too: its folder's name says more.
_SAYS_NOTHING = re.compile(r"(saved_?)?model|export|\d+", re.IGNORECASE)

# What YAML reads as a string without quotes, in every version of it.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def recipe_text(
    source: ModelSource,
    *,
    folder: Path,
    to: str,
    bind: Mapping[str, bool | int | float | str] | None = None,
    written: str = "error",
    tables: str = "init",
    weights: str = "inline",
) -> str:
    """The recipe that freezes a model as ``freezeflow freeze`` does.

    Args:
        source: The model.
        folder: Where the recipe will lie; its paths start there.
        to: The file to write, seen from that folder.
        bind: Inputs fixed to a value.
        written: What to do about a variable that is written and seen.
        tables: What becomes of static tables.
        weights: Where large weights go.
    """
    params = []
    if bind:
        pairs = (f"{scalar(name)}: {_value(value)}" for name, value in bind.items())
        params.append(f"bind: {{{', '.join(pairs)}}}")
    if written != "error":
        params.append(f"written: {written}")
    if tables != "init":
        params.append(f"tables: {tables}")
    freeze = f"freeze: {{{', '.join(params)}}}" if params else "freeze"
    more = "" if weights == "inline" else f", weights: {weights}"
    lines = [*_head(source, folder), *_stages("load", freeze, "strip", to=to, more=more)]
    if os.path.relpath(os.path.join(folder, to), folder).startswith(".."):
        lines.insert(1, "allow_outside: true")
    return "\n".join(lines) + "\n"


def starter_recipe(found: Inspection, source: ModelSource, *, folder: Path) -> str:
    """A recipe to start from: load, freeze, strip, fold, validate, export, with the model's own facts.

    Args:
        found: What the model is.
        source: The same model.
        folder: Where the recipe will lie; its paths start there.
    """
    chosen = _usual(found)
    listed = ", ".join(scalar(s.name) for s in found.signatures)
    lines = [f"# Freezes {scalar(chosen.name)}. The model's signatures: {listed}."]
    if chosen.signature is not None:
        for side, ends in (("takes", chosen.signature.inputs), ("gives", chosen.signature.outputs)):
            lines += [f"#   {side} {scalar(key)}: {_end(spec)}" for key, spec in ends.items()]
    if chosen.obstacle is not None:
        lines += [f"# Mind: it does not freeze as it is: {chosen.obstacle.message}".rstrip()]
        lines += [f"#   {line}" for line in chosen.obstacle.hint.splitlines()]
    names = source.signatures
    if names is None and not source.outputs and source.kind in ("saved_model", "keras"):
        names = (chosen.name,)
    part = dataclasses.replace(source, signatures=names)
    stages = _stages("load", "freeze", "strip", "fold", "validate", to="build/{model}.pb")
    return "\n".join([*lines, *_head(part, folder), *stages]) + "\n"


def _usual(found: Inspection) -> SignatureFacts:
    """The signature that one most likely wants: serving_default, else the first that freezes."""
    by_name = {signature.name: signature for signature in found.signatures}
    free = [signature for signature in found.signatures if signature.obstacle is None]
    return by_name.get(SIGNATURE) or (free or list(found.signatures))[0]


def _end(spec: TensorSpec) -> str:
    return f"{spec.dtype.tf_name} {shape_text(spec.shape)}"


def _head(source: ModelSource, folder: Path) -> Iterator[str]:
    yield "version: 1"
    yield f"name: {scalar(model_name(source))}"
    yield "model:"
    yield f"  {source.kind}: {_path(source.path, folder)}"
    if source.weights is not None:
        yield f"  checkpoint: {_path(source.weights, folder)}"
    if source.averages:
        yield "  averages: true"
    lists = {"signatures": source.signatures, "tags": source.tags}
    lists |= {"inputs": source.inputs or None, "outputs": source.outputs or None}
    lists |= {"custom_objects": source.custom_objects or None}
    for key, texts in lists.items():
        if texts is not None:
            yield f"  {key}: [{', '.join(map(scalar, texts))}]"


def _stages(*stages: str, to: str, more: str = "") -> list[str]:
    export = f"export: {{format: frozen_graph, to: {scalar(to)}{more}}}"
    return ["stages:", *(f"  - {stage}" for stage in (*stages, export))]


def model_name(source: ModelSource) -> str:
    """What a recipe for this model is called: its file's or folder's name, in plain letters."""
    stem = source.path.stem if source.kind in ("keras", "frozen_graph") else source.path.name
    if _SAYS_NOTHING.fullmatch(stem) and source.path.parent.name:
        stem = source.path.parent.name
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_") or "model"


def scalar(text: str) -> str:
    """A text as YAML, quoted where it has to be."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text, ensure_ascii=False)


def _value(value: bool | int | float | str) -> str:
    return scalar(value) if isinstance(value, str) else json.dumps(value)


def _path(path: Path, folder: Path) -> str:
    return scalar(Path(os.path.relpath(path, folder)).as_posix())
