"""The manifest beside an exported model: what is what in it, and where it came from.

Format ``freezeflow.manifest/1``, JSON with sorted keys. It names no path of this machine, no time,
and nothing else that would differ between two builds of the same recipe from the same model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from freezeflow.graph.model import Model
from freezeflow.store.files import Written
from freezeflow.values import Json, Signature, TensorSpec
from freezeflow.version import VERSION

FORMAT = "freezeflow.manifest/1"


def manifest_path(file: Path) -> Path:
    """Where the manifest of a file lies: ``a.manifest.json`` for ``a.pb``.

    Other kinds keep their ending (``a.pbtxt.manifest.json``), so that two of them have room.
    """
    return file.with_name(file.name.removesuffix(".pb") + ".manifest.json")


def manifest_bytes(
    model: Model, files: Mapping[str, Written], recipe_digest: str | None, **more: Json
) -> bytes:
    """The manifest.

    Args:
        model: What was written.
        files: File name, relative to the manifest's folder, to what it holds.
        recipe_digest: Digest of the recipe; None without one.
        more: Further fields that a format adds.
    """
    data = {
        "format": FORMAT,
        "signatures": {name: _signature(s) for name, s in model.signatures.items()},
        "init": list(model.init),
        "files": {
            name: {"sha256": written.sha256, "bytes": written.nbytes}
            for name, written in files.items()
        },
        "source": {"digest": model.source_digest, "kind": model.source_kind},
        "recipe": None if recipe_digest is None else {"digest": recipe_digest},
        "freezeflow": VERSION,
        **({"bound": dict(model.bound)} if model.bound else {}),
        **more,
    }
    return (json.dumps(data, indent=2, sort_keys=True, ensure_ascii=True) + "\n").encode()


def tensor_name(tensor: str) -> str:
    """A tensor as TensorFlow's API writes it: ``x:0``."""
    return tensor if ":" in tensor else f"{tensor}:0"


def _signature(signature: Signature) -> Json:
    return {
        "inputs": {key: _end(spec) for key, spec in signature.inputs.items()},
        "outputs": {key: _end(spec) for key, spec in signature.outputs.items()},
    }


def _end(spec: TensorSpec) -> Json:
    return {**spec.to_json(), "tensor": tensor_name(spec.tensor)}
