"""The settings: what there is to choose, of which type, and what holds when nobody chooses.

A setting is a line of `SETTINGS` and a field of `Settings`. Nothing here decides what a result is.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from freezeflow.settings import kinds
from freezeflow.store.remote.options import RemoteOptions
from freezeflow.values import Json

# How the variables begin that set them.
PREFIX = "FREEZEFLOW_"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What holds for a call, all sources taken together.

    Args:
        cache_dir: The cache's folder.
        executor: Where steps run: ``local``, or the address of a pool of workers.
        jobs: Steps that run side by side.
        retries: How often a step is tried again whose process died, ran out of memory, or took too
            long.
        keep_going: When a step fails, go on with those that do not need it.
        step_timeout: Seconds after which a step in a process of its own is ended.
        mem_limit: Bytes of memory that running steps may take together; None for as much as there is.
        remote: The shared cache.
    """

    cache_dir: Path
    executor: str = "local"
    jobs: int = 1
    retries: int = 1
    keep_going: bool = False
    step_timeout: float = 4 * 3600.0
    mem_limit: int | None = None
    remote: RemoteOptions = dataclasses.field(default_factory=RemoteOptions)


class Setting(NamedTuple):
    """One thing to choose.

    Args:
        name: Its name in files; what stands before a dot is a table there.
        kind: Makes its value from what a file or a variable says.
        default: What holds when nobody chooses; a function where that depends on the machine.
        summary: One line.
        secret: Comes from the environment only, and is never shown.
    """

    name: str
    kind: Callable[[Json, Path], object]
    default: object
    summary: str
    secret: bool = False

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name.upper().replace(".", "_")


def default_cache_dir() -> Path:
    """``freezeflow`` in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "freezeflow"


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


SETTINGS = (
    Setting("cache_dir", kinds.path, default_cache_dir, "The folder of the cache."),
    Setting("executor", kinds.text, "local", "Where steps run."),
    Setting("jobs", kinds.jobs, cores, "Steps that run side by side; auto: one for each core."),
    Setting("retries", kinds.times, 1, "How often a step is tried again whose process died."),
    Setting("keep_going", kinds.flag, False, "When a step fails, go on with the others."),
    Setting("step_timeout", kinds.duration, 14400.0, "How long a step may take."),
    Setting("mem_limit", kinds.size, None, "How much memory running steps may take."),
    Setting("remote.url", kinds.address, "", "The shared cache."),
    Setting("remote.push", kinds.flag, False, "Runs write to the shared cache, too."),
    Setting("remote.timeout", kinds.duration, 10.0, "How long one exchange with it may take."),
    Setting("remote.max_file_size", kinds.size, 10**8, "Published files are shared up to this."),
    Setting("remote.trusted_keys", kinds.public_keys, (), "Whose signatures its entries need."),
    Setting("remote.signing_key", kinds.secret_key, "", "Signs what is written to it.", True),
    Setting("remote.token", kinds.text, "", "Bearer token for a shared cache over HTTP.", True),
)

BY_NAME = {setting.name: setting for setting in SETTINGS}


def make_settings(values: dict[str, object]) -> Settings:
    """The settings, from a value for each name of `SETTINGS`."""
    remote = {
        name.partition(".")[2]: value
        for name, value in values.items()
        if name.startswith("remote.")
    }
    plain = {name: value for name, value in values.items() if "." not in name}
    return Settings(**plain, remote=RemoteOptions(**remote))  # type: ignore[arg-type]
