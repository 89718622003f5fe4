"""Inversion: are a model's own samples found again, and how long does it take?

    python benchmarks/inversion.py --run runs/dcgan-32

Protocol: samples 0 to 99 of seed 1 of a 32×32 DCGAN are inverted by `nacre.editing.invert` with its defaults, which never see
their latents (the starts are other draws: 512 candidates of seed 0). A sample is found if the image of the latent differs from
it by at most 1e-3, a mean squared error of pixels in [0, 1]. Then the first 16 held-out images of the run's data are
inverted likewise, which lie out of the model's reach. Seconds are those of the wall clock, and beside them the
processor's own, which other work on the machine does not count into.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import nacre
import rows
from nacre import images
from nacre.data import DataSettings, load
from nacre.editing import Inversion, invert, latents
from nacre.engine import pictures
from nacre.run import config

SAMPLES, TIMED, HELD_OUT, TOLERANCE = 100, 64, 16, 1e-3
PICTURE = Path("docs/inversion.png")


def timed(model: nn.Module, items: Tensor) -> tuple[Inversion, float, float]:
    """The inversion of items, and its seconds by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    found = invert(model, items)
    return found, time.perf_counter() - clock, time.process_time() - processor


def held_out(run: Path) -> Tensor:
    """The first validation images of a run's data: (16, C, H, W)."""
    dataset = load(DataSettings(**config.read(run)["data"]))
    return images.to_float(torch.from_numpy(dataset.items[dataset.rows("validation")[:HELD_OUT]]))


def figures(found: Inversion) -> dict[str, float]:
    """Of the residuals: their quantiles, and the share that is small enough."""
    middle, most = found.residual.quantile(torch.tensor([0.5, 0.95])).tolist()
    return {
        "found": (found.residual <= TOLERANCE).float().mean().item(),
        "residual_median": middle,
        "residual_95th": most,
        "searches": found.searches.float().mean().item(),
    }


def main() -> None:
    """Invert, and write the row and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a trained 32×32 DCGAN")
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    pretrained = nacre.load(asked.run)
    model = pretrained.module
    codes = latents.numbered_codes(model, range(SAMPLES), seed=1)
    own, clock, processor = timed(model, latents.decode(model, codes))
    print(figures(own), clock, processor, flush=True)
    real, real_clock, real_processor = timed(model, held_out(asked.run))
    values = {
        **figures(own),
        "latent_error_median": (own.codes - codes).square().mean(1).median().item(),
        "seconds": clock,
        "processor_seconds": processor,
        "seconds_for_64": clock * TIMED / SAMPLES,
        **{f"held_out_{name}": value for name, value in figures(real).items()},
        "held_out_seconds": real_clock,
        "held_out_processor_seconds": real_processor,
    }
    print(values, flush=True)
    pairs = torch.stack([held_out(asked.run), real.remade], 1).flatten(0, 1)
    pictures.save(PICTURE, pictures.page(pairs, columns=16))
    facts: dict[str, Any] = {
        "run": pretrained.facts,
        "load_average": os.getloadavg()[0],
        "threads": torch.get_num_threads(),
    }
    place = rows.write_row(
        "inversion-dcgan-32",
        str(__doc__).split("Protocol: ")[1].strip(),
        values,
        [1],
        SAMPLES,
        results=asked.results,
        **facts,
    )
    print(place)


if __name__ == "__main__":
    main()
