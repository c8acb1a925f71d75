"""What the pages tell people to type is there: every command, every option, every file."""

import re
from pathlib import Path

import click
import pytest

from freezeflow.cli.root import root

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "docs/examples/*", "examples/*/*.md", "bench/*.md")
    for path in ROOT.glob(pattern)
)

# Code: a fenced block, an indented line, or a piece of a sentence.
CODE = re.compile(r"^```.*?^```|^ {4}[^\n]*|`[^`\n]+`", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"(?:^|[\s`$(])freezeflow ([a-z][a-z-]*)([^\n`#|;&]*)")
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#]+)")


def calls(page):
    """Every command with its words: in code, or anywhere in what is code as a whole."""
    text = page.read_text().replace("\\\n", " ")
    codes = CODE.findall(text) if page.suffix == ".md" else [text]
    return [match.groups() for code in codes for match in CALL.finditer(code)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_are_there(page):
    ctx = click.Context(root)
    for name, rest in calls(page):
        command = root.get_command(ctx, name) if name in root.list_commands(ctx) else None
        assert command is not None, f"freezeflow {name}"
        words = rest.split()
        if isinstance(command, click.Group) and words and words[0] in command.commands:
            command = command.commands[words[0]]
        known = {word for param in command.params for word in param.opts + param.secondary_opts}
        for option in re.findall(r"(?<!\S)(--?[a-zA-Z][\w-]*)", rest):
            assert option in known | {"-h", "--help"}, f"freezeflow {name}{rest}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        assert (page.parent / link).exists(), link


def test_calls_are_found():
    assert ("run", " pipelines/digits.yaml") in calls(ROOT / "README.md")
    assert sum(len(calls(page)) for page in PAGES) > 50
