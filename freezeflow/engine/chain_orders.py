"""The plain data that goes to a worker for one model's chain and comes back: JSON, and no pickled code."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from freezeflow.engine.options import RunOptions
from freezeflow.engine.results import StepResult
from freezeflow.plan import Plan, decode_plans, encode_plans
from freezeflow.settings.settings import BY_NAME, default_cache_dir
from freezeflow.store.remote.options import RemoteOptions
from freezeflow.values import Json

# What the environment of each machine says, and no order.
_SECRETS = ("signing_key", "token")

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def this_machine() -> str:
    """A name of this machine that no other has, until it starts anew."""
    try:
        boot = _BOOT.read_text().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot}"


def chain_order(plan: Plan, cache_dir: Path, options: RunOptions) -> Json:
    """What a worker needs to run a plan.

    Args:
        plan: The plan.
        cache_dir: The cache on this machine; a worker elsewhere uses its own.
        options: How it runs; without secrets, which a worker has in its own environment.
    """
    fields = dataclasses.asdict(dataclasses.replace(options, jobs=1))
    fields["remote"] = {k: v for k, v in fields["remote"].items() if k not in _SECRETS}
    return {
        "plan": encode_plans([plan]).decode(),
        "machine": this_machine(),
        "cache_dir": str(cache_dir),
        "options": fields,
    }


def read_order(order: Json) -> tuple[Plan, Path, RunOptions]:
    """What `chain_order` described, on the machine that runs it."""
    (plan,) = decode_plans(order["plan"].encode())
    fields = dict(order["options"])
    remote = dict(fields.pop("remote"))
    remote["trusted_keys"] = tuple(remote["trusted_keys"])
    for name in _SECRETS:
        remote[name] = os.environ.get(BY_NAME[f"remote.{name}"].variable, "")
    options = RunOptions(remote=RemoteOptions(**remote), **fields)
    return plan, _cache_dir(order), options


def _cache_dir(order: Json) -> Path:
    """The caller's cache where this is the caller's machine; else this machine's."""
    if order["machine"] == this_machine():
        return Path(order["cache_dir"])
    named = os.environ.get(BY_NAME["cache_dir"].variable)
    return Path(named) if named else default_cache_dir()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChainResult:
    """What came of a chain: how each step ended, and warnings (step, or empty; message)."""

    steps: Sequence[StepResult]
    warnings: tuple[tuple[str, str], ...] = ()

    def to_data(self) -> dict[str, Any]:
        return {
            "steps": [step.to_data() for step in self.steps],
            "warnings": [list(warning) for warning in self.warnings],
        }

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> ChainResult:
        return ChainResult(
            steps=tuple(StepResult.from_data(step) for step in data["steps"]),
            warnings=tuple((step, message) for step, message in data["warnings"]),
        )
