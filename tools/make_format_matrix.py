"""Writes the matrix of models and formats in ``docs/formats.md``, as measured here and now.

Run it as ``python -m tools.make_format_matrix STATE.json [FOLDER]``. Small models are built with Keras;
FOLDER has further ones, each in a folder of its own with a ``model.json``, as the corpus of models has
them. Each is exported by recipes, and beside it the unfrozen model is converted by hand, as each
converter's own guide says (``tools.convert_by_hand``).

STATE.json keeps each cell as soon as it is measured: a run that was stopped goes on where it was, and
``--minutes N`` stops it so. Delete the file to measure anew; ``--write`` only writes the page from it.
TensorFlow.js' own converter does not install beside this TensorFlow: ``TFJS_PYTHON`` names a Python that
has the package tensorflowjs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tools.convert_by_hand import BY_HAND

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PAGE = Path(__file__).resolve().parent.parent / "docs" / "formats.md"
BEGIN, END = "<!-- begin matrix, measured -->\n", "<!-- end matrix -->"

# Seconds for one conversion with its check.
LIMIT = 120

# In place of a step's id: the run was ended.
TIME_OUT = "time out"

FORMATS: Mapping[str, dict[str, Any]] = {
    "frozen_graph": {"to": "m.pb", "check": True},
    "saved_model": {"to": "sm", "check": True},
    "onnx": {"to": "m.onnx"},
    "tflite": {"to": "m.tflite"},
    "openvino": {"to": "m.xml"},
    "tfjs": {"to": "js"},
    "stablehlo": {"to": "m.mlirbc"},
    "xla_aot": {"to": "aot"},
    "coreml": {"to": "m.mlpackage"},
}
# Formats of which somebody who knows the target would fix what is open.
STATIC = ("stablehlo", "xla_aot", "coreml")

# Sizes of open dimensions, the first and the others, where nothing says more.
BATCH, LENGTH = 2, 6

# Models that are built here.
BUILT = (
    "attention",
    "bidirectional GRU",
    "cond and while",
    "convolutions, batch norms",
    "embedding",
    "LSTM",
    "LSTM, open length",
)

BY = " by hand"
COLUMNS = (*FORMATS, *(f"{name}{BY}" for name in BY_HAND))
# In place of all columns, for a model that does not come as far as to an export.
REFUSED = "refused"

Cell = dict[str, Any]


class Subject(NamedTuple):
    """A model of the matrix.

    Args:
        name: In the matrix.
        source: What a recipe says of the model.
        signature: The signature that is exported; None for the usual one.
        reference: A file with inputs (``in:KEY``) and the original's outputs (``out:KEY``), if there is.
    """

    name: str
    source: Mapping[str, Any]
    signature: str | None = None
    reference: Path | None = None


def main() -> None:
    """Measures what is not yet measured, and writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("state", type=Path)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--only", default="", help="models whose names match (regular expression)")
    parser.add_argument("--columns", default="", help="columns whose names match")
    parser.add_argument("--jobs", type=int, default=1, help="models side by side")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--write", action="store_true", help="measure nothing")
    told = parser.parse_args()
    table = Table(told.state)
    if not told.write:
        until = time.monotonic() + told.minutes * 60
        columns = [name for name in COLUMNS if re.search(told.columns, name)]
        with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(told.jobs) as pool:

            def measure(subjects: Iterable[Subject]) -> None:
                chosen = [subject for subject in subjects if re.search(told.only, subject.name)]
                call = (columns, table, Path(scratch), until)
                rows = [pool.submit(_measure, subject, *call) for subject in chosen]
                if not all(row.result() for row in rows):
                    sys.exit("stopped; the same call goes on")

            if told.folder:
                measure(found(told.folder.resolve()))
            if not all(table.has(name, columns) for name in BUILT):
                measure(built(Path(scratch)))
    _write(table.rows)


class Table:
    """What has been measured, in a file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self.rows: dict[str, dict[str, Cell]] = {}
        if path.exists():
            self.rows = json.loads(path.read_text())

    def has(self, row: str, columns: Sequence[str]) -> bool:
        """Whether a row needs nothing more in these columns."""
        cells = self.rows.get(row, {})
        return REFUSED in cells or all(name in cells for name in columns)

    def put(self, row: str, column: str, cell: Cell) -> None:
        """Keeps a cell, and tells it."""
        with self._lock:
            self.rows.setdefault(row, {})[column] = cell
            self._path.write_text(json.dumps(self.rows, indent=1, sort_keys=True))
            print(f"{row} | {column}: {cell}", flush=True)


def _measure(
    subject: Subject, columns: list[str], table: Table, scratch: Path, until: float
) -> bool:
    """Measures a model's missing cells; whether there was time for all."""
    if table.has(subject.name, columns):
        return True
    lacks = [name for name in columns if name not in table.rows.get(subject.name, {})]
    if time.monotonic() > until:
        return False
    frozen = Frozen(subject, Path(tempfile.mkdtemp(prefix="model-", dir=scratch)))
    if frozen.refusal:
        table.put(subject.name, REFUSED, {"reason": frozen.refusal})
        return True
    ours = [name for name in lacks if name in FORMATS]
    for name, cell in (frozen.exported(ours) if ours else {}).items():
        table.put(subject.name, name, cell)
    for name in lacks:
        if name in FORMATS:
            continue
        if time.monotonic() > until:
            return False
        table.put(subject.name, name, frozen.by_hand(name.removesuffix(BY)))
    return True


# ---------------------------------------------------------------- models


def built(folder: Path) -> Iterator[Subject]:
    """Small models of the usual kinds."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(7)
    layers = keras.layers
    images, steps = layers.Input((16, 16, 3), name="x"), layers.Input((6, 4), name="x")
    ragged = layers.Input((None, 4), name="x")
    words = layers.Input((8,), dtype="int32", name="x")

    def convolutional(x: Any) -> Any:
        for filters in (8, 16):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.DepthwiseConv2D(3)(layers.MaxPool2D()(x))
        return layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling2D()(x))

    def attention(x: Any) -> Any:
        x = layers.Dense(16)(x)
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
        return layers.Dense(3)(layers.Dense(32, activation="gelu")(x))

    gru = layers.Bidirectional(layers.GRU(6))(steps)
    networks: list[tuple[str, Any, Any]] = [
        ("convolutions, batch norms", images, convolutional(images)),
        ("attention", steps, attention(steps)),
        ("embedding", words, layers.Dense(4)(layers.Embedding(50, 8)(words))),
        ("LSTM", steps, layers.Dense(2)(layers.LSTM(6)(steps))),
        ("bidirectional GRU", steps, layers.Dense(2)(gru)),
        ("LSTM, open length", ragged, layers.LSTM(6)(ragged)),
    ]
    for number, (name, given, gives) in enumerate(networks):
        path = folder / f"model{number}"
        keras.Model(given, gives).export(str(path), verbose=False)
        yield Subject(name, {"saved_model": str(path)})

    class Branching(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([2, 3], tf.float32, name="x")])
        def serve(self, x: Any) -> Any:
            y = tf.cond(tf.reduce_sum(x) > 0, lambda: tf.nn.relu(x), lambda: -x)
            return {
                "y": tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, v * 0.5), (0, y))[1]
            }

    branching = Branching()
    path = folder / "branching"
    tf.saved_model.save(branching, str(path), signatures=branching.serve)
    yield Subject("cond and while", {"saved_model": str(path)})


def found(folder: Path) -> Iterator[Subject]:
    """The models of a corpus."""
    for told in sorted(folder.glob("*/model.json")):
        model = json.loads(told.read_text())
        names = sorted(model["signatures"])
        signature = "serving_default" if "serving_default" in names else next(iter(names), None)
        reference = told.parent / "reference" / f"{signature}.npz"
        yield Subject(
            name=told.parent.name,
            source=_source(model, told.parent / model["artefact"]),
            signature=signature,
            reference=reference if reference.is_file() else None,
        )


def _source(model: Mapping[str, Any], artefact: Path) -> dict[str, Any]:
    kind = model["kind"].removeprefix("broken-")
    key = {"frozen": "frozen_graph", "savedmodel1": "saved_model", "savedmodel2": "saved_model"}
    if kind.startswith("checkpoint"):
        key[kind] = "checkpoint"
    source: dict[str, Any] = {key.get(kind, "keras"): str(artefact)}
    wished = ("tags", "inputs", "outputs")
    return {**source, **{name: model[name] for name in wished if name in model}}


# ---------------------------------------------------------------- by freezeflow


class Frozen:
    """A subject, frozen once, and its columns.

    Args:
        subject: The subject.
        folder: A folder of its own.
    """

    def __init__(self, subject: Subject, folder: Path) -> None:
        self._subject, self._folder = subject, folder
        (folder / "freezeflow.toml").touch()
        steps = self._run([], {"first": {"format": "frozen_graph", "to": "first.pb"}})
        failed = [step for step in steps.values() if step["status"] == "failed"]
        self.refusal = _reason(failed[0]) if failed else ""
        self._shapes: dict[str, list[int]] = {}
        if not self.refusal:
            manifest = json.loads((folder / "first.manifest.json").read_text())
            self._signature = manifest["signatures"][self._name(manifest["signatures"])]
            self._shapes = dict(self._fixed(self._signature["inputs"]))

    def exported(self, names: Sequence[str]) -> dict[str, Cell]:
        """The cells of formats, from one run; where that takes too long, from one for each."""
        steps = self._run(["fold"], {name: self._export(name) for name in names})
        if len(names) > 1 and TIME_OUT in steps:
            return {name: cell for each in names for name, cell in self.exported([each]).items()}
        failed = next((step for step in steps.values() if step["status"] == "failed"), None)
        return {name: _cell_of(steps.get(name), failed) for name in names}

    def _export(self, name: str) -> dict[str, Any]:
        export = {**FORMATS[name], "format": name}
        if name in STATIC and self._shapes:
            export["shapes"] = self._shapes
        if name not in ("frozen_graph", "saved_model") and self._subject.signature:
            export["signature"] = self._subject.signature
        return export

    def by_hand(self, name: str) -> Cell:
        """The cell of a converter that gets the unfrozen model."""
        if name == "tfjs" and not os.environ.get("TFJS_PYTHON"):
            return {"is": "not measured"}
        reference = self._subject.reference
        order = {
            "source": dict(self._subject.source),
            "signature": self._subject.signature,
            "shapes": self._shapes,
            "reference": None if reference is None else str(reference),
        }
        command = [sys.executable, "-m", "tools.convert_by_hand"]
        prepared = self._folder / "by_hand"
        if not prepared.exists():
            _answered([*command, "prepare", json.dumps(order), str(prepared)])
        if not (prepared / "order.json").exists():
            return {"is": "fails", "reason": "TensorFlow does not load or run the model"}
        return _answered([*command, name, str(prepared)])

    def _run(self, before: list[str], exports: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Reports on the steps of a recipe in which all exports stand side by side, by id."""
        stages: list[Any] = ["load", "freeze", "strip", *before]
        stages += [{"export": e, "id": n, "needs": stages[-1]} for n, e in exports.items()]
        recipe = self._folder / "r.yaml"
        recipe.write_text(
            json.dumps({"version": 1, "model": self._subject.source, "stages": stages})
        )
        command = [sys.executable, "-m", "freezeflow", "run", "--json", "--keep-going"]
        environment = {**os.environ, "FREEZEFLOW_CACHE_DIR": str(self._folder / "cache")}
        limit = LIMIT * min(3, len(exports))
        code, out, err = _ended([*command, "--jobs", "1", str(recipe)], environment, limit)
        if code is None:
            return {TIME_OUT: _failure(f"not done after {limit} s")}
        if not out:
            lines = [line for line in err.splitlines() if " error: " in line or "mistake" in line]
            return {"recipe": _failure((lines or [err])[0])}
        told = json.loads(out)
        if "plans" not in told:
            error = told["error"] if "error" in told else told["errors"][0]
            return {"recipe": {"status": "failed", "error": error}}
        return {step["id"]: step for step in told["plans"][0]["steps"]}

    def _name(self, signatures: Mapping[str, Any]) -> str:
        wished = self._subject.signature
        return wished if wished in signatures else next(iter(sorted(signatures)))

    def _fixed(self, inputs: Mapping[str, Any]) -> Iterator[tuple[str, list[int]]]:
        """Inputs with open dimensions, and shapes that are as good as any."""
        for key, spec in inputs.items():
            shape = spec["shape"]
            if shape is not None and None in shape:
                sizes = [BATCH, *[LENGTH] * (len(shape) - 1)]
                yield (
                    key,
                    [
                        own if own is not None else size
                        for own, size in zip(shape, sizes, strict=True)
                    ],
                )


def _cell_of(step: Mapping[str, Any] | None, failed: Mapping[str, Any] | None) -> Cell:
    """The cell of an export; where it was not come to, by what failed before."""
    if step is None or step["status"] not in ("ran", "failed"):
        step = failed or _failure("did not run")
    if step["status"] == "failed":
        is_wrong = step["error"]["kind"] == "ValidationFailed"
        return {"is": "wrong" if is_wrong else "refused", "reason": _reason(step)}
    facts = step["facts"]
    verdicts = facts.get("checks") or [facts.get("check")]
    if verdicts == [None]:
        return {"is": "structure right", "seconds": facts["seconds"]}
    worst = max(
        (output.get("max_abs") or 0.0 for v in verdicts for output in v["outputs"].values()),
        default=0.0,
    )
    return {"is": "right", "error": worst, "seconds": facts["seconds"]}


def _failure(message: str) -> dict[str, Any]:
    return {"status": "failed", "error": {"kind": "StageFailed", "message": message}}


def _reason(step: Mapping[str, Any]) -> str:
    return " ".join(step["error"]["message"].splitlines()[0].split())


def _answered(command: list[str]) -> Cell:
    """What a process by hand prints at its end, with its time."""
    started = time.perf_counter()
    code, out, err = _ended(command, dict(os.environ))
    seconds = time.perf_counter() - started
    if code is None:
        return {"is": "fails", "reason": f"not done after {LIMIT} s"}
    told = [line for line in out.splitlines() if line.startswith("RESULT ")]
    if not told:
        return {"is": "fails", "reason": "crashes" if code < 0 else _last_error(err)}
    return {**json.loads(told[-1].removeprefix("RESULT ")), "seconds": seconds}


def _last_error(text: str) -> str:
    """The last line that looks like an error's message, else the last."""
    lines = text.strip().splitlines() or ["no reason"]
    return next(
        (
            line
            for line in reversed(lines)
            if re.match(r"\S*(Error|Exception|Refused|error):? ", line)
        ),
        lines[-1],
    )


def _ended(
    command: list[str], environment: Mapping[str, str], limit: float = LIMIT
) -> tuple[int | None, str, str]:
    """Exit code (None after the time limit), standard output and error."""
    with subprocess.Popen(
        command,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, "", ""
        return process.returncode, out, err


# ---------------------------------------------------------------- the page


def _write(state: Mapping[str, Mapping[str, Cell]]) -> None:
    """Writes the table between its marks: a row a model, in a cell freezeflow and below it by hand."""
    reasons: dict[str, int] = {}
    rows = [["model", *FORMATS], ["---"] * (len(FORMATS) + 1)]
    for name, columns in sorted(state.items()):
        if REFUSED in columns:
            continue
        row = [name]
        for column in FORMATS:
            cells = [columns.get(column), columns.get(f"{column}{BY}")]
            row.append("<br>".join(_cell(cell, reasons) for cell in cells if cell))
        rows.append(row)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *(f"{number}. {_escaped(reason)}" for reason, number in reasons.items())]
    refused = {n: c[REFUSED]["reason"] for n, c in state.items() if REFUSED in c}
    if refused:
        lines += ["", "Not in the table, since `freeze` or what comes before it refuses them:", ""]
        lines += [f"- {name}: {_escaped(reason)}" for name, reason in refused.items()]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + rest.partition(END)[2])


def _cell(cell: Cell, reasons: dict[str, int]) -> str:
    if "reason" in cell:
        number = reasons.setdefault(_general(cell["reason"]), len(reasons) + 1)
        return f"{cell['is']} ({number})"
    parts = [cell["is"]]
    if "error" in cell:
        parts.append(f"{cell['error']:.1g}")
    if "seconds" in cell:
        parts.append(f"{cell['seconds']:.1f} s")
    return ", ".join(parts)


def _general(reason: str) -> str:
    """A reason without what stands for one run only: names of files and addresses."""
    reason = re.sub(r"/[\w./-]*/(?=[\w.-]+)", "", reason)
    reason = re.sub(r"0x[0-9a-f]+", "...", reason)
    return reason if len(reason) <= 160 else f"{reason[:157].rstrip()}..."


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    main()
