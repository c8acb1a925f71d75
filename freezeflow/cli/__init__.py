"""The command line: one command, one file; nothing is imported before it is needed."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line of this process and exits."""
    try:
        from freezeflow.cli.root import root
        from freezeflow.cli.wrap import guarded
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(guarded(root))
