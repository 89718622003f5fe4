"""`nacre translate`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from nacre.cli import flags, using
from nacre.errors import ConfigError, DataError
from nacre.run.translation import TILE, animated, sources, translate_file
from nacre.spec import Field

OWN = [
    Field("direction", str | None, None, "'a2b' or 'b2a'; by default the model's first"),
    Field("out", str, "translated", "a .png for one image (.gif for an animation: GIF, WebP, APNG), or a folder"),
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
    if out.suffix and out.suffix.lower() not in (".png", ".gif"):
        raise ConfigError(f"--out takes a .png, a .gif for an animation, or a folder; got {out}.")
    using.check_no_run(out)
    places = {found[0]: out} if out.suffix else places_of(found, root, out)
    kept = {each.resolve() for each in found}
    if lost := [place for place in places.values() if place.resolve() in kept]:
        raise ConfigError(f"{lost[0]} is one of the images to be translated and would be lost; take another --out.")
    done, bad = [], []
    for source, place in tqdm(places.items(), unit="image", disable=None if len(found) > 1 else True):
        try:
            done.append(translate_file(model, source, place, direction, tile))
        except DataError as error:
            if len(found) == 1:
                raise
            bad.append(str(error))
    if not done:
        raise DataError(f"none of the {len(found)} images in {root} can be read; the first: {bad[0]}")
    tiles = f", {done[0].tiles} tiles" if len(done) == 1 and done[0].tiles > 1 else ""
    where = done[0].out if len(done) == 1 else out
    written = [{"source": str(each.source), "out": str(each.out), "size": list(each.size)} for each in done]
    sentence = f"{len(done)} image{'s' if len(done) > 1 else ''} translated {direction} in {where}{tiles}"
    if grey := sum(each.recoloured for each in done):
        sentence += f"; {grey} stored in colour and made grey first"
    if bad:
        sentence += f"; {len(bad)} left out: {' '.join(bad[:5])}{' …' if len(bad) > 5 else ''}"
    return using.answer(parsed.json, sentence, direction=direction, files=written, left_out=bad)


def places_of(found: list[Path], root: Path, out: Path) -> dict[Path, Path]:
    """Where each translation goes: under `out` as its source lies under `root`, as .png or .gif.

    Sources that differ by their suffix alone keep it in the name: a.jpg and a.png become a-jpg.png and a-png.png.
    """
    inner = {source: source.relative_to(root) if root.is_dir() else Path(source.name) for source in found}
    suffix = {source: ".gif" if animated(source) else ".png" for source in found}
    count = Counter(place.with_suffix("") for place in inner.values())
    return {
        source: out / place.with_suffix(suffix[source])
        if count[place.with_suffix("")] == 1
        else out / place.with_name(f"{place.stem}-{place.suffix[1:]}{suffix[source]}")
        for source, place in inner.items()
    }
