"""Writes the matrix of models and formats in ``docs/formats.md``, as measured here and now.

Run it as ``python -m tools.make_format_matrix STATE.json [FOLDER]``. Small models are built with Keras;
FOLDER has further ones, each in a folder of its own with a ``model.json``, as the corpus of models has
them. Each is exported by recipes, and beside it the unfrozen model is converted by hand, as each
converter's own guide says (``tools.convert_by_hand``).

STATE.json keeps each cell as soon as it is measured, and which code and tools measured it: a run that was
stopped goes on where it was, and ``--minutes N`` stops it so. What other code measured is not gone on with,
unless ``--again`` is given: then those of its cells that ``--only`` and ``--columns`` name are measured anew,
the others stay, and the page tells which rows are newer. ``--write`` only writes the page from it.

TensorFlow.js' own converter does not install beside this TensorFlow: ``TFJS_PYTHON`` names a Python with
``pip install tensorflowjs==4.22.0 ydf==0.11.0 'setuptools<80'``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tools import convert_by_hand, forks
from tools.convert_by_hand import BY_HAND
from tools.forks import Forks

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

PAGE = Path(__file__).resolve().parent.parent / "docs" / "formats.md"
BEGIN, END = "<!-- begin matrix, measured -->\n", "<!-- end matrix -->"

# Seconds for one conversion with its check.
LIMIT = 120

# What somebody who knows these models would allow.
ALLOWED = {"ReadFile": "it reads a file of the model's own"}
_CHECK: dict[str, Any] = {"check": {"allow_ops": ALLOWED}}

FORMATS: Mapping[str, dict[str, Any]] = {
    "frozen_graph": {"to": "m.pb", **_CHECK},
    "saved_model": {"to": "sm", **_CHECK},
    "onnx": {"to": "m.onnx", **_CHECK},
    "tflite": {"to": "m.tflite", **_CHECK},
    "openvino": {"to": "m.xml", **_CHECK},
    "tfjs": {"to": "js", **_CHECK},
    "stablehlo": {"to": "m.mlirbc", **_CHECK},
    "xla_aot": {"to": "aot", **_CHECK},
    "coreml": {"to": "m.mlpackage"},
}
# Formats of which somebody who knows the target would fix what is open, and such whose runtime has to know
# the rank.
STATIC = ("stablehlo", "xla_aot", "coreml")
RANKED = ("onnx", "openvino")

# Before all exports, as somebody would write it for whom look-up tables have to be plain ops.
BEFORE: Sequence[Any] = ("load", {"freeze": {"tables": "inline"}}, "strip")

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
# In place of all formats, for a model that does not come as far as to an export.
REFUSED = "refused"

# What converters need that their process imports once.
IMPORTED = ("tensorflow", "tf2onnx", "coremltools")
TFJS_CONVERTER = "tensorflowjs.converters.converter"

# Whose versions a state is of.
TOOLS = (
    "tensorflow",
    "tf2onnx",
    "onnx",
    "onnxruntime",
    "ai-edge-litert",
    "openvino",
    "coremltools",
    "keras",
    "numpy",
)

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
    parser.add_argument("--jobs", type=int, default=2, help="models side by side")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument(
        "--again", action="store_true", help="replace what other code measured of these"
    )
    parser.add_argument("--write", action="store_true", help="measure nothing")
    told = parser.parse_args()
    if told.write:
        _write(Table(told.state))
        return
    columns = [name for name in COLUMNS if re.search(told.columns, name)]
    if f"tfjs{BY}" in columns and "TFJS_PYTHON" not in os.environ:
        sys.exit("TFJS_PYTHON should name a Python that has tensorflowjs")
    table = Table(told.state, _code(), told.only if told.again else None, columns)
    until = time.monotonic() + told.minutes * 60
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(told.jobs) as pool:
        converters = Converters()

        def measure(subjects: Iterable[Subject]) -> None:
            chosen = [subject for subject in subjects if re.search(told.only, subject.name)]
            call = (columns, table, Path(scratch), until, converters)
            rows = [pool.submit(_measure, subject, *call) for subject in chosen]
            if not all(row.result() for row in rows):
                sys.exit("stopped; the same call goes on")

        if told.folder:
            measure(found(told.folder.resolve()))
        wanted = [name for name in BUILT if re.search(told.only, name)]
        if any(table.lacks(name, columns) for name in wanted):
            measure(built(Path(scratch)))
        converters.close()
    _write(table)


def _code() -> dict[str, Any]:
    """What is measured, and with what: sources by their SHA-256, and versions of tools."""
    home = Path(__file__).resolve().parent.parent
    package = [path for path in (home / "freezeflow").rglob("*") if path.is_file()]
    asked = ["git", "-C", str(home), "describe", "--always", "--dirty"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False)
    return {
        "freezeflow": _digest(path for path in package if path.suffix != ".pyc"),
        "commit": commit.stdout.strip(),
        "exports": json.dumps(
            [FORMATS, STATIC, RANKED, BEFORE, BATCH, LENGTH, LIMIT], sort_keys=True
        ),
        "by hand": _digest([Path(convert_by_hand.__file__), Path(forks.__file__)]),
        "tools": {name: importlib.metadata.version(name) for name in TOOLS},
    }


def _digest(paths: Iterable[Path]) -> str:
    """SHA-256 of some files of the project, with their names."""
    home = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(path.resolve() for path in paths):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(home)}\n{len(data)}\n".encode() + data)
    return digest.hexdigest()


class Table:
    """What has been measured, in a file: cells by row and column, each with the code that measured it.

    Args:
        path: The file.
        code: What is measured now, as `_code` tells; None to read only.
        again: Rows (regular expression) whose cells of other code are to be measured anew; None where there
            may be no cells of other code.
        columns: Of which columns that is meant.
    """

    def __init__(
        self,
        path: Path,
        code: Mapping[str, Any] | None = None,
        again: str | None = None,
        columns: Sequence[str] = (),
    ) -> None:
        self._path, self._lock = path, threading.Lock()
        self.codes: dict[str, Mapping[str, Any]] = {}
        self.rows: dict[str, dict[str, Cell]] = {}
        if path.exists():
            state = json.loads(path.read_text())
            self.codes, self.rows = state["codes"], state["rows"]
        if code is None:
            return
        # Where its files are the same, another commit is no other code.
        files = {key: value for key, value in code.items() if key != "commit"}
        self._now = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]
        self.codes[self._now] = code
        if again is None and any(cell["code"] != self._now for cell in self._cells()):
            sys.exit(f"{path} was measured with other code: name another file, or say --again")
        if again is not None:
            self._drop(again, {*columns, *((REFUSED,) if {*FORMATS} & {*columns} else ())})

    def _cells(self) -> Iterator[Cell]:
        for cells in self.rows.values():
            yield from cells.values()

    def _drop(self, again: str, columns: Collection[str]) -> None:
        for row, cells in self.rows.items():
            self.rows[row] = {
                column: cell
                for column, cell in cells.items()
                if not re.search(again, row) or column not in columns or cell["code"] == self._now
            }

    def lacks(self, row: str, columns: Sequence[str]) -> list[str]:
        """Those of the columns that a row needs yet."""
        cells = self.rows.get(row, {})
        done = {*cells, *(FORMATS if REFUSED in cells else ())}
        return [name for name in columns if name not in done]

    def put(self, row: str, column: str, cell: Cell) -> None:
        """Keeps a cell, and tells it."""
        with self._lock:
            self.rows.setdefault(row, {})[column] = {**cell, "code": self._now}
            used = {each["code"] for each in self._cells()}
            codes = {name: code for name, code in self.codes.items() if name in used}
            part = self._path.with_suffix(".part")
            part.write_text(
                json.dumps({"codes": codes, "rows": self.rows}, indent=1, sort_keys=True)
            )
            part.replace(self._path)
            print(f"{row} | {column}: {cell}", flush=True)

    def newer(self) -> list[str]:
        """Rows of which freezeflow's columns were not measured by the code that most were."""
        own: dict[str, list[str]] = {}
        for row, cells in self.rows.items():
            for column, cell in cells.items():
                if column in FORMATS:
                    own.setdefault(cell["code"], []).append(row)
        most = max(own, key=lambda name: len(own[name]), default="")
        return sorted({row for name, rows in own.items() if name != most for row in rows})


class Converters:
    """Processes that have imported the converters, two for each thread."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._all: list[Forks] = []

    def here(self) -> Forks:
        """The process of this thread with what is installed here."""
        return self._process("here", sys.executable, IMPORTED)

    def tfjs(self) -> Forks:
        """The process of this thread with TensorFlow.js' converter."""
        return self._process("tfjs", os.environ["TFJS_PYTHON"], (TFJS_CONVERTER,))

    def close(self) -> None:
        """Ends them all."""
        for process in self._all:
            process.close()

    def _process(self, name: str, python: str, modules: Sequence[str]) -> Forks:
        if not hasattr(self._own, name):
            setattr(self._own, name, Forks(python, modules))
            self._all.append(getattr(self._own, name))
        process: Forks = getattr(self._own, name)
        return process


def _measure(
    subject: Subject,
    columns: list[str],
    table: Table,
    scratch: Path,
    until: float,
    converters: Converters,
) -> bool:
    """Measures a model's missing cells; whether there was time for all."""
    if not table.lacks(subject.name, columns):
        return True
    if time.monotonic() > until:
        return False
    folder = Path(tempfile.mkdtemp(prefix="model-", dir=scratch))
    frozen = Frozen(subject, folder)
    if frozen.refusal:
        table.put(subject.name, REFUSED, {"reason": frozen.refusal})
    lacks = table.lacks(subject.name, columns)
    ours = [name for name in lacks if name in FORMATS]
    for name, cell in (frozen.exported(ours) if ours else {}).items():
        table.put(subject.name, name, cell)
    by_hand = ByHand(subject, frozen.shapes, folder, converters)
    for name in lacks:
        if name in FORMATS:
            continue
        if time.monotonic() > until:
            return False
        table.put(subject.name, name, by_hand.cell(name.removesuffix(BY)))
    shutil.rmtree(folder)
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
            source=_source(model, told.parent / model["artefact"], signature),
            signature=signature,
            reference=reference if reference.is_file() else None,
        )


def _source(model: Mapping[str, Any], artefact: Path, signature: str | None) -> dict[str, Any]:
    kind = model["kind"].removeprefix("broken-")
    key = {"frozen": "frozen_graph", "savedmodel1": "saved_model", "savedmodel2": "saved_model"}
    if kind.startswith("checkpoint"):
        key[kind] = "checkpoint"
    source: dict[str, Any] = {key.get(kind, "keras"): str(artefact)}
    wished = ("tags", "inputs", "outputs")
    source |= {name: model[name] for name in wished if name in model}
    if signature not in (None, "serving_default") and len(model["signatures"]) > 1:
        source["signatures"] = [signature]
    return source


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
        self.shapes: dict[str, list[int]] = {}
        self._ranks: dict[str, list[int]] = {}
        if not self.refusal:
            manifest = json.loads((folder / "first.manifest.json").read_text())
            signature = manifest["signatures"][self._name(manifest["signatures"])]
            self.shapes = dict(self._fixed(signature["inputs"]))
            self._ranks = {
                key: self.shapes[key]
                for key, spec in signature["inputs"].items()
                if spec["shape"] is None and key in self.shapes
            }

    def exported(self, names: Sequence[str]) -> dict[str, Cell]:
        """The cells of formats, from one run."""
        steps = self._run(["fold"], {name: self._export(name) for name in names})
        failed = next((step for step in steps.values() if step["status"] == "failed"), None)
        return {name: _cell_of(steps.get(name), failed) for name in names}

    def _export(self, name: str) -> dict[str, Any]:
        export = {**FORMATS[name], "format": name}
        shapes = self.shapes if name in STATIC else self._ranks if name in RANKED else {}
        if shapes:
            export["shapes"] = shapes
        if name not in ("frozen_graph", "saved_model") and self._subject.signature:
            export["signature"] = self._subject.signature
        return export

    def _run(self, before: list[str], exports: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Reports on the steps of a recipe in which all exports stand side by side, by id."""
        stages: list[Any] = [*BEFORE, *before]
        stages += [{"export": e, "id": n, "needs": stages[-1]} for n, e in exports.items()]
        recipe = self._folder / "r.yaml"
        recipe.write_text(
            json.dumps({"version": 1, "model": self._subject.source, "stages": stages})
        )
        command = [sys.executable, "-m", "freezeflow", "run", "--json", "--keep-going"]
        command += ["--jobs", "1", "--step-timeout", str(LIMIT), str(recipe)]
        environment = {**os.environ, "FREEZEFLOW_CACHE_DIR": str(self._folder / "cache")}
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            out, err = process.communicate()
        if not out:
            lines = [line for line in err.splitlines() if " error: " in line or "mistake" in line]
            return {"recipe": _failure((lines or [err])[0])}
        told = json.loads(out)
        if "plans" not in told:
            error = told["error"] if "error" in told else told["errors"][0]
            error["message"] = next(iter(error.get("problems", [])), error)["message"]
            return {"recipe": {"status": "failed", "error": error}}
        return {step["id"]: step for step in told["plans"][0]["steps"]}

    def _name(self, signatures: Mapping[str, Any]) -> str:
        wished = self._subject.signature
        return wished if wished in signatures else next(iter(sorted(signatures)))

    def _fixed(self, inputs: Mapping[str, Any]) -> Iterator[tuple[str, list[int]]]:
        """Inputs that are open, with the shapes of the recorded ones, else such as are as good as any.

        What has no rank, and of which nothing is recorded, is left out.
        """
        recorded = convert_by_hand.recorded(self._subject.reference, inputs) or {}
        for key, spec in inputs.items():
            shape = spec["shape"]
            if shape is not None and None not in shape:
                continue
            if key in recorded:
                yield key, list(recorded[key].shape)
            elif shape is not None:
                sizes = [BATCH, *[LENGTH] * (len(shape) - 1)]
                yield (
                    key,
                    [size if own is None else own for own, size in zip(shape, sizes, strict=True)],
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


# ---------------------------------------------------------------- by hand


class ByHand:
    """A subject for converters that get the unfrozen model.

    Args:
        subject: The subject.
        shapes: Of inputs with open dimensions.
        folder: A folder of its own.
        converters: Processes that convert.
    """

    def __init__(
        self,
        subject: Subject,
        shapes: Mapping[str, list[int]],
        folder: Path,
        converters: Converters,
    ) -> None:
        self._subject, self._shapes, self._converters = subject, shapes, converters
        self._folder, self._prepared = folder, folder / "by_hand"

    def cell(self, name: str) -> Cell:
        """The cell of a converter."""
        if not self._prepared.exists():
            self._run(["prepare", json.dumps(self._order()), str(self._prepared)])
        if not (self._prepared / "order.json").exists():
            return {"is": "fails", "reason": "TensorFlow does not load or run the model"}
        scratch = Path(tempfile.mkdtemp(dir=self._folder))
        seconds = 0.0
        if name == "tfjs":
            ended = self._tfjs(scratch)
            if ended.code != 0:
                return _cell_by_hand(ended)
            seconds = ended.seconds
        cell = _cell_by_hand(self._run([name, str(self._prepared)], scratch))
        if "seconds" in cell:
            cell["seconds"] += seconds
        return cell

    def _order(self) -> dict[str, Any]:
        reference = self._subject.reference
        return {
            "source": dict(self._subject.source),
            "signature": self._subject.signature,
            "shapes": self._shapes,
            "reference": None if reference is None else str(reference),
        }

    def _tfjs(self, folder: Path) -> forks.Ended:
        told = json.loads((self._prepared / "order.json").read_text())
        arguments = [
            "--input_format=tf_saved_model",
            f"--signature_name={told['signature']}",
            f"--saved_model_tags={','.join(told['tags'])}",
            str(self._prepared / "model"),
            "js",
        ]
        return self._converters.tfjs().run(TFJS_CONVERTER, arguments, folder, LIMIT)

    def _run(self, arguments: list[str], folder: Path | None = None) -> forks.Ended:
        module = "tools.convert_by_hand"
        return self._converters.here().run(module, arguments, folder or self._folder, LIMIT)


def _cell_by_hand(ended: forks.Ended) -> Cell:
    """What a process by hand prints at its end, with its time."""
    if ended.code is None:
        return {"is": "fails", "reason": f"not done after {LIMIT} s"}
    told = [line for line in ended.out.splitlines() if line.startswith("RESULT ")]
    if told:
        return {**json.loads(told[-1].removeprefix("RESULT ")), "seconds": ended.seconds}
    return {"is": "fails", "reason": "crashes" if ended.code < 0 else _last_error(ended.err)}


# Lines that say why, and those that look like an error's message.
_SAYS = re.compile(r"No conversion rule found|No translator found|unconverted operation")
_MESSAGE = re.compile(
    r"\S*(Error|Exception|Failure|Graph|Fail|Refused|error|NOT_IMPLEMENTED|NotImplemented):? "
)


def _last_error(text: str) -> str:
    """What a traceback comes to: why OpenVINO does not convert, else the last message, else the last line."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()] or ["no reason"]
    says = [line for line in lines if _SAYS.search(line)]
    if says:
        return says[-1]
    places = [place for place, line in enumerate(lines) if _MESSAGE.match(line)]
    if not places or "in user code:" in lines[places[-1]]:
        return lines[-1]
    message = " ".join(lines[places[-1] :])[:1000]
    # Without the modules that the error's class comes from.
    return re.sub(r"^(RuntimeRefused: |(\w+\.)+(?=\w+:)(RuntimeRefused: )?)", "", message)


# ---------------------------------------------------------------- the page


def _write(table: Table) -> None:
    """Writes the tables between their marks: sums, then a row a model, by hand below freezeflow."""
    state = table.rows
    reasons: dict[str, int] = {}
    shown = [columns for columns in state.values() if REFUSED not in columns]
    rows = [["model", *FORMATS], ["---"] * (len(FORMATS) + 1)]
    for name, columns in sorted(state.items()):
        if REFUSED in columns:
            continue
        row = [name]
        for column in FORMATS:
            cells = [columns.get(column), columns.get(f"{column}{BY}")]
            row.append("<br>".join(_cell(cell, reasons) for cell in cells if cell))
        rows.append(row)
    lines = [f"{len(shown)} models:", "", *_sums(shown), ""]
    if newer := table.newer():
        lines += [f"Measured later than the others: {', '.join(newer)}.", ""]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *(f"{number}. {_escaped(reason)}" for reason, number in reasons.items())]
    refused = {name: cells for name, cells in sorted(state.items()) if REFUSED in cells}
    if refused:
        lines += [
            "",
            "Not in the table, since `freeze` or what comes before it refuses them, and in brackets",
            "which converters by hand give a file that answers as the model does:",
            "",
        ]
        lines += [_refused(name, cells) for name, cells in refused.items()]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + rest.partition(END)[2])


def _sums(shown: Sequence[Mapping[str, Cell]]) -> list[str]:
    """How many models are right, and how many wrong, in each column."""
    rows = [["", *FORMATS], ["---"] * (len(FORMATS) + 1)]
    for title, suffix in (("freezeflow", ""), ("by hand", BY)):
        for verdict in ("right", "wrong"):
            row = [f"{title}: {verdict}"]
            for column in FORMATS:
                cells = [
                    columns[column + suffix] for columns in shown if column + suffix in columns
                ]
                count = sum(cell["is"].endswith(verdict) for cell in cells)
                row.append(str(count) if cells else "")
            rows.append(row)
    return [f"| {' | '.join(row)} |" for row in rows]


def _refused(name: str, cells: Mapping[str, Cell]) -> str:
    right = [c.removesuffix(BY) for c, cell in cells.items() if cell.get("is") == "right"]
    reason = _general(cells[REFUSED]["reason"])
    return f"- {name}: {_escaped(reason)} ({', '.join(right) or 'none'})"


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
    """A reason without what stands for one run only: names of files, places in MLIR, and addresses."""
    reason = re.sub(r"<unknown>:0: error: loc\(.*\): ", "", reason)
    reason = re.sub(r"/[\w./-]*/(?=[\w.-]+)", "", reason)
    reason = re.sub(r"0x[0-9a-f]+", "...", reason)
    return reason if len(reason) <= 160 else f"{reason[:157].rstrip()}..."


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    main()
