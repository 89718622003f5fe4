"""How to train, whatever the model."""

import math
from dataclasses import dataclass
from typing import Literal

from nacre.errors import ConfigError
from nacre.metrics.verdicts import NAMES
from nacre.schedules import Schedule
from nacre.seeds import LARGEST_SEED

FREE_TO_CHANGE = frozenset(
    {"steps", "epochs", "log_every", "sample_every", "signal_every", "stop_on", "checkpoint_every", "keep", "profile"}
    | {"device", "devices", "nodes", "strategy", "timeout"}
)
"""What a resumed run may change: how long it goes on, what it writes down, and where it runs."""

DISEASES = tuple(name for name in NAMES if name != "healthy")
"""Verdicts that can stop a run."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train, whatever the model.

    Args:
        steps: length of the run in steps; a step is one batch. By default what the model recommends for the data.
        epochs: length of the run in passes over the training images, instead of steps.
        batch_size: items in a step. By default what the model recommends.
        accumulate: micro-batches that a batch is cut into to save memory; the gradient is their mean.
        lr: learning rate of every optimizer, instead of the model's own.
        lr_schedule: how the learning rate falls over the run: "constant", "linear" or "cosine" down to 0, or "flat-linear",
            constant for one half and linear in the other. By default what the model recommends, mostly "constant".
        warmup: steps over which the learning rate grows from 0.
        clip: largest norm of a gradient (of all the parameters of one objective); by default it is not clipped.
        ema: decay of the moving average of the weights that samples and results come from; 0 for none.
        seed: of everything random: initial weights, order of the data, noise.
        device: "auto", "cpu", "cuda", "cuda:1", "mps" …
        devices: processes on this machine that share every batch, one a GPU, or on the CPU's cores; -1 for all there are.
        nodes: machines that train together; each is given the same command and its NODE_RANK, MASTER_ADDR and MASTER_PORT,
            or the command is started by torchrun or SLURM, whose numbers then count.
        strategy: how the processes talk: "nccl", "gloo", "mpi", or "auto" by the device.
        timeout: seconds after which a process that is not heard of is taken for lost; on GPUs half an hour at least where the
            others wait for the first one's looks, pictures and files, of which it gives signs elsewhere.
        sync_batchnorm: batch norms see the whole batch, not this process's part: "on", "off", or "auto", on for GPUs.
        precision: "fp32", or "bf16" for matrix products and convolutions in bfloat16.
        compile: compile the gradients with torch.compile: "on", "off", or "auto" where model and steps make it pay.
        log_every: steps between two lines of the log, each the mean over the steps since the last. By default 100, or
            more in a long run, for a thousand lines at most.
        sample_every: steps between two sample grids; 0 for none. By default 1000, or more, for fifty grids at most.
        signal_every: steps between two looks at how training stands, from which `nacre diagnose` draws its verdicts; 0 for
            none. By default 100, or more: in a long run for 64 looks at most, with small batches for 4,096 images between
            two looks, as long as there are 16. Two or three hundredths of the time.
        stop_on: verdicts that stop the run when they turn bad, such as collapse,divergence; it is saved and can be resumed.
        checkpoint_every: steps between two checkpoints.
        keep: checkpoints to keep, besides the best.
        profile: write a trace of ten steps, or of half a shorter run, to trace.json in the run, for chrome://tracing or
            Perfetto.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int | None = None
    accumulate: int = 1
    lr: float | None = None
    lr_schedule: Schedule | None = None
    warmup: int = 0
    clip: float | None = None
    ema: float = 0.999
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: Literal["auto", "nccl", "gloo", "mpi"] = "auto"
    timeout: float = 45.0
    sync_batchnorm: Literal["auto", "on", "off"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: Literal["auto", "on", "off"] = "auto"
    log_every: int | None = None
    sample_every: int | None = None
    signal_every: int | None = None
    stop_on: tuple[str, ...] = ()
    checkpoint_every: int = 1000
    keep: int = 3
    profile: bool = False

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
            "nodes",
            "timeout",
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{flag(name)} must be greater than 0 and finite, got {value}.")
        for name in ("warmup", "sample_every", "signal_every"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError(f"{flag(name)} must be 0 or greater, got {getattr(self, name)}.")
        for name in self.stop_on:
            if name not in DISEASES:
                raise ConfigError(f"--stop-on takes {', '.join(DISEASES)}; got '{name}'.")
        if self.stop_on and self.signal_every == 0:
            raise ConfigError(
                "--stop-on goes by the signals, and --signal-every 0 switches them off; drop one of them."
            )
        if self.devices < 1 and self.devices != -1:
            raise ConfigError(f"--devices must be 1 or more, or -1 for all there are, got {self.devices}.")
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
