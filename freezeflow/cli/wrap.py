"""The one place where errors become messages and exit codes."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import sys
from collections.abc import Iterator

import click

from freezeflow.errors import FreezeflowError

INTERRUPTED = 130

# As a shell says it of a program that a closed pipe has ended.
NOBODY_READS = 141


@dataclasses.dataclass
class Wishes:
    """What the command's options say about how errors are told.

    Args:
        json: ``--json`` was given.
    """

    json: bool = False


def guarded(command: click.Command) -> int:
    """Runs a command with this process's arguments and tells whatever goes wrong.

    Returns:
        The exit code: the command's own, that of a `FreezeflowError`, 2 for wrong usage, 130 when
        interrupted, 141 when nobody reads the output any more, 1 for a bug (its report is kept in a file).
    """
    try:
        code = _code_of(command)
        sys.stdout.flush()
        sys.stderr.flush()
    except (BrokenPipeError, SystemExit) as end:
        # Click, and rich, end the process where a pipe is closed, click without saying why.
        causes = [type(cause) for cause in _causes(end)]
        if BrokenPipeError not in causes and not _is_unread():
            raise
        _mute()
        return INTERRUPTED if KeyboardInterrupt in causes else NOBODY_READS
    return code


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those in whose handling it was raised."""
    while error is not None:
        yield error
        error = error.__context__


def _is_unread() -> bool:
    """Whether standard output or standard error is a pipe without a reader."""
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _mute() -> None:
    """Sends what is yet to be flushed nowhere: at its end the interpreter would complain of the pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _code_of(command: click.Command) -> int:
    """Runs a command and tells what goes wrong; raises only where it cannot be told."""
    wishes = Wishes()
    try:
        code = command.main(prog_name="freezeflow", standalone_mode=False, obj=wishes)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except FreezeflowError as error:
        tell(error, as_json=wishes.json)
        return error.exit_code
    except BrokenPipeError:
        raise
    except Exception as bug:  # noqa: BLE001  a bug: kept in a report, told in one line
        click.echo(_report_bug(bug), err=True)
        return 1


def tell(*errors: FreezeflowError, as_json: bool = False) -> None:
    """Errors for people on standard error, and as JSON on standard output if that was asked for."""
    from freezeflow.report.errors import error_to_json, render_error

    for error in errors:
        click.echo(render_error(error, color=colored(sys.stderr)), err=True)
    if as_json:
        data = [error_to_json(error) for error in errors]
        click.echo(json.dumps({"format": "freezeflow.errors/1", "errors": data}))


def colored(stream: object) -> bool:
    """Whether a stream takes colours: a terminal, and NO_COLOR is not set."""
    is_terminal = getattr(stream, "isatty", lambda: False)()
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _report_bug(bug: Exception) -> str:
    """Keeps the traceback of a bug; returns the line for the user."""
    import platform
    import tempfile
    import time
    import traceback

    from freezeflow.version import VERSION

    text = "".join(traceback.format_exception(bug))
    report = (
        f"freezeflow {VERSION}, Python {platform.python_version()}, {platform.platform()}\n"
        f"{sys.argv[1:]}\n\n{text}"
    )
    name = f"freezeflow-bug-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    path = os.path.join(tempfile.gettempdir(), name)
    try:
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(report)
    except OSError:
        return f"{text}\nfreezeflow: a bug (its report could not be written to {path})"
    what = f"{type(bug).__name__}: {bug}".splitlines()[0]
    return f"freezeflow: a bug: {what}\n  Its report is in {path}."
