"""``freezeflow completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_FREEZEFLOW_COMPLETE"


@click.command
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> int:
    """Print the completion script of SHELL; put it where the shell looks for one.

    \b
    bash: ~/.local/share/bash-completion/completions/freezeflow
    zsh:  _freezeflow in a folder of your fpath
    fish: ~/.config/fish/completions/freezeflow.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "freezeflow", _VARIABLE).source()
    # Click's script for fish cuts a description at its first comma.
    click.echo(script.replace('string split ","', 'string split -m 1 ","'))
    return 0
