"""What the user can say about data: one dataclass, from which the command line is derived."""

from dataclasses import dataclass
from typing import Literal

from nacre.errors import ConfigError
from nacre.seeds import LARGEST_SEED

Fit = Literal["crop", "pad", "squash"]

SMALLEST_SIZE, LARGEST_SIZE = 4, 2048


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where the images come from and how they are brought to one size.

    Args:
        data: the source: a folder, .zip, .tar, .npy, .npz, .parquet or idx file, shards such as
            train-{0000..0009}.tar, or digits, mnist[:DIR], fashion-mnist[:DIR],
            stacked-mnist[:DIR], idx:DIR, cifar10:DIR, binarized-mnist:DIR, toy:ring8, toy:grid25, toy:swissroll, toy:pearls.
        data_b: a second source, side B, for models that translate images of the first into its kind; by default, of a folder
            with `trainA` and `trainB`, the latter.
        image_size: pixels of height and width (4 to 2048), one number or HEIGHT,WIDTH; by default as the images are if
            all are equal and at most 128 pixels, otherwise 64.
        fit: how an image is brought to that size: "crop" resizes and cuts the centre out, "pad" adds white borders,
            "squash" ignores the aspect ratio.
        channels: 1 for grey, 3 for colour; by default 1 if every image is grey, otherwise 3.
        mirror: whether training may flip images left and right; by default for photos, not for digits or captions.
        max_bad: share of unreadable files (0 to 1) above which loading is an error.
        validation: share of the training images (0 to 1) kept aside to judge by.
        test: share of the images (0 to 1) kept aside for tests, where the source has no test split of its own.
        split_seed: which images are kept aside (0 to 2**32 - 1); also the seed of the toy densities.
        labelled: keep the labels of only so many of the images to train on, equally many a class, chosen by split_seed; all
            others, those kept aside to judge by included, lose theirs. The test images keep them.

    Raises:
        ConfigError: a value out of its range.
    """

    data: str = "digits"
    data_b: str | None = None
    image_size: int | tuple[int, int] | None = None
    fit: Fit = "crop"
    channels: Literal[1, 3] | None = None
    mirror: bool | None = None
    max_bad: float = 0.05
    validation: float = 0.05
    test: float = 0.05
    split_seed: int = 0
    labelled: int | None = None

    def __post_init__(self) -> None:
        if not all(SMALLEST_SIZE <= side <= LARGEST_SIZE for side in self.size or ()):
            raise ConfigError(f"--image-size must be {SMALLEST_SIZE} to {LARGEST_SIZE} pixels, not {self.image_size}.")
        if self.fit not in ("crop", "pad", "squash"):
            raise ConfigError(f"--fit must be crop, pad or squash, not {self.fit!r}.")
        if self.channels not in (None, 1, 3):
            raise ConfigError(f"--channels must be 1 (grey) or 3 (colour), not {self.channels}.")
        if not 0 <= self.split_seed <= LARGEST_SEED:
            raise ConfigError(f"--split-seed must be 0 to {LARGEST_SEED}, not {self.split_seed}.")
        if self.labelled is not None and self.labelled < 1:
            raise ConfigError(f"--labelled must be 1 or more, not {self.labelled}.")
        self._check_shares()

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width in pixels, if they were said."""
        if self.image_size is None or isinstance(self.image_size, tuple):
            return self.image_size
        return self.image_size, self.image_size

    def _check_shares(self) -> None:
        for flag, share in (("max-bad", self.max_bad), ("validation", self.validation), ("test", self.test)):
            if not 0 <= share <= 1:
                raise ConfigError(f"--{flag} is a share between 0 and 1, not {share}.")
        if self.validation + self.test >= 1:
            raise ConfigError("--validation and --test together keep everything aside; nothing is left to train on.")
