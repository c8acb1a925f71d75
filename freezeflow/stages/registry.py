"""The stages: ours by a literal table, others' by the entry point group ``freezeflow.stages``."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping

from freezeflow.errors import UsageError
from freezeflow.stages.stage import Stage
from freezeflow.suggestions import did_you_mean

GROUP = "freezeflow.stages"

# Name to the module whose STAGE it is, in the order in which people meet them.
BUILTIN: Mapping[str, str] = {
    "load": "freezeflow.stages.load",
    "freeze": "freezeflow.stages.freeze",
    "strip": "freezeflow.stages.strip",
    "fold": "freezeflow.stages.fold",
    "cast": "freezeflow.stages.cast",
    "quantize_weights": "freezeflow.stages.quantize_weights",
    "grappler": "freezeflow.stages.grappler",
    "validate": "freezeflow.stages.validate",
    "benchmark": "freezeflow.stages.benchmark",
    "export": "freezeflow.stages.export",
}


@functools.cache
def stage_modules() -> Mapping[str, str]:
    """Every stage's name and where its value is: ``module`` or, for plugins, ``module:attribute``.

    Raises:
        UsageError: Two packages bring a stage of one name.
    """
    from importlib.metadata import entry_points

    found = dict(BUILTIN)
    owners = dict.fromkeys(BUILTIN, "freezeflow")
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        owner = point.dist.name if point.dist else point.value
        if point.name in found:
            raise UsageError(
                f"stage {point.name!r} is brought by {owners[point.name]} and by {owner}",
                hint="Uninstall one of them, or rename the stage in its package.",
            )
        found[point.name], owners[point.name] = point.value, owner
    return found


@functools.cache
def stage_named(name: str) -> Stage:
    """The stage of that name, its module imported.

    Raises:
        UsageError: There is none, or a plugin's cannot be imported or is something else.
    """
    place = BUILTIN.get(name) or stage_modules().get(name)
    if place is None:
        raise UsageError(f"there is no stage {name!r}", hint=did_you_mean(name, stage_modules()))
    module, _, attribute = place.partition(":")
    stage = getattr(_imported(module, name), attribute or "STAGE", None)
    if not isinstance(stage, Stage) or stage.name != name:
        raise UsageError(f"the entry point {name} = {place} of {GROUP} names no stage {name!r}")
    return stage


def _imported(module: str, name: str) -> object:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if name in BUILTIN:
            raise
        hint = "Install what it needs, or uninstall the package that brings it."
        raise UsageError(f"stage {name!r} cannot be imported: {error}", hint=hint) from error
