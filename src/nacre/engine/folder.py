"""The model folder, what is shared of a run: `config.json`, `model.safetensors` and a model card."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from nacre import __version__, files
from nacre.errors import CheckpointError
from nacre.protocols import capabilities

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"

_CARD = """\
---
library_name: nacre
tags:
- nacre
- {model}
---

# {title}

{summary}

Trained with nacre {version} on items of shape {shape}. It can: {verbs}.

```python
import nacre

model = nacre.load("path/or/hub-id")
{example}
```

## Parameters

| name | value |
|---|---|
{parameters}

## Training

{training}
"""


EXAMPLES = {
    "translate": 'images = model.translate(images, "a2b")',
    "sample": "images = model.sample(16)",
    "encode": "codes = model.encode(images)",
    "classify": "probabilities = model.classify(images)",
}
"""By what a model can do, the line of Python that its card shows: the first that it can."""


def write(
    folder: Path,
    model: nn.Module,
    *,
    name: str,
    parameters: Mapping[str, Any],
    shape: tuple[int, ...],
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder, each file whole or not at all.

    Args:
        folder: made if absent.
        model: whose parameters and buffers are saved.
        name, parameters, shape: what rebuilds it.
        facts: what the card says of the training, name by name.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    config = {
        "format": FORMAT,
        "nacre": __version__,
        "model": name,
        "parameters": dict(parameters),
        "shape": list(shape),
    }
    config["facts"] = dict(facts or {})
    # A clone a tensor: safetensors refuses weights that share memory, as tied ones do.
    weights = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.whole_file(folder / WEIGHTS) as aside:
            aside.write_bytes(save(weights, metadata={"format": "pt"}))  # save_file would make it the owner's alone
        files.write_text(folder / CARD, _card(model, config))
        files.write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"could not write the model folder {folder}: {error}.") from error


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights of a model folder.

    Raises:
        CheckpointError: a file is missing or damaged, or was written by a newer version.
    """
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} is no model folder, for it lacks {' and '.join(missing)}.")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if config["format"] > FORMAT:
            raise CheckpointError(
                f"{folder} has format {config['format']} (nacre {config.get('nacre')}) and this version reads up to "
                f"{FORMAT}; upgrade nacre."
            )
        kinds = {"model": str, "parameters": dict, "shape": list, "facts": dict}
        wrong = [key for key, kind in kinds.items() if not isinstance(config.get(key), kind)]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} in {CONFIG} is missing or of the wrong type")
        weights = load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"the model folder {folder} is damaged ({error}); save the model again.") from None
    return config, weights


def _example(model: nn.Module, verbs: Collection[str]) -> str:
    """A line of Python that uses a model."""
    if getattr(model, "words", 0):
        return 'images = model.imagine("red heart", count=4)'
    return next((line for verb, line in EXAMPLES.items() if verb in verbs), "network = model.module")


def _card(model: nn.Module, config: Mapping[str, Any]) -> str:
    verbs = capabilities(model)
    parameters = "\n".join(f"| `{name}` | {value} |" for name, value in config["parameters"].items())
    training = "\n".join(f"- {name}: {value}" for name, value in config["facts"].items())
    return _CARD.format(
        model=config["model"],
        title=type(model).__name__,
        summary=(type(model).__doc__ or "").strip().partition("\n")[0],
        version=config["nacre"],
        shape="×".join(map(str, config["shape"])),
        verbs=", ".join(verb.replace("_", " ") for verb in verbs) or "be trained",
        example=_example(model, verbs),
        parameters=parameters or "| | |",
        training=training or "Not recorded.",
    )
