"""Deep feature interpolation: exact where features are linear, nothing where nothing is asked for."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import nacre
from nacre.cli import main
from nacre.editing.dfi import Interpolating, interpolate_features, matched, only_where, total_variation
from nacre.editing.features import features_of
from nacre.errors import CapabilityError, CheckpointError, ShapeError
from nacre.networks.vgg import BLOCKS, VGG19, load_vgg19
from nacre.spec import spec


def pictures(count, seed=0, channels=1, size=6):
    return 0.3 + 0.4 * torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def linear(seed=3, size=6):
    weights = torch.randn(size * size, size * size, generator=torch.Generator().manual_seed(seed))
    mixing = torch.linalg.qr(weights)[0]
    return lambda x: [x.flatten(1)[:, :20] @ mixing[:20, :20], x]


def test_linear_features_make_it_exact():
    x, source, target = pictures(3), pictures(40, 1), pictures(30, 2) + 0.02
    how = Interpolating(strength=0.002, neighbours=1000, smoothness=0.0, steps=100)
    done = interpolate_features(linear(), x, source, target, how)
    expected = x + done.alpha[:, None, None, None] * (target.mean(0) - source.mean(0))
    torch.testing.assert_close(done.images, expected, rtol=0, atol=2e-4)
    assert (done.covered > 0.99).all()


def test_no_strength_changes_nothing():
    x, source, target = pictures(3), pictures(10, 1), pictures(10, 2)
    for smoothness in (0.0, 3.0):
        done = interpolate_features(linear(), x, source, target, Interpolating(strength=0.0, smoothness=smoothness))
        assert torch.equal(done.images, x)
    same = interpolate_features(linear(), x, source, source, Interpolating(smoothness=1.0))
    assert torch.equal(same.images, x)


def test_alpha_is_beta_over_the_mean_square_of_the_difference():
    x, source, target = pictures(2), pictures(20, 1), pictures(20, 2)
    done = interpolate_features(lambda x: [x], x, source, target, Interpolating(strength=0.01, neighbours=20, steps=1))
    scale = torch.cat([source, target]).square().mean().rsqrt()
    w = scale * (target.mean(0) - source.mean(0))
    torch.testing.assert_close(done.alpha, (0.01 / w.square().mean()).expand(2))


def test_only_the_nearest_of_each_set_count():
    x = torch.full((1, 1, 6, 6), 0.5)
    near, far = x + 0.01, x + 0.4
    source, target = torch.cat([near, far]), torch.cat([near + 0.02, far - 0.8])
    how = Interpolating(strength=0.001, neighbours=1, smoothness=0.0, steps=60)
    done = interpolate_features(lambda x: [x], x, source, target, how)
    torch.testing.assert_close(done.images, x + done.alpha * 0.02, rtol=0, atol=1e-3)


def test_an_edit_does_not_depend_on_its_companions():
    model = spec("gan", {"network": "conv", "width": 4}).build((1, 8, 8)).eval()
    see, x = features_of(model), pictures(3, size=8)
    how = Interpolating(steps=8, neighbours=5)
    sets = pictures(12, 1, size=8), pictures(12, 2, size=8)
    whole = interpolate_features(see, x, *sets, how)
    alone = interpolate_features(see, x[1:2], *sets, how)
    torch.testing.assert_close(whole.images[1:2], alone.images, rtol=0, atol=1e-4)
    assert not torch.equal(whole.images, x)


@pytest.mark.parametrize(
    ("name", "part"),
    [("gan", "discriminator"), ("vae", "encoder"), ("vaegan", "discriminator"), ("transfer", "classifier")],
)
def test_features_are_of_the_layers_that_a_model_uses(name, part):
    parameters = {"classes": 3} if name == "transfer" else {}
    model = spec(name, parameters).build((1, 16, 16)).eval()
    x = pictures(2, size=16).requires_grad_()
    layers = features_of(model, part)(x)
    assert all(len(layer) == 2 for layer in layers)
    (gradient,) = torch.autograd.grad(sum(layer.square().sum() for layer in layers), x)
    assert gradient.abs().sum() > 0
    assert len(features_of(model)(x)) == len(features_of(model, part)(x))


def test_a_model_without_a_judge_says_so():
    model = spec("vae").build((1, 8, 8))
    with pytest.raises(CapabilityError, match="VAE has no discriminator to take features from"):
        features_of(model, "discriminator")
    with pytest.raises(CapabilityError, match="has no discriminator, classifier or encoder"):
        features_of(nn.Linear(1, 1))
    with pytest.raises(ShapeError, match="the target set has shape"):
        interpolate_features(linear(), pictures(1), pictures(2), pictures(2, size=5))


def test_colours_and_masks():
    x = pictures(2, channels=3)
    assert torch.equal(matched(x, x), x)
    other = (0.5 * x + 0.2).clamp(0, 1)
    torch.testing.assert_close(matched(other, x), x, rtol=0, atol=1e-5)
    mask = torch.zeros(1, 1, 6, 6)
    mask[..., :3] = 1
    mixed = only_where(mask, other, x)
    assert torch.equal(mixed[..., 3:], x[..., 3:])
    torch.testing.assert_close(mixed[..., :3], other[..., :3])
    assert total_variation(torch.full((2, 3, 4, 4), 0.7)).abs().max() == 0
    step = torch.zeros(1, 1, 2, 2)
    step[..., 1] = 1.0
    assert total_variation(step).item() == pytest.approx(0.5)


def made_weights():
    generator, weights, number, inputs = torch.Generator().manual_seed(0), {}, 0, 3
    for count, channels in BLOCKS:
        for _ in range(count):
            scale = (2 / (9 * inputs)) ** 0.5
            weights[f"features.{number}.weight"] = scale * torch.randn(channels, inputs, 3, 3, generator=generator)
            weights[f"features.{number}.bias"] = torch.zeros(channels)
            number, inputs = number + 2, channels
        number += 1
    return weights


def test_vgg_is_read_from_a_file_in_torchvisions_layout(tmp_path):
    weights = made_weights()
    assert list(weights)[-2:] == ["features.28.weight", "features.28.bias"]
    head = {"classifier.0.weight": torch.zeros(2, 2)}
    save_file(weights | head, tmp_path / "vgg19.safetensors")
    torch.save(weights | head, tmp_path / "vgg19.pth")
    network = VGG19(weights)
    x = torch.rand(1, 1, 208, 208)
    layers = network(x)
    assert [tuple(layer.shape[1:]) for layer in layers] == [(256, 52, 52), (512, 26, 26), (512, 13, 13)]
    h = (x.expand(-1, 3, -1, -1) - network.mean) / network.std
    for number in (0, 2):
        h = torch.relu(nn.functional.conv2d(h, weights[f"features.{number}.weight"], padding=1))
    h = nn.functional.max_pool2d(h, 2)
    for number in (5, 7):
        h = torch.relu(nn.functional.conv2d(h, weights[f"features.{number}.weight"], padding=1))
    h = torch.relu(nn.functional.conv2d(nn.functional.max_pool2d(h, 2), weights["features.10.weight"], padding=1))
    torch.testing.assert_close(layers[0], h, rtol=1e-4, atol=1e-4)
    for name in ("vgg19.safetensors", "vgg19.pth"):
        assert torch.equal(load_vgg19(tmp_path / name).blocks[4][0].weight, network.blocks[4][0].weight)
    assert network(torch.rand(1, 3, 50, 80))[0].shape[2:] == (50, 80)  # enlarged to 200 pixels first
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_vgg19(tmp_path / "broken.pth")
    save_file({"features.0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"features.0.weight of shape \(64, 3, 3, 3\)"):
        load_vgg19(tmp_path / "other.safetensors")


def test_from_the_command_line(capsys):
    run = nacre.train("gan", out="run", hidden=(16,), latent_dim=4, steps=6, batch_size=8, sample_every=0).path
    for folder, level in (("dark", 40), ("light", 200)):
        Path(folder).mkdir()
        for number in range(12):
            values = np.random.default_rng(number).integers(level - 30, level + 30, (8, 8), np.uint8)
            Image.fromarray(values).save(f"{folder}/{number}.png")
    mask = np.zeros((8, 8), np.uint8)
    mask[2:6, 2:6] = 255
    Image.fromarray(mask).save("mask.png")
    words = [
        "edit",
        str(run),
        "dark/0.png",
        "--from",
        "dark",
        "--toward",
        "light",
        "--steps",
        "20",
        "--mask",
        "mask.png",
    ]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"][0]["alpha"] > 0
    before, after = (np.asarray(Image.open(path)).astype(int) for path in ("dark/0.png", "edited.png"))
    assert (after[mask == 0] == before[mask == 0]).all()
    assert after[mask > 0].mean() > before[mask > 0].mean() + 1
    assert main(["edit", str(run), "dark", "--from", "dark", "--toward", "light", "--steps", "2", "--out", "all"]) == 0
    assert len(list(Path("all").iterdir())) == 12
    sets = ["--from", "dark", "--toward", "light", "--steps", "1"]
    assert main(["edit", str(run), "dark/0.png", "light/0.png", "dark/1.png", *sets, "--out", "alike"]) == 0
    assert sorted(path.name for path in Path("alike").iterdir()) == ["0000-0.png", "0001-0.png", "1.png"]
    for extra, sentence in (
        (["--features", "encoder"], "GAN has no encoder"),
        (["--features", "eyes"], "--features takes auto, discriminator, classifier, encoder or vgg:FILE"),
        (["--features", "vgg:nowhere.pth"], "there are no weights of VGG-19 at nowhere.pth"),
    ):
        assert main([*words, *extra]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["edit", str(run), "dark/0.png", "--toward", "light"]) == 2
    assert "say --from SET and --toward SET" in capsys.readouterr().err
