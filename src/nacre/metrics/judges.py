"""Independent judges for `twosample.classifier_test`: logistic regression on features, a small network on pixels."""

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre import images
from nacre.errors import ShapeError

BATCH = 64
EPOCHS = 12
LEARNING_RATE = 2e-3
VALIDATION = 0.2
"""Share of the training items that choose the epoch."""


def logistic(train: Tensor, labels: Tensor, test: Tensor, seed: int) -> Tensor:
    """Logistic regression on standardized numbers, ‖w‖²/2 beside the sum of the losses (scikit-learn's C = 1).

    Args:
        train: (N, …), features as a rule.
        labels: (N,), 1 for real and 0 for fake.
        test: (M, …).
        seed: not used: the optimum is unique.

    Returns:
        (M,) float64 logits that an item is real.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    train, test = train.flatten(1).double(), test.flatten(1).double()
    center, scale = train.mean(0), train.std(0)
    scale = torch.where(scale > 1e-12, scale, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a judge not yet at its optimum judges all the same
        model = LogisticRegression(max_iter=500).fit(((train - center) / scale).numpy(), labels.numpy())
    return torch.from_numpy(model.decision_function(((test - center) / scale).numpy())).double()


def convolutional(train: Tensor, labels: Tensor, test: Tensor, seed: int) -> Tensor:
    """A small convolutional network on pixels, trained here, its epoch chosen on a fifth of the training items.

    Pixels are first brought to 256 levels, as those of data are: grey values between the levels would give any sample away.

    Args:
        train: (N, C, H, W) images, uint8 or in [0, 1].
        labels: (N,), 1 for real and 0 for fake.
        test: (M, C, H, W).
        seed: of the weights, of the order and of the validation items.

    Returns:
        (M,) float64 logits that an image is real.

    Raises:
        ShapeError: the items are no images.
    """
    if train.ndim != 4:
        raise ShapeError(f"the convolutional judge needs images (N, C, H, W), got {tuple(train.shape)}.")
    train, test, labels = _quantized(train), _quantized(test), labels.float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        order = torch.randperm(len(train))
        validation, rest = order.tensor_split([max(1, int(VALIDATION * len(train)))])
        network = _network(train.shape[1], tuple(train.shape[2:]))
        optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
        best, logits = torch.inf, torch.zeros(len(test))
        for _ in range(EPOCHS):
            _epoch(network, optimizer, train[rest], labels[rest])
            loss = float(F.binary_cross_entropy_with_logits(_read(network, train[validation]), labels[validation]))
            if loss < best:
                best, logits = loss, _read(network, test)
    return logits.double()


def _quantized(batch: Tensor) -> Tensor:
    """Images of 256 levels, from -1 to 1."""
    levels = batch if batch.dtype == torch.uint8 else images.to_uint8(batch)
    return levels.float() / 127.5 - 1


def _network(channels: int, size: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * math.prod(-(-side // 8) for side in size), 1))


def _epoch(network: nn.Module, optimizer: torch.optim.Optimizer, items: Tensor, labels: Tensor) -> None:
    network.train()
    for rows in torch.randperm(len(items)).tensor_split(max(1, len(items) // BATCH)):
        optimizer.zero_grad()
        torch.autograd.backward(F.binary_cross_entropy_with_logits(network(items[rows])[:, 0], labels[rows]))
        optimizer.step()


def _read(network: nn.Module, items: Tensor) -> Tensor:
    network.eval()
    with torch.inference_mode():
        return torch.cat([network(part)[:, 0] for part in items.tensor_split(max(1, len(items) // 500))])
