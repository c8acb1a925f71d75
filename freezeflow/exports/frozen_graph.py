"""A frozen graph as one GraphDef file, binary (``.pb``) or as text (``.pbtxt``), with its manifest.

Large weights lie in the file, or as files of their own in a folder beside it, from where TensorFlow maps
them into memory; these are named by what they hold, so that a graph never meets weights of another.
Source of the format: upstream ``core/framework/graph.proto``, ``core/kernels/immutable_constant_op.cc``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from freezeflow.errors import ModelRefused
from freezeflow.exports.check import CheckedOnRequest, check_problems
from freezeflow.exports.format import (
    Export,
    ExportedFile,
    ExportFormat,
    ExportRequest,
    GraphForm,
    form_problems,
)
from freezeflow.exports.in_tensorflow import GRAPH, check_facts
from freezeflow.exports.limits import MAX_FILE_BYTES, check_self_contained, check_size
from freezeflow.exports.manifest import manifest_bytes, manifest_path
from freezeflow.exports.registry import FORMATS
from freezeflow.graph.model import Model
from freezeflow.graph.weights import as_mapped_files
from freezeflow.graph.write import Piece, graph_def_pieces, materialise, size_of
from freezeflow.messages import message_class
from freezeflow.params import param
from freezeflow.store.files import Written, publication, write_atomically, writing_failed
from freezeflow.store.folder_lock import only_writer
from freezeflow.values import Json, TensorRef

# As text a graph takes about four times the memory and the space; beyond this nobody reads it.
MAX_TEXT_BYTES = 64 * 1024 * 1024

_WEIGHTS_SUFFIX = ".bin"
_WEIGHTS_NAME = re.compile(r"[0-9a-f]{32}\.bin")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params(GraphForm, CheckedOnRequest):
    """Parameters of the format."""

    weights: Literal["inline", "external"] = param(
        "Where the large weights go: into the file, or external, as files in a folder beside it that"
        " TensorFlow maps into memory (`freezeflow.load_graph` points it at them).",
        default="inline",
    )
    external_from: int = param(
        "How many bytes a weight has at least that goes into a file of its own.",
        default=64 * 1024,
        minimum=1,
    )


def problems(params: Params) -> list[tuple[str, str]]:
    """Mistakes in the parameters."""
    return [*form_problems(params), *check_problems(params)]


def write(request: ExportRequest) -> Export:
    """Publishes the graph, its manifest, and the files of external weights: all or nothing.

    Raises:
        ValidationFailed: A check was asked for, and it fails.
        ModelRefused: The model has variables or asset files, or is too large for one file.
        FreezeflowError: The files cannot be written.
    """
    model, to = request.model, request.to
    check_self_contained(model, "a frozen graph")
    _check_no_assets(model)
    is_text = to.name.endswith(".pbtxt")
    folder = weights_folder(to)
    tensors: dict[str, TensorRef] = {}
    if request.params.weights == "external":
        model, tensors = as_mapped_files(
            model,
            lambda tensor: f"{folder.name}/{tensor.digest.hex[:32]}{_WEIGHTS_SUFFIX}",
            least_bytes=request.params.external_from,
        )
    pieces = list(graph_def_pieces(model.graph))
    limit = MAX_TEXT_BYTES if is_text else MAX_FILE_BYTES
    check_size(model, size_of(pieces), str(to), limit=limit, ways=_other_ways(is_text))
    content: Iterable[Piece] = [_text(pieces)] if is_text else pieces
    with _only_writer(folder, make=bool(tensors)) as is_ours:
        with _weight_files(to, tensors) as weights, publication() as files:
            written = files.write(to, content)
            listed = {to.name: written, **weights}
            data = manifest_bytes(model, listed, request.recipe_digest)
            beside = files.write(manifest_path(to), [data])
            checks = _checks(request, model, files.beside(to))
        if is_ours:
            _remove_other_weights(folder, tensors)
    published = {to.name: written, manifest_path(to).name: beside, **weights}
    return Export(
        tuple(ExportedFile(to.parent / name, found) for name, found in published.items()),
        {**({"weight_files": len(weights)} if weights else {}), **checks},
    )


def _checks(request: ExportRequest, model: Model, written: Path) -> dict[str, Json]:
    """Has TensorFlow load what was written, under its final name and with the weights beside it."""
    if request.params.check is False:
        return {}
    folder = Path(tempfile.mkdtemp(prefix="exported-", dir=request.context.scratch))
    file = folder / request.to.name
    file.symlink_to(written)
    weights_folder(file).symlink_to(weights_folder(request.to))
    return check_facts(request, model, file, FORMAT.runtimes)


def weights_folder(graph: Path) -> Path:
    """Where the external weights of a graph file lie: ``a.weights`` for ``a.pb``."""
    return graph.with_name(graph.name.removesuffix(".pb") + ".weights")


@contextlib.contextmanager
def _only_writer(folder: Path, *, make: bool) -> Iterator[bool]:
    """Waits for others who export to the same path: each removes weights that its graph does not name."""
    made = [above for above in (folder, *folder.parents) if make and not above.exists()]
    try:
        with only_writer(folder, make=make) as is_ours:
            yield is_ours
    except OSError as error:
        raise writing_failed(error, folder) from error
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):  # there is something in it
                path.rmdir()
        raise


@contextlib.contextmanager
def _weight_files(graph: Path, tensors: Mapping[str, TensorRef]) -> Iterator[dict[str, Written]]:
    """Writes external weights; takes back those that are new when the block raises."""
    written: dict[str, Written] = {}
    new: list[Path] = []
    try:
        for name, tensor in sorted(tensors.items()):
            path = graph.parent / name
            if not path.exists():
                new.append(path)
            written[name] = write_atomically(path, [tensor.location])
        yield written
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds weights of an older graph, or was never made
            weights_folder(graph).rmdir()
        raise


def _remove_other_weights(folder: Path, tensors: Collection[str]) -> None:
    """Removes the weights of the graph that was replaced."""
    wanted = {Path(name).name for name in tensors}
    for path in folder.glob(f"*{_WEIGHTS_SUFFIX}"):
        if _WEIGHTS_NAME.fullmatch(path.name) and path.name not in wanted:
            path.unlink(missing_ok=True)
    if not tensors:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _check_no_assets(model: Model) -> None:
    for asset in model.assets:
        raise ModelRefused(
            f"the graph reads the file {asset.name!r}, which a frozen graph cannot hold",
            where=asset.tensor,
            hint="Export it with `format: saved_model`.",
        )


def _other_ways(is_text: bool) -> list[str]:
    """What holds a graph that is too large for one file."""
    ways = ["`weights: external`, for files beside the graph"]
    if is_text:
        return [*ways, "a file that ends in .pb"]
    ways.append("`format: saved_model`, whose checkpoint takes the weights")
    if "onnx" in FORMATS:
        ways.append("`format: onnx`, with external data")
    return ways


def _text(pieces: Sequence[Piece]) -> bytes:
    from google.protobuf import text_format

    message = message_class("GraphDef").FromString(materialise(pieces))
    text: str = text_format.MessageToString(message)
    return text.encode()


FORMAT = ExportFormat(
    name="frozen_graph",
    summary="One GraphDef file (.pb, or .pbtxt as text) with a manifest beside it.",
    write=write,
    params=Params,
    problems=problems,
    runtimes=(GRAPH,),
    suffixes=(".pb", ".pbtxt"),
    streams=True,
)
