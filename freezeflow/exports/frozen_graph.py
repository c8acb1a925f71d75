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
from collections.abc import Collection, Iterator, Sequence
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
from freezeflow.store.files import (
    Written,
    publication,
    sync_folder,
    write_by_digest,
    writing_failed,
)
from freezeflow.store.folder_lock import only_writer
from freezeflow.values import Digest, Json, Location, TensorRef

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
    folder = weights_folder(to)
    outside = _Outside(folder, request.params)
    pieces = _size_checked(outside.mapped(model), to)
    with _only_writer(folder, make=bool(outside.tensors)) as is_ours:
        with outside.written() as weights, publication() as files:
            if weights:
                # Only now is it known what the files are called.
                model = outside.mapped(model)
                pieces = list(graph_def_pieces(model.graph))
            written = files.write(to, [_text(pieces)] if _is_text(to) else pieces)
            listed = {to.name: written, **weights}
            data = manifest_bytes(model, listed, request.recipe_digest)
            beside = files.write(manifest_path(to), [data])
            checks = _checks(request, model, files.beside(to))
        if is_ours:
            _remove_other_weights(folder, weights)
    published = {to.name: written, manifest_path(to).name: beside, **weights}
    return Export(
        tuple(ExportedFile(to.parent / name, found) for name, found in published.items()),
        {**({"weight_files": len(weights)} if weights else {}), **checks},
    )


def _is_text(to: Path) -> bool:
    return to.name.endswith(".pbtxt")


def _size_checked(model: Model, to: Path) -> list[Piece]:
    """The file's pieces; raises if they come to more than a reader takes."""
    pieces = list(graph_def_pieces(model.graph))
    limit = MAX_TEXT_BYTES if _is_text(to) else MAX_FILE_BYTES
    check_size(model, size_of(pieces), str(to), limit=limit, ways=_other_ways(_is_text(to)))
    return pieces


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


class _Outside:
    """The weights that lie in files beside a graph, each named by its BLAKE3.

    They are copied in the order in which they lie, beside the checks that read them, and hashed as
    they are copied. So their names are known last; until then each has one of the same length.
    """

    def __init__(self, folder: Path, params: Params) -> None:
        self._folder = folder
        self._params = params
        self._names: dict[Location, str] = {}
        self.tensors: dict[Location, TensorRef] = {}

    def mapped(self, model: Model) -> Model:
        """The model with its large constants in these files; what it names changes as they are written."""
        if self._params.weights == "inline":
            return model
        return as_mapped_files(model, self._file_of, least_bytes=self._params.external_from)[0]

    def _file_of(self, tensor: TensorRef) -> str:
        self.tensors.setdefault(tensor.location, tensor)
        name = self._names.get(tensor.location, _name_of(Digest("0" * 64)))
        return f"{self._folder.name}/{name}"

    @contextlib.contextmanager
    def written(self) -> Iterator[dict[str, Written]]:
        """Writes them, and gives them by path; takes back those that are new when the block raises."""
        written: dict[str, Written] = {}
        there = {path.name for path in self._folder.glob(f"*{_WEIGHTS_SUFFIX}")}
        try:
            for place in sorted(self.tensors):
                name, found = write_by_digest(self._folder, [place], _name_of)
                self._names[place] = name
                written[f"{self._folder.name}/{name}"] = found
            if written:
                sync_folder(self._folder)
            yield dict(sorted(written.items()))
        except BaseException:
            for name in {*self._names.values()} - there:
                (self._folder / name).unlink(missing_ok=True)
            with contextlib.suppress(
                OSError
            ):  # it holds weights of an older graph, or was never made
                self._folder.rmdir()
            raise


def _name_of(digest: Digest) -> str:
    return f"{digest.hex[:32]}{_WEIGHTS_SUFFIX}"


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
