"""What the tests of release builds share: the real command line in a folder with a model."""

from tests.cli.conftest import cli, environment, folder, imported

__all__ = ["cli", "environment", "folder", "imported"]
