"""Inputs from files: .npz and .npy arrays, JSON as TensorFlow Serving takes it, request logs, folders."""

from __future__ import annotations

import base64
import binascii
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from freezeflow.errors import StageFailed
from freezeflow.proof.dtypes import Array, numpy_dtype, strings
from freezeflow.proof.requests import SUFFIX, WARMUP_NAME, Request, read_requests
from freezeflow.values import DType, Json, Signature, TensorSpec

Signatures = Mapping[str, Signature]

_KINDS = ".npz, .npy, .json, or .tfrecord (PredictionLogs)"


def read_inputs(path: Path, signatures: Signatures) -> list[Request]:
    """The calls that a file or a folder holds; nothing in them is executed.

    A folder holds files named after inputs (``KEY.npy``), which make one call together, or files of
    the other kinds, each with calls of its own, in the order of their names.

    Returns:
        Calls whose signature is None where any signature that finds its inputs may take them; they
        can hold more than inputs.

    Raises:
        StageFailed: Something is of no known kind, damaged, or does not fit.
    """
    if not path.is_dir():
        return _reader(path)(path, signatures)
    files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    arrays = {file.stem: read_array(file) for file in files if file.suffix == ".npy"}
    found = [Request(None, arrays, path.name)] if arrays else []
    for file in files:
        if file.suffix != ".npy":
            found += _reader(file)(file, signatures)
    if not found:
        raise StageFailed(
            "is an empty folder", where=str(path), hint=f"Put {_KINDS} files into it."
        )
    return found


def read_keyed(paths: Mapping[str, Path]) -> list[Request]:
    """Calls from one ``.npy`` file, or one folder of them, for each input.

    The first files of all folders make the first call, in the order of their names, and so on.

    Raises:
        StageFailed: A folder holds more files than another, or a file cannot be read.
    """
    columns = {key: _column(path) for key, path in paths.items()}
    counts = {key: len(files) for key, files in columns.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{key}: {count}" for key, count in counts.items())
        raise StageFailed(f"every input needs as many files as the others, and there are {told}")
    return [
        Request(
            None,
            {key: read_array(files[number]) for key, files in columns.items()},
            ", ".join(files[number].name for files in columns.values()),
        )
        for number in range(next(iter(counts.values()), 0))
    ]


def _column(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix == ".npy")
    if not files:
        raise StageFailed("holds no .npy file", where=str(path))
    return files


def _reader(path: Path) -> Callable[[Path, Signatures], list[Request]]:
    if path.name == WARMUP_NAME or path.suffix == SUFFIX:
        return lambda path, signatures: read_requests(path)
    if path.suffix == ".json":
        return _json_calls
    if path.suffix == ".npy":
        return _single_array
    if path.suffix == ".npz":
        return lambda path, signatures: [Request(None, read_arrays(path), path.name)]
    raise StageFailed(
        "is of no kind of file that holds inputs", where=str(path), hint=f"Give {_KINDS}."
    )


# ---------------------------------------------------------------- NumPy's files


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an ``.npz`` file.

    Raises:
        StageFailed: It is no such file, or holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise StageFailed(
            f"cannot be read as an .npz file: {error}",
            where=str(path),
            hint="Write it with numpy.savez(path, input_key=array, ...), without Python objects.",
        ) from None


def read_array(path: Path) -> Array:
    """The array of an ``.npy`` file.

    Raises:
        StageFailed: It is no such file, or holds Python objects.
    """
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        found = error
    if not isinstance(found, np.ndarray):
        raise StageFailed(
            f"cannot be read as an .npy file: {found}",
            where=str(path),
            hint="Write it with numpy.save(path, array), without Python objects.",
        )
    return found


def _single_array(path: Path, signatures: Signatures) -> list[Request]:
    """The array goes to the only input of the signatures that have one."""
    array = read_array(path)
    keys = {key for s in signatures.values() if len(s.inputs) == 1 for key in s.inputs}
    if not keys:
        raise StageFailed(
            "it is not clear which input the array is for",
            where=str(path),
            hint="Name it: validate: {inputs: {KEY: FILE.npy}}.",
        )
    return [Request(None, dict.fromkeys(sorted(keys), array), path.name)]


# ---------------------------------------------------------------- JSON


def _json_calls(path: Path, signatures: Signatures) -> list[Request]:
    """The request bodies of TensorFlow Serving's REST interface: one, or a list of them."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise StageFailed(f"cannot be read as JSON: {error}", where=str(path)) from None
    bodies = data if isinstance(data, list) else [data]
    return [
        _json_call(body, signatures, str(path), f"{path.name} {number}")
        for number, body in enumerate(bodies)
    ]


def _json_call(body: Json, signatures: Signatures, where: str, origin: str) -> Request:
    if not isinstance(body, dict) or len({"instances", "inputs"} & body.keys()) != 1:
        raise StageFailed(
            "a call is an object with `instances` or `inputs`",
            where=where,
            hint='For example {"inputs": {"x": [[1.0, 2.0]]}}.',
        )
    name = body.get("signature_name") or next(
        (n for n in ("serving_default", *signatures) if n in signatures), ""
    )
    if name not in signatures:
        raise StageFailed(f"there is no signature {name!r}", where=where)
    keys = tuple(signatures[name].inputs)
    columns = _columns(body, keys, where)
    inputs = {}
    for key, values in columns.items():
        if key not in keys:
            raise StageFailed(f"{name} has no input {key!r}", where=where)
        inputs[key] = _json_array(values, signatures[name].inputs[key], f"{where}: {key}")
    return Request(name, inputs, origin)


def _columns(body: Mapping[str, Json], keys: Sequence[str], where: str) -> Mapping[str, Json]:
    """The value of each input, out of either form."""
    if "inputs" in body:
        values = body["inputs"]
        return values if _is_keyed(values) else {_only(keys, where): values}
    rows = body["instances"]
    if not isinstance(rows, list):
        raise StageFailed("`instances` is a list", where=where)
    if not any(map(_is_keyed, rows)):
        return {_only(keys, where): rows}
    if not all(_is_keyed(row) and row.keys() == rows[0].keys() for row in rows):
        raise StageFailed("all instances have to name the same inputs", where=where)
    return {key: [row[key] for row in rows] for key in rows[0]}


def _is_keyed(value: Json) -> bool:
    return isinstance(value, dict) and set(value) != {"b64"}


def _only(keys: Sequence[str], where: str) -> str:
    if len(keys) != 1:
        raise StageFailed(f"the inputs have names: {', '.join(keys)}", where=where)
    return keys[0]


def _json_array(values: Json, spec: TensorSpec, where: str) -> Array:
    try:
        if spec.dtype is DType.STRING:
            shape, words = _strings(values)
            return strings(words, shape)
        kind = numpy_dtype(spec.dtype)
        return np.array(values, kind[0] if kind.names else kind).astype(kind)
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise StageFailed(f"is no {spec.dtype.tf_name} tensor: {error}", where=where) from None


def _strings(values: Json) -> tuple[tuple[int, ...], list[bytes]]:
    """Shape and elements of nested lists of strings, or of ``{"b64": ...}`` for bytes."""
    if isinstance(values, str):
        return (), [values.encode()]
    if isinstance(values, dict):
        return (), [base64.b64decode(values["b64"], validate=True)]
    if not isinstance(values, list):
        raise ValueError(f"{values!r} is no string")
    parts = [_strings(value) for value in values]
    shapes = {shape for shape, _ in parts}
    if len(shapes) > 1:
        raise ValueError("its lists are of different lengths")
    inner = next(iter(shapes), ())
    return (len(values), *inner), [word for _, words in parts for word in words]


# ---------------------------------------------------------------- fitting


def fitting(key: str, array: Array, spec: TensorSpec, where: str) -> Array:
    """An array as a signature takes it.

    Raises:
        StageFailed: It is of another dtype or shape than the signature says.
    """
    if spec.dtype is DType.STRING and array.dtype.kind in "SUO":
        words = [
            item if isinstance(item, bytes) else str(item).encode()
            for item in array.ravel().tolist()
        ]
        array = strings(words, array.shape)
    elif array.dtype != numpy_dtype(spec.dtype):
        raise StageFailed(
            f"{key!r} is {array.dtype}, the signature takes {spec.dtype.tf_name}",
            where=where,
            hint="Save the array with the signature's dtype.",
        )
    if spec.shape is not None and not _fits(array.shape, spec.shape):
        raise StageFailed(
            f"{key!r} has the shape {list(array.shape)}, the signature takes "
            f"{['?' if dim is None else dim for dim in spec.shape]}",
            where=where,
        )
    return array


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        want is None or want == dim for dim, want in zip(shape, wanted, strict=True)
    )


def describe(signatures: Signatures) -> str:
    """What the signatures take, for hints."""
    return "; ".join(f"{name}: {', '.join(s.inputs)}" for name, s in signatures.items())
