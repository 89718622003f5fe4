"""A folder of 60,000 small images: how fast it is decoded, and how soon it is there the second time.

    python benchmarks/data.py [--count 60000] [--side 64] [--form jpeg] [--folder DIR] [--results DIR]

The folder through which a set is loaded is listed at each loading: path, size and time of every file.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import rows
from nacre.data import DataSettings, cache, jpeg, load, sources

REPEATS, FOLDERS, SOURCES = 5, 10, 64


def main() -> None:
    """Make the folder, load it, write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60_000)
    parser.add_argument("--side", type=int, default=64, help="pixels of height and width")
    parser.add_argument("--form", choices=["jpeg", "png"], default="jpeg")
    parser.add_argument("--folder", type=Path, help="where to put it; by default the system's temporary folder")
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        os.environ["NACRE_CACHE"] = f"{folder}/cache"
        settings = DataSettings(data=str(synthetic(Path(folder) / "images", asked.count, asked.side, asked.form)))
        first = seconds(lambda: load(settings))
        origin = sources.find(settings)
        key = cache.key(origin.name, settings)
        opening = [seconds(lambda: cache.find(origin.name, key, origin.stamp)) for _ in range(REPEATS)]
        again = [seconds(lambda: load(settings)) for _ in range(REPEATS)]
    values = {
        "first loading, images/s": asked.count / first,
        "opening the cache, s": statistics.median(opening),
        "loading again through the folder, s": statistics.median(again),
    }
    for name, value in values.items():
        print(f"{name}: {value:.4g}")
    protocol = (
        f"{asked.count:,} synthetic {asked.side}x{asked.side} {asked.form} files in {FOLDERS} folders, page cache warm; decoded "
        f"once by {jpeg.decoder() if asked.form == 'jpeg' else 'Pillow'}, then median of {REPEATS}: the cache's own files alone "
        "(record and map), and all of load() (listing with size and time of each file, record, split)."
    )
    path = rows.write_row(
        f"data-{asked.form}", protocol, values, [0], asked.count, results=asked.results, opening=opening, again=again
    )
    print(path)


def synthetic(root: Path, count: int, side: int, form: str) -> Path:
    """Files of smooth colours under noise, which compress about as photos do."""
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (SOURCES, side // 8, side // 8, 3), np.uint8)
    smooth = np.stack([np.asarray(Image.fromarray(each).resize((side, side))) for each in small]).astype(np.int16)
    for number in range(count):
        path = root / f"class-{number % FOLDERS}" / f"{number:06}.{form}"
        path.parent.mkdir(parents=True, exist_ok=True)
        noisy = smooth[number % SOURCES] + generator.integers(-12, 13, (side, side, 3), np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=88)
    return root


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
