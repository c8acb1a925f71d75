"""The model card of a release: Markdown with the front matter that Hugging Face reads.

Source of the format: https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from freezeflow.errors import UsageError
from freezeflow.release.contents import Contents, ReleasedModel
from freezeflow.release.statements import timestamp
from freezeflow.release.verdicts import metrics_of
from freezeflow.values import Json, Shape, Signature
from freezeflow.version import VERSION

_FENCE = "---"

_TAGS = ("freezeflow", "frozen-graph", "tensorflow")


def card(contents: Contents, signatures: Mapping[str, Mapping[str, Signature]]) -> str:
    """The card: front matter, what the user wrote, then what is known.

    Args:
        contents: The release.
        signatures: Model to its signatures.

    Raises:
        UsageError: The user's front matter is no mapping.
    """
    import yaml

    front, text = _split(contents.card)
    tags = front.get("tags", [])
    front = {
        "library_name": "tensorflow",
        **front,
        "tags": sorted({*_TAGS, *(tags if isinstance(tags, list) else [tags])}),
    }
    head = yaml.safe_dump(front, sort_keys=True, allow_unicode=True)
    parts = [f"{_FENCE}\n{head}{_FENCE}", text.strip() or f"# {contents.name}"]
    parts += _sections(contents, signatures)
    return "\n\n".join(part for part in parts if part) + "\n"


def _split(text: str) -> tuple[dict[str, Json], str]:
    """Front matter and the rest of what a user wrote."""
    import yaml

    if not text.startswith(f"{_FENCE}\n"):
        return {}, text
    front, _, rest = text.removeprefix(f"{_FENCE}\n").partition(f"\n{_FENCE}\n")
    try:
        found = yaml.safe_load(front)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(
            "the front matter of the card is no YAML mapping",
            hint=f"It stands between two lines with {_FENCE} at the beginning of the file.",
        )
    return found, rest


def _sections(
    contents: Contents, signatures: Mapping[str, Mapping[str, Signature]]
) -> Iterator[str]:
    for model in contents.models:
        yield f"## {model.name}"
        yield _signature_table(signatures.get(model.name, {}))
        yield _files(model)
        yield _validation(model)
    yield _origin(contents)
    yield _findings(contents)
    yield _verifying(contents)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in lines
    )


def _signature_table(signatures: Mapping[str, Signature]) -> str:
    rows = [
        [name, side, key, spec.dtype.tf_name, _shape(spec.shape), f"`{spec.tensor}`"]
        for name, signature in sorted(signatures.items())
        for side, ends in (("input", signature.inputs), ("output", signature.outputs))
        for key, spec in sorted(ends.items())
    ]
    return _table(["signature", "", "key", "dtype", "shape", "tensor"], rows) if rows else ""


def _shape(shape: Shape) -> str:
    if shape is None:
        return "any"
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _files(model: ReleasedModel) -> str:
    rows = [
        [f"[{artifact.path}]({artifact.path})", f"{artifact.nbytes:,}", f"`{artifact.sha256}`"]
        for artifact in model.artifacts
    ]
    return _table(["file", "bytes", "SHA-256"], rows)


def _validation(model: ReleasedModel) -> str:
    if not model.verdicts:
        return "Not validated: nobody has compared it with its original."
    levels = sorted({verdict["level"] for verdict in model.verdicts.values()})
    claims = {
        "exact": "Every output was equal to the original's, to the byte.",
        "served": "Every output was within the stated tolerance of the original's.",
    }
    rows = [[metric.part, metric.kind, metric.value] for metric in metrics_of(model.verdicts)]
    lines = [claims.get(level, f"Validated at level {level}.") for level in levels]
    return f"{' '.join(lines)}\n\n{_table(['what', 'figure', 'value'], rows)}"


def _origin(contents: Contents) -> str:
    rows = [["recipe", f"[recipe/{contents.recipe_name}](recipe/{contents.recipe_name})"]]
    if contents.version:
        rows.append(["version", contents.version])
    if contents.date is not None:
        rows.append(["date", timestamp(contents.date)])
    if contents.revision is not None:
        rows.append(["git commit", f"`{contents.revision.commit}`"])
    rows += [[f"set variable {name}", value] for name, value in sorted(contents.variables.items())]
    for model in contents.models:
        rows += [
            [f"source of {model.name}: {name}", f"`sha256:{sha256}`"]
            for name, sha256 in model.source.items()
        ]
        steps = " > ".join(step for step in _in_order(model))
        rows.append([f"steps of {model.name}", steps])
    rows.append(["freezeflow", VERSION])
    return f"## Origin\n\n{_table(['', ''], rows)}"


def _in_order(model: ReleasedModel) -> list[str]:
    """Its steps, each after those that it needs."""
    steps = model.locked.steps
    done: list[str] = []
    while len(done) < len(steps):
        done += [
            name
            for name, step in sorted(steps.items())
            if name not in done and all(need in done for need in step.needs)
        ]
    return done


def _findings(contents: Contents) -> str:
    if not contents.findings:
        return ""
    lines = [
        f"- {f'{finding.where}: ' if finding.where else ''}{finding.text}"
        for finding in contents.findings
    ]
    return "## To be known\n\n" + "\n".join(lines)


def _verifying(contents: Contents) -> str:
    return (
        "## Verifying\n\n"
        "`sha256sum -c SHA256SUMS` checks every file; `freezeflow verify .` also checks lock,\n"
        "provenance and signatures. To build the same bytes again:\n"
        f"`freezeflow rebuild --check recipe/{contents.recipe_name}`, with the source model in its "
        "place."
    )
