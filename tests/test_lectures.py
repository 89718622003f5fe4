"""docs/lectures.md is run: every block on the page, and every number that it says one should see.

A page is read in sections; the blocks of the first are the beginning of each. A Python block goes on in the section's
namespace, a line of a `sh` block is a nacre command, and a `text` block is what both have printed since the last one. In it
"≤ x", "≥ x" and "x ± y" are tolerances, and a number without one holds to its last digit. Numbers with a decimal point in the
sentences must be among those of the section's blocks, so that none stands there unchecked.
"""

import contextlib
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from nacre.cli import COMMANDS, main

PAGE = Path(__file__).resolve().parents[1] / "docs" / "lectures.md"
NUMBER = r"[-−+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?"
CLAIM = re.compile(rf"(?P<sign>[≤≥] ?)?(?P<number>{NUMBER})(?: ± (?P<reach>{NUMBER}))?")
FENCE = re.compile(r"(?:<!-- (?P<note>.*?) -->\n)?```(?P<kind>\w*)\n(?P<body>.*?)```\n", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: "python", "sh" or "text", and whether it is one of those that take minutes."""

    kind: str
    body: str
    slow: bool


@dataclass(frozen=True)
class Section:
    """A heading, its blocks, and its sentences."""

    title: str
    blocks: tuple[Block, ...]
    prose: str


def read(page):
    """The sections of a page."""
    parts = re.split(r"^## (.+)\n", page, flags=re.MULTILINE)[1:]
    sections = []
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        blocks = [
            Block(found["kind"], found["body"], (found["note"] or "").startswith("slow"))
            for found in FENCE.finditer(body)
        ]
        sections.append(Section(title, tuple(blocks), FENCE.sub("", body)))
    return sections


def play(blocks, *, slow=False):
    """Run blocks, and hold what they print against what is written under them."""
    namespace, printed = {"__name__": "lectures"}, io.StringIO()
    for block in blocks:
        if block.slow and not slow:
            continue
        if block.kind == "text":
            compare(block.body, printed.getvalue())
            printed = io.StringIO()
            continue
        with contextlib.redirect_stdout(printed):
            if block.kind == "python":
                exec(compile(block.body, "docs/lectures.md", "exec"), namespace)
                continue
            assert block.kind == "sh", f"a block of kind '{block.kind}'"
            for line in block.body.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                assert words[0] == "nacre"
                assert main(words[1:]) == 0, line
    assert not printed.getvalue(), "what is printed last stands nowhere on the page"


def compare(written, printed):
    """Lines that should be seen against those that were."""
    expected, found = ([" ".join(line.split()) for line in text.splitlines()] for text in (written, printed))
    assert len(expected) == len(found), f"expected {expected}, found {found}"
    for claim, line in zip(expected, found, strict=True):
        match = re.fullmatch(pattern_of(claim), line)
        assert match, f"expected '{claim}', found '{line}'"
        for wanted, number in zip(CLAIM.finditer(claim), match.groups(), strict=True):
            assert holds(wanted, number), f"expected '{claim}', found '{line}'"


def pattern_of(claim):
    """The words of a line as they are, each number any number."""
    pattern, end = "", 0
    for wanted in CLAIM.finditer(claim):
        pattern, end = pattern + re.escape(claim[end : wanted.start()]) + f"({NUMBER})", wanted.end()
    return pattern + re.escape(claim[end:])


def holds(wanted, number):
    """Whether a number is what was written."""
    aim, found = value(wanted["number"]), value(number)
    if wanted["sign"]:
        return found <= aim if wanted["sign"].startswith("≤") else found >= aim
    decimals = len(wanted["number"].partition(".")[2])
    reach = value(wanted["reach"]) if wanted["reach"] else 1.01 * 10.0**-decimals if decimals else 0
    return abs(found - aim) <= reach


def value(number):
    return float(number.replace(",", "").replace("−", "-"))


SECTIONS = read(PAGE.read_text(encoding="utf-8"))
BEGINNING = SECTIONS[0].blocks


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_what_the_page_says_is_what_one_sees(section):
    play((*BEGINNING, *section.blocks) if section is not SECTIONS[0] else BEGINNING)


@pytest.mark.slow
@pytest.mark.parametrize(
    "section",
    [each for each in SECTIONS if any(block.slow for block in each.blocks)],
    ids=lambda section: section.title,
)
def test_what_takes_minutes_is_what_one_sees(section):
    play((*BEGINNING, *section.blocks), slow=True)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_no_number_stands_in_a_sentence_alone(section):
    checked = {value(number) for block in section.blocks for number in re.findall(NUMBER, block.body)}
    said = re.findall(r"(?<![\w.])[-−]?\d*\.\d+(?:e[-+]?\d+)?", section.prose)
    assert not [number for number in said if value(number) not in checked]


def test_every_command_and_every_link_on_the_page_leads_somewhere():
    page = PAGE.read_text(encoding="utf-8")
    assert {word for word in re.findall(r"nacre ([a-z][a-z-]*)", page) if f"`nacre {word}" in page} <= set(COMMANDS)
    for link, _, place in re.findall(r"\]\((?!http)([^)#]+)(#([^)]+))?", page):
        assert (PAGE.parent / link).exists(), link
        assert not place or place in slugs((PAGE.parent / link).read_text(encoding="utf-8")), place


def slugs(page):
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.+)$", page, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


GOOD = """## One

<!-- slow: a while -->
```python
print("never")
```

```python
print(f"angle {0.04:.3f} rad, V -1.3863, 1,797 digits, off by 1e-09")
```

```text
angle ≤ .05 rad, V -1.4 ± .02, 1,797 digits, off by ≤ 1e-6
```
"""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("≤ .05", "≤ .03"),
        ("± .02", "± .01"),
        ("1,797 digits, off", "1,798 digits, off"),
        ("rad, V", "rad; V"),
        ("≤ 1e-6", "≥ 1e-6"),
    ],
)
def test_a_number_that_is_wrong_fails(right, wrong):
    play(read(GOOD)[0].blocks)
    page = GOOD[: GOOD.index("```text")] + GOOD[GOOD.index("```text") :].replace(right, wrong)
    with pytest.raises(AssertionError, match="expected 'angle"):
        play(read(page)[0].blocks)
    with pytest.raises(AssertionError):
        play(read(page)[0].blocks, slow=True)
