"""How to train, whatever the model."""

import math
from dataclasses import dataclass
from typing import Literal

from nacre.errors import ConfigError
from nacre.schedules import Schedule
from nacre.seeds import LARGEST_SEED

FREE_TO_CHANGE = frozenset({"steps", "epochs", "log_every", "sample_every", "checkpoint_every", "keep", "device"})
"""What a resumed run may change: how long it goes on, and what it writes down."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train, whatever the model.

    Args:
        steps: length of the run in steps; a step is one batch. By default what the model recommends for the data.
        epochs: length of the run in passes over the training images, instead of steps.
        batch_size: items in a step. By default what the model recommends.
        accumulate: micro-batches that a batch is cut into to save memory; the gradient is their mean.
        lr: learning rate of every optimizer, instead of the model's own.
        lr_schedule: how the learning rate falls over the run: "constant", "linear" or "cosine" down to 0.
        warmup: steps over which the learning rate grows from 0.
        clip: largest norm of a gradient (of all the parameters of one objective); by default it is not clipped.
        ema: decay of the moving average of the weights that samples and results come from; 0 for none.
        seed: of everything random: initial weights, order of the data, noise.
        device: "auto", "cpu", "cuda", "cuda:1", "mps" …
        precision: "fp32", or "bf16" for matrix products and convolutions in bfloat16.
        compile: compile the gradients with torch.compile: "on" or "off".
        log_every: steps between two lines of the log, each the mean over the steps since the last.
        sample_every: steps between two sample grids; 0 for none.
        checkpoint_every: steps between two checkpoints.
        keep: checkpoints to keep, besides the best.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int | None = None
    accumulate: int = 1
    lr: float | None = None
    lr_schedule: Schedule = "constant"
    warmup: int = 0
    clip: float | None = None
    ema: float = 0.999
    seed: int = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: Literal["on", "off"] = "off"
    log_every: int = 100
    sample_every: int = 1000
    checkpoint_every: int = 1000
    keep: int = 3

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ConfigError: a value is out of its range.
        """
        for name in (
            "steps",
            "epochs",
            "batch_size",
            "accumulate",
            "lr",
            "clip",
            "log_every",
            "checkpoint_every",
            "keep",
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{flag(name)} must be greater than 0 and finite, got {value}.")
        for name in ("warmup", "sample_every"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{flag(name)} must be 0 or greater, got {getattr(self, name)}.")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"--ema must be in [0, 1), got {self.ema}; 0 switches the average off.")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ConfigError(f"--seed must be from 0 to {LARGEST_SEED}, got {self.seed}.")
        if self.steps is not None and self.epochs is not None:
            raise ConfigError(f"give --steps or --epochs, not both (got {self.steps} and {self.epochs}).")
        if self.batch_size is not None and self.batch_size % self.accumulate:
            raise ConfigError(
                f"--batch-size {self.batch_size} does not divide into --accumulate {self.accumulate} equal micro-batches."
            )


def flag(name: str) -> str:
    """A setting's name as it is typed."""
    return "--" + name.replace("_", "-")
