"""Transfer to labels: which layers are reused, when they move, and that the model stands on its own."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nacre
from nacre import seeds
from nacre.cli import main
from nacre.contract import check_model
from nacre.errors import ConfigError
from nacre.models.ae import AE
from nacre.models.m2 import M2
from nacre.models.stacked_ae import StackedAE
from nacre.models.transfer import Transfer
from nacre.models.vae import VAE
from nacre.protocols import Step

QUICK = {"batch_size": 32, "sample_every": 0, "ema": 0.0, "compile": "off"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "ae"
    return str(nacre.train("ae", data="digits", out=out, steps=50, hidden=(32, 16), latent_dim=4, **QUICK).path)


def weights_of(run):
    return [layer.weight for layer in nacre.load(run).module.modules() if isinstance(layer, nn.Linear)]


def test_the_table_freezes_and_then_unfreezes():
    source = AE((1, 8, 8), hidden=(32, 16), latent_dim=4)
    model = Transfer((1, 8, 8), classes=10, encoder=source, reuse_layers=3, freeze_layers=1, frozen_steps=7)
    head, finetune = model.objectives()
    assert (head.over, finetune.over) == (("head",), ("head", "reused.1", "reused.2"))
    assert (head.when, finetune.when.start) == (range(7), 7)
    assert not any(parameter.requires_grad for parameter in model.reused[0].parameters())
    rates = [row.optimizer(model.head.parameters()).param_groups[0]["lr"] for row in (head, finetune)]
    assert rates == [1e-3, 1e-4]
    alone = Transfer((1, 8, 8), classes=10, encoder=source, reuse_layers=1, freeze_layers=1)
    assert [(row.name, 10**9 in row.when) for row in alone.objectives()] == [("head", True)]


@pytest.mark.parametrize(
    ("source", "layers"),
    [
        (AE((1, 16, 16), hidden=(32, 16), latent_dim=4), 3),
        (AE((1, 16, 16), hidden=(), latent_dim=4), 1),
        (AE((1, 16, 16), network="conv", width=8, latent_dim=4), 3),
        (AE((1, 16, 16), network="resnet", width=8, latent_dim=4), 4),
        (VAE((1, 16, 16), hidden=(32, 16), latent_dim=4), 3),
        (StackedAE((1, 16, 16), hidden=(32, 16), latent_dim=4), 3),
    ],
    ids=["mlp", "linear", "conv", "resnet", "vae", "stacked"],
)
def test_the_layers_of_any_encoder(source, layers):
    x = torch.rand(5, 1, 16, 16)
    source.eval()
    whole = Transfer((1, 16, 16), classes=3, encoder=source, reuse_layers=layers)
    torch.testing.assert_close(whole.reused(x), source.encoder(x))
    lower = Transfer((1, 16, 16), classes=3, encoder=source)
    assert len(lower.reused) == max(1, layers - 1)
    torch.testing.assert_close(lower.classify(x).sum(1), torch.ones(5))
    with pytest.raises(ConfigError, match=f"from 1 to {layers}, the layers of .*; got {layers + 1}"):
        Transfer((1, 16, 16), classes=3, encoder=source, reuse_layers=layers + 1)


def test_layers_that_read_another_models_codes_are_not_reused():
    above = M2((1, 8, 8), classes=3, encoder=VAE((1, 8, 8), latent_dim=4, hidden=(8,)))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="stands on another model's codes"):
        Transfer((1, 8, 8), classes=3, encoder=above)


def test_frozen_layers_stay_and_the_others_follow_later(encoder, tmp_path):
    common = {"encoder": encoder, "reuse_layers": 2, "freeze_layers": 1, "frozen_steps": 20, "hidden": (8,), **QUICK}
    before = weights_of(encoder)
    head_only = weights_of(nacre.train("transfer", out=tmp_path / "head", steps=20, **common))
    assert torch.equal(head_only[0], before[0])
    assert torch.equal(head_only[1], before[1]), "the reused layers are those of the run, and frozen"
    both = weights_of(nacre.train("transfer", out=tmp_path / "both", steps=30, **common))
    assert torch.equal(both[0], before[0]), "frozen to the end"
    moved = (both[1] - before[1]).abs().max()
    assert 0 < moved < 10 * 1e-4 * 1.5, "ten steps of Adam at the lower rate"


def test_the_model_stands_without_the_run_that_it_came_from(encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(encoder, "source")
    common = {"encoder": "source", "frozen_steps": 4, "hidden": (8,), **QUICK}
    whole = nacre.train("transfer", out="whole", steps=12, **common)
    halves = nacre.train("transfer", out="halves", steps=6, **common)
    shutil.rmtree("source")
    nacre.resume(halves, steps=12)
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(nacre.load("halves").classify(x), nacre.load(whole).classify(x))
    assert nacre.load(nacre.load(whole).save_pretrained("shared")).classify(x).shape == (5, 10)
    with pytest.raises(nacre.NacreError, match="source"):
        nacre.train(config="whole", out="again")


def test_another_encoder_over_a_configuration_is_read_again(encoder, tmp_path):
    other = nacre.train("ae", out=tmp_path / "other", steps=2, hidden=(24,), **QUICK)
    first = nacre.train("transfer", out=tmp_path / "a", steps=2, encoder=encoder, **QUICK)
    second = nacre.train(config=first, out=tmp_path / "b", encoder=str(other.path))
    assert nacre.load(second).module.sizes[0] == 24


def test_the_loss_is_of_the_known_labels_alone():
    model = Transfer((6,), classes=3, hidden=(5,))
    x, y = torch.randn(8, 6), torch.tensor([0, 1, 2, -1, 1, -1, -1, 0])
    loss, parts = model.class_loss((x, y), Step(torch.tensor(0), {}))
    chances = model.classify(x)[y >= 0]
    known = y[y >= 0]
    torch.testing.assert_close(loss, F.nll_loss(chances.log(), known) * 5 / 8)
    torch.testing.assert_close(parts["accuracy"], (chances.argmax(1) == known).float().mean())
    nothing, _ = model.class_loss((x, torch.full((8,), -1)), Step(torch.tensor(0), {}))
    assert nothing.item() == 0


def test_dropout_drops_its_share_in_training_only():
    model = Transfer((6,), classes=3, hidden=(40,), dropout=0.25)
    draws = model.objectives()[0].draws
    assert {name: draw.shape for name, draw in draws.items()} == {"drop0": (6,), "drop1": (40,)}
    x = torch.randn(1, 6).expand(4000, 6)
    noise = seeds.noises({"drop1": draws["drop1"]}, "test", rows=range(4000))
    drawn, clean = model.logits(x, noise).detach(), model.logits(x, {}).detach()
    assert torch.allclose(drawn.mean(0), clean[0], atol=5 * float(drawn.std(0).max()) / 4000**0.5)
    assert drawn.std(0).min() > 0
    assert torch.equal(model.classify(x), model.train().classify(x))


def test_batch_norms_of_reused_layers_keep_their_statistics():
    source = AE((1, 16, 16), network="conv", width=8, latent_dim=4)
    model = Transfer((1, 16, 16), classes=3, encoder=source).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.class_loss((torch.rand(8, 1, 16, 16), torch.zeros(8, dtype=torch.int64)), Step(torch.tensor(0), {}))
    assert before
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("parameters", [{"freeze_layers": 1, "frozen_steps": 2}, {"frozen_steps": 0, "dropout": 0.3}])
def test_transfer_keeps_the_contract(parameters, tmp_path):
    out = tmp_path / "ae"
    source = np.random.default_rng(0).integers(0, 256, (64, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x=source)
    nacre.train("ae", data=str(tmp_path / "x.npz"), out=out, steps=2, hidden=(16, 8), **QUICK)
    findings = check_model("transfer", {"encoder": str(out), "hidden": (8,), **parameters})
    assert not [finding for finding in findings if finding.passed is False]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--encoder", "nowhere"], "no trained model at nowhere to take an encoder from"),
        (["--encoder", "GAN"], "GAN has no encoder that is a sequence of layers"),
        (["--encoder", "AE", "--reuse-layers", "9"], "from 1 to 3, the layers of AE's encoder; got 9"),
        (["--encoder", "AE", "--freeze-layers", "3"], "freeze_layers is of the 2 reused layers, got 3"),
        (["--encoder", "AE", "--image-size", "12"], "takes items of shape (1, 8, 8), and the data are (1, 12, 12)"),
        (["--data", "toy:swissroll"], "has none"),
        (["--dropout", "1"], "from 0 to less than 1; got 1"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(encoder, capsys, words, sentence):
    if "GAN" in words:
        nacre.train("gan", out="gan", steps=1, hidden=(8,), **QUICK)
    places = {"AE": encoder, "GAN": "gan"}
    assert main(["train", "transfer", "--steps", "2", *(places.get(word, word) for word in words)]) == 2
    assert sentence in capsys.readouterr().err
