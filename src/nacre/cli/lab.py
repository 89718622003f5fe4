"""`nacre lab`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from nacre import files
from nacre.cli import flags, using
from nacre.data.progress import bar
from nacre.errors import ConfigError, RunError
from nacre.lab.page import INKS
from nacre.lab.subjects import SUBJECTS
from nacre.spec import Field, fields, summary

LAST = 3000
"""Milliseconds for which a GIF stays at its last frame."""

COLORS, STRIP = 128, 120

OWN = [
    Field("out", str | None, None, "a .gif, or a folder for PNGs; by default lab-SUBJECT.gif"),
    Field("pace", int, 120, "milliseconds that a frame of a GIF is shown"),
    Field("json", bool, False, "print what the last frame shows as JSON"),
]


def main(argv: Sequence[str]) -> int:
    """Watch theory at work."""
    name = argv[0] if argv and not argv[0].startswith("-") else None
    if name is not None and name not in SUBJECTS:
        raise ConfigError(f"the lab has {', '.join(SUBJECTS)}; got '{name}'.")
    subject: Any = SUBJECTS[name or "game"]
    parser = flags.parser("lab", _description(name), "[SUBJECT] [flags]")
    flags.add(parser, name or "game", fields(subject))
    flags.add(parser, "lab", OWN)
    parsed = flags.parse(parser, argv[1:] if name else argv)
    chosen = subject(**flags.given(parsed, fields(subject)))
    out, pace = Path(parsed.out or f"lab-{name or chosen.name}.gif"), 120 if parsed.pace is None else parsed.pace
    if out.suffix not in (".gif", "") or pace < 20:
        raise ConfigError(f"--out takes a .gif or a folder, and --pace 20 or more; got {out} and {pace}.")
    pages, told = [], []
    with bar(chosen.count, "lab", "frame", True) as shown:
        for page, facts in chosen.frames():
            pages.append(page)
            told.append(facts)
            shown.update()
    last = told[-1]
    try:
        write(out, pages, pace)
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}); take another --out.") from None
    return using.answer(parsed.json, f"{chosen.sentence(last)}; {len(pages)} frames in {out}", out=str(out), **last)


def write(out: Path, pages: Sequence[Image.Image], pace: int) -> None:
    """Pages as a GIF, which stays a while at the last, or as PNGs in a folder."""
    if not out.suffix:
        out.mkdir(parents=True, exist_ok=True)
        for index, page in enumerate(pages):
            with files.whole_file(out / f"frame-{index:04d}.png") as aside:
                page.save(aside, format="PNG")
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    palette = _palette(pages[0], pages[-1])
    flat = [page.quantize(palette=palette, dither=Image.Dither.NONE) for page in pages]
    with files.whole_file(out) as aside:
        durations = [pace] * (len(flat) - 1) + [LAST]
        flat[0].save(aside, format="GIF", save_all=True, append_images=flat[1:], duration=durations, loop=0)


def _palette(first: Image.Image, last: Image.Image) -> Image.Image:
    """One palette for all frames, so that they do not flicker: of two of them, and of the inks that lines are drawn with."""
    width, height = first.size
    both = Image.new("RGB", (width, 2 * height + STRIP))
    both.paste(first, (0, 0))
    both.paste(last, (0, height))
    for place, ink in enumerate(INKS):
        # By their own share of thin lines, they would be merged with their neighbours.
        ends = (width * place // len(INKS), 2 * height, width * (place + 1) // len(INKS), 2 * height + STRIP)
        both.paste(ink, ends)
    return both.quantize(COLORS, dither=Image.Dither.NONE)


def _description(name: str | None) -> str:
    if name:
        return summary(SUBJECTS[name])
    listed = "\n".join(f"  {each:<14} {summary(target)}" for each, target in SUBJECTS.items())
    return (
        f"Watch theory at work, as a GIF. SUBJECT is one of\n\n{listed}\n\nand 'game' if it is left out, whose flags these "
        "are; `nacre lab SUBJECT --help` has those of another."
    )
