"""Results of several runs put together: shards of one batch, or runs after one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from freezeflow.errors import FreezeflowError, UsageError
from freezeflow.report.run import FORMAT
from freezeflow.report.text import count, paint, seconds, table
from freezeflow.values import Json

_ORDER = ("failed", "skipped", "ran", "cached")


class Merged(NamedTuple):
    """The results of several runs as those of one."""

    data: Mapping[str, Json]

    @property
    def ok(self) -> bool:
        return bool(self.data["ok"])


def merge(results: Sequence[tuple[str, Json]]) -> Merged:
    """Merges results as ``run --json`` prints them.

    Args:
        results: Name of a file, for messages, and what is in it; of a plan that is in several, the
            last one counts.

    Raises:
        UsageError: One of them is no result of a run.
        FreezeflowError: They are shards of a batch, and one is missing.
    """
    plans: dict[tuple[str, str], Json] = {}
    for name, data in results:
        _check(name, data)
        for plan in data["plans"]:
            plans[plan["recipe"], plan["name"]] = plan
    _check_shards(results)
    ordered = [plans[place] for place in sorted(plans)]
    steps = [step for plan in ordered for step in plan["steps"]]
    return Merged(
        {
            "format": FORMAT,
            "ok": all(step["status"] in ("ran", "cached") for step in steps),
            "nothing_to_do": all(step["status"] == "cached" for step in steps),
            "seconds": round(sum(data["seconds"] for _, data in results), 6),
            "shard": None,
            "plans": ordered,
        }
    )


def _check(name: str, data: Json) -> None:
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        what = f"its format is {found!r}" if found else "it has no format"
        hint = f"Merge what `freezeflow run --json` printed ({FORMAT})."
        raise UsageError(f"no result of a run: {what}", where=name, hint=hint)


def _check_shards(results: Sequence[tuple[str, Json]]) -> None:
    shards = {tuple(data["shard"]) for _, data in results if data["shard"]}
    counts = {of for _, of in shards}
    if len(counts) > 1:
        raise UsageError(
            f"shards of {' and of '.join(map(str, sorted(counts)))} do not belong together"
        )
    for of in counts:
        missing = [str(number) for number in range(1, of + 1) if (number, of) not in shards]
        if missing:
            what = f"of {of} shards {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
            raise FreezeflowError(what, hint="Merge the results of all of them.")


def render_merged(merged: Merged, *, color: bool = False) -> str:
    """A row for each plan in which something failed, and a line that sums up."""
    rows = []
    statuses: list[str] = []
    for plan in merged.data["plans"]:
        statuses += [step["status"] for step in plan["steps"]]
        rows += [
            [f"{plan['name']}: {step['id']}", _first_line(step)]
            for step in plan["steps"]
            if step["status"] == "failed"
        ]
    counted = [f"{statuses.count(word):,} {word}" for word in reversed(_ORDER) if word in statuses]
    head = paint("Done:" if merged.ok else "Failed:", "bold", color=color)
    plans = count(len(merged.data["plans"]), "model")
    took = seconds(merged.data["seconds"])
    total = f"{head} {plans}; steps: {', '.join(counted)}; {took} in all."
    return "\n\n".join(filter(None, [table(rows, indent="  "), total]))


def _first_line(step: Mapping[str, Any]) -> str:
    message: str = step["error"]["message"] if step["error"] else ""
    return message.partition("\n")[0]
