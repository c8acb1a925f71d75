"""Options that several commands have."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import click

from freezeflow import api
from freezeflow.api import find_source, load_plans
from freezeflow.cli import completing
from freezeflow.cli.wrap import Wishes
from freezeflow.engine.options import Shard
from freezeflow.errors import UsageError
from freezeflow.plan import Plan, names_hint, selected
from freezeflow.report.text import count
from freezeflow.settings import kinds
from freezeflow.values import Json

F = TypeVar("F", bound=Callable[..., object])

Scalar = bool | int | float | str


def _note_json(ctx: click.Context, option: click.Parameter, value: bool) -> bool:
    wishes = ctx.find_object(Wishes)
    if wishes is not None:
        wishes.json = value
    return value


def json_option(function: F) -> F:
    """``--json``; errors are told as JSON, too."""
    return click.option("--json", "as_json", is_flag=True, callback=_note_json, help="Print JSON.")(
        function
    )


def set_option(function: F) -> F:
    """``--set NAME=VALUE``, any number of times, as a mapping."""
    return click.option(
        "--set",
        "set_vars",
        metavar="NAME=VALUE",
        multiple=True,
        callback=_pairs,
        help="Give a variable of the recipe a value.",
    )(function)


def select_option(function: F) -> F:
    """``--select PATTERN``, any number of times."""
    return click.option(
        "--select",
        "select",
        metavar="PATTERN",
        multiple=True,
        shell_complete=completing.models,
        help="Only models of such names, as in 'resnet*'.",
    )(function)


class Choice(NamedTuple):
    """Which models are meant.

    Args:
        select: Patterns of their names.
        changed_since: A git revision that they differ from.
        failed: Those that failed last time.
    """

    select: tuple[str, ...]
    changed_since: str | None
    failed: bool


def choosing_options(function: Callable[..., int]) -> Callable[..., int]:
    """``--select``, ``--changed-since``, ``--failed``; the function gets them as one `choice`."""

    @select_option
    @click.option(
        "--changed-since", metavar="REV", help="Only what differs from a git revision, or is new."
    )
    @click.option("--failed", is_flag=True, help="Only what did not come through last time.")
    @functools.wraps(function)
    def with_choice(
        select: tuple[str, ...], changed_since: str | None, failed: bool, **others: object
    ) -> int:
        return function(choice=Choice(select, changed_since, failed), **others)

    return with_choice


def choose(plans: Sequence[Plan], choice: Choice, shard: Shard | None = None) -> tuple[Plan, ...]:
    """Those of the plans that are meant; where not all are, standard error tells how many are."""
    chosen = api.choose(plans, **choice._asdict(), shard=shard)
    if any(choice) or shard:
        what = count(len(plans), "model is", "models are")
        click.echo(f"{len(chosen):,} of {what} selected", err=True)
    return chosen


def shard_option(function: F) -> F:
    """``--shard I/N``."""
    return click.option(
        "--shard",
        metavar="I/N",
        callback=_shard,
        help="Only the I-th of N parts, alike in size: 2/8.",
    )(function)


def _shard(ctx: click.Context, option: click.Parameter, given: str | None) -> Shard | None:
    """``I/N``, I from 1 to N."""
    if given is None:
        return None
    number, slash, of = given.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        message = f"{given!r} is not I/N with I from 1 to N, as in 2/8"
        raise click.BadParameter(message, ctx=ctx, param=option)
    return Shard(int(number), int(of))


def setting_option(
    *names: str, kind: Callable[[Json, Path], object], metavar: str, help: str
) -> Callable[[F], F]:
    """An option that chooses a setting for this call, written as in a settings file."""

    def parsed(ctx: click.Context, option: click.Parameter, given: str | None) -> object:
        if given is None:
            return None
        try:
            return kind(given, Path.cwd())
        except ValueError as error:
            # What is wrong with an address may be a password in it.
            what = "it" if kind is kinds.address else repr(given)
            raise click.BadParameter(f"{what} {error}", ctx=ctx, param=option) from None

    return click.option(*names, metavar=metavar, callback=parsed, help=help)


def one_plan(recipe: str, set_vars: dict[str, str], select: tuple[str, ...]) -> Plan:
    """The plan of a recipe, of one of its models.

    Raises:
        UsageError: More than one is selected.
    """
    plans = selected(load_plans(recipe, set_vars=set_vars), select)
    if len(plans) > 1:
        message = f"{recipe} has {len(plans)} models, and this takes one"
        raise UsageError(message, hint=f"Choose it by --select NAME. {names_hint(plans)}")
    return plans[0]


def _pairs(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", ctx=ctx, param=option)
        pairs[name] = value
    return pairs


def model_options(function: Callable[..., int]) -> Callable[..., int]:
    """``MODEL`` and which part of it is wanted; the function gets them as one `source`."""

    @click.argument("model", type=click.Path())
    @click.option(
        "--signature",
        "signatures",
        multiple=True,
        metavar="NAME",
        help="Only this; repeat for more.",
    )
    @click.option("--tags", callback=_names, metavar="A,B", help="The meta graph's; '' for none.")
    @click.option(
        "--inputs", callback=_names, metavar="A,B", help="For a graph without signatures."
    )
    @click.option(
        "--outputs", callback=_names, metavar="A,B", help="For a graph without signatures."
    )
    @click.option(
        "--checkpoint", type=click.Path(), metavar="PREFIX", help="Values for the variables."
    )
    @click.option("--averages", is_flag=True, help="Take the variables' moving averages.")
    @click.option(
        "--custom-objects", callback=_names, metavar="A,B", help="Modules, for a Keras file."
    )
    @functools.wraps(function)
    def with_source(
        model: str,
        signatures: tuple[str, ...],
        tags: tuple[str, ...] | None,
        inputs: tuple[str, ...] | None,
        outputs: tuple[str, ...] | None,
        checkpoint: str | None,
        averages: bool,
        custom_objects: tuple[str, ...] | None,
        **others: object,
    ) -> int:
        source = find_source(
            model,
            signatures=signatures or None,
            tags=tags,
            inputs=inputs or (),
            outputs=outputs or (),
            checkpoint=checkpoint,
            averages=averages,
            custom_objects=custom_objects or (),
        )
        return function(source=source, **others)

    return with_source


def _names(
    ctx: click.Context, option: click.Parameter, given: str | None
) -> tuple[str, ...] | None:
    """A comma-separated list; an empty text is the empty list."""
    if given is None:
        return None
    return tuple(name.strip() for name in given.split(",") if name.strip())


def values(
    ctx: click.Context, option: click.Parameter, given: tuple[str, ...]
) -> dict[str, Scalar]:
    """``NAME=VALUE``, any number of times: booleans and numbers as JSON writes them, else texts."""
    return {name: _scalar(text) for name, text in _pairs(ctx, option, given).items()}


def _scalar(text: str) -> Scalar:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text
