"""Residual networks: the folded convolutions equal the plain ones, and every model trains with them at any size."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nacre import networks
from nacre.contract import compiled_equals_eager
from nacre.contract.subject import BATCH, Subject
from nacre.engine.settings import Training
from nacre.engine.update import Update
from nacre.errors import ConfigError
from nacre.models.wgan_gp import WGANGP
from nacre.networks.resnet import Block, ConvDown, Double, Halve, UpConv
from nacre.spec import spec

SHAPES = [(1, 4, 4), (1, 8, 8), (1, 28, 28), (3, 37, 50), (2, 9, 30), (4, 33, 47), (3, 64, 64), (1, 256, 96)]
SIZES = [(1, 1), (4, 4), (5, 7), (6, 3), (1, 6)]


def doubled_then_convolved(layer, x):
    rows, columns = layer.crop
    return layer._conv_forward(F.interpolate(x, scale_factor=2), layer.weight, layer.bias)[:, :, rows:, columns:]


def convolved_then_pooled(layer, x):
    odd = (x.shape[2] % 2, x.shape[3] % 2)
    even = F.pad(x, (odd[1], 0, odd[0], 0))
    return F.avg_pool2d(layer._conv_forward(even, layer.weight, layer.bias), 2)


def derivatives(forward, layer, x):
    """The output, its gradients, and the gradients of a gradient penalty."""
    x = x.clone().requires_grad_()
    output = forward(x)
    seen = [x, layer.weight, layer.bias]
    first = torch.autograd.grad(output.square().sum(), seen, create_graph=True)
    (slope,) = torch.autograd.grad(output.sin().sum(), x, create_graph=True)
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    return [output, *first, penalty, *torch.autograd.grad(penalty, seen)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("layer", "unfolded"),
    [
        (UpConv(3, 5), doubled_then_convolved),
        (UpConv(3, 5, crop=(1, 0)), doubled_then_convolved),
        (UpConv(3, 5, crop=(1, 1)), doubled_then_convolved),
        (ConvDown(3, 5), convolved_then_pooled),
    ],
    ids=["up", "up but a row", "up but a row and a column", "down"],
)
def test_folded_is_unfolded_with_all_its_derivatives(layer, unfolded, size):
    layer = layer.double()
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pairs = zip(derivatives(layer, layer, x), derivatives(lambda x: unfolded(layer, x), layer, x), strict=True)
    for folded, plain in pairs:
        torch.testing.assert_close(folded, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer", [UpConv(3, 5), ConvDown(3, 5)], ids=["up", "down"])
def test_the_weights_are_those_of_a_3x3_convolution(layer):
    plain = nn.Conv2d(3, 5, 3, padding=1)
    plain.load_state_dict(layer.state_dict())
    assert layer.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("crop", [(0, 0), (1, 0), (1, 1)], ids=str)
def test_shortcut_and_branch_see_the_same_pixels(crop):
    """A constant kernel's centre tap alone makes both the same."""
    x = torch.rand(2, 3, 5, 4)
    up, down = UpConv(3, 3, crop, bias=False), ConvDown(3, 3, bias=False)
    for layer in (up, down):
        nn.init.dirac_(layer.weight)
    torch.testing.assert_close(up(x), Double(crop)(x))
    torch.testing.assert_close(down(x), Halve()(x))
    assert up(x).shape[2:] == (10 - crop[0], 8 - crop[1])
    assert down(x).shape[2:] == (3, 2)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_residual_networks_fit_any_size(shape):
    for outputs in (1, 3):
        encode = networks.encoder(shape, outputs, kind="resnet", width=4)
        assert encode(torch.rand(2, *shape)).shape == (2, outputs)
    decode = networks.decoder(5, shape, kind="resnet", width=4)
    assert decode(torch.randn(2, 5)).shape == (2, *shape)


def test_at_32_pixels_they_are_the_papers():
    model = WGANGP((3, 32, 32), network="resnet", width=128, latent_dim=128)
    sizes = []
    for network in (model.generator, model.critic):
        for layer in network:
            if isinstance(layer, Block):
                layer.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape[1:])))
    model.realness(model.decode(torch.randn(2, 128)))
    up = [(128, 8, 8), (128, 16, 16), (128, 32, 32)]
    down = [(128, 16, 16), (128, 8, 8), (128, 8, 8), (128, 8, 8)]
    assert sizes == up + down
    assert len(norms(model.generator)) == 7
    assert not norms(model.critic)
    variance = model.critic[1].branch[1].weight.var().item()
    assert variance == pytest.approx(4 / (2 * 128 * 9), rel=0.02)
    assert model.critic[1].shortcut[1].weight.var().item() == pytest.approx(2 / (2 * 128), rel=0.02)


def norms(network):
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_large_images_have_fewer_channels_at_their_large_sizes():
    outputs = [layer.branch[-1].out_channels for layer in networks.decoder(5, (3, 128, 128), kind="resnet")[1:-3]]
    assert outputs == [64, 64, 64, 32, 16]


def test_vectors_have_no_residual_networks():
    with pytest.raises(ConfigError, match="'resnet' needs images"):
        networks.kind_for((2,), "resnet")


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 28, 28), (1, 33, 20)], ids=str)
@pytest.mark.parametrize("name", ["ae", "vae", "gan", "wgan_gp"])
def test_models_train_with_them(name, shape):
    subject = Subject(spec(name, {"network": "resnet", "width": 4, "latent_dim": 4}), shape, "aot_eager")
    for dtype in (torch.float32, torch.float64):
        model = subject.build(dtype)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        for objective in model.objectives():
            update = Update(model, objective, Training(steps=3, batch_size=BATCH))
            for step in range(3):
                update(step, subject.batch(dtype=dtype))
        after = list(model.parameters())
        assert all(parameter.isfinite().all() for parameter in after)
        assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["ae", "vae", "gan", "wgan_gp"])
def test_compiled_gradients_equal_eager_ones(name):
    compiled_equals_eager(Subject(spec(name, {"network": "resnet", "width": 4}), (1, 8, 7), "aot_eager"))
