"""A SavedModel folder as a Model, without TensorFlow.

Source of the layout: upstream ``core/protobuf/saved_model.proto`` and ``meta_graph.proto``, and
``python/saved_model/constants.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from freezeflow.checkpoint import Request, open_checkpoint
from freezeflow.errors import ModelRefused, UsageError
from freezeflow.graph import attrs, walk
from freezeflow.graph.constants import const
from freezeflow.graph.graph import Graph, Node, node_of
from freezeflow.graph.model import Asset, Model
from freezeflow.graph.restore import Restored, SavedTensor, follow_restore
from freezeflow.graph.variables import HANDLES
from freezeflow.sources.graph_file import ParsedFile, parse_file, tensor_of_file
from freezeflow.sources.signatures import read_signature
from freezeflow.stages.stage import Context
from freezeflow.values import DType, ModelSource, Signature

GRAPH_FILES = ("saved_model.pb", "saved_model.pbtxt")
_CHUNKED = "saved_model.cpb"

# Signatures that run something once; nobody calls them to predict.
_INIT_SIGNATURE = "__saved_model_init_op"
_INTERNAL_SIGNATURES = frozenset({_INIT_SIGNATURE, "__saved_model_train_op"})
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")


def load_saved_model(source: ModelSource, context: Context) -> Model:
    """Reads the chosen meta graph and signatures, and the variables that they reach.

    Raises:
        ModelRefused: The folder is no SavedModel, is damaged, or lacks what was asked for.
    """
    path = graph_file(source.path)
    parsed = parse_file(path, "SavedModel")
    meta_graph = choose_meta_graph(parsed.message, source, path)
    reader = parsed.reader(meta_graph.graph_def, meta_graph.meta_info_def.stripped_op_list.op)
    signatures = {
        name: read_signature(meta_graph.signature_def[name])
        for name in choose_signatures(meta_graph.signature_def, source.signatures, path)
    }
    init = init_nodes(meta_graph)
    ends = [spec.tensor for s in signatures.values() for side in (s.inputs, s.outputs) for spec in side.values()]
    restore_op = node_of(meta_graph.saver_def.restore_op_name)
    roots = [*map(node_of, ends), *init]
    whole = reader.graph([*roots, *([restore_op] if restore_op else [])])
    graph = walk.prune(whole, roots)
    restored = follow_restore(whole, restore_op)
    return Model(
        graph=graph,
        signatures=signatures,
        init=init,
        variables=_variables(graph, restored, source.path / "variables" / "variables", context),
        assets=_assets(meta_graph, graph, source.path / "assets"),
        source_kind="saved_model",
    )


def saved_model_files(source: ModelSource) -> tuple[Path, ...]:
    """Every file of a SavedModel that can change what comes out, sorted."""
    folder = source.path
    found = [graph_file(folder)]
    for name in ("variables", "assets"):
        if (folder / name).is_dir():
            found += [path for path in (folder / name).rglob("*") if path.is_file()]
    return tuple(sorted(found))


def graph_file(folder: Path) -> Path:
    """The file with the graph.

    Raises:
        ModelRefused: There is none, or it is of the chunked kind.
    """
    for name in GRAPH_FILES:
        if (folder / name).is_file():
            return folder / name
    if (folder / _CHUNKED).is_file():
        raise ModelRefused(
            "the SavedModel is stored in chunks (.cpb), which released TensorFlow cannot read in Python",
            where=str(folder / _CHUNKED),
            hint="Save the model again without chunking: it writes saved_model.pb.",
        )
    raise ModelRefused(
        "no SavedModel here: neither saved_model.pb nor saved_model.pbtxt",
        where=str(folder),
        hint="Give the folder that tf.saved_model.save or model.export wrote.",
    )


# ---------------------------------------------------------------- choosing


def choose_meta_graph(message: Any, source: ModelSource, path: Path) -> Any:
    """The meta graph with the wanted tags; without any wanted: ``serve``, else the only one.

    Raises:
        ModelRefused: There is no such one.
    """
    by_tags = {frozenset(m.meta_info_def.tags): m for m in message.meta_graphs}
    wanted = frozenset(("serve",) if source.tags is None else source.tags)
    if wanted in by_tags:
        return by_tags[wanted]
    if source.tags is None and len(by_tags) == 1:
        return next(iter(by_tags.values()))
    there = "; ".join(sorted(",".join(sorted(tags)) or "(none)" for tags in by_tags))
    raise ModelRefused(
        f"no meta graph has the tags {','.join(sorted(wanted)) or '(none)'}",
        where=str(path),
        hint=f"Choose one of the tag sets that are there: {there}." if there else "The file is empty.",
    )


def choose_signatures(
    there: Mapping[str, Any], wanted: Sequence[str] | None, path: Path
) -> tuple[str, ...]:
    """Names of the signatures to read, sorted; ``("all",)`` stands for every one.

    Raises:
        ModelRefused: A wanted one is missing, or the choice is not clear.
    """
    names = sorted(set(there) - _INTERNAL_SIGNATURES)
    listed = ", ".join(names)
    if not names:
        raise ModelRefused(
            "the model has no signatures",
            where=str(path),
            hint="Save it with signatures=..., or give the tensors with --inputs and --outputs.",
        )
    if wanted is None:
        if "serving_default" in names:
            return ("serving_default",)
        if len(names) == 1:
            return (names[0],)
        raise ModelRefused(
            f"the model has several signatures and none is called serving_default: {listed}",
            where=str(path),
            hint="Choose with --signature NAME (in a recipe: signatures: [NAME]).",
        )
    if tuple(wanted) == ("all",) and "all" not in names:
        return tuple(names)
    for name in wanted:
        if name not in names:
            raise ModelRefused(
                f"the model has no signature {name!r}",
                where=str(path),
                hint=f"Its signatures are: {listed}.",
            )
    return tuple(sorted(set(wanted)))


def init_nodes(meta_graph: Any) -> tuple[str, ...]:
    """The nodes that initialise tables after the variables are restored, in order."""
    if _INIT_SIGNATURE in meta_graph.signature_def:
        outputs = meta_graph.signature_def[_INIT_SIGNATURE].outputs
        return tuple(node_of(outputs[key].name) for key in sorted(outputs))
    for collection in _INIT_COLLECTIONS:
        names = meta_graph.collection_def[collection].node_list.value if collection in meta_graph.collection_def else ()
        if names:
            return tuple(node_of(name) for name in names)
    return ()


# ---------------------------------------------------------------- values


def _variables(
    graph: Graph, restored: Restored, prefix: Path, context: Context
) -> dict[str, Node]:
    """For each variable in reach that the checkpoint fills: a Const with its value."""
    handles = [n.name for n in graph.nodes.values() if n.op in HANDLES and n.name in restored.variables]
    if not handles:
        return {}
    checkpoint = open_checkpoint(prefix)
    saved = [restored.variables[handle] for handle in handles]
    values = checkpoint.fetch([Request(s.key, s.slice_spec) for s in saved], context.put_tensor)
    variables = {}
    for handle, tensor, value in zip(handles, saved, values, strict=True):
        _check_dtype(graph.nodes[handle], tensor, value.dtype, prefix)
        variables[handle] = const(handle, value.dtype, value.shape, value.content)
    return variables


def _check_dtype(handle: Node, saved: SavedTensor, dtype: DType, prefix: Path) -> None:
    expected = attrs.to_type(handle.attrs["dtype"])
    if dtype is not expected:
        raise ModelRefused(
            f"variable {handle.name!r} is {expected.tf_name}, the checkpoint holds {dtype.tf_name}"
            f" under {saved.key!r}",
            where=str(prefix),
            hint="Graph and checkpoint do not belong together.",
        )


def _assets(meta_graph: Any, graph: Graph, folder: Path) -> tuple[Asset, ...]:
    """The asset files whose path the graph takes."""
    found = []
    for definition in meta_graph.asset_file_def:
        tensor = node_of(definition.tensor_info.name)
        if tensor not in graph.nodes:
            continue
        path = folder / definition.filename
        if folder.resolve() not in path.resolve().parents or not path.is_file():
            raise ModelRefused(
                f"asset {definition.filename!r} is missing",
                where=str(folder),
                hint="Copy the whole SavedModel folder.",
            )
        found.append(Asset(name=definition.filename, tensor=tensor, content=tensor_of_file(path)))
    return tuple(sorted(found, key=lambda asset: (asset.name, asset.tensor)))
