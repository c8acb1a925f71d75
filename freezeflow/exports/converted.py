"""What the formats of other runtimes share: one signature, a look, a converter apart, a check, files.

Nothing appears at the final path before the runtime has answered as the original does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from freezeflow.errors import ModelRefused
from freezeflow.exports.check import checked, trial_of
from freezeflow.exports.folders import published_folder
from freezeflow.exports.format import Export, ExportedFile, ExportRequest
from freezeflow.exports.limits import check_self_contained
from freezeflow.exports.manifest import manifest_bytes, manifest_path
from freezeflow.exports.saved_model import saved_model_pieces
from freezeflow.graph import attrs
from freezeflow.graph.array_lists import lists_for_arrays
from freezeflow.graph.canonical import canonical
from freezeflow.graph.cases import with_ifs_for_cases
from freezeflow.graph.graph import Graph
from freezeflow.graph.grouped import split_groups
from freezeflow.graph.model import Model
from freezeflow.graph.op_policy import random_before
from freezeflow.graph.profile import LOWERED, Profile, look
from freezeflow.graph.raised import raised
from freezeflow.graph.single import with_one_signature, with_shapes, without_aliases
from freezeflow.graph.spelled_out import spelled_out
from freezeflow.graph.stacked import Kept, stacked
from freezeflow.graph.unroll import unrolled
from freezeflow.graph.widened import widened
from freezeflow.graph.write import graph_def_pieces
from freezeflow.installed import version_of
from freezeflow.params import param
from freezeflow.runtimes.runtime import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    Names,
    Precision,
    Runtime,
    Subject,
)
from freezeflow.store.files import publication, whole_file, write_atomically
from freezeflow.values import DType, Json, Signature

MANIFEST = "freezeflow.manifest.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneSignature:
    """Parameters of formats that hold one signature, with inputs of fixed shape if need be."""

    signature: str | None = param(
        "Which signature to export; by default serving_default, else the only one.", default=None
    )
    batch: int | None = param(
        "Fixes an unknown first dimension of every input.", default=None, minimum=1
    )
    shapes: Mapping[str, tuple[int, ...]] = param(
        "Input key to its whole shape, where it has to be fixed.", default_factory=dict
    )
    unroll: int = param(
        "Loops of at most so many rounds are unrolled where the target does not take them as they are and"
        " the number of rounds follows from constants and shapes.",
        default=256,
        minimum=0,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Single:
    """A model with one signature, ready for a converter.

    Args:
        model: The model.
        name: Its signature's name.
        signature: Its signature.
        folder: Where the converter writes; what it leaves there is published.
        precision: How exact the model itself is, before anything was replaced for the target.
        aliases: Further keys of inputs, which name the same tensor as the key beside them does.
    """

    model: Model
    name: str
    signature: Signature
    folder: Path
    precision: Precision = FLOAT32
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def nodes(self) -> Names:
        """Nodes of the graph by the signature's keys."""
        ends = self.signature
        return Names(
            {key: spec.tensor for key, spec in ends.inputs.items()},
            {key: spec.tensor for key, spec in ends.outputs.items()},
        )

    @property
    def keys(self) -> Names:
        """For formats that call inputs and outputs as the signature does."""
        return Names(
            {key: key for key in self.signature.inputs},
            {key: key for key in self.signature.outputs},
        )


def single(request: ExportRequest, profile: Profile, form: Callable[[Model], Model]) -> Single:
    """The part of the model that is exported, after a look whether the target takes it.

    Args:
        request: What is to be written.
        profile: What the target takes.
        form: Brings what the target takes into the form in which its converter reads it.

    Raises:
        UsageError: There is no such signature or input, or a shape does not fit.
        ModelRefused: The target does not take it.
    """
    check_self_contained(request.model, profile.target)
    params: OneSignature = request.params
    alone = with_one_signature(request.model, params.signature, profile.reserved)
    model, aliases = without_aliases(alone)
    for key, kept in aliases.items():
        request.context.warn(
            f"{request.to.name}: inputs {key!r} and {kept!r} are one tensor, which is called {kept!r}"
        )
    shapes = {aliases.get(key, key): shape for key, shape in params.shapes.items()}
    model = with_shapes(model, params.batch, shapes)
    for asset in model.assets:
        raise ModelRefused(
            f"the graph reads the file {asset.name!r}, which {profile.target} cannot hold",
            where=asset.tensor,
        )
    precision = own_precision(model.graph)
    if not profile.control_flow & LOWERED:
        model = lists_for_arrays(model)
        model = raised(model)
    if "If" in profile.control_flow and "Case" not in profile.control_flow:
        model = with_ifs_for_cases(model)
    if profile.widens:
        model = widened(model, request.context.put_tensor)
    if profile.spells_out:
        model = canonical(spelled_out(model, profile.spells_out))
    if profile.unrolls != "none":
        lists_only = profile.unrolls == "lists"
        model = unrolled(model, most_rounds=params.unroll, lists_only=lists_only)
    lists: Kept | None = None
    if profile.stacks_lists is not None:
        model, lists = stacked(model, profile.stacks_lists)
    if profile.splits_groups:
        model = canonical(split_groups(model, profile.splits_groups))
    look(model, profile, lists)
    model = form(model)
    ((name, signature),) = model.signatures.items()
    folder = request.context.scratch / "out"
    folder.mkdir()
    return Single(
        model=model,
        name=name,
        signature=signature,
        folder=folder,
        precision=precision,
        aliases=aliases,
    )


def graph_file(request: ExportRequest, model: Model) -> Path:
    """The model as a GraphDef file in the step's scratch folder."""
    path = request.context.scratch / "graph.pb"
    write_atomically(path, graph_def_pieces(model.graph))
    return path


def saved_model_folder(request: ExportRequest, model: Model) -> Path:
    """The model as a SavedModel in the step's scratch folder."""
    folder = request.context.scratch / "saved_model"
    write_atomically(folder / "saved_model.pb", saved_model_pieces(model, None))
    return folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converted:
    """What a converter has made.

    Args:
        main: The main file's name in the folder.
        names: What inputs and outputs are called there.
        precision: Of the file's numbers.
        facts: What the converter tells.
        options: What else the runtime has to know; the manifest tells it, too.
        folder: Where the files lie; None for the folder that they were to go to.
    """

    main: str
    names: Names
    precision: Precision
    facts: Mapping[str, Json]
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folder: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converter:
    """How a format of another runtime is written.

    Args:
        profile: What the target takes.
        convert: Writes the files of a model that has passed the look into its folder.
        runtime: What checks them; None where nothing here does.
        tools: Packages whose versions the manifest names.
        form: Brings a model that has passed the look into the form in which the converter reads it.
    """

    profile: Callable[[], Profile]
    convert: Callable[[ExportRequest, Single], Converted]
    runtime: Runtime | None
    tools: tuple[str, ...]
    form: Callable[[Model], Model] = lambda model: model

    def write(self, request: ExportRequest) -> Export:
        """Looks, converts, checks, and publishes the files with their manifest.

        Raises:
            ModelRefused: The target does not take the model.
            ValidationFailed: The runtime refuses the file or answers otherwise; nothing is published.
            FreezeflowError: The files cannot be written.
        """
        params = request.params
        made = single(request, self.profile(), self.form)
        done = self.convert(request, made)
        folder = done.folder or made.folder
        precision = max(done.precision, made.precision, key=lambda each: each.rtol)
        verdict: Json = None
        if self.runtime is not None and params.check is not False:
            subject = Subject(
                file=folder / done.main,
                names=done.names,
                signature_name=made.name,
                signature=made.signature,
                bound=made.model.bound,
                precision=precision,
                options=done.options,
                random=_random_outputs(made),
            )
            trial = trial_of(params.check, request.context.base)
            (verdict,) = checked(
                [subject], [self.runtime], trial, request.original, request.context
            )
        told = {
            "format": params.format,
            "main": done.main,
            "precision": precision.name,
            "inputs": dict(done.names.inputs),
            "outputs": dict(done.names.outputs),
            "tools": {name: version_of(name) for name in sorted(self.tools)},
            **({"options": dict(done.options)} if done.options else {}),
            **({"aliases": dict(made.aliases)} if made.aliases else {}),
        }
        files = published(request, made.model, folder, done.main, export=told)
        return Export(files, {"check": verdict, **done.facts})


def _random_outputs(made: Single) -> dict[str, str]:
    ops = {
        key: random_before(made.model.graph, spec.tensor)
        for key, spec in made.signature.outputs.items()
    }
    return {key: f"{op.op} ({op.name})" for key, op in ops.items() if op is not None}


def own_precision(graph: Graph) -> Precision:
    """How exact the model itself is: as its least exact numbers, wherever it computes with them."""
    bodies = [graph.nodes, *(function.nodes for function in graph.functions.values())]
    values = {value for body in bodies for node in body.values() for value in node.attrs.values()}
    if attrs.of_type(DType.BFLOAT16) in values:
        return BFLOAT16
    return FLOAT16 if attrs.of_type(DType.HALF) in values else FLOAT32


def published(
    request: ExportRequest, model: Model, folder: Path, main: str, **told: Json
) -> tuple[ExportedFile, ...]:
    """Publishes a folder's files, first the main one, with a manifest beside or among them.

    A format whose main file has the export's own name is published as files side by side, any other
    one as a folder.
    """
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    pieces = {path.relative_to(folder).as_posix(): whole_file(path) for path in found}
    order = [main, *(name for name in pieces if name != main)]
    if main == request.to.name:
        with publication() as files:
            written = {
                name: files.write(request.to.parent / name, [pieces[name]]) for name in order
            }
            beside = manifest_path(request.to)
            data = manifest_bytes(model, written, request.recipe_digest, **told)
            manifest = ExportedFile(beside, files.write(beside, [data]))
        root = request.to.parent
    else:
        with published_folder(request.to, belongs=MANIFEST) as root:
            written = {name: write_atomically(root / name, [pieces[name]]) for name in order}
            data = manifest_bytes(model, written, request.recipe_digest, **told)
            manifest = ExportedFile(
                request.to / MANIFEST, write_atomically(root / MANIFEST, [data])
            )
        root = request.to
    return (*(ExportedFile(root / name, what) for name, what in written.items()), manifest)
