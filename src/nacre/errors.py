"""The errors that nacre raises on purpose: each message says what was expected, what came and what to do."""

from typing import Any


class NacreError(Exception):
    """Something the user can act on. The command line prints it as one line and leaves with `exit_code`."""

    exit_code = 2
    told = False
    """Whether the user has been told already, by another process."""


class ConfigError(NacreError):
    """A flag, a parameter or a configuration file that cannot be meant."""


class DataError(NacreError):
    """A data source that is missing, empty, broken or not what it says it is."""


class ShapeError(NacreError):
    """An array or tensor of the wrong shape, type or range."""


class CapabilityError(NacreError):
    """A model was asked for something that it does not do."""


class RunError(NacreError):
    """A run directory that exists already, is in use, cannot be read or cannot be written."""

    exit_code = 1


class CheckpointError(RunError):
    """A checkpoint or model folder that is damaged, incompatible or from a newer version."""


class TrainingError(NacreError):
    """Training cannot go on: a loss or a weight is no longer a number."""

    exit_code = 1


class Interrupted(KeyboardInterrupt):
    """A signal stopped a run; it was saved first and can be resumed. A script that does not catch this ends here.

    Attributes:
        run: the run, as far as it went.
        signal: the signal's number.
    """

    def __init__(self, run: Any, signal: int) -> None:
        go_on = f"; nacre.resume({str(run.path)!r}) goes on" if run.done < run.steps else f", in {run.path}"
        super().__init__(f"stopped and saved at step {run.done:,} of {run.steps:,}{go_on}")
        self.run, self.signal = run, signal


def at_least(minimum: float, **values: float | tuple[int, ...]) -> None:
    """Check parameters by name.

    Raises:
        ConfigError: a value, or a number in a tuple of them, is under `minimum` or no number.
    """
    for name, value in values.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(number >= minimum for number in numbers):
            raise ConfigError(f"{name} must be {minimum:g} or more, got {value}.")
