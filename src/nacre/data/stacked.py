"""Stacked MNIST: three random digits as the red, green and blue of one image, so that a thousand modes can be counted.

The set of Unrolled GAN, VEEGAN and PacGAN (Metz et al. 2017, Srivastava et al. 2017, Lin et al. 2018), whose protocols
differ. VEEGAN's, which PacGAN repeats: 128,000 stacks to train on, which PacGAN's code makes of MNIST's training *and* test
digits, and 26,000 samples. Unrolled GAN's: fresh stacks at every step, smaller networks, and 25,600 samples. Here the
128,000 are of the training digits alone, so that stacks of the test digits are new to every model; there are 26,000 of
these, to hold as many samples against. Digits are drawn with replacement and whatever their class, as in that code. MNIST's
classes are not equally frequent: the classes of stacks have a KL from uniform of .0043 nats, and those of 26,000 stacks,
of which a thousandth is few, .0237 ± .0010. No sampler that is right scores less.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nacre.data.arrays import ArraySource
from nacre.data.dataset import UNSAID, Listing
from nacre.data.decode import Header, Picture
from nacre.data.published import open_published
from nacre.errors import DataError

TRAIN, TEST = 128_000, 26_000
SEED = 0
"""Of which digits are stacked. The set is one and the same for everybody; `split_seed` decides who validates."""

CLASSES = tuple(f"{number:03}" for number in range(1000))
"""Names of the classes: the digits in red, green and blue, in this order."""


@dataclass(frozen=True, eq=False)
class StackedSource:
    """Stacks, each made when it is looked at.

    Args:
        digits: (M, H, W) uint8.
        triples: (N, 3) int64, the rows of `digits` that each stack has for its red, green and blue.
    """

    listing: Listing
    digits: np.ndarray
    triples: np.ndarray

    def visit(self, rows: Sequence[int]) -> Iterator["StackedImage"]:
        """The stacks of `rows`."""
        return (StackedImage(self, row) for row in rows)


@dataclass(frozen=True, eq=False)
class StackedImage:
    """Stack `row` of a source."""

    source: StackedSource
    row: int

    def header(self) -> Header:
        """What every stack is."""
        _, height, width = self.source.digits.shape
        return Header((width, height), "RGB")

    def picture(self) -> Picture:
        """Three digits as (H, W, 3) uint8."""
        planes = self.source.digits[self.source.triples[self.row]]
        return Picture(np.moveaxis(planes, 0, 2), "RGB")


def open_stacked(folder: Path, progress: bool) -> StackedSource:
    """Stacks of MNIST's digits, which lie in `folder` or are downloaded there: `TRAIN` to train on and `TEST` to test.

    Labels are 100 r + 10 g + b; a stack is called after the three images that it is made of, such as "12-59999-0", numbered
    as in their own file.

    Raises:
        DataError: a file of MNIST is not the published one, or is absent and cannot be downloaded.
    """
    mnist = open_published("mnist", folder, progress)
    if not isinstance(mnist, ArraySource) or mnist.listing.labels is None or mnist.listing.fixed is None:
        raise DataError(f"{folder} does not hold MNIST's training and test digits with their labels.")
    fixed = mnist.listing.fixed
    # NumPy has frozen what this generator draws: the set will be the same in every version.
    generator = np.random.RandomState(SEED)
    parts = []
    for split, count in ((UNSAID, TRAIN), (2, TEST)):
        rows = np.flatnonzero(fixed == split)
        parts.append((rows, generator.randint(0, len(rows), (count, 3))))
    triples = np.concatenate([rows[chosen] for rows, chosen in parts])
    names = ("{}-{}-{}".format(*numbers) for _, chosen in parts for numbers in chosen.tolist())
    listing = Listing(
        names=tuple(names),
        kind="digits",
        labels=mnist.listing.labels[triples] @ np.array([100, 10, 1]),
        classes=CLASSES,
        fixed=np.repeat(np.array([UNSAID, 2], np.int8), [TRAIN, TEST]),
    )
    return StackedSource(listing, mnist.images[..., 0], triples)
