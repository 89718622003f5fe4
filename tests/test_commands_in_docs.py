"""Every `nacre …` that the pages show is one that the program understands, as it stands there."""

import re
import shlex
from pathlib import Path

import pytest

import nacre
from nacre import cli
from nacre.cli import flags

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(?:sh|bash|console|text)?\n(.*?)^```|((?:^    .*\n)+)", re.DOTALL | re.MULTILINE)


class UnderstoodError(Exception):
    """The flags were read; what would come next is the work."""


def commands() -> list[tuple[str, str]]:
    """(page, command) of the blocks of all pages, continued lines joined."""
    found = []
    for page in PAGES:
        for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
            text = (block[1] or block[2]).replace("\\\n", " ")
            lines = (line.strip().removeprefix("$ ") for line in text.splitlines())
            found += [(str(page.relative_to(ROOT)), line) for line in lines if line.startswith("nacre ")]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands are typed: beside the examples, with the runs whose flags depend on their model."""
    place = tmp_path_factory.mktemp("typed")
    (place / "examples").symlink_to(ROOT / "examples")
    for name in ("photos", "ring"):
        nacre.train("gan", out=place / "runs" / name, steps=2, batch_size=8, hidden=(8,), network="mlp", compile="off")
    return place


@pytest.mark.parametrize(("page", "command"), commands())
def test_the_command_is_understood(page, command, folder, monkeypatch):
    parse = flags.parse

    def only_parsed(*arguments, **settings):
        parse(*arguments, **settings)
        raise UnderstoodError

    monkeypatch.setattr(flags, "parse", only_parsed)
    monkeypatch.chdir(folder)
    words = shlex.split(command, comments=True)
    with pytest.raises(SystemExit if "--help" in words else UnderstoodError):
        cli.main(words[1:])


def test_there_are_commands():
    assert len(commands()) > 50
