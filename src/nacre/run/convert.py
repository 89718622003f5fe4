"""Weights of others: CycleGAN's and pix2pix' authors' PyTorch code."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nacre.errors import CheckpointError
from nacre.pretrained import Pretrained
from nacre.spec import spec

PARTS = ("a2b", "b2a", "judge_a", "judge_b")

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def convert_cyclegan(given: Mapping[str, Path], image_size: int) -> Pretrained:
    """A CycleGAN out of the authors' state dicts.

    Args:
        given: files by part: "a2b" (their G_A) and, as far as they are at hand, "b2a", "judge_a" (their D_B, which judges
            their A) and "judge_b". Parts without a file keep random weights; what needs them is left out of what it can do.
        image_size: pixels that the weights were trained at.

    Raises:
        CheckpointError: a file cannot be read, or its layout is another.
    """
    states = {part: read(path) for part, path in given.items()}
    translators = {part: laid_out(states[part], given[part]) for part in ("a2b", "b2a") if part in states}
    facts = [described(state, given[part]) for part, state in translators.items()]
    settings = facts[0]
    judges = {part: laid_out(states[part], given[part]) for part in ("judge_a", "judge_b") if part in states}
    if judges:
        judge, weights = next(iter(judges.items()))
        settings = {**settings, **of_judge(weights, given[judge])}
    shape = (settings.pop("inputs"), image_size, image_size)
    chosen = spec("cyclegan", {**settings, "pool": 0})
    module: nn.Module = chosen.build(shape)
    for part, state in [*translators.items(), *judges.items()]:
        wanted = module.get_submodule(part).state_dict()
        own = {name: value for name, value in state.items() if name in wanted}
        try:
            module.get_submodule(part).load_state_dict(own)
        except RuntimeError as error:
            reason = " ".join(str(error).split("\n\t")[1:2]).strip() or str(error)
            raise CheckpointError(f"{given[part]} does not fit the layout of {part} ({reason[:160]}).") from None
    directions = [direction for direction in ("a2b", "b2a") if direction in translators]
    return Pretrained(
        module, chosen, shape, {"directions": directions, "converted from": ", ".join(p.name for p in given.values())}
    )


def read(path: Path) -> dict[str, Tensor]:
    """A state dict out of a .pth or .safetensors file; nothing in it is executed.

    Raises:
        CheckpointError: it cannot be read, or holds something else.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path} is {'a folder' if path.is_dir() else 'not there'}; name a .pth or .safetensors file."
        )
    try:
        safe = path.suffix == ".safetensors"
        state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        why = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise CheckpointError(
            f"{path} cannot be read as weights{why}; a .pth or .safetensors file of names and tensors was expected."
        ) from None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state dict; a file of names and tensors was expected.")
    return {name.removeprefix("module."): value.float() for name, value in state.items()}


def laid_out(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The authors' names as ours: the same order of layers, but for statistics that their networks do not use, the dropout of
    some residual blocks, and the outermost level of a U-Net.

    Raises:
        CheckpointError: the network has batch norm.
    """
    if any(
        value.ndim == 1 and f"{_layer(name)}.bias" in state and name.endswith(".weight")
        for name, value in state.items()
    ):
        raise CheckpointError(f"{path} is of a network with batch norm; one with instance norm was expected.")
    kept = {name: value for name, value in state.items() if not name.endswith(_STATISTICS)}
    if any(name.startswith("model.model.") for name in kept):
        kept = {name.removeprefix("model."): value for name, value in kept.items()}
    return {re.sub(r"conv_block\.6\.", "conv_block.5.", name): value for name, value in kept.items()}


def described(state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """What a translator's weights say of its network.

    Raises:
        CheckpointError: they are of none that is known.
    """
    blocks = {name.split(".")[1] for name in state if ".conv_block." in name}
    if blocks:
        first, last = state["model.1.weight"], state[f"model.{len(blocks) + 17}.weight"]
        settings = {"network": "resnet", "width": len(first), "blocks": len(blocks)}
        return {**settings, "inputs": first.shape[1], "channels_b": len(last)}
    if "model.0.weight" in state and "model.3.weight" in state:
        first, last = state["model.0.weight"], state["model.3.weight"]
        # A halving and a doubling at each level.
        depth = sum(value.ndim == 4 for value in state.values()) // 2
        settings = {"network": "unet", "width": len(first), "depth": depth}
        return {**settings, "inputs": first.shape[1], "channels_b": last.shape[1]}
    raise CheckpointError(
        f"{path} is neither of a residual translator nor of a U-Net, as CycleGAN's code lays them out."
    )


def of_judge(state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """What a judge's weights say of its network.

    Raises:
        CheckpointError: they are of no judge of patches.
    """
    count = sum(value.ndim == 4 for value in state.values())
    if "model.0.weight" not in state or count < 3:
        raise CheckpointError(
            f"{path} is of no judge of patches (basic or n_layers), as CycleGAN's code lays them out."
        )
    return {"judge_width": len(state["model.0.weight"]), "judge_layers": count - 2}


def _layer(name: str) -> str:
    return name.rpartition(".")[0]
