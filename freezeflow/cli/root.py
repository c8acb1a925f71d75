"""The command ``freezeflow`` itself: which commands there are."""

from __future__ import annotations

import importlib

import click

from freezeflow.suggestions import near_miss
from freezeflow.version import VERSION

# Each command with its line in the help; its module, of the same name, is imported when it is called.
COMMANDS = {
    "run": "Run recipes; what is cached is not run again.",
    "check": "Check recipes: every mistake with its line.",
    "plan": "Tell what would run, what is cached, and why.",
    "inspect": "Show what a model is, and what would stop a freeze.",
    "freeze": "Freeze a model without a recipe.",
    "diff": "Show how two models, graphs or results differ.",
    "lock": "Write down what a recipe gives, to the byte.",
    "rebuild": "Build again from nothing, and compare to the byte.",
    "release": "Make a release folder with the proof of what it is.",
    "sign": "Sign a release.",
    "verify": "Check what was published, byte by byte.",
    "init": "Write a starter recipe for a model.",
    "show": "Show what a step of a recipe gave.",
    "verdict": "Show what validations found; JSON, JUnit.",
    "replay": "Run a comparison again, on the same inputs.",
    "graph": "Draw the steps of a recipe: text, mermaid, dot.",
    "stages": "List the stages and their parameters.",
    "schema": "Print the JSON schema of recipes, for editors.",
    "cache": "Look after the cache; share it: info, gc, push, pull.",
    "report": "Put results of runs together.",
    "config": "Show the settings, and where each comes from.",
    "completion": "Print the completion script of a shell.",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, and not for the help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"freezeflow.cli.{cmd_name}")
        command: click.Command = module.command
        command.short_help = COMMANDS[cmd_name]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise _unknown(args[0], ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        from click.shell_completion import CompletionItem

        return [
            CompletionItem(name, help=line)
            for name, line in COMMANDS.items()
            if name.startswith(incomplete)
        ]


def _unknown(name: str, ctx: click.Context) -> click.UsageError:
    near = near_miss(name, COMMANDS)
    hint = f" Did you mean {near!r}?" if near else ""
    return click.UsageError(f"No such command {name!r}.{hint}", ctx=ctx)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, "-V", "--version", prog_name="freezeflow")
def root() -> None:
    """Freeze TensorFlow models by version-controlled recipes.

    \b
    freezeflow freeze MODEL -o OUT.pb     one model, at once
    freezeflow init MODEL -o RECIPE.yaml  a recipe to start from
    freezeflow run RECIPE.yaml            load, freeze, fold, validate, export

    Results go to standard output, progress to standard error. Exit codes: 0 done, 1 a stage
    failed, 2 usage, 3 invalid recipe, 4 validation failed, 5 model refused, 130 interrupted,
    141 nobody reads the output.
    """
