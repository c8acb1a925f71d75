"""What freezeflow offers to Python; the command line is built on it.

    import freezeflow

    print(freezeflow.inspect("models/digits").signatures)
    freezeflow.freeze_to("models/digits", "digits.pb")
    result = freezeflow.run("pipelines/digits.yaml", on_event=print)

For whatever a user can mend, each function raises a `freezeflow.FreezeflowError` that says where and
what to do.
"""

from freezeflow.api.models import (
    CHAIN,
    FrozenFiles,
    find_source,
    freeze,
    freeze_to,
    inspect,
    load_graph,
)
from freezeflow.api.recipes import (
    Batch,
    cached_log,
    cached_model,
    choose,
    forecast,
    keep_up_to_date,
    load_batch,
    load_plans,
    load_recipes,
    load_settings,
    open_store,
    recipe_files,
    run,
    up_to_date_record,
)
from freezeflow.values import AnyPath

__all__ = [
    "CHAIN",
    "AnyPath",
    "Batch",
    "FrozenFiles",
    "cached_log",
    "cached_model",
    "choose",
    "find_source",
    "forecast",
    "freeze",
    "freeze_to",
    "inspect",
    "keep_up_to_date",
    "load_batch",
    "load_graph",
    "load_plans",
    "load_recipes",
    "load_settings",
    "open_store",
    "recipe_files",
    "run",
    "up_to_date_record",
]
