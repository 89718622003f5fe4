"""The pages of docs/models: every model has one, and what they name is there."""

import re
from pathlib import Path

import pytest

from nacre.models import CATALOGUE
from nacre.spec import fields, find_class

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "models"
PAGE_OF = {name: PAGES / f"{name}.md" for name in CATALOGUE} | {"dcgan": PAGES / "gan.md"}
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "nacre").rglob("*.py"))
CODE = re.compile(r"`((?:\w+\.)*\w+)`")


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_flag_is_on_the_page(name):
    named = set(re.findall(r"`--([\w-]+)`", PAGE_OF[name].read_text(encoding="utf-8")))
    assert {field.name.replace("_", "-") for field in fields(find_class(name))} <= named


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_the_page_has_a_picture_and_its_equations_lead_to_code(page):
    text = page.read_text(encoding="utf-8")
    assert re.search(r"!\[.+?\]\(.+?\)", text)
    table = re.search(r"\| equation \|.*?\n\n", text, re.DOTALL)
    names = (
        CODE.findall(" ".join(line.split("|")[-2] for line in table[0].splitlines() if "|" in line)) if table else []
    )
    assert table is None or len(names) > 3
    missing = [name for name in names if not defined(name)]
    assert not missing


def defined(name: str) -> bool:
    """Whether the source defines this function, class, method, attribute, part of a loss, or module."""
    *owners, last = name.split(".")
    if owners and not owners[-1][0].isupper():
        return f"{name.removeprefix('nacre.').replace('.', '/')}.py" in FILES or defined(last)
    if owners:
        return any(re.search(rf"(def {last}\b|self\.{last}\b|\b{last}=)", body) for body in bodies(owners[-1]))
    return bool(re.search(rf'(def|class) {last}\b|"{last}"|\b{last}=', SOURCE))


def bodies(name: str) -> list[str]:
    """What stands in each class of that name."""
    return re.findall(rf"^class {name}\b.*?(?=^\S|\Z)", SOURCE, re.DOTALL | re.MULTILINE)


FILES = {str(path.relative_to(ROOT / "src" / "nacre")) for path in (ROOT / "src" / "nacre").rglob("*.py")}
