"""What explains the failure of a step: found by its name, read for its facts."""

from __future__ import annotations

import json
from pathlib import Path

from freezeflow.context import VERDICT_FILE
from freezeflow.engine.results import StepRef


def file_name(ref: StepRef) -> str:
    """What a step's own files in the store are called."""
    return f"{ref.recipe.stem}-{ref.plan}-{ref.step}"


def evidence_facts(folder: Path | None) -> str:
    """The facts that a failed step left, as JSON text."""
    if folder is None or not (folder / VERDICT_FILE).is_file():
        return "{}"
    return json.dumps({"verdict": json.loads((folder / VERDICT_FILE).read_text())})
