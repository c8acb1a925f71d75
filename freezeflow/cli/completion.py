"""``freezeflow completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_FREEZEFLOW_COMPLETE"


@click.command
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> int:
    """Print the completion script of SHELL.

    \b
    bash: freezeflow completion bash > ~/.local/share/bash-completion/completions/freezeflow
    zsh:  freezeflow completion zsh > DIR/_freezeflow, with DIR in your fpath
    fish: freezeflow completion fish > ~/.config/fish/completions/freezeflow.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "freezeflow", _VARIABLE).source())
    return 0
