"""The manifest beside an exported model: what is what in it, and where it came from.

Format ``freezeflow.manifest/1``, JSON with sorted keys. It names no path of this machine, no time,
and nothing else that would differ between two builds of the same recipe from the same model.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from freezeflow.errors import ModelRefused
from freezeflow.graph.model import Model
from freezeflow.store.files import Written
from freezeflow.store.hashing import reading_failed
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
        "source": {"digest": str(model.source_digest or ""), "kind": model.source_kind},
        "recipe": None if recipe_digest is None else {"digest": recipe_digest},
        "freezeflow": VERSION,
        **({"bound": dict(model.bound)} if model.bound else {}),
        **more,
    }
    return (json.dumps(data, indent=2, sort_keys=True, ensure_ascii=True) + "\n").encode()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a manifest says about the model beside it.

    Args:
        signatures: Name to signature.
        init: Nodes that run once, in order, before the first call.
        files: File name, relative to the manifest's folder, to SHA-256 and bytes.
        source: Digest and kind of the source.
        recipe: Digest of the recipe; None without one.
        freezeflow: The version that wrote it.
        bound: Inputs that were bound, with their values.
        export: What the format adds: how inputs and outputs are called in the file, its precision;
            empty for TensorFlow's own formats.
    """

    signatures: Mapping[str, Signature]
    init: tuple[str, ...]
    files: Mapping[str, Written]
    source: Mapping[str, str]
    recipe: str | None
    freezeflow: str
    bound: Mapping[str, bool | int | float | str]
    export: Mapping[str, Json]


def read_manifest(path: Path) -> Manifest:
    """Reads a manifest.

    Raises:
        FreezeflowError: It cannot be read.
        ModelRefused: It is no manifest, or of another format.
    """
    try:
        data = json.loads(path.read_bytes())
        if data["format"] != FORMAT:
            raise ValueError(f"its format is {data['format']!r}")
        return Manifest(
            signatures={
                name: Signature.from_json(_without_zeros(signature))
                for name, signature in data["signatures"].items()
            },
            init=tuple(data["init"]),
            files={
                name: Written(file["sha256"], file["bytes"]) for name, file in data["files"].items()
            },
            source=dict(data["source"]),
            recipe=None if data["recipe"] is None else data["recipe"]["digest"],
            freezeflow=data["freezeflow"],
            bound=dict(data.get("bound", {})),
            export=dict(data.get("export", {})),
        )
    except OSError as error:
        raise reading_failed(error, path) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelRefused(
            f"this is no {FORMAT}: {error}",
            where=str(path),
            hint="It is damaged or was edited; export the model again.",
        ) from None


def _without_zeros(signature: Json) -> Json:
    """A signature with tensors as freezeflow names them: ``x`` for ``x:0``."""
    return {
        side: {
            key: {**spec, "tensor": spec["tensor"].removesuffix(":0")}
            for key, spec in signature[side].items()
        }
        for side in ("inputs", "outputs")
    }


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
