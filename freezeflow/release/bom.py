"""The bill of materials of a release: CycloneDX 1.7 with a model card for each model.

Source of the format: https://cyclonedx.org/docs/1.7/json/.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence

from freezeflow.release.contents import Contents, ReleasedModel
from freezeflow.release.statements import packages, timestamp
from freezeflow.release.verdicts import metrics_of
from freezeflow.store.hashing import sha256_of
from freezeflow.values import Json, Signature
from freezeflow.version import VERSION

_SCHEMA = "http://cyclonedx.org/schema/bom-1.7.schema.json"


def bom(contents: Contents, signatures: Mapping[str, Mapping[str, Signature]]) -> Json:
    """The bill of materials.

    Args:
        contents: The release.
        signatures: Model to its signatures.
    """
    models = [_model(model, signatures.get(model.name, {}), contents) for model in contents.models]
    release = {
        "type": "data",
        "bom-ref": "release",
        "name": contents.name,
        **({"version": contents.version} if contents.version else {}),
    }
    libraries = [_library(name, found) for name, found in packages(contents).items()]
    sources = [part for model in contents.models for part in _sources(model)]
    return {
        "$schema": _SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": f"urn:uuid:{_serial(contents)}",
        "version": 1,
        "metadata": {
            **({} if contents.date is None else {"timestamp": timestamp(contents.date)}),
            "tools": {
                "components": [{"type": "application", "name": "freezeflow", "version": VERSION}]
            },
            "component": release,
        },
        "components": [*models, *sources, *libraries],
        "dependencies": [
            {"ref": "release", "dependsOn": [model["bom-ref"] for model in models]},
            *(
                {
                    "ref": f"model/{model.name}",
                    "dependsOn": sorted(
                        [part["bom-ref"] for part in _sources(model)]
                        + [library["bom-ref"] for library in libraries]
                    ),
                }
                for model in contents.models
            ),
        ],
    }


def _serial(contents: Contents) -> uuid.UUID:
    """A number that the same release has every time."""
    files = "".join(f"{artifact.sha256} {artifact.path}\n" for artifact in contents.artifacts())
    return uuid.uuid5(uuid.NAMESPACE_URL, sha256_of(files.encode()))


def _model(model: ReleasedModel, signatures: Mapping[str, Signature], contents: Contents) -> Json:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model/{model.name}",
        "name": model.name,
        **({"version": contents.version} if contents.version else {}),
        "components": [
            {
                "type": "file",
                "bom-ref": f"file/{artifact.path}",
                "name": artifact.path,
                "hashes": [{"alg": "SHA-256", "content": artifact.sha256}],
            }
            for artifact in model.artifacts
        ],
        "modelCard": {
            "bom-ref": f"card/{model.name}",
            "modelParameters": {
                "inputs": _ends(signatures, "inputs"),
                "outputs": _ends(signatures, "outputs"),
            },
            "quantitativeAnalysis": {
                "performanceMetrics": [
                    {"type": metric, "value": value, "slice": part}
                    for metric, value, part in metrics_of(model.verdicts)
                ]
            },
        },
    }


def _ends(signatures: Mapping[str, Signature], side: str) -> list[Json]:
    return [
        {"format": f"{name}/{key}: {spec.dtype.tf_name}{_shape(spec.shape)}"}
        for name, signature in sorted(signatures.items())
        for key, spec in sorted(getattr(signature, side).items())
    ]


def _shape(shape: Sequence[int | None] | None) -> str:
    if shape is None:
        return "[...]"
    return f"[{','.join('?' if size is None else str(size) for size in shape)}]"


def _sources(model: ReleasedModel) -> Iterator[Json]:
    for name, sha256 in model.source.items():
        yield {
            "type": "data",
            "bom-ref": f"source/{model.name}/{name}",
            "name": name,
            "hashes": [{"alg": "SHA-256", "content": sha256}],
        }


def _library(name: str, version: str) -> Json:
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
    }
