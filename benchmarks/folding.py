"""What folding saves: a residual network's doubling and halving convolutions against the plain ones they equal.

    python benchmarks/folding.py [--rounds 20] [--results DIR]

One row: milliseconds forward and backward of one layer each (256 channels, 8 ↔ 16 pixels, 64 images) and of a whole step
of WGAN-GP's critic with residual networks at 32 pixels; float32 and bfloat16, channels last, folded and plain in turn.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rows
from nacre.engine import numerics
from nacre.engine.settings import Training
from nacre.engine.update import Update
from nacre.networks.resnet import ConvDown, UpConv
from nacre.run.session import build
from nacre.spec import spec

CHANNELS, PIXELS, BATCH = 256, 8, 64
UNMEASURED = 3
CPU = torch.device("cpu")

Pair: TypeAlias = tuple[Callable[[], object], Callable[[], object]]
"""The same thing folded and plain."""


class PlainUpConv(UpConv):
    """The same without folding."""

    def forward(self, x: Tensor) -> Tensor:
        doubled = F.interpolate(x, scale_factor=2)
        return F.conv2d(doubled, self.weight, self.bias, padding=1)[:, :, self.crop[0] :, self.crop[1] :]


class PlainConvDown(ConvDown):
    """The same without folding, for even sizes."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.conv2d(x, self.weight, self.bias, padding=1), 2)


PLAIN: dict[type, type] = {UpConv: PlainUpConv, ConvDown: PlainConvDown}


def main() -> None:
    """Measure, print and write the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--width", type=int, default=64, help="channels of the whole network")
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    values: dict[str, float] = {}
    with numerics.applied(CPU):
        for precision in ("fp32", "bf16"):
            for name, pair in subjects(precision, asked.width).items():
                folded, plain, ratio = compared(pair, asked.rounds)
                key = f"{name} {precision}"
                values |= {f"{key}: folded, ms": folded, f"{key}: plain, ms": plain, f"{key}: ratio": ratio}
                print(f"{key}: folded {folded:.1f} ms, plain {plain:.1f} ms, {ratio:.2f} times")
    protocol = (
        f"Medians over {asked.rounds} rounds of times and of their ratio, folded and plain in turn in one process, after "
        f"{UNMEASURED} rounds that do not count; {BATCH} random images, channels last, bf16 by autocast. A layer: forward and "
        f"the gradients of input, weight and bias at {CHANNELS} channels, {PIXELS} to {2 * PIXELS} pixels or back. A critic "
        f"step: generated images, loss, gradients and Adam at 3×32×32, width {asked.width}; its gradient penalty is in "
        "float32 at either precision."
    )
    print(rows.write_row("folding", protocol, values, [0], asked.rounds, results=asked.results, width=asked.width))


def subjects(precision: Literal["fp32", "bf16"], width: int) -> dict[str, Pair]:
    """What is measured, folded and plain."""
    return {
        "doubled, then convolved": layer(UpConv(CHANNELS, CHANNELS), PIXELS, precision),
        "convolved, then pooled": layer(ConvDown(CHANNELS, CHANNELS), 2 * PIXELS, precision),
        "critic step": critic_step(width, precision),
    }


def layer(folded: nn.Module, pixels: int, precision: Literal["fp32", "bf16"]) -> Pair:
    """Forward and backward of one layer."""
    x = torch.randn(BATCH, CHANNELS, pixels, pixels).contiguous(memory_format=torch.channels_last).requires_grad_()

    def run(module: nn.Module) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = module(x)
        torch.autograd.grad(output, [x, *module.parameters()], torch.ones_like(output))

    return partial(run, folded), partial(run, plainly(folded))


def critic_step(width: int, precision: Literal["fp32", "bf16"]) -> Pair:
    """A step of WGAN-GP's critic."""
    folded = build(spec("wgan_gp", {"network": "resnet", "width": width}), (3, 32, 32), 0)
    training = Training(steps=1, batch_size=BATCH, precision=precision)
    images = torch.rand(BATCH, 3, 32, 32)
    first, second = (Update(model, model.objectives()[0], training) for model in (folded, plainly(folded)))
    return partial(first, 0, images), partial(second, 0, images)


def plainly(module: nn.Module) -> nn.Module:
    """A copy with the same weights and nothing folded."""
    plain = copy.deepcopy(module)
    for each in plain.modules():
        each.__class__ = PLAIN.get(type(each), type(each))
    return plain


def compared(pair: Pair, rounds: int) -> tuple[float, float, float]:
    """Two functions in turn: the median milliseconds of each, and the median over rounds of the second's to the first's."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(UNMEASURED + rounds):
        for function, times in zip(pair, taken, strict=True):
            begun = time.perf_counter()
            function()
            times.append(1e3 * (time.perf_counter() - begun))
    folded, plain = (times[UNMEASURED:] for times in taken)
    ratio = statistics.median(slow / fast for fast, slow in zip(folded, plain, strict=True))
    return statistics.median(folded), statistics.median(plain), ratio


if __name__ == "__main__":
    main()
