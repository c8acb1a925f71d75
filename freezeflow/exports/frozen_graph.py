"""A frozen graph as one GraphDef file, binary (``.pb``) or as text (``.pbtxt``), with its manifest.

Source of the format: upstream ``core/framework/graph.proto``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from freezeflow.errors import ModelRefused
from freezeflow.exports.format import Export, ExportedFile, ExportFormat, ExportRequest, GraphForm
from freezeflow.exports.limits import check_self_contained, check_size
from freezeflow.exports.manifest import manifest_bytes, manifest_path
from freezeflow.graph.model import Model
from freezeflow.graph.write import Piece, graph_def_pieces, materialise, size_of
from freezeflow.messages import message_class
from freezeflow.store.files import publication

# As text a graph takes about four times the memory and the space; beyond this nobody reads it.
MAX_TEXT_BYTES = 64 * 1024 * 1024


def write(request: ExportRequest) -> Export:
    """Publishes the graph and its manifest, both or neither.

    Raises:
        ModelRefused: The model has variables or asset files, or is too large for one file.
        FreezeflowError: The files cannot be written.
    """
    model, to = request.model, request.to
    check_self_contained(model, "a frozen graph")
    _check_no_assets(model)
    pieces = list(graph_def_pieces(model.graph))
    is_text = to.name.endswith(".pbtxt")
    limit = {"limit": MAX_TEXT_BYTES} if is_text else {}
    check_size(model, size_of(pieces), str(to), **limit)
    content: Iterable[Piece] = [_text(pieces)] if is_text else pieces
    manifest = manifest_path(to)
    with publication() as files:
        written = files.write(to, content)
        data = manifest_bytes(model, {to.name: written}, request.recipe_digest)
        beside = files.write(manifest, [data])
    return Export((ExportedFile(to, written), ExportedFile(manifest, beside)), {})


def _check_no_assets(model: Model) -> None:
    for asset in model.assets:
        raise ModelRefused(
            f"the graph reads the file {asset.name!r}, which a frozen graph cannot hold",
            where=asset.tensor,
            hint="Export it with `format: saved_model`.",
        )


def _text(pieces: Sequence[Piece]) -> bytes:
    from google.protobuf import text_format

    message = message_class("GraphDef").FromString(materialise(pieces))
    text: str = text_format.MessageToString(message)
    return text.encode()


FORMAT = ExportFormat(
    name="frozen_graph",
    summary="One GraphDef file (.pb, or .pbtxt as text) with a manifest beside it.",
    write=write,
    params=GraphForm,
    suffixes=(".pb", ".pbtxt"),
)
