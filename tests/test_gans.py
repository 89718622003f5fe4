"""The adversarial models: their losses against closed forms, and what each promises of its networks."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nacre
from nacre import augment, losses, networks, seeds
from nacre.cli import main
from nacre.contract import check_model, resume_is_exact
from nacre.contract.subject import BATCH, Subject
from nacre.engine import sampling
from nacre.engine.average import Average
from nacre.engine.settings import Training
from nacre.engine.update import Update, in_motion
from nacre.errors import ConfigError, ShapeError
from nacre.models.began import BEGAN
from nacre.models.gan import DCGAN, GAN
from nacre.models.r3gan import R3GAN, Block, Down, Up
from nacre.models.wgan import WGAN
from nacre.models.wgan_gp import WGANGP
from nacre.networks import adversarial
from nacre.networks.adversarial import Judge, SpectralNorm
from nacre.protocols import Step
from nacre.spec import spec

MODELS = [GAN, DCGAN, WGAN, WGANGP, BEGAN, R3GAN]
FAR = torch.randn(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
NEAR = torch.randn(9, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3


def moment(model, objective=0, rows=BATCH, index=0):
    """A step of an objective, with the noise that it asks for in float64."""
    draws = model.objectives()[objective].draws
    noise = seeds.noises(draws, "test", rows=range(rows), dtype=torch.float64)
    return Step(torch.tensor(index), noise)


def items(shape, rows=BATCH):
    made = seeds.noise(seeds.normal(*shape), "items", rows=range(rows), dtype=torch.float64)
    return made.sigmoid() if networks.is_image(shape) else made


def layers(network, kind):
    return [layer for layer in network.modules() if isinstance(layer, kind)]


def test_losses_are_their_papers_equations():
    real, fake = FAR.sigmoid(), NEAR.sigmoid()
    close = torch.testing.assert_close
    close(losses.discriminator_loss(FAR, NEAR), -real.log().mean() - (1 - fake).log().mean())
    close(losses.minimax_generator_loss(NEAR), (1 - fake).log().mean())
    close(losses.non_saturating_generator_loss(NEAR), -fake.log().mean())
    close(losses.least_squares_discriminator_loss(FAR, NEAR), 0.5 * ((FAR - 1) ** 2).mean() + 0.5 * (NEAR**2).mean())
    close(losses.least_squares_generator_loss(NEAR), 0.5 * ((NEAR - 1) ** 2).mean())
    hinge = sum(max(0, 1 - x) for x in FAR.tolist()) / 9 + sum(max(0, 1 + x) for x in NEAR.tolist()) / 9
    assert losses.hinge_discriminator_loss(FAR, NEAR).item() == pytest.approx(hinge)
    assert losses.hinge_generator_loss(NEAR).item() == pytest.approx(-NEAR.mean().item())
    close(losses.relativistic_loss(FAR, NEAR), (1 + (NEAR - FAR).exp()).log().mean())


def test_least_squares_best_discriminator_is_the_share_of_real_items():
    shares = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    grade = shares.clone().requires_grad_()
    loss = (shares * (grade - 1) ** 2 + (1 - shares) * grade**2).sum()
    assert torch.autograd.grad(loss, grade)[0].abs().max() < 1e-12
    # Where it is 1/2 everywhere, ½ E (D - 1)² + ½ E D² is 1/4.
    half = torch.full((4,), 0.5)
    assert losses.least_squares_discriminator_loss(half, half) == 0.25


def test_a_discriminator_at_one_half_plays_for_minus_log_4():
    model = GAN((2,), loss="minimax", r1=0.0).double()
    for parameter in model.discriminator[-1].parameters():
        nn.init.zeros_(parameter)
    loss, parts = model.discriminator_loss(items((2,)), moment(model))
    assert -loss.item() == pytest.approx(-math.log(4))
    assert parts["d_real"] == parts["d_fake"] == 0.5
    assert model.generator_loss(items((2,)), moment(model, 1))[0].item() == pytest.approx(-math.log(2))


def test_gan_plays_the_game_that_its_flag_names():
    for loss in ("minimax", "non-saturating", "least-squares", "hinge"):
        torch.manual_seed(0)
        model = GAN((2,), loss=loss, r1=0.0).double()
        step, x = moment(model), items((2,))
        on_real, on_fake = model.realness(x), model.realness(model.sample(step.noise))
        expected = {
            "least-squares": losses.least_squares_discriminator_loss,
            "hinge": losses.hinge_discriminator_loss,
        }.get(loss, losses.discriminator_loss)(on_real, on_fake)
        assert model.discriminator_loss(x, step)[0].item() == pytest.approx(expected.item(), rel=1e-10)
        made = {
            "minimax": -F.softplus(on_fake).mean(),
            "non-saturating": F.softplus(-on_fake).mean(),
            "least-squares": ((on_fake - 1) ** 2).mean() / 2,
            "hinge": -on_fake.mean(),
        }[loss]
        assert model.generator_loss(x, step)[0].item() == pytest.approx(made.item(), rel=1e-10)


def test_penalties_of_a_quadratic_discriminator():
    x = items((3,))
    penalty, values = losses.r1_penalty(lambda x: 1.5 * x.square().sum(1), x)
    assert penalty.item() == pytest.approx(9 * x.square().sum(1).mean().item())
    assert torch.equal(values, 1.5 * x.square().sum(1))
    # ‖∇‖ = 3 ‖x‖: below one near the origin, where the one-sided penalty asks for nothing.
    mix, near, far = torch.ones(len(x), 1), 0.1 * F.normalize(x), 2 * F.normalize(x)
    both = [
        losses.gradient_penalty(lambda x: 1.5 * x.square().sum(1), at, at, mix, one_sided=one_sided).item()
        for at in (near, far)
        for one_sided in (False, True)
    ]
    assert both == pytest.approx([0.49, 0, 25, 25])


@pytest.mark.parametrize("model_class", [GAN, DCGAN, R3GAN])
def test_r1_is_taken_at_real_items_and_r2_at_generated_ones(model_class):
    flags = {"gamma": 0.4} if model_class is R3GAN else {"r1": 0.3, "r2": 0.7}
    flags |= {"width": 4} if model_class is DCGAN else {"network": "mlp", "hidden": (16,)}
    model = model_class((1, 5, 4), **flags).double()
    x, step = items((1, 5, 4)), moment(model)
    loss, parts = model.discriminator_loss(x, step)
    shown = {"r1": model.discriminator.show(x), "r2": model.discriminator.show(model.sample(step.noise).detach())}
    values = {}
    for name, at in shown.items():
        slopes = torch.func.vmap(torch.func.grad(lambda x: model.discriminator(x[None])[0]))(at)
        assert parts[name].item() == pytest.approx(slopes.flatten(1).square().sum(1).mean().item())
        values[name] = model.discriminator(at)
    assert shown["r1"].min() < 0  # images are judged, and slopes taken, in [-1, 1]
    game = losses.relativistic_loss if model_class is R3GAN else losses.discriminator_loss
    weights = (0.2, 0.2) if model_class is R3GAN else (0.15, 0.35)
    expected = game(values["r1"], values["r2"]) + weights[0] * parts["r1"] + weights[1] * parts["r2"]
    assert loss.item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    "shape",
    [(1, 8, 8), (3, 11, 18), (2, 20, 20), (1, 28, 28), (3, 64, 64), (4, 100, 75), (3, 128, 128), (3, 256, 200)],
    ids=str,
)
def test_dcgan_keeps_every_good_practice(shape):
    model = DCGAN(shape, width=8)
    generator, discriminator = model.generator, model.discriminator
    up, down = layers(generator, nn.ConvTranspose2d), layers(discriminator, nn.Conv2d)
    # Strided and transposed convolutions: every change of size is learned, but that from and to one pixel.
    assert all(layer.stride == (2, 2) for layer in [*up[1:], *down[:-1]])
    assert len(up) > 1
    assert len(down) > 1
    # No pooling, no resampling, no fully connected layers; nothing else either.
    plain = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU, nn.Flatten, nn.Unflatten)
    assert all(isinstance(layer, plain) for layer in [*generator, *discriminator])
    # Batch norm everywhere, except at the generator's output and at the discriminator's input.
    kinds = [type(layer) for layer in generator]
    assert kinds == [nn.Unflatten, *[nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU] * (len(up) - 1), nn.ConvTranspose2d]
    kinds = [type(layer) for layer in discriminator]
    inner = [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU] * (len(down) - 2)
    assert kinds == [nn.Conv2d, nn.LeakyReLU, *inner, nn.Conv2d, nn.Flatten]
    assert {layer.negative_slope for layer in layers(discriminator, nn.LeakyReLU)} == {0.2}
    # A tanh at the end of the generator: a pixel's logit is its atanh.
    code = torch.randn(2, model.latent_dim)
    output = code
    for layer in generator:
        output = layer(output)
    assert torch.equal(generator(code), (torch.tanh(output) + 1) / 2)
    assert generator(code).shape == (2, *shape)
    assert model.realness(torch.rand(2, *shape)).shape == (2,)


def test_dcgan_has_the_papers_weights_optimizer_and_sizes():
    torch.manual_seed(0)
    model = DCGAN((3, 64, 64))
    for layer in layers(model, (nn.Conv2d, nn.ConvTranspose2d)):
        assert abs(layer.weight.mean().item()) < 5 * 0.02 / layer.weight.numel() ** 0.5
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for objective in model.objectives():
        assert objective.optimizer.func is torch.optim.Adam
        assert objective.optimizer.keywords == {"lr": 2e-4, "betas": (0.5, 0.999)}
    assert [layer.out_channels for layer in layers(model.generator, nn.ConvTranspose2d)] == [512, 256, 128, 64, 3]
    assert [layer.out_channels for layer in layers(model.discriminator, nn.Conv2d)] == [64, 128, 256, 512, 1]
    assert (model.latent_dim, model.r1) == (100, 0)
    assert DCGAN.recommended((3, 64, 64))["batch_size"] == 128


def test_wgan_clips_its_critic_after_each_step_and_nothing_else():
    model = WGAN((2,), clip_value=0.02, hidden=(16, 16))
    assert max(p.abs().max().item() for p in model.critic.parameters()) <= 0.02
    before = [p.clone() for p in model.generator.parameters()]
    critic = Update(model, model.objectives()[0], Training(steps=3, batch_size=BATCH, lr=1.0))
    for step in range(3):
        critic(step, items((2,)).float())
    # Steps of 1 would have gone far outside.
    assert all(p.abs().max().item() == pytest.approx(0.02) for p in model.critic.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.generator.parameters(), strict=True))
    rmsprop = model.objectives()[0].optimizer
    assert (rmsprop.func, rmsprop.keywords) == (torch.optim.RMSprop, {"lr": 5e-5})
    assert list(model.objectives()[1].when[:2]) == [4, 9]


@pytest.mark.parametrize("network", ["conv", "resnet"])
def test_layer_norm_looks_at_one_item_alone(network):
    model = WGANGP((3, 16, 16), network=network, width=8, layer_norm=True)
    assert layers(model.critic, nn.GroupNorm)
    assert not networks.has_batch_norm(model.critic)
    assert not layers(WGANGP((3, 16, 16), network=network, width=8).critic, nn.GroupNorm)
    x = torch.rand(4, 3, 16, 16)
    assert torch.allclose(model.realness(x)[:1], model.realness(x[:1]), atol=1e-5)
    norm = layers(model.critic, nn.GroupNorm)[0]
    values = norm(3 * torch.randn(2, norm.num_channels, 4, 4) + 5).flatten(1)
    assert values.mean(1).abs().max() < 1e-5
    assert values.std(1).tolist() == pytest.approx([1, 1], abs=0.02)


def test_began_moves_its_balance_by_its_equation_and_keeps_it_in_bounds():
    model = BEGAN((2,), gamma=0.5, balance_rate=0.1, hidden=(16,), latent_dim=1)
    updates = [Update(model, objective, Training(steps=40, batch_size=BATCH)) for objective in model.objectives()]
    seen = [0.0]
    for step in range(40):
        logs = updates[0](step, 4 * items((2,)).float())
        expected = min(1.0, max(0.0, seen[-1] + 0.1 * (0.5 * logs["real"].item() - logs["fake"].item())))
        assert logs["k"].item() == seen[-1]
        assert model.k.item() == pytest.approx(expected, abs=1e-6)
        real, fake = logs["real"].item(), logs["fake"].item()
        assert logs["loss"].item() == pytest.approx(real - seen[-1] * fake, abs=1e-6)
        assert logs["m_global"].item() == pytest.approx(real + abs(0.5 * real - fake), abs=1e-6)
        seen.append(model.k.item())
        updates[1](step, 4 * items((2,)).float())
    assert max(seen) > 0.1
    model.balance({"real": torch.tensor(1000.0), "fake": torch.tensor(0.0)})
    assert model.k == 1
    model.balance({"real": torch.tensor(0.0), "fake": torch.tensor(1000.0)})
    assert model.k == 0


def test_began_is_an_autoencoder_of_any_size_without_norms():
    for shape in [(1, 4, 6), (3, 17, 30), (1, 33, 64)]:
        model = BEGAN(shape, network="conv", width=4)
        x = torch.rand(2, *shape)
        assert model.discriminator(x).shape == model.decode(torch.randn(2, 64)).shape == x.shape
        forbidden = (nn.modules.batchnorm._BatchNorm, nn.ConvTranspose2d, nn.Dropout, nn.Tanh, nn.ReLU)
        assert not layers(model, forbidden)
        error = (2 * x - 1 - model.discriminator(2 * x - 1)).abs().flatten(1).mean(1)
        assert torch.allclose(model.realness(x), -error)


def test_began_never_judges_with_an_autoencoder_that_can_copy():
    codes = [BEGAN(shape).discriminator.encoder[-1].out_features for shape in [(2,), (1, 8, 8), (1, 28, 28)]]
    assert codes == [1, 16, 64]


def test_r3gan_begins_as_shallow_as_its_fix_up_says_and_has_no_norms():
    model = R3GAN((3, 18, 11), network="resnet", width=16, blocks=3)
    assert not layers(model, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm))
    blocks = layers(model.generator, Block)
    assert len(blocks) == 3 * 3  # at 5×3, 9×6 and 18×11 pixels
    x = torch.randn(2, 16, 5, 5)
    assert torch.equal(blocks[0](x), x)
    gain = math.sqrt(2 / 1.04) * 9**-0.25 / math.sqrt(16)
    assert blocks[0].widen.weight.std().item() == pytest.approx(gain, rel=0.15)


def test_r3gan_resamples_bilinearly():
    x = torch.randn(2, 3, 5, 6)
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(Up((0, 0))(x), bilinear, atol=1e-6)
    assert torch.equal(Up((1, 0))(x), Up((0, 0))(x)[:, :, 1:])
    even = torch.randn(2, 3, 6, 4)
    assert torch.allclose(Down()(even), F.interpolate(even, scale_factor=0.5, mode="bilinear"), atol=1e-6)
    assert Down()(torch.ones(1, 1, 5, 7)).eq(1).all()


def test_r3gan_compares_in_pairs():
    model = R3GAN((2,), gamma=0.0, hidden=(16,)).double()
    step, x = moment(model), items((2,))
    on_real, on_fake = model.realness(x), model.realness(model.sample(step.noise))
    judge, make = model.discriminator_loss(x, step)[0], model.generator_loss(x, step)[0]
    assert judge.item() == pytest.approx(F.softplus(on_fake - on_real).mean().item())
    assert make.item() == pytest.approx(F.softplus(on_real - on_fake).mean().item())
    assert {o.optimizer.keywords["betas"] for o in model.objectives()} == {(0.0, 0.99)}


def test_fourier_features_let_a_judge_see_the_width_of_a_mode():
    """N(0, 1 / 100²) against half its width, on a circle of radius 1: a plain MLP stays blind for thousands of steps."""
    angles = 2 * torch.pi * torch.arange(1024) / 8
    centers = torch.stack([angles.cos(), angles.sin()], 1)

    def accuracy(fourier):
        torch.manual_seed(0)
        judge = adversarial.judge_mlp((2,), 1, hidden=(64, 64), activation="leaky-relu", fourier=fourier)
        optimizer = torch.optim.Adam(judge.parameters(), 2e-3)
        for _ in range(200):
            wide, narrow = (judge(centers + sigma * torch.randn(1024, 2)) for sigma in (0.01, 0.005))
            optimizer.zero_grad()
            (F.softplus(-wide).mean() + F.softplus(narrow).mean()).backward()
            optimizer.step()
        return ((wide > 0).float().mean().item() + (narrow < 0).float().mean().item()) / 2

    assert accuracy(50.0) > 0.7  # the best possible: .74
    assert accuracy(0.0) < 0.55


@pytest.mark.parametrize("model_class", [GAN, WGANGP, R3GAN])
@pytest.mark.parametrize(("shape", "fourier"), [((1, 8, 8), 50.0), ((2,), 0.5)])
def test_fourier_features_are_for_vectors_and_frequencies_from_one(shape, fourier, model_class):
    with pytest.raises(ConfigError, match="fourier is a frequency of 1 and more, for vectors"):
        model_class(shape, fourier=fourier)
    judge = model_class((2,), fourier=20.0).get_submodule("critic" if model_class is WGANGP else "discriminator")
    assert len(layers(judge, adversarial.Fourier)) == 1


@pytest.mark.parametrize("model_class", [GAN, WGANGP, WGAN, R3GAN])
def test_a_packed_judge_sees_pairs(model_class):
    model = model_class((1, 8, 8), pack=2).double().eval()
    judge = model.get_submodule("critic" if hasattr(model, "critic") else "discriminator")
    x = items((1, 8, 8), rows=6)
    values = judge(judge.show(x))
    assert values.shape == (3,)
    inside, across = x[[1, 0, 2, 3, 4, 5]], x[[0, 2, 1, 3, 4, 5]]
    assert not torch.allclose(judge(judge.show(inside))[0], values[0])
    assert torch.allclose(judge(judge.show(inside))[1:], values[1:])
    changed = judge(judge.show(across))
    assert not torch.isclose(changed[:2], values[:2]).any()
    assert torch.isclose(changed[2], values[2])
    assert model.realness(x).shape == (6,)
    assert torch.allclose(model.realness(x)[:1], judge(judge.show(x[[0, 0]])))


def test_packing_needs_batches_that_divide_and_items_without_classes(tmp_path):
    with pytest.raises(ShapeError, match="8 items cannot be judged in packs of 3; take a batch size"):
        nacre.train("gan", pack=3, batch_size=8, steps=2, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for model_class in (GAN, WGAN, WGANGP, R3GAN):
        with pytest.raises(ConfigError, match="do not go together"):
            model_class((2,), pack=2, classes=3)


@pytest.mark.parametrize(("shape", "network"), [((2,), "mlp"), ((3, 16, 16), "conv"), ((1, 8, 8), "resnet")])
def test_spectral_norm_bounds_the_largest_singular_value(shape, network):
    model = GAN(shape, spectral_norm=True, network=network, hidden=(16, 16), width=8, r1=0.0)
    assert not networks.has_batch_norm(model.discriminator)

    def largest():
        weights = [layer.weight for layer in model.discriminator.modules() if hasattr(layer, "parametrizations")]
        return torch.stack([torch.linalg.matrix_norm(weight.flatten(1), 2) for weight in weights])

    assert len(largest()) == len(layers(model.discriminator, (nn.Linear, nn.Conv2d)))
    assert largest().max() < 1.1
    update = Update(model, model.objectives()[0], Training(steps=20, batch_size=BATCH))
    for step in range(20):
        update(step, items(shape).float())
    assert largest().max() < 1.25  # one power iteration a step follows weights that move
    for _ in range(200):
        adversarial.advance(model.discriminator)
    assert largest().tolist() == pytest.approx([1] * len(largest()), abs=1e-3)


def test_spectral_norms_move_after_a_step_and_not_within_a_loss():
    model = GAN((2,), spectral_norm=True, hidden=(16,)).double()
    norm = layers(model, SpectralNorm)[0]
    before = norm.left.clone()
    losses_ = [model.discriminator_loss(items((2,)), moment(model))[0].item() for _ in range(2)]
    assert losses_[0] == losses_[1]
    assert torch.equal(norm.left, before)
    adversarial.advance(model.discriminator)
    assert not torch.equal(norm.left, before)


def test_spectral_norms_of_averaged_weights_are_their_own():
    torch.manual_seed(0)
    model = GAN((2,), spectral_norm=True, hidden=(16, 16), r1=0.0)
    average, update = Average(model, 0.999), Update(model, model.objectives()[0], Training(steps=300, batch_size=BATCH))
    for step in range(300):
        update(step, items((2,)).float())
        average.update(step)
    norms = [norm for _, norm in adversarial.spectral_norms(average.model)]
    assert [vector.norm().item() for norm in norms for vector in norm.buffers()] == pytest.approx([1] * 6)
    weights = [layer.weight for layer in layers(average.model.discriminator, nn.Linear)]
    assert [torch.linalg.matrix_norm(weight, 2).item() for weight in weights] == pytest.approx([1] * 3, abs=0.03)


def test_augmentation_with_numbers_in_the_middle_changes_nothing():
    images, middle = 2 * items((3, 9, 14)) - 1, torch.full((BATCH, 3), 0.5, dtype=torch.float64)
    assert torch.allclose(augment.color(images, middle), images)
    assert torch.equal(augment.translation(images, middle[:, :2]), images)


def test_augmentation_does_what_its_numbers_say():
    image = 2 * items((3, 16, 8), rows=1) - 1
    brighter = augment.color(image, torch.tensor([[0.75, 0.5, 0.5]]))
    assert torch.allclose(brighter, image + 0.25)
    grey = augment.color(image, torch.tensor([[0.5, 0.0, 0.5]]))
    assert torch.allclose(grey, image.mean(1, keepdim=True).expand_as(image))
    flat = augment.color(image, torch.tensor([[0.5, 0.5, 0.0]]))
    assert torch.allclose(flat, (image + image.mean()) / 2)
    # 16 × 8 pixels move by up to 2 and 1: first and last of 5 and 3 shifts.
    moved = augment.translation(image, torch.tensor([[0.0, 0.999]], dtype=torch.float64))
    assert torch.equal(moved[..., :-2, 1:], image[..., 2:, :-1])
    assert not moved[..., -2:, :].any()
    assert not moved[..., :1].any()
    # A hole of 8 × 4; the first numbers centre it on the corner, the middle ones on the image.
    for number, rows, columns in [(0.0, slice(0, 4), slice(0, 2)), (0.5, slice(4, 12), slice(2, 6))]:
        holed = augment.cutout(image, torch.full((1, 2), number))
        expected = image.clone()
        expected[..., rows, columns] = 0
        assert torch.equal(holed, expected)


@pytest.mark.parametrize("operation", [augment.diff_augment, augment.moved_and_cut])
def test_augmentation_moves_images_of_bfloat16_no_further_than_others(operation):
    images = torch.full((1, 1, 32, 32), 0.5)
    noise = torch.full((1, augment.NUMBERS if operation is augment.diff_augment else augment.PLACES), 1 - 2**-20)
    seen = operation(images.bfloat16(), noise)
    assert seen.dtype == torch.bfloat16
    assert torch.equal(seen == 0, operation(images, noise) == 0)


def test_gradients_flow_through_the_augmentation():
    images = (2 * items((3, 8, 8), rows=2) - 1).requires_grad_()
    noise = seeds.noise(seeds.uniform(augment.NUMBERS), "augment", rows=range(2), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: augment.diff_augment(x, noise), images)
    shown = augment.diff_augment(images, noise)
    assert not torch.allclose(shown[0], augment.diff_augment(images[:1], noise[1:])[0])


@pytest.mark.parametrize("model_class", [GAN, DCGAN, R3GAN])
def test_real_and_generated_images_are_augmented_alike_and_vectors_are_not(model_class):
    plain, augmented = (model_class((1, 8, 8), augment=flag, width=8) for flag in (False, True))
    assert set(augmented.objectives()[0].draws) - set(plain.objectives()[0].draws) == {"augment_real", "augment_fake"}
    assert "augment_fake" in augmented.objectives()[1].draws
    assert set(model_class((2,), augment=True).objectives()[0].draws) == {"z"}
    augmented = augmented.double()
    step, seen = moment(augmented), []
    augmented.discriminator[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    augmented.discriminator_loss(items((1, 8, 8)), step)
    x, fake = 2 * items((1, 8, 8)) - 1, 2 * augmented.sample(step.noise) - 1
    shown = torch.cat(seen)
    for images, name in ((x, "augment_real"), (fake, "augment_fake")):
        wanted = augment.diff_augment(images, step.noise[name])
        assert min((shown[at : at + BATCH] - wanted).abs().max().item() for at in (0, BATCH)) < 1e-9


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_discriminator_is_shown_what_the_generator_made_before_its_step(accumulate):
    torch.manual_seed(0)
    model = GAN((2,), reuse_fakes=True, r1=0.0, hidden=(8,))
    made, seen = [], []
    model.generator.register_forward_hook(lambda module, inputs, output: made.append(output.detach()))
    model.discriminator.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    updates = in_motion(model, Training(steps=2, batch_size=BATCH, accumulate=accumulate))
    for step in range(2):
        for update in updates:
            assert set(update(step, items((2,)).float())) == {"generator": {"loss"}}.get(
                update.objective.name, {"loss", "d_real", "d_fake"}
            )
    assert len(made) == 2 * accumulate
    rows = BATCH // accumulate
    shown = [each[-rows:] for each in seen if len(each) == 2 * rows]
    assert torch.equal(torch.cat(shown), torch.cat(made))


@pytest.mark.parametrize("model_class", MODELS)
def test_a_conditional_model_is_told_the_label(model_class):
    torch.manual_seed(0)
    model = model_class((1, 8, 8), classes=3, width=8)
    assert (model.code_dim, set(model.prior)) == (model.latent_dim + 3, {"z", "label"})
    ones, twos = (sampling.sample(model, 4, labels=torch.full((4,), label)) for label in (1, 2))
    assert not torch.allclose(ones, twos)
    z = seeds.noises({"z": model.prior["z"]}, 0, "sample", rows=range(4))["z"]
    codes = torch.cat([z, F.one_hot(torch.ones(4, dtype=torch.int64), 3)], 1)
    with torch.no_grad():
        assert torch.allclose(model.eval().decode(codes), ones, atol=1e-6)
    assert model.realness(ones).shape == (4,)


def test_a_conditional_judge_has_an_output_for_each_class():
    judge = Judge((2,), lambda shape, outputs: networks.encoder(shape, outputs, hidden=(8,)), classes=3)
    x, label = torch.randn(5, 2), torch.tensor([0, 1, 2, 2, 1])
    values = torch.stack([judge(x, torch.full((5,), k)) for k in range(3)], 1)
    assert torch.equal(judge(x, label), values[torch.arange(5), label])
    assert torch.allclose(judge.realness(x), values.exp().mean(1).log(), atol=1e-6)


@pytest.mark.parametrize("model_class", MODELS)
def test_losses_depend_on_the_labels_of_both(model_class):
    torch.manual_seed(0)
    model = model_class((2,), classes=3).double()
    step, x = moment(model), items((2,))
    label = torch.arange(BATCH) % 3
    for loss in (getattr(model, "critic_loss", getattr(model, "discriminator_loss", None)), model.generator_loss):
        first, second = (loss((x, y), step)[0].item() for y in (label, (label + 1) % 3))
        assert math.isfinite(first)
        assert first != second


def test_a_conditional_wgan_gp_plays_algorithm_1_within_each_class():
    torch.manual_seed(0)
    model = WGANGP((2,), latent_dim=3, hidden=(16, 16), classes=3, gp_weight=10.0).double()
    x, label = items((2,)), torch.arange(BATCH) % 3
    step = moment(model)
    loss, parts = model.critic_loss((x, label), step)
    with torch.no_grad():
        fake = model.generator(torch.cat([step.noise["z"], F.one_hot(label, 3)], 1))
        values = [model.critic(each, label) for each in (x, fake)]
    between = (step.noise["mix"] * x + (1 - step.noise["mix"]) * fake).requires_grad_()
    # Each item's slope is that of its own class's output alone.
    own = nn.Sequential(*model.critic)(between)[torch.arange(BATCH), label]
    (slopes,) = torch.autograd.grad(own.sum(), between)
    gap = values[0].mean() - values[1].mean()
    torch.testing.assert_close(parts["gap"], gap)
    torch.testing.assert_close(loss, 10 * (slopes.norm(dim=1) - 1).square().mean() - gap)
    step = moment(model, objective=1)
    fake = model.generator(torch.cat([step.noise["z"], F.one_hot(label, 3)], 1))
    torch.testing.assert_close(model.generator_loss((x, label), step)[0], -model.critic(fake, label).mean())


def test_a_conditional_wgan_gp_learns_which_class_is_where(tmp_path):
    places = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    label = torch.arange(600) % 3
    points = places[label] + 0.1 * seeds.noise(seeds.normal(2), "points", rows=range(600))
    file = tmp_path / "points.npz"
    np.savez(file, x=points.numpy(), labels=label.numpy())
    flags = {"hidden": (64, 64), "latent_dim": 2, "gp_weight": 0.1, "lr": 1e-3, "steps": 600, "batch_size": 60}
    run = nacre.train("wgan_gp", data=str(file), conditional=True, out=tmp_path / "run", sample_every=0, **flags)
    model = nacre.load(run)
    assert model.module.classes == 3
    for number, place in enumerate(places):
        made = model.sample(200, label=number)
        assert (made.mean(0) - place).norm() < 0.5
    drawn = model.sample(300)
    nearest = torch.cdist(drawn, places).argmin(1)
    assert torch.bincount(nearest, minlength=3).min() > 60
    out = tmp_path / "made.npz"
    assert main(["sample", str(tmp_path / "run"), "--label", "2", "-n", "5", "--out", str(out)]) == 0
    with np.load(out) as arrays:
        assert np.array_equal(next(iter(arrays.values())), model.sample(5, label=2).numpy())
    assert main(["sample", str(tmp_path / "run"), "--label", "3", "-n", "5", "--out", str(out)]) == 2


def test_names_of_weights_are_those_of_the_networks():
    for model, judge in ((GAN((1, 16, 16)), "discriminator"), (WGANGP((1, 16, 16)), "critic")):
        names = {f"generator.{name}" for name in networks.decoder(64, (1, 16, 16)).state_dict()}
        norm = "batch" if judge == "discriminator" else "none"
        critic = networks.encoder((1, 16, 16), 1, norm=norm, bias=judge == "discriminator")
        assert set(model.state_dict()) == names | {f"{judge}.{name}" for name in critic.state_dict()}


@pytest.mark.parametrize(
    ("name", "parameters", "shape"),
    [
        ("gan", {"loss": "least-squares", "spectral_norm": True, "augment": True, "classes": 3, "width": 4}, (1, 8, 8)),
        ("gan", {"activation": "maxout", "norm": "batch", "discriminator_hidden": (8,), "pack": 2, "r2": 0.1}, (2,)),
        (
            "wgan_gp",
            {"layer_norm": True, "penalty": "one-sided", "network": "conv", "width": 4, "classes": 3},
            (1, 8, 8),
        ),
        ("began", {"classes": 3, "hidden": (16,), "balance_rate": 0.5}, (2,)),
        ("r3gan", {"fourier": 20.0, "gamma_steps": 9, "pack": 2, "discriminator_hidden": (8, 8)}, (2,)),
        ("r3gan", {"classes": 3, "augment": True, "network": "resnet", "width": 8, "blocks": 1}, (1, 8, 8)),
    ],
    ids=str,
)
def test_variants_keep_the_contract(name, parameters, shape):
    assert not [finding for finding in check_model(name, parameters, shape=shape) if finding.passed is False]


def test_the_balance_and_the_spectral_norms_are_resumed():
    for name, parameters in [("began", {"balance_rate": 0.5}), ("gan", {"spectral_norm": True})]:
        subject = Subject(spec(name, {"hidden": (8,), **parameters}), (2,), "aot_eager")
        model = subject.build()
        fresh = {key: value.clone() for key, value in model.named_buffers()}
        subject.train(model, 3)
        assert any(not torch.equal(value, fresh[key]) for key, value in model.named_buffers())
        resume_is_exact(subject)


def test_nonsense_is_refused():
    for build, sentence in [
        (lambda: GAN((2,), beta1=1.0), "beta1 must be from 0 to below 1"),
        (lambda: GAN((2,), pack=0), "pack must be 1 or more"),
        (lambda: WGAN((2,), clip_value=0.0), "clip_value must be above 0"),
        (lambda: BEGAN((2,), gamma=0.0), "gamma must be above 0 and at most 1"),
        (lambda: R3GAN((2,), network="resnet"), "'resnet' needs images"),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            build()
