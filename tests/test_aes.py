"""The autoencoders: what their flags do, against closed forms and other implementations."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

import nacre
from nacre import losses, seeds
from nacre.contract import check_model
from nacre.errors import ConfigError
from nacre.models.ae import AE
from nacre.models.stacked_ae import StackedAE
from nacre.networks import ACTIVATIONS
from nacre.protocols import Step

LINEAR = {"activation": "linear", "hidden": (), "loss": "mse"}


def step(model, batch, at=0):
    """A moment with the noise that a model's first objective asks for."""
    draws = model.objectives()[0].draws
    rows, dtype = range(batch), next(model.parameters()).dtype
    return Step(torch.tensor(at), seeds.noises(draws, "test", rows=rows, at=at, dtype=dtype))


def digits():
    return torch.from_numpy(load_digits().data / 16).float().view(-1, 1, 8, 8)


@pytest.mark.parametrize(
    "parameters",
    [
        {"tied": True, "activation": "tanh", "noise": "masking", "sparsity": 0.1},
        {"noise": "gaussian", "contractive": 0.1, "network": "conv"},
        {"hidden": (), "contractive": 0.1, "code_activation": "sigmoid"},
        LINEAR,
    ],
    ids=str,
)
def test_flags_go_together_and_keep_the_contract(parameters):
    assert not [finding for finding in check_model("ae", parameters) if finding.passed is False]


def test_a_linear_autoencoder_is_pca(tmp_path):
    settings = {"data": "digits", "validation": 0.0, "test": 0.0, "steps": 3000, "batch_size": 256, "sample_every": 0}
    run = nacre.train(
        "ae", out=tmp_path / "r", latent_dim=4, lr=0.02, lr_schedule="cosine", ema=0.0, **LINEAR, **settings
    )
    model, x = nacre.load(run), digits()
    flat = x.flatten(1).double().numpy()
    pca = PCA(4).fit(flat)
    exact = np.square(flat - pca.inverse_transform(pca.transform(flat))).mean()
    back = model.module.decoder(model.module.encode(x)).flatten(1).double().numpy()
    assert np.square(back - flat).mean() / exact - 1 < 1e-4
    basis, _ = np.linalg.qr(model.module.decoder[0].weight.double().numpy())
    cosines = np.linalg.svd(basis.T @ pca.components_.T, compute_uv=False)
    assert math.acos(min(1.0, cosines.min())) < 0.05
    assert 0 <= model.reconstruct(x).min() <= model.reconstruct(x).max() <= 1


def test_output_follows_from_what_is_asked():
    image, vector = (1, 4, 4), (16,)
    assert (AE(image).output, AE(image).loss) == ("sigmoid", "bce")
    assert (AE(vector).output, AE(vector).loss) == ("linear", "mse")
    assert AE(image, activation="linear", loss="mse", hidden=()).output == "linear"
    assert AE(image, activation="linear", hidden=()).output == "sigmoid"
    assert AE(image, output="linear").loss == "mse"
    for chosen in (AE(vector, activation="linear"), AE(image, activation="linear", output="linear")):
        assert chosen.linear  # mse by "auto" is mse
        assert chosen.objectives()[0].optimizer.keywords == {"lr": 1e-2}
    assert not AE(image, activation="linear", hidden=()).linear


def test_a_tied_decoder_uses_the_encoders_weights_transposed():
    model = AE((6,), hidden=(5,), latent_dim=3, tied=True, activation="tanh").double()
    assert [name for name, _ in model.named_parameters() if name.startswith("decoder")] == [
        "decoder.biases.0",
        "decoder.biases.1",
    ]
    first, second = model.encoder[1].weight, model.encoder[3].weight
    first_bias, second_bias = torch.randn(5).double(), torch.randn(6).double()
    model.decoder.biases[0].data, model.decoder.biases[1].data = first_bias, second_bias
    z = torch.randn(7, 3).double()
    torch.testing.assert_close(model.decode(z), torch.tanh(z @ second + first_bias) @ first + second_bias)


def test_masking_destroys_a_share_and_gaussian_noise_has_its_deviation():
    x = torch.full((64, 32), 0.5)
    masked = AE((32,), hidden=(4,), noise="masking", noise_level=0.3)
    seen = masked.corrupt(x, step(masked, 64).noise)
    assert set(seen.unique().tolist()) == {0.0, 0.5}
    assert (seen == 0).float().mean().item() == pytest.approx(0.3, abs=0.04)
    noisy = AE((32,), hidden=(4,), noise="gaussian", noise_level=0.3)
    assert (noisy.corrupt(x, step(noisy, 64).noise) - x).std().item() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(noisy.encode(x), noisy.encode(x)), "noise is of training only"


def test_a_denoising_autoencoder_shrinks_as_the_optimum_does(tmp_path):
    """On N(0, s²) and noise of σ the best reconstruction is x s²/(s² + σ²) (Alain & Bengio 2014)."""
    x = np.random.default_rng(0).normal(0, 1, (4000, 1)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    settings = {"steps": 1500, "batch_size": 256, "lr": 0.02, "lr_schedule": "cosine", "sample_every": 0}
    settings |= {"data": str(tmp_path / "x.npz"), "out": tmp_path / "r", "validation": 0.0, "test": 0.0}
    run = nacre.train("ae", latent_dim=1, noise="gaussian", noise_level=0.75, **LINEAR, **settings)
    model = nacre.load(run)
    slope = (model.reconstruct(torch.ones(1, 1)) - model.reconstruct(torch.zeros(1, 1))).item()
    assert slope == pytest.approx(x.var() / (x.var() + 0.75**2), abs=0.04)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_contractive_penalty_of_one_layer_is_the_jacobian_norm(activation):
    model = AE((6,), hidden=(), latent_dim=4, contractive=1.0, code_activation=activation).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda one: model.encode(one[None])[0]))(x)
    exact = jacobian.square().sum((1, 2)).mean()
    torch.testing.assert_close(model.contractive_penalty(x, {}), exact)


def test_the_contractive_penalty_of_deeper_encoders_is_estimated_without_bias():
    model = AE((6,), hidden=(8,), latent_dim=4, contractive=1.0, activation="tanh").double()
    x = torch.randn(1, 6, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda one: model.encode(one[None])[0])(x[0])
    probe = torch.randn(20_000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    estimates = losses.jacobian_norm(model.encode, x.expand(20_000, 6), probe)
    error = estimates.std().item() / math.sqrt(20_000)
    assert abs(estimates.mean() - jacobian.square().sum()).item() < 4 * error


def test_kl_sparsity_is_the_divergence_of_two_coins():
    codes = torch.tensor([[0.1, 0.9], [0.3, 0.5]], dtype=torch.float64)
    coins = [torch.distributions.Bernoulli(torch.tensor(p, dtype=torch.float64)) for p in (0.05, 0.2, 0.7)]
    expected = sum(torch.distributions.kl_divergence(coins[0], coin) for coin in coins[1:])
    torch.testing.assert_close(losses.sparsity_kl(codes, 0.05), expected)
    assert losses.sparsity_kl(torch.full((3, 2), 0.05), 0.05).item() == pytest.approx(0, abs=1e-6)


def test_sparse_codes_are_sparse(tmp_path):
    common = {"steps": 400, "batch_size": 128, "sample_every": 0, "hidden": (64,), "compile": "off"}
    common |= {"code_activation": "sigmoid", "ema": 0.0}
    x = digits()
    plain = nacre.load(nacre.train("ae", out=tmp_path / "plain", **common)).encode(x)
    pulled = nacre.train("ae", out=tmp_path / "kl", sparsity=5.0, sparsity_kind="kl", sparsity_target=0.1, **common)
    assert plain.mean() > 0.3
    assert nacre.load(pulled).encode(x).mean().item() == pytest.approx(0.1, abs=0.04)
    lone = nacre.train("ae", out=tmp_path / "l1", sparsity=1.0, **common)
    assert nacre.load(lone).encode(x).mean() < plain.mean() / 2


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"network": "conv", "tied": True}, "add --network mlp"),
        ({"noise": "masking", "noise_level": 1.5}, "from 0 to 1; got 1.5"),
        ({"noise_level": 0.5}, "there is none; add --noise"),
        ({"sparsity": 1.0, "sparsity_kind": "kl"}, "add --code-activation sigmoid"),
        ({"output": "linear", "loss": "bce"}, "take --loss mse"),
        ({"sparsity_target": 1.0}, "between 0 and 1, got 1"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(parameters, sentence):
    with pytest.raises(ConfigError, match=sentence):
        AE((1, 8, 8), **parameters)


def test_greedy_training_moves_one_pair_of_layers_at_a_time_and_then_all():
    model = StackedAE((1, 8, 8), hidden=(16, 8), latent_dim=4, greedy=True, layer_steps=5)
    rows = model.objectives()
    assert [row.name for row in rows] == ["layer0", "layer1", "layer2", "all"]
    for at in range(30):
        playing = [row.name for row in rows if at in row.when]
        assert playing == [["layer0", "layer1", "layer2"][at // 5] if at < 15 else "all"]
    assert rows[1].over == ("encoders.1", "decoders.1")
    assert [row.name for row in StackedAE((3,), hidden=(4,)).objectives()] == ["all"]


def test_a_layers_loss_is_the_reconstruction_of_the_layer_below():
    model = StackedAE((6,), hidden=(5, 4), latent_dim=2, greedy=True).double()
    x = torch.randn(7, 6, dtype=torch.float64)
    below = torch.tanh(x @ model.encoders[0][0].weight.T + model.encoders[0][0].bias)
    above = torch.tanh(below @ model.encoders[1][0].weight.T + model.encoders[1][0].bias)
    back = torch.tanh(above @ model.decoders[1][0].weight.T + model.decoders[1][0].bias)
    loss, _ = model.layer_loss(1, x, Step(torch.tensor(0), {}))
    torch.testing.assert_close(loss, (back - below).square().sum(1).mean())
    torch.testing.assert_close(model.encoder(x), model.encode(x))


def test_a_stack_learned_greedily_reconstructs_and_fine_tuning_helps(tmp_path):
    common = {"hidden": (64, 32), "latent_dim": 8, "greedy": True, "layer_steps": 300, "batch_size": 128}
    common |= {"sample_every": 0, "ema": 0.0, "compile": "off"}
    mean = digits().var(0).mean().item()
    layers = nacre.train("stacked_ae", out=tmp_path / "layers", steps=900, **common)
    tuned = nacre.train("stacked_ae", out=tmp_path / "tuned", steps=1500, **common)
    errors = [(nacre.load(run).reconstruct(digits()) - digits()).square().mean().item() for run in (layers, tuned)]
    assert errors[0] < 0.75 * mean, "the layers put together reconstruct before they have been trained together"
    assert errors[1] < errors[0] * 0.9


def test_stacked_flags_that_cannot_be_meant():
    with pytest.raises(ConfigError, match="from 0 to less than 1; got 1"):
        StackedAE((3,), masking=1.0)
    with pytest.raises(ConfigError, match="use 'mse'"):
        StackedAE((3,), loss="bce")


def test_the_stacked_autoencoder_keeps_the_contract_when_greedy():
    parameters = {"greedy": True, "layer_steps": 2, "masking": 0.2, "hidden": (16, 8)}
    assert not [finding for finding in check_model("stacked_ae", parameters) if finding.passed is False]
