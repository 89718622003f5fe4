"""Networks of any shape, and DCGAN's good practices as properties of the built network."""

import pytest
import torch
from torch import nn

from nacre import networks
from nacre.errors import ConfigError
from nacre.models.gan import GAN
from nacre.run.session import build
from nacre.spec import spec

SHAPES = [(1, 4, 4), (1, 8, 8), (1, 28, 28), (3, 37, 50), (2, 9, 30), (4, 33, 47), (3, 64, 64), (1, 128, 96)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_convolutional_networks_fit_any_size(shape):
    encode, decode = networks.encoder(shape, 3, kind="conv", width=4), networks.decoder(5, shape, kind="conv", width=4)
    assert encode(torch.rand(2, *shape)).shape == (2, 3)
    assert decode(torch.randn(2, 5)).shape == (2, *shape)


@pytest.mark.parametrize("shape", [(7,), (1, 8, 8), (3, 5, 6)], ids=str)
def test_mlps_fit_any_shape(shape):
    assert networks.encoder(shape, 3, kind="mlp", hidden=(8,))(torch.rand(2, *shape)).shape == (2, 3)
    assert networks.decoder(5, shape, kind="mlp", hidden=(8,))(torch.randn(2, 5)).shape == (2, *shape)


def test_the_shape_chooses_the_network():
    assert networks.kind_for((2,)) == "mlp"
    assert networks.kind_for((1, 8, 8)) == "mlp"
    assert networks.kind_for((1, 28, 28)) == "conv"
    assert networks.kind_for((1, 28, 28), smallest=32) == "mlp"
    with pytest.raises(ConfigError, match="needs images"):
        networks.kind_for((2,), "conv")


def layers(network, kind):
    return [layer for layer in network.modules() if isinstance(layer, kind)]


@pytest.mark.parametrize("size", [28, 64])
def test_dcgan_keeps_its_good_practices(size):
    model = GAN((3, size, size), network="conv")
    networks_ = (model.generator, model.discriminator)
    pools = (nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd)
    assert not any(layers(network, pools) or layers(network, nn.Linear) for network in networks_)
    assert all(layer.stride == (2, 2) for layer in layers(model.discriminator, nn.Conv2d)[:-1])
    assert all(layer.stride == (2, 2) for layer in layers(model.generator, nn.ConvTranspose2d)[1:])
    assert len(layers(model.generator, nn.BatchNorm2d)) == len(layers(model.generator, nn.ConvTranspose2d)) - 1
    assert isinstance(list(model.generator)[-1], nn.ConvTranspose2d)
    assert isinstance(list(model.discriminator)[1], nn.LeakyReLU)
    assert len(layers(model.discriminator, nn.BatchNorm2d)) == len(layers(model.discriminator, nn.Conv2d)) - 2
    assert not layers(model.generator, nn.LeakyReLU)
    assert {layer.negative_slope for layer in layers(model.discriminator, nn.LeakyReLU)} == {0.2}
    weights = torch.cat([layer.weight.flatten() for layer in layers(model.discriminator, nn.Conv2d)])
    assert weights.mean().item() == pytest.approx(0, abs=1e-3)
    assert weights.std().item() == pytest.approx(0.02, rel=0.05)
    betas = {o.optimizer.keywords["betas"] for o in model.objectives()}
    assert betas == {(0.5, 0.999)}


@pytest.mark.parametrize(
    ("model", "parameters", "on_cpu"),
    [
        ("cyclegan", {}, torch.contiguous_format),
        ("pix2pix", {}, torch.contiguous_format),
        ("dcgan", {}, torch.channels_last),
        ("wgan_gp", {"network": "conv", "layer_norm": True}, torch.channels_last),
    ],
)
def test_images_lie_as_the_slowest_layer_likes_it(model, parameters, on_cpu):
    built = build(spec(model, parameters), (3, 32, 32), seed=0)
    assert networks.memory_format(built, torch.device("cpu")) == on_cpu
    assert networks.memory_format(built, torch.device("cuda")) == torch.channels_last
    weights = [parameter for parameter in built.parameters() if parameter.ndim == 4]
    assert all(weight.is_contiguous(memory_format=on_cpu) for weight in weights)
