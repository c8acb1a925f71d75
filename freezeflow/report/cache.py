"""What is in the cache."""

from __future__ import annotations

import time
from collections.abc import Sequence

from freezeflow.engine.collecting import Cleaned
from freezeflow.report.text import count, short_path, size, table
from freezeflow.store.upkeep import Damage, Entry, StoreInfo
from freezeflow.values import Json


def render_info(info: StoreInfo) -> str:
    """Where the store is and how much it holds."""
    return table(
        [
            ["folder", str(info.folder)],
            ["results", f"{info.actions:,}"],
            ["blobs", f"{info.blobs:,}, {size(info.blob_bytes)}"],
            [
                "weights in models' own files",
                f"{info.adopted_tensors:,}, {size(info.adopted_bytes)}",
            ],
        ]
    )


def info_to_json(info: StoreInfo) -> Json:
    """``freezeflow.cache-info/1``."""
    return {
        "format": "freezeflow.cache-info/1",
        "folder": str(info.folder),
        "actions": info.actions,
        "blobs": info.blobs,
        "blob_bytes": info.blob_bytes,
        "adopted_tensors": info.adopted_tensors,
        "adopted_bytes": info.adopted_bytes,
    }


def render_entries(entries: Sequence[Entry]) -> str:
    """A row for each kept result."""
    if not entries:
        return "the cache is empty"
    return table(
        [
            ["last used", "size", "stage", "recipe: step", "key"],
            *(
                [
                    time.strftime("%Y-%m-%d", time.localtime(entry.used_ns / 1e9)),
                    size(entry.nbytes),
                    entry.stage,
                    f"{short_path(entry.recipe)}: {entry.step}",
                    entry.key.hex[:12],
                ]
                for entry in entries
            ),
        ],
        right=(1,),
    )


def entries_to_json(entries: Sequence[Entry]) -> Json:
    """``freezeflow.cache-list/1``."""
    return {
        "format": "freezeflow.cache-list/1",
        "entries": [
            {
                "key": str(entry.key),
                "recipe": entry.recipe,
                "step": entry.step,
                "stage": entry.stage,
                "used_ns": entry.used_ns,
                "bytes": entry.nbytes,
            }
            for entry in entries
        ],
    }


def damage_to_json(found: Sequence[Damage]) -> Json:
    """``freezeflow.cache-verify/1``."""
    return {
        "format": "freezeflow.cache-verify/1",
        "ok": not found,
        "damage": [{"path": str(damage.path), "message": damage.message} for damage in found],
    }


def render_cleaned(cleaned: Cleaned, *, dry_run: bool) -> str:
    """``4 results and 12 blobs deleted, 1.2 MB``."""
    gone = cleaned.collected
    parts = [count(len(gone.actions), "result"), count(len(gone.blobs), "blob")]
    if gone.logs:
        parts.append(count(len(gone.logs), "log"))
    if gone.failures:
        parts.append(count(len(gone.failures), "failed step's evidence", "failed steps' evidence"))
    if cleaned.plans:
        parts.append(count(len(cleaned.plans), "kept plan"))
    verb = "would go" if dry_run else "deleted"
    what = f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{what} {verb}, {size(gone.nbytes)}"


def cleaned_to_json(cleaned: Cleaned, *, dry_run: bool) -> Json:
    """``freezeflow.gc/1``: how much of each; bytes are those of blobs and of what failed steps left."""
    gone = cleaned.collected
    return {
        "format": "freezeflow.gc/1",
        "dry_run": dry_run,
        "actions": len(gone.actions),
        "blobs": len(gone.blobs),
        "bytes": gone.nbytes,
        "logs": len(gone.logs),
        "failures": len(gone.failures),
        "plans": len(cleaned.plans),
    }
