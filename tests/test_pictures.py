"""The pages of the models: the pictures that they show are there, and were made by the commands beside them."""

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "docs" / "models"


@pytest.fixture(scope="module")
def pictures(script):
    return script("pictures")


@pytest.mark.parametrize("page", sorted(MODELS.glob("*.md")), ids=lambda page: page.stem)
def test_pictures_of_a_page_are_there(page):
    for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text()):
        with Image.open(page.parent / name) as picture:
            picture.load()


def test_pages_have_the_commands_that_made_their_pictures(pictures):
    for name in pictures.PICTURES.keys() & {path.stem for path in MODELS.glob("*.png")}:
        text = (MODELS / f"{name}.md").read_text()
        assert f"]({name}.png)" in text
        assert set(pictures.PICTURES[name].commands) <= set(re.sub(r" \\\n +", " ", text).splitlines()), name


def test_pictures_are_small():
    sizes = [path.stat().st_size for path in MODELS.glob("*.png")]
    assert max(sizes) <= 60_000
    assert sum(sizes) <= 700_000


def test_a_picture_is_made_in_a_folder_of_its_own(pictures, tmp_path):
    picture = pictures.Picture(("nacre data toy:ring8 --sheet ring.png",), pictures.beside("ring.png", "ring.png"))
    pictures.make(picture, tmp_path, tmp_path / "out" / "x.png")
    with Image.open(tmp_path / "out" / "x.png") as made:
        assert made.size == (2 * 384 + pictures.MARGIN, 384)
