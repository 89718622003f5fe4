"""What every model of a comparison is given: images, minutes or steps."""

import re
from dataclasses import dataclass
from typing import Literal, cast

from nacre.errors import ConfigError

Kind = Literal["images", "minutes", "steps"]

FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}


@dataclass(frozen=True)
class Budget:
    """The same for all models, in one of three currencies.

    "images": training items seen, copies counted; a model takes as many steps as its batches need for it.
    "minutes": of steps, on this machine and at the model's own pace, which is measured once, before training; the number of
    steps that follows is written down, so that a run can be repeated and taken up again. What else it takes (validation,
    pictures, checkpoints) is not counted; the table says how long each really took.
    "steps": batches, whatever their size.

    Attributes:
        kind: the currency.
        amount: how much of it.
    """

    kind: Kind
    amount: float

    @classmethod
    def parse(cls, words: str) -> "Budget":
        """A budget as it is typed: images=2M, minutes=10, steps=5000.

        Raises:
            ConfigError: it is none.
        """
        match = re.fullmatch(r"(images|minutes|steps)=((?:\d+\.?\d*|\.\d+)(?:e\d+)?)([kKmMbB]?)", words.strip())
        amount = float(match[2]) * FACTORS[match[3].lower()] if match else 0.0
        if match is None or amount <= 0 or (match[1] == "minutes" and match[3]):
            raise ConfigError(f"--budget takes images=2M, minutes=10 or steps=5000, got '{words}'.")
        return cls(cast(Kind, match[1]), amount)

    def steps(self, batch_size: int, pace: float) -> int:
        """Steps of a model with this batch size and this pace in seconds a step; at least one."""
        each = {"images": 1 / batch_size, "minutes": 60 / pace, "steps": 1.0}[self.kind]
        return max(1, round(self.amount * each))

    def __str__(self) -> str:
        return f"{self.kind}={self.amount:.12g}"
