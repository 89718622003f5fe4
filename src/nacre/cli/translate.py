"""`nacre translate`."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from nacre.cli import flags, using
from nacre.errors import ConfigError
from nacre.run.translation import TILE, sources, translate_file
from nacre.spec import Field

OWN = [
    Field("direction", str | None, None, "'a2b' or 'b2a'; by default the model's first"),
    Field("out", str, "translated", "a .png for one image (.gif for an animation), or a folder"),
    Field("tile", int, TILE, "pixels of a side above which an image is translated in overlapping tiles"),
]


def main(argv: Sequence[str]) -> int:
    """Translate images."""
    parser = using.parser("translate", "Translate images of one kind into another, each at its own size.", OWN)
    parser.add_argument("images", help="an image, a GIF, or a folder of images")
    parsed = flags.parse(parser, argv)
    model = using.model_of(parsed)
    direction = model.direction(parsed.direction)
    tile = TILE if parsed.tile is None else parsed.tile
    if tile < 16:
        raise ConfigError(f"--tile must be 16 pixels or more, got {tile}.")
    root, out = Path(parsed.images), Path(parsed.out or "translated")
    found = sources(root)
    if out.suffix and len(found) > 1:
        raise ConfigError(f"{root} holds {len(found)} images, and --out {out} is one file; give a folder.")
    done = []
    for source in tqdm(found, unit="image", disable=None if len(found) > 1 else True):
        done.append(translate_file(model, source, out if out.suffix else _place(out, root, source), direction, tile))
    tiles = f", {done[0].tiles} tiles" if len(done) == 1 and done[0].tiles > 1 else ""
    where = done[0].out if len(done) == 1 else out
    written = [{"source": str(each.source), "out": str(each.out), "size": list(each.size)} for each in done]
    sentence = f"{len(done)} image{'s' if len(done) > 1 else ''} translated {direction} in {where}{tiles}"
    return using.answer(parsed.json, sentence, direction=direction, files=written)


def _place(out: Path, root: Path, source: Path) -> Path:
    """Where a translation goes: under `out` as its source lies under `root`."""
    inner = source.relative_to(root) if root.is_dir() else Path(source.name)
    return out / inner.with_suffix(".gif" if source.suffix.lower() == ".gif" else ".png")
