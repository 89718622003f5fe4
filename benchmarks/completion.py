"""Image completion by models, beside fills that know nothing of the images: PSNR, SSIM and distance of features.

    python benchmarks/completion.py mnist --vae RUN [--gan RUN] [--count 100] [--figure docs/completion-mnist.png]
    python benchmarks/completion.py faces --data smiles-64.tar.gz --vae RUN --gan RUN

The runs must have been trained on the training part of the same source with the default split. Completed are the first test
images, from the center (a quarter of the image) and from a fifth of the pixels. PSNR is over the missing pixels and a mean over
images, SSIM over whole images (11 pixels, σ = 1.5). The distance is that of an extractor's features (`run/extractors.py`:
MNIST's pinned one, for other data one trained on the data's own labels), squared, as a share of the mean fill's. OpenCV's
fills, Telea and Navier-Stokes with a radius of 3, need the extra `peers`.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import nacre
import rows
from nacre.cli import sheets
from nacre.data import DataSet, DataSettings, load
from nacre.editing import masks
from nacre.editing.blend import blend, smooth_fill
from nacre.editing.inpaint import Completing, inpaint, resample
from nacre.engine import pictures
from nacre.metrics.diversity import ssim
from nacre.metrics.extractors import Extractor
from nacre.pretrained import Pretrained
from nacre.run.extractors import extractor
from nacre.run.place import stem

HOLES = ("center", "random:0.8")
SHOWN = 4
SHORT = {"nearest blended": "blended", "Navier-Stokes": "N.-Stokes", "vae search": "VAE", "gan search": "GAN"}
SHORT |= {"vae sampling": "VAE draw"}
NEAREST = 20_000
"""Training images that the nearest neighbour is looked for among."""

Fill = Callable[[Tensor, Tensor], Tensor]
"""Images and holes ↦ completed images."""


def main() -> None:
    """Complete, measure, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["mnist", "faces"])
    parser.add_argument("--data", help="the source; by default the name itself")
    parser.add_argument("--vae", type=Path, help="a run")
    parser.add_argument("--gan", type=Path, help="a run")
    parser.add_argument("--count", type=int, default=100, help="test images")
    parser.add_argument("--extractor", help="of the features; by default pinned:mnist, or labels")
    parser.add_argument("--restarts", type=int, default=4)
    parser.add_argument("--adam-steps", type=int, default=80)
    parser.add_argument("--lbfgs-steps", type=int, default=20)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    dataset = load(DataSettings(data=asked.data or asked.name))
    how = Completing(restarts=asked.restarts, adam_steps=asked.adam_steps, lbfgs_steps=asked.lbfgs_steps)
    models = {name: nacre.load(path) for name, path in (("vae", asked.vae), ("gan", asked.gan)) if path}
    fills = {**plain_fills(dataset), **model_fills(models, how)}
    see = extractor(dataset, asked.extractor or ("pinned:mnist" if asked.name == "mnist" else "labels"))
    x = floats(dataset, dataset.rows("test")[: asked.count])
    values, seconds, shown = {}, {}, []
    for mask in HOLES:
        hole = masks.named(mask, (x.shape[2], x.shape[3]), len(x))
        made: dict[str, Tensor] = {}
        for name, fill in fills.items():
            begun = time.perf_counter()
            made[name] = fill(x, hole).clamp(0, 1)
            seconds[f"{mask}, {name}"] = (time.perf_counter() - begun) / len(x)
            assert torch.equal(made[name][~hole[:, None].expand_as(x)], x[~hole[:, None].expand_as(x)])
        for name, figures in measured(x, hole, made, see).items():
            values |= {f"{mask}, {name}, {metric}": value for metric, value in figures.items()}
            print(
                mask, name, {metric: round(float(np.mean(value)), 4) for metric, value in figures.items()}, flush=True
            )
        shown.append(torch.stack([x, torch.where(hole[:, None], 0.5, x), *made.values()], 1)[:SHOWN])
    if asked.figure:
        pages = [figure(each, ["original", "missing", *fills]) for each in shown]
        pictures.save(asked.figure, np.concatenate(pages))
    protocol = (
        f"The first {len(x)} test images of {stem(dataset.source)}; masks center and random:0.8, seed 0. Search: {how}. Runs: "
        + "; ".join(f"{name}: {model.spec.name}, {model.facts.get('steps')} steps" for name, model in models.items())
        + f". PSNR over missing pixels, dB, mean over images; SSIM over whole images; features: {see.name}, squared distance as "
        "a share of the mean fill's."
    )
    means = {name: float(np.mean(value)) for name, value in values.items()}
    errors = {name: float(np.std(value, ddof=1) / len(x) ** 0.5) for name, value in values.items()}
    path = rows.write_row(
        f"completion-{asked.name}",
        protocol,
        means,
        [0],
        len(x),
        results=asked.results,
        standard_errors=errors,
        seconds_an_image=seconds,
    )
    print(path)


def figure(images: Tensor, names: list[str]) -> np.ndarray:
    """Images (N, K, C, H, W), a row for each and a column for each fill, with the fills' names at the foot."""
    captions = [""] * (len(images) - 1) * len(names) + [SHORT.get(name, name) for name in names]
    return sheets.captioned(images.flatten(0, 1), captions, len(names))


def floats(dataset: DataSet, which: np.ndarray) -> Tensor:
    """Images in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(dataset.items[np.sort(which)])).float() / 255


def plain_fills(dataset: DataSet) -> dict[str, Fill]:
    """Fills that know nothing, or the training images as they are."""
    train = floats(dataset, dataset.rows("train")[:NEAREST])
    mean = train.mean(0)

    def nearest(x: Tensor, hole: Tensor) -> Tensor:
        known = (~hole[:, None]).float()
        pairs = zip(x, known, strict=True)
        return torch.stack([train[((train - each).square() * seen).flatten(1).sum(1).argmin()] for each, seen in pairs])

    fills: dict[str, Fill] = {
        "mean": lambda x, hole: torch.where(hole[:, None], mean, x),
        "nearest": lambda x, hole: torch.where(hole[:, None], nearest(x, hole), x),
        "nearest blended": lambda x, hole: blend(nearest(x, hole), x, hole),
        "smooth": smooth_fill,
    }
    return fills | opencv_fills()


def opencv_fills() -> dict[str, Fill]:
    """OpenCV's two, if it is there; known pixels are put back, for it works on bytes."""
    try:
        import cv2
    except ImportError:
        return {}

    def fill(flag: int) -> Fill:
        def filled(x: Tensor, hole: Tensor) -> Tensor:
            bytes_ = (x[:, 0] * 255).round().byte().numpy()
            done = [cv2.inpaint(image, gap.byte().numpy(), 3, flag) for image, gap in zip(bytes_, hole, strict=True)]
            return torch.where(hole[:, None], torch.from_numpy(np.stack(done))[:, None].float() / 255, x)

        return filled

    return {"Telea": fill(cv2.INPAINT_TELEA), "Navier-Stokes": fill(cv2.INPAINT_NS)}


def model_fills(models: dict[str, Pretrained], how: Completing) -> dict[str, Fill]:
    """What the models do: each searches, and those with a posterior sample."""
    fills: dict[str, Fill] = {}
    for name, model in models.items():
        fills[f"{name} search"] = lambda x, hole, module=model.module: inpaint(module, x, hole, how).images[:, 0]
        if hasattr(model.module, "posterior"):
            fills[f"{name} sampling"] = lambda x, hole, module=model.module: resample(module, x, hole, chains=4).images[
                :, 0
            ]
    return fills


def measured(x: Tensor, hole: Tensor, made: dict[str, Tensor], see: Extractor) -> dict[str, dict[str, np.ndarray]]:
    """Each fill's PSNR, SSIM and share of the mean fill's distance in features, image by image."""
    there, gaps = see(x), hole[:, None].expand_as(x)
    usual = (see(made["mean"]) - there).square().sum(1).mean()
    found = {}
    for name, images in made.items():
        error = ((images - x).square() * gaps).flatten(1).sum(1) / gaps.flatten(1).sum(1)
        found[name] = {
            "PSNR": (-10 * error.clamp(min=1e-6).log10()).numpy(),
            "SSIM": ssim(images, x).numpy(),
            "features": ((see(images) - there).square().sum(1) / usual).numpy(),
        }
    return found


if __name__ == "__main__":
    main()
