"""What a meta graph says beside its graph: values of variables, initialisers, assets.

Source of the format: upstream ``core/protobuf/meta_graph.proto`` and
``python/saved_model/constants.py``.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from freezeflow.checkpoint import Checkpoint, Request, Value, open_checkpoint
from freezeflow.context import Context
from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs, walk
from freezeflow.graph.anonymous_tables import with_shared_tables
from freezeflow.graph.constants import const
from freezeflow.graph.cut import cut_at_inputs
from freezeflow.graph.graph import SCALAR_MEANS_UNKNOWN, Graph, Node, node_of
from freezeflow.graph.model import Asset, Model
from freezeflow.graph.restore import SavedTensor, follow_restore
from freezeflow.graph.shared_names import sharing_names
from freezeflow.graph.variables import HANDLES
from freezeflow.graph.verify import check
from freezeflow.messages import message_class
from freezeflow.sources.defaults import with_defaults
from freezeflow.sources.graph_file import ParsedFile, tensor_of_file
from freezeflow.sources.object_graph import captured_variables
from freezeflow.sources.other_weights import averaged_keys, matching_keys
from freezeflow.sources.signatures import INIT_SIGNATURE, ends_of, signatures_of
from freezeflow.store.stand_ins import pointer, unreadable
from freezeflow.values import ModelSource, Shape, TensorRef

_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
_TABLE_INITIALIZERS = "table_initializer"
_ASSET_COLLECTION = "saved_model_assets"


def read_model(
    parsed: ParsedFile,
    meta_graph: Any,
    source: ModelSource,
    prefix: Path,
    assets: Path,
    context: Context,
) -> Model:
    """The wanted part of a meta graph as a model, its variables filled.

    Args:
        parsed: The file that holds the meta graph.
        meta_graph: The ``MetaGraphDef`` message.
        source: What is wanted of it.
        prefix: Its checkpoint.
        assets: The folder with its asset files.
        context: Takes values that have to be put together.

    Raises:
        ModelRefused: Something of it is missing, damaged, or not clear.
    """
    reader = parsed.reader(meta_graph.graph_def, meta_graph.meta_info_def.stripped_op_list.op)
    signatures = signatures_of(meta_graph, reader, source, parsed.path)
    init = init_nodes(meta_graph)
    restore_op = node_of(meta_graph.saver_def.restore_op_name)
    roots = [*map(node_of, ends_of(signatures)), *init]
    fills = [*init, *([restore_op] if restore_op else [])]
    whole = with_shared_tables(reader.graph([*roots, *fills]), fills)
    whole, signatures = cut_at_inputs(whole, signatures)
    whole = with_defaults(whole, meta_graph, signatures)
    ends = [*map(node_of, ends_of(signatures)), *init]
    graph = walk.prune(whole, [*ends, *sharing_names(whole, ends)])
    model = Model(
        graph=graph,
        signatures=signatures,
        init=init,
        assets=read_assets(meta_graph, graph, assets, parsed.path),
        source_kind=source.kind,
    )
    return with_values(model, meta_graph, whole, source, prefix, context)


def init_nodes(meta_graph: Any) -> tuple[str, ...]:
    """The nodes that initialise tables after the variables are restored, in order."""
    if INIT_SIGNATURE in meta_graph.signature_def:
        outputs = meta_graph.signature_def[INIT_SIGNATURE].outputs
        return tuple(node_of(outputs[key].name) for key in sorted(outputs))
    for collection in (*_INIT_COLLECTIONS, _TABLE_INITIALIZERS):
        if collection in meta_graph.collection_def:
            names = meta_graph.collection_def[collection].node_list.value
            if names:
                return tuple(node_of(name) for name in names)
    return ()


def with_values(
    model: Model, meta_graph: Any, whole: Graph, source: ModelSource, prefix: Path, context: Context
) -> Model:
    """The model with the variables and tables that it reaches filled from the checkpoint.

    Args:
        model: The model, pruned to what it reaches.
        meta_graph: The ``MetaGraphDef`` message.
        whole: The main graph with its restore op.
        source: Says whether the weights come from another checkpoint, or are averages.
        prefix: The model's own checkpoint.
        context: Takes values that have to be put together.

    Raises:
        ModelRefused: The graph is not valid; a value is missing, damaged, or of another
            dtype or shape.
    """
    # What follows takes a graph at its word.
    check(Model(graph=whole, signatures=model.signatures, init=model.init), stage="load")
    saved = saved_values(model.graph, meta_graph, whole, source, prefix, context)
    return model if saved is None else fill(model, saved, context)


class Saved(NamedTuple):
    """What of a checkpoint fills a graph.

    Args:
        checkpoint: The checkpoint.
        prefix: Names it in errors.
        variables: Handle node to the tensor that fills it.
        tables: Table node to the tensors of its keys and values.
        captured: Those handles that the restore op leaves out: TensorFlow 2 fills them by the object
            graph.
    """

    checkpoint: Checkpoint
    prefix: Path
    variables: Mapping[str, SavedTensor]
    tables: Mapping[str, tuple[SavedTensor, SavedTensor]]
    captured: frozenset[str] = frozenset()


def saved_values(
    graph: Graph, meta_graph: Any, whole: Graph, source: ModelSource, prefix: Path, context: Context
) -> Saved | None:
    """What fills the variables and tables of a graph; None if it has none.

    Args:
        graph: What the model reaches.
        meta_graph, whole, source, prefix, context: As for `with_values`.

    Raises:
        ModelRefused: A checkpoint is missing or damaged, or has no entry for a variable.
    """
    restored = follow_restore(whole, node_of(meta_graph.saver_def.restore_op_name))
    nodes = graph.nodes
    handles = [node.name for node in nodes.values() if node.op in HANDLES]
    tables = {name: saved for name, saved in restored.tables.items() if name in nodes}
    if not (handles or tables):
        return None
    filled = tables or any(handle in restored.variables for handle in handles)
    if not filled and source.weights is None and _is_empty(prefix.parent):
        return None  # all variables are local ones, which the initialiser sets
    checkpoint = open_checkpoint(prefix)
    lost = [handle for handle in handles if handle not in restored.variables]
    found = captured_variables(
        meta_graph.object_graph_def, graph, lost, checkpoint, context.put_tensor
    )
    saved = {**found, **{h: restored.variables[h] for h in handles if h in restored.variables}}
    if source.weights is not None:
        prefix, checkpoint = source.weights, open_checkpoint(source.weights)
        saved = matching_keys(saved, checkpoint, prefix)
    if source.averages:
        saved = averaged_keys(saved, checkpoint, prefix)
    return Saved(checkpoint, prefix, saved, tables, frozenset(found))


def _is_empty(folder: Path) -> bool:
    return not folder.is_dir() or not any(folder.iterdir())


def fill(model: Model, saved: Saved, context: Context) -> Model:
    """The model with variables and tables filled from a checkpoint.

    Args:
        model: The model.
        saved: What fills them.
        context: Takes values that have to be put together.

    Raises:
        ModelRefused: A value is missing, damaged, or of another dtype or shape.
    """
    in_tables = [tensor for pair in saved.tables.values() for tensor in pair]
    wanted = [Request(*tensor) for tensor in (*saved.variables.values(), *in_tables)]
    values = saved.checkpoint.fetch(wanted, context.put_tensor)
    variables = {}
    for (handle, tensor), value in zip(saved.variables.items(), values, strict=False):
        _check_fits(model.graph, model.graph.nodes[handle], tensor, value, saved.prefix)
        variables[handle] = const(handle, value.dtype, value.shape, value.content)
    filled = dataclasses.replace(model, variables=variables)
    contents = iter(values[len(saved.variables) :])
    for name in saved.tables:
        filled = _with_table(filled, name, next(contents), next(contents))
    return filled


def _with_table(model: Model, table: str, keys: Value, values: Value) -> Model:
    """The model with one more initializer: it puts the saved contents into a table."""
    made = []
    for role, value in (("keys", keys), ("values", values)):
        constant = const(f"{table}/saved_{role}", value.dtype, value.shape, value.content)
        # Dense tables import their buckets as they are, [buckets, 1]; the op's shape check, which
        # wants one dimension, passes only where the shape is not known beforehand.
        hidden = {"dtype": attrs.of_type(value.dtype), "shape": attrs.of_shape(None)}
        any_shape = Node(f"{table}/{role}", "PlaceholderWithDefault", (constant.name,), hidden)
        made += [constant, any_shape]
    node = Node(
        f"{table}/restore",
        "LookupTableImportV2",
        (table, made[1].name, made[3].name),
        {"Tin": attrs.of_type(keys.dtype), "Tout": attrs.of_type(values.dtype)},
    )
    nodes = {**model.graph.nodes, **{n.name: n for n in (*made, node)}}
    graph = dataclasses.replace(model.graph, nodes=nodes)
    return dataclasses.replace(model, graph=graph, init=(*model.init, node.name))


def _check_fits(graph: Graph, handle: Node, saved: SavedTensor, value: Value, prefix: Path) -> None:
    """Refuses a value of another dtype or shape than its variable declares."""
    dtype, shape = attrs.to_type(handle.attrs["dtype"]), _declared_shape(graph, handle)
    if value.dtype is dtype and _agree(shape, value.shape):
        return
    raise ModelRefused(
        f"variable {handle.name!r} is {dtype.tf_name}{_text(shape)},"
        f" the checkpoint holds {value.dtype.tf_name}{_text(value.shape)} under {saved.key!r}",
        where=str(prefix),
        hint="Graph and checkpoint do not belong together.",
    )


def _declared_shape(graph: Graph, handle: Node) -> Shape:
    shape = attrs.to_shape(handle.attrs["shape"]) if "shape" in handle.attrs else None
    scalar_may_be_any = handle.op == "Variable" or graph.producer <= SCALAR_MEANS_UNKNOWN
    return None if shape == () and scalar_may_be_any else shape


def _agree(declared: Shape, stored: tuple[int, ...]) -> bool:
    return declared is None or (
        len(declared) == len(stored)
        and all(d in (None, s) for d, s in zip(declared, stored, strict=True))
    )


def _text(shape: Shape) -> str:
    return "" if shape is None else str([*shape]).replace("None", "?")


def _lies_in(path: Path, folder: Path) -> bool:
    # Not `resolve`: of a loop of links Pythons before 3.13 make an error, and here it is a missing file.
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents


def _belongs(path: Path, folder: Path, graph_file: Path) -> bool:
    """Whether an asset is part of the model: in the folder of assets, or a link to where the graph is.

    A link out of the folder may lead anywhere, and what it leads to would be published with the model. Yet
    caches of hubs and mounted volumes consist of links: there the graph file is one, too, and the asset's
    file lies in or below the folder of the graph's own.
    """
    if _lies_in(path, folder):
        return True
    named_inside = path.is_relative_to(folder) and ".." not in path.relative_to(folder).parts
    return named_inside and graph_file.is_symlink() and _lies_in(path, graph_file.resolve().parent)


def _content(path: Path) -> TensorRef:
    refused = pointer(path)
    if refused is not None:
        raise refused
    try:
        with open(path, "rb"):
            return tensor_of_file(path)
    except OSError as error:
        raise unreadable(error, path) from None


def _asset_definitions(meta_graph: Any) -> list[Any]:
    """TF2 lists the assets in the meta graph, TF1 in a collection."""
    definitions = list(meta_graph.asset_file_def)
    if _ASSET_COLLECTION in meta_graph.collection_def:
        kind = message_class("AssetFileDef")
        listed = meta_graph.collection_def[_ASSET_COLLECTION].any_list.value
        try:
            definitions += [kind.FromString(packed.value) for packed in listed]
        except DecodeError:
            raise ModelRefused(
                "the list of assets cannot be read",
                hint="The file is damaged; copy or write the model again.",
            ) from None
    return definitions


def read_assets(meta_graph: Any, graph: Graph, folder: Path, graph_file: Path) -> tuple[Asset, ...]:
    """The asset files whose path the graph takes.

    Args:
        meta_graph: The ``MetaGraphDef`` message.
        graph: What was read of its graph.
        folder: The folder of assets.
        graph_file: The file that the meta graph is from.

    Raises:
        ModelRefused: One is missing, or is no part of the model.
    """
    found = []
    for definition in _asset_definitions(meta_graph):
        tensor = node_of(definition.tensor_info.name)
        if tensor not in graph.nodes:
            continue
        path = folder / definition.filename
        if not _belongs(path, folder, graph_file):
            raise ModelRefused(
                f"asset {definition.filename!r} lies outside of the folder of assets",
                where=str(folder),
                hint="Put the file itself there; of a folder of links, take a copy without (cp -rL).",
            )
        if not path.is_file():
            raise ModelRefused(
                f"asset {definition.filename!r} is missing",
                where=str(folder),
                hint="Copy the whole SavedModel folder.",
            )
        found.append(Asset(name=definition.filename, tensor=tensor, content=_content(path)))
    return tuple(sorted(found, key=lambda asset: (asset.name, asset.tensor)))
