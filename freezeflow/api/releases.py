"""What freezeflow offers to Python around release builds; see ``docs/release.md``.

For whatever a user can mend, each function raises a `freezeflow.FreezeflowError` that says where and
what to do.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from freezeflow.api.recipes import cached_model, load_plans, load_settings, open_store, run
from freezeflow.errors import UsageError, ValidationFailed
from freezeflow.plan import selected
from freezeflow.values import AnyPath

if TYPE_CHECKING:
    from freezeflow.engine.events import OnEvent
    from freezeflow.engine.results import RunResult
    from freezeflow.plan import Plan
    from freezeflow.release.compare import Comparison
    from freezeflow.release.folder import Release
    from freezeflow.release.lock_check import LockReport
    from freezeflow.release.locking import LockWritten
    from freezeflow.release.rebuild import Rebuilt
    from freezeflow.release.signing import SignatureReport
    from freezeflow.release.verify import Fault, Verification


def diff(before: AnyPath, after: AnyPath, *, cache_dir: AnyPath | None = None) -> Comparison:
    """How two models differ; without TensorFlow (but for Keras files).

    Args:
        before: The path of a model, of a graph file, or of a recipe whose results are in the cache;
            or ``RECIPE:STEP`` for what a step gave.
        after: The same.
        cache_dir: The cache's folder; None for what the settings say.

    Raises:
        UsageError: There is nothing of that name.
        ModelRefused: What is there is no model, or is damaged.
        FreezeflowError: A step is not cached.
    """
    from freezeflow.engine.looking_up import uncollected
    from freezeflow.release.compare import compare
    from freezeflow.release.operands import Reader

    def plans_of(path: Path) -> tuple[Plan, ...]:
        return load_plans(path, cache_dir=cache_dir)

    cached = functools.partial(cached_model, cache_dir=cache_dir)
    with Reader(plans_of, cached) as reader, uncollected():
        return compare(reader.operand(os.fspath(before)), reader.operand(os.fspath(after)))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """What `lock` did.

    Args:
        result: How the steps ended.
        lock: The lock that was written; None where a step failed.
    """

    result: RunResult
    lock: LockWritten | None


def lock(
    recipe: AnyPath,
    *,
    set_vars: Mapping[str, str] | None = None,
    models: Sequence[str] = (),
    jobs: int | None = None,
    cache_dir: AnyPath | None = None,
    on_event: OnEvent | None = None,
) -> Locked:
    """Runs what is not cached, and writes ``RECIPE.lock``: what the recipe gives, to the byte.

    Args:
        recipe: The recipe's file.
        set_vars: Values for variables of its ``vars`` block.
        models: Names or patterns of the models to lock anew, all by default; the blocks of others
            stay as they are.
        jobs: Steps that run side by side; None for what the settings say.
        cache_dir: The cache's folder; None for what the settings say.
        on_event: Told what happens, in this thread.

    Raises:
        RecipeError: The recipe is not valid.
        UsageError: There is no such model.
        FreezeflowError: The cache or the lock cannot be read or written.
    """
    from freezeflow.release.locking import locks_of, write_lock

    plans = selected(load_plans(recipe, set_vars=set_vars, cache_dir=cache_dir), models)
    result = run(plans, jobs=jobs, cache_dir=cache_dir, on_event=on_event)
    if not result.ok:
        return Locked(result=result, lock=None)
    with open_store(cache_dir, Path(recipe).parent) as store:
        (made,) = locks_of(plans, result, store).values()
    return Locked(result=result, lock=write_lock(made, keep_others=bool(models)))


def check_lock(
    recipe: AnyPath,
    *,
    set_vars: Mapping[str, str] | None = None,
    models: Sequence[str] = (),
    cache_dir: AnyPath | None = None,
) -> LockReport:
    """Whether a recipe's lock holds, as far as that can be told without running a step.

    Args:
        recipe: The recipe's file.
        set_vars: Values for variables of its ``vars`` block.
        models: Names or patterns of the models to check; all by default.
        cache_dir: The cache's folder; None for what the settings say.

    Raises:
        RecipeError: The recipe is not valid.
        UsageError: There is no lock, no such model, or the lock is damaged.
        FreezeflowError: A file that a step reads cannot be read.
    """
    from freezeflow.release.lock import read_lock
    from freezeflow.release.lock_check import check_lock as check
    from freezeflow.release.lock_file import lock_path

    plans = selected(load_plans(recipe, set_vars=set_vars, cache_dir=cache_dir), models)
    with open_store(cache_dir, Path(recipe).parent) as store:
        found = read_lock(lock_path(plans[0].recipe))
        return check(found, plans, store, whole=not models)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What `release` did.

    Args:
        result: How the steps ended.
        release: The release that was written; None where a step failed.
        tar: The tar file, if one was asked for.
        oci: The OCI image layout, if one was asked for.
        image: The image's digest.
    """

    result: RunResult
    release: Release | None = None
    tar: Path | None = None
    oci: Path | None = None
    image: str = ""


def release(
    recipe: AnyPath,
    to: AnyPath,
    *,
    set_vars: Mapping[str, str] | None = None,
    name: str = "",
    version: str = "",
    card: AnyPath | None = None,
    strict: bool = False,
    tar: bool = False,
    oci: bool = False,
    jobs: int | None = None,
    cache_dir: AnyPath | None = None,
    on_event: OnEvent | None = None,
) -> Released:
    """Makes the release folder of a recipe: artifacts, lock, verdicts, provenance, cards, sums.

    A recipe that has a lock is held to it.

    Args:
        recipe: The recipe's file.
        to: The folder; an older release there is replaced.
        set_vars: Values for variables of its ``vars`` block.
        name: What the release is called; by default as the recipe or its only model.
        version: The release's version, as its maker counts.
        card: A Markdown file for the model card, with or without front matter.
        strict: Refuse where there would be findings.
        tar: Write it as a tar file, too: ``TO.tar``.
        oci: Write it as an OCI image layout, too: ``TO.oci``.
        jobs: Steps that run side by side; None for what the settings say.
        cache_dir: The cache's folder; None for what the settings say.
        on_event: Told what happens, in this thread.

    Raises:
        RecipeError: The recipe is not valid.
        ValidationFailed: Something differs from the lock.
        NotStrict: There are findings, and `strict` forbids them.
        UsageError: The card, ``SOURCE_DATE_EPOCH`` or the lock is not right.
        FreezeflowError: Something cannot be read or written; nothing partial is left.
    """
    from freezeflow.release.contents import Wishes, gather, source_date
    from freezeflow.release.folder import NotStrict, write_release
    from freezeflow.release.lock import read_lock
    from freezeflow.release.lock_file import lock_path
    from freezeflow.release.locking import locks_of
    from freezeflow.release.packing import write_oci, write_tar
    from freezeflow.release.revision import revision_of

    source_date()
    text = "" if card is None else _read_text(Path(card))
    plans = load_plans(recipe, set_vars=set_vars, cache_dir=cache_dir)
    path = plans[0].recipe
    own_lock = read_lock(lock_path(path)) if lock_path(path).is_file() else None
    revision = revision_of(path.parent, [path, lock_path(path)])
    locked = own_lock is not None
    result = run(plans, jobs=jobs, locked=locked, cache_dir=cache_dir, on_event=on_event)
    if not result.ok:
        return Released(result=result)
    with open_store(cache_dir, path.parent) as store:
        held = own_lock or locks_of(plans, result, store)[path]
        wishes = Wishes(name=name, version=version, card=text, variables=dict(set_vars or {}))
        contents = gather(plans, result, held, revision, wishes, store)
    if strict and contents.findings:
        raise NotStrict(contents.findings)
    folder = Path(os.path.abspath(to))
    made = write_release(contents, folder)
    packed = folder.with_name(f"{folder.name}.tar") if tar else None
    layout = folder.with_name(f"{folder.name}.oci") if oci else None
    if packed is not None:
        write_tar(folder, made.files, packed, contents.date)
    image = "" if layout is None else write_oci(folder, made.files, layout, made.label)
    return Released(result=result, release=made, tar=packed, oci=layout, image=image)


def rebuild(
    recipe: AnyPath,
    *,
    set_vars: Mapping[str, str] | None = None,
    models: Sequence[str] = (),
    seconds: float | None = None,
    jobs: int | None = None,
    cache_dir: AnyPath | None = None,
    on_event: OnEvent | None = None,
) -> Rebuilt:
    """Builds a recipe again from nothing, into a folder aside, and compares to the byte.

    It is compared with the recipe's lock, else with what it has published. Where it differs it is built
    once more, which tells a result that is not deterministic from one that is another one now.

    Args:
        recipe: The recipe's file.
        set_vars: Values for variables of its ``vars`` block.
        models: Names or patterns of the models to build; all by default.
        seconds: How long each build may take; None for no limit.
        jobs: Steps that run side by side; None for what the settings say.
        cache_dir: The usual cache, where earlier models are looked up; None for what the settings say.
        on_event: Told what happens, in this thread.

    Raises:
        RecipeError: The recipe is not valid.
        UsageError: There is no such model, or nothing to compare with.
        FreezeflowError: Something cannot be read or written.
    """
    from freezeflow.engine.events import ignore
    from freezeflow.release.lock import read_lock
    from freezeflow.release.lock_file import lock_path
    from freezeflow.release.rebuild import RebuildOptions
    from freezeflow.release.rebuild import rebuild as build

    plans = selected(load_plans(recipe, set_vars=set_vars, cache_dir=cache_dir), models)
    path = plans[0].recipe
    lock = read_lock(lock_path(path)) if lock_path(path).is_file() else None
    settings = load_settings(path.parent, flags={"jobs": jobs})
    options = RebuildOptions(jobs=settings.jobs, seconds=seconds, mem_limit=settings.mem_limit)
    with open_store(cache_dir, path.parent) as store:
        return build(plans, lock, store, options, on_event or ignore)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What `verify` found.

    Args:
        verification: Of the files.
        signatures: Of the signatures beside a release.
    """

    verification: Verification
    signatures: SignatureReport

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Everything that is wrong."""
        return (*self.verification.faults, *self.signatures.faults)


def verify(
    path: AnyPath,
    *,
    keys: Sequence[AnyPath] = (),
    model_key: AnyPath | None = None,
    signatures: AnyPath | None = None,
) -> Verified:
    """Checks what was published against all that is said about it, without TensorFlow.

    Args:
        path: A release (folder, tar, OCI layout); a recipe with a lock; an exported model with its
            manifest.
        keys: Files of public ed25519 keys; each must have signed the release.
        model_key: File of the public key of a signature that model-signing made.
        signatures: The folder of the signatures; None for the one beside the release.

    Raises:
        UsageError: There is nothing to check, or a key cannot be read.
        MissingExtra: There are signatures to check, and the library is not installed.
        FreezeflowError: Something cannot be read.
    """
    from freezeflow.release.model_signing import verify_model
    from freezeflow.release.signing import (
        MODEL_SIGNATURE,
        SignatureReport,
        Signed,
        signatures_of,
        verify_signatures,
    )
    from freezeflow.release.tree import open_tree
    from freezeflow.release.verify import Fault, verify_tree
    from freezeflow.release.verify_files import verify_exported, verify_recipe

    place = Path(os.path.abspath(path))
    if place.suffix in (".yaml", ".yml", ".lock") or not _is_release(place):
        if keys or model_key:
            hint = "Signatures belong to a release: a folder, a tar file, an OCI layout."
            raise UsageError("only a release is signed", where=os.fspath(path), hint=hint)
        by_recipe = place.suffix in (".yaml", ".yml", ".lock")
        found = verify_recipe(place) if by_recipe else verify_exported(place)
        return Verified(verification=found, signatures=SignatureReport((), (), ()))
    tree = open_tree(place)
    folder = signatures_of(place) if signatures is None else Path(signatures)
    verification = verify_tree(place, tree)
    report = verify_signatures(tree, folder, [os.fspath(key) for key in keys])
    if model_key is not None:
        key = os.fspath(model_key)
        wrong = verify_model(place, folder / MODEL_SIGNATURE, key)
        if wrong:
            report = report._replace(faults=(*report.faults, Fault(MODEL_SIGNATURE, wrong)))
        else:
            good = Signed("every file (model-signing)", "", key)
            report = report._replace(signed=(*report.signed, good))
    return Verified(verification=verification, signatures=report)


def sign(
    path: AnyPath,
    *,
    key: AnyPath | None = None,
    model_key: AnyPath | None = None,
    signatures: AnyPath | None = None,
) -> list[Path]:
    """Signs a release after checking it; the signatures lie beside it.

    Args:
        path: The release.
        key: File of the private ed25519 key; None for the environment's.
        model_key: File of a private elliptic curve key: sign as model-signing does, instead.
        signatures: The folder for the signatures; None for the one beside the release.

    Returns:
        The files that were written.

    Raises:
        UsageError: There is no release or no key, or the key is of another kind.
        ValidationFailed: The release is not what it says.
        MissingExtra: The library is not installed.
        FreezeflowError: A signature cannot be written.
    """
    from freezeflow.release.model_signing import sign_model
    from freezeflow.release.signing import sign as sign_tree
    from freezeflow.release.signing import signatures_of
    from freezeflow.release.tree import open_tree
    from freezeflow.release.verify import verify_tree

    place = Path(os.path.abspath(path))
    tree = open_tree(place)
    for fault in verify_tree(place, tree).faults:
        raise ValidationFailed(
            f"{fault.where} {fault.text}", where=os.fspath(path), hint="It is not signed."
        )
    folder = signatures_of(place) if signatures is None else Path(signatures)
    if model_key is not None:
        if tree.kind != "folder":
            hint = "Sign the folder; the signature is the same."
            raise UsageError("model-signing signs folders", where=os.fspath(path), hint=hint)
        return [sign_model(place, folder, os.fspath(model_key))]
    return sign_tree(tree, folder, None if key is None else os.fspath(key))


# ---------------------------------------------------------------- what the functions share


def _is_release(path: Path) -> bool:
    """Whether a path is to be read as a release: also one that is damaged."""
    if path.is_dir():
        names = ("release.json", "SHA256SUMS", "oci-layout", "index.json")
        return any((path / name).exists() for name in names)
    return path.suffix == ".tar"


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from None
