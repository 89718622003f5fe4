"""Inception-v3 with the weights of the published FID, read from a file that is at hand.

The weights are TensorFlow's of 2015-12-05, as pytorch-fid and torch-fidelity distribute them: the names of tensors are those
of torchvision's `inception_v3`. The network differs from torchvision's in its pooling: means do not count the padding, and
the last block takes the maximum where the paper has the mean (Szegedy et al. 2016; Heusel et al. 2017, whose network it is).
"""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nacre.errors import CheckpointError, ConfigError
from nacre.metrics import resizing
from nacre.metrics.extractors import Card, Extractor, weights_sha256

SIZE = (299, 299)
EPSILON = 1e-3
"""Of the batch norms."""

STEM = (("1a_3x3", 2, 0), ("2a_3x3", 1, 0), ("2b_3x3", 1, 1), ("pool", 2, 0), ("3b_1x1", 1, 0), ("4a_3x3", 1, 0))
"""Name, stride and padding of the layers before the blocks."""

CHAINS = {
    "A": (("1x1",), ("5x5_1", "5x5_2"), ("3x3dbl_1", "3x3dbl_2", "3x3dbl_3"), ("_pool",)),
    "B": (("3x3",), ("3x3dbl_1", "3x3dbl_2", "3x3dbl_3")),
    "C": (
        ("1x1",),
        ("7x7_1", "7x7_2", "7x7_3"),
        ("7x7dbl_1", "7x7dbl_2", "7x7dbl_3", "7x7dbl_4", "7x7dbl_5"),
        ("_pool",),
    ),
    "D": (("3x3_1", "3x3_2"), ("7x7x3_1", "7x7x3_2", "7x7x3_3", "7x7x3_4")),
    "E": (("1x1",), ("3x3_1", "3x3_2"), ("3x3dbl_1", "3x3dbl_2", "3x3dbl_3"), ("_pool",)),
}
"""Branches of each kind of block, each a chain of convolutions. B and D halve the image in the last of each chain and in a
maximum beside them; the last convolution of E's two middle branches is a pair, `a` and `b`, side by side."""

BLOCKS = (
    ("5b", "A"), ("5c", "A"), ("5d", "A"), ("6a", "B"), ("6b", "C"), ("6c", "C"), ("6d", "C"), ("6e", "C"), ("7a", "D"),
    ("7b", "E"), ("7c", "E"),
)  # fmt: skip


class Inception(nn.Module):
    """The network, as wide as its weights: images (N, C, H, W) in [0, 1] ↦ (N, D), 2,048 with the published weights.

    Args:
        weights: by torchvision's names; a classifying head is not used.
        protocol: how images are brought to 299×299: a name of `resizing.PROTOCOLS`.

    Raises:
        ConfigError: there is no such protocol.
        CheckpointError: a tensor is missing.
    """

    def __init__(self, weights: Mapping[str, Tensor], protocol: str = "tensorflow1") -> None:
        super().__init__()
        if protocol not in resizing.PROTOCOLS:
            raise ConfigError(f"the protocol is one of {', '.join(resizing.PROTOCOLS)}, got {protocol!r}.")
        self.resize = resizing.PROTOCOLS[protocol]
        # pytorch-fid maps [0, 1] onto [-1, 1]; the others take 128 for the middle of 0..255.
        self.scale = 2.0 if protocol == "pytorch-fid" else 255 / 128
        self.units = nn.ModuleDict()
        for key in sorted(weights):
            if key.endswith(".conv.weight"):
                name = key.removesuffix(".conv.weight")
                self.units[name.replace(".", "/")] = Unit(weights, name)
        missing = [name for name in _names() if name.replace(".", "/") not in self.units]
        if missing:
            raise CheckpointError(f"these are no weights of Inception-v3: {missing[0]}.conv.weight is missing.")
        last = [part for chain in CHAINS["E"] for part in _ends("E", chain)]
        self.dim = sum(len(weights[f"Mixed_7c.branch{part}.conv.weight"]) for part in last)

    def forward(self, batch: Tensor) -> Tensor:
        x = self.scale * self.resize(resizing.with_channels(batch, 3), SIZE) - 1
        for name, stride, padding in STEM:
            x = F.max_pool2d(x, 3, 2) if name == "pool" else self.unit(f"Conv2d_{name}", x, stride, padding)
        x = F.max_pool2d(x, 3, 2)
        for name, kind in BLOCKS:
            x = self.block(f"Mixed_{name}", kind, x, last=name == "7c")
        return x.mean((2, 3))

    def block(self, name: str, kind: str, x: Tensor, last: bool) -> Tensor:
        """One block, its branches side by side."""
        halves, outputs = kind in "BD", []
        for chain in CHAINS[kind]:
            h = _blurred(x, last) if chain == ("_pool",) else x
            for part in chain[:-1]:
                h = self.unit(f"{name}.branch{part}", h)
            for part in _ends(kind, chain):
                outputs.append(
                    self.unit(f"{name}.branch{part}", h, 2, 0) if halves else self.unit(f"{name}.branch{part}", h)
                )
        return torch.cat([*outputs, F.max_pool2d(x, 3, 2)] if halves else outputs, 1)

    def unit(self, name: str, x: Tensor, stride: int = 1, padding: int | None = None) -> Tensor:
        """A convolution by its name in the file."""
        return self.units[name.replace(".", "/")](x, stride, padding)


class Unit(nn.Module):
    """A convolution, its batch norm and ReLU."""

    def __init__(self, weights: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        try:
            kernel = weights[f"{name}.conv.weight"].float()
            mean, variance, gain, shift = (
                weights[f"{name}.bn.{part}"].float() for part in ("running_mean", "running_var", "weight", "bias")
            )
        except KeyError as error:
            raise CheckpointError(f"these are no weights of Inception-v3: {error.args[0]} is missing.") from None
        self.kernel, self.mean, self.variance, self.gain, self.shift = (
            nn.Parameter(tensor.clone(), requires_grad=False) for tensor in (kernel, mean, variance, gain, shift)
        )

    def forward(self, x: Tensor, stride: int, padding: int | None) -> Tensor:
        around = (self.kernel.shape[2] // 2, self.kernel.shape[3] // 2) if padding is None else (padding, padding)
        x = F.conv2d(x, self.kernel, None, stride, around)
        return F.batch_norm(x, self.mean, self.variance, self.gain, self.shift, eps=EPSILON).relu()


def _blurred(x: Tensor, last: bool) -> Tensor:
    return F.max_pool2d(x, 3, 1, 1) if last else F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _ends(kind: str, chain: tuple[str, ...]) -> tuple[str, ...]:
    """The convolutions whose outputs a branch gives."""
    return (f"{chain[-1]}a", f"{chain[-1]}b") if kind == "E" and len(chain) > 1 else chain[-1:]


def _names() -> list[str]:
    """Of all convolutions that the network needs."""
    names = [f"Conv2d_{name}" for name, *_ in STEM if name != "pool"]
    for block, kind in BLOCKS:
        for chain in CHAINS[kind]:
            names += [f"Mixed_{block}.branch{part}" for part in (*chain[:-1], *_ends(kind, chain))]
    return names


def inception(path: Path, protocol: str = "tensorflow1") -> Extractor:
    """FID's extractor, from a file of weights that is at hand: `pt_inception-2015-12-05-6726825d.pth` or a .safetensors of it.

    Args:
        path: .pth files are read without running anything in them.
        protocol: "tensorflow1", as published; "pytorch-fid"; or "clean".

    Raises:
        ConfigError: there is no file, or no such protocol.
        CheckpointError: it cannot be read, or holds something else.
    """
    weights = _weights(path)
    network = Inception(weights, protocol)
    # The head, which the file has too, is no part of the features.
    sha256 = weights_sha256(network.state_dict())
    return Extractor(network, network.dim, Card(kind="inception-v3", sha256=sha256, protocol=protocol))


def _weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ConfigError(
            f"there is no file of Inception weights at {path}; get pt_inception-2015-12-05-6726825d.pth of pytorch-fid once."
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path} holds no tensors that can be read safely ({reason}).") from None
    if not isinstance(weights, Mapping) or not all(isinstance(each, Tensor) for each in weights.values()):
        raise CheckpointError(f"{path} holds something else than a table of tensors.")
    return dict(weights)
