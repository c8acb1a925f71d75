"""``freezeflow show``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from freezeflow import api
from freezeflow.cli import completing
from freezeflow.cli.options import one_plan, select_option, set_option


@click.command
@click.argument("recipe", type=click.Path())
@click.argument("step", shell_complete=completing.steps)
@click.option(
    "-o", "--output", "to", type=click.Path(path_type=Path), metavar="OUT.pb", help="Write it."
)
@click.option("--log", "show_log", is_flag=True, help="Its log instead.")
@select_option
@set_option
def command(
    recipe: str,
    step: str,
    to: Path | None,
    show_log: bool,
    select: tuple[str, ...],
    set_vars: dict[str, str],
) -> int:
    """Show what STEP of RECIPE gave, from the cache: its graph as text.

    With -o OUT.pb the graph is written as a GraphDef, its weights inside, for viewers.
    """
    plan = one_plan(recipe, set_vars, select)
    if show_log:
        click.echo(api.cached_log(plan, step), nl=False)
        return 0
    model = api.cached_model(plan, step)
    if to is None:
        from freezeflow.graph.text import model_lines

        click.echo_via_pager(_ended(model_lines(model)))
        return 0
    from freezeflow.graph.write import graph_def_pieces
    from freezeflow.store.files import write_atomically

    written = write_atomically(to, graph_def_pieces(model.graph))
    click.echo(f"{to}: {written.nbytes:,} bytes")
    return 0


def _ended(lines: Iterator[str]) -> Iterator[str]:
    return (f"{line}\n" for line in lines)
