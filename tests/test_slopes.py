"""A judge's slope by matrix products is autograd's, and so are the gradients of the penalties made of it."""

import pytest
import torch
from torch import nn

from nacre import losses, networks
from nacre.networks import adversarial, slopes


def judge(activation: str, *, classes: int = 0, pack: int = 1) -> adversarial.Judge:
    """A small MLP in float64 of items of shape (2, 3)."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), *networks.mlp((6 * pack, 16, 8, max(1, classes)), ACTIVATIONS[activation]))
    return adversarial.Judge((2, 3), lambda *_: layers, classes=classes, pack=pack).double()


ACTIVATIONS = {"relu": nn.ReLU, "leaky-relu": lambda: nn.LeakyReLU(0.2), "elu": nn.ELU}
BY_CHAIN = [("relu", 0, 1), ("leaky-relu", 0, 1), ("leaky-relu", 3, 1), ("relu", 0, 2)]


def given(activation: str, classes: int, pack: int) -> tuple[adversarial.Given, torch.Tensor]:
    """A judge with labels, and what it is shown."""
    network = judge(activation, classes=classes, pack=pack)
    label = torch.arange(10) % classes if classes else None
    return network.given(label), network.show(torch.randn(10, 2, 3, dtype=torch.float64))


@pytest.mark.parametrize(("activation", "classes", "pack"), BY_CHAIN)
def test_values_and_slopes_are_autograd_s(activation, classes, pack):
    verdict, shown = given(activation, classes, pack)
    assert slopes.has_chain(verdict.judge)
    values, slope = verdict.value_and_slope(shown)
    expected = losses.value_and_slope(verdict.__call__, shown)
    torch.testing.assert_close((values, slope), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("activation", "classes", "pack"), BY_CHAIN)
@pytest.mark.parametrize("name", ["gradient", "r1"])
def test_penalties_of_a_chain_have_the_gradients_of_a_double_backward(activation, classes, pack, name):
    verdict, shown = given(activation, classes, pack)

    def gradients(critic):
        if name == "r1":
            penalty, values = losses.r1_penalty(critic, shown)
        else:
            mix = torch.linspace(0, 1, len(shown), dtype=shown.dtype).view(-1, 1)
            penalty, values = losses.gradient_penalty(critic, shown, shown.flip(0), mix), critic(shown)
        return torch.autograd.grad(penalty + values.sum(), list(verdict.judge.parameters()))

    torch.testing.assert_close(gradients(verdict), gradients(verdict.__call__), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("activation", "label"), [("elu", None), ("relu", None)])
def test_what_has_no_chain_is_differentiated(activation, label):
    verdict = judge(activation, classes=0 if activation == "elu" else 3).given(label)
    shown = torch.randn(4, 2, 3, dtype=torch.float64)
    values, slope = verdict.value_and_slope(shown)
    step = 1e-6 * torch.randn(4, 2, 3, dtype=torch.float64)
    moved = verdict(shown + step)
    torch.testing.assert_close(moved - values, (slope * step).flatten(1).sum(1), rtol=1e-4, atol=1e-11)


def test_a_network_with_more_than_lines_and_kinks_has_no_chain():
    assert not slopes.has_chain(nn.Sequential(nn.Linear(2, 3), nn.ELU(), nn.Linear(3, 1)))
    assert not slopes.has_chain(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.ReLU(), nn.Linear(3, 1)))
    assert not slopes.has_chain(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)))
    spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 1))
    assert not slopes.has_chain(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), spectral))
