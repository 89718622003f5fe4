"""Trained models in use: from Python, from folders, to and from the hub."""

import json
import shutil

import numpy as np
import pytest
import torch

import nacre
from nacre.engine import checkpoint
from nacre.errors import CapabilityError, CheckpointError, ConfigError, ShapeError
from nacre.models import CATALOGUE
from nacre.pretrained import Pretrained
from nacre.run.session import build
from nacre.spec import spec

QUICK = {"steps": 6, "batch_size": 8, "sample_every": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "vae"
    return nacre.train("vae", out=path, latent_dim=3, hidden=(16,), **QUICK)


@pytest.fixture(scope="module")
def model(run):
    return nacre.load(run)


def test_the_verbs(model):
    images = model.sample(5)
    assert images.shape == (5, 1, 8, 8)
    assert 0 <= images.min() <= images.max() <= 1
    codes = model.encode(images)
    assert codes.shape == (5, 3)
    assert torch.allclose(model.decode(codes), model.reconstruct(images))
    assert model.log_likelihood(images).shape == (5,)
    assert model.log_likelihood(images).dtype == torch.float64
    assert not images.requires_grad


def test_number_i_of_a_seed_is_the_same_however_it_is_drawn(model):
    whole = model.sample(100, seed=4)
    torch.testing.assert_close(model.sample(7, seed=4), whole[:7], rtol=0, atol=1e-6)
    torch.testing.assert_close(model.sample(100, seed=4, batch_size=9), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(model.sample(20, seed=4, first=80), whole[80:], rtol=0, atol=1e-6)
    assert not torch.equal(model.sample(7, seed=5), whole[:7])


def test_items_may_be_bytes_or_floats(model):
    bytes_ = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    floats = torch.from_numpy(bytes_).float() / 255
    assert torch.equal(model.encode(bytes_), model.encode(floats))


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        (torch.rand(2, 3, 8, 8), r"built for items of shape \(N, 1, 8, 8\), got \(2, 3, 8, 8\)"),
        (torch.full((1, 1, 8, 8), float("nan")), "NaN"),
        (torch.full((1, 1, 8, 8), 255.0), "floats in \\[0, 1\\]"),
    ],
)
def test_items_that_cannot_be_meant(model, items, sentence):
    with pytest.raises(ShapeError, match=sentence):
        model.encode(items)


def test_codes_of_another_size(model):
    with pytest.raises(ShapeError, match=r"\(N, 3\), got \(2, 4\)"):
        model.decode(torch.rand(2, 4))


def test_a_missing_capability_says_what_to_do(model):
    with pytest.raises(CapabilityError, match="VAE judges no images; only models with a discriminator"):
        model.realness(model.sample(1))


def test_save_and_load_round_trip(model, tmp_path):
    again = nacre.load(model.save_pretrained(tmp_path / "shared"))
    assert torch.equal(again.sample(4), model.sample(4))
    assert Pretrained.from_pretrained(tmp_path / "shared").spec == again.spec
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "library_name: nacre" in card
    assert "ELBO" in card
    assert {path.name for path in (tmp_path / "shared").iterdir()} == {"config.json", "model.safetensors", "README.md"}


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_line_on_a_models_card_runs(name, tmp_path):
    chosen = spec(name, {"classes": 3} if name in ("transfer", "m2") else {})
    model = Pretrained(build(chosen, (1, 16, 16), 0), chosen, (1, 16, 16), {})
    card = (model.save_pretrained(tmp_path) / "README.md").read_text()
    line = card.partition('model = nacre.load("path/or/hub-id")\n')[2].partition("\n")[0]
    given = {"model": model, "images": torch.rand(2, 1, 16, 16)}
    exec(line, given)
    assert isinstance(given[line.partition(" = ")[0]], torch.Tensor)


def test_best_and_numbered_checkpoints(run):
    assert torch.equal(nacre.load(run, checkpoint=6).sample(2), nacre.load(run).sample(2))
    assert torch.equal(nacre.load(run, checkpoint="6").sample(2), nacre.load(run).sample(2))
    assert nacre.load(run, checkpoint="best").sample(2).shape == (2, 1, 8, 8)


def test_a_checkpoint_has_its_own_steps_and_score(tmp_path):
    told = {**QUICK, "checkpoint_every": 2, "signal_every": 0}
    run = nacre.train("vae", out=tmp_path / "run", latent_dim=3, hidden=(16,), lr=0.1, **told)
    scores = {line["step"]: line["validation"]["value"] for line in run.history if "validation" in line}
    for step in (2, 6):
        facts = nacre.load(run, checkpoint=step).facts
        assert facts["steps"] == step
        assert facts["validation"].endswith(f"items: {scores[step]:.5g}")
        assert facts["data"] == "digits"
    assert nacre.load(run, checkpoint=6).facts == nacre.load(run).facts


def test_a_run_that_is_done_keeps_its_score_when_it_is_resumed(tmp_path):
    run = nacre.train("vae", out=tmp_path / "run", latent_dim=3, hidden=(16,), **QUICK)
    facts = nacre.load(run).facts
    assert nacre.resume(run).score == run.score
    assert nacre.load(run).facts == facts
    folder = run.path / "checkpoints"
    state = checkpoint.load(folder, 6)
    del state["score"]  # as it was before scores were kept
    shutil.rmtree(folder)
    checkpoint.save(folder, 6, state)
    assert nacre.resume(run).score is None
    assert "validation" not in nacre.load(run, checkpoint=6).facts


def test_push_to_hub_uploads_the_folder(model, monkeypatch):
    seen = {}

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **options):
            seen["repo"] = (repo_id, options)

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            from pathlib import Path

            seen["files"] = sorted(path.name for path in Path(folder_path).iterdir())
            return f"hub/{repo_id}"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert model.push_to_hub("me/digits") == "hub/me/digits"
    assert seen["repo"] == ("me/digits", {"private": True, "exist_ok": True})
    assert seen["files"] == ["README.md", "config.json", "model.safetensors"]


def test_load_from_the_hub(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path / "snapshot")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo, allow_patterns: str(tmp_path / "snapshot"))
    assert torch.equal(nacre.load("me/digits").sample(2), model.sample(2))


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def unreachable(repo, allow_patterns):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(CheckpointError, match="no folder here and could not be had from the hub"):
        nacre.load("nobody/nothing")


def test_damaged_folders(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "shared")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="is damaged"):
        nacre.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        nacre.load(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"lacks model\.safetensors"):
        nacre.load(folder)


def test_a_folder_cannot_make_nacre_run_code(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "shared")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model": f"{folder / 'evil.py'}:Evil"}))
    with pytest.raises(ConfigError, match="a model of somebody's own"):
        nacre.load(folder)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "damage", [{"parameters": None}, {"shape": "abc"}, {"model": ["a"]}, {"facts": 3}, {"format": "x"}]
)
def test_a_damaged_description_is_one_sentence(model, tmp_path, damage):
    folder = model.save_pretrained(tmp_path / "shared")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **damage}))
    with pytest.raises(CheckpointError, match="is damaged"):
        nacre.load(folder)


def test_what_cannot_be_counted(model):
    for count in (0, 2.5):
        with pytest.raises(ConfigError, match="the number of samples"):
            model.sample(count)


def test_weights_of_another_shape(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "shared")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "shape": [1, 9, 9]}))
    with pytest.raises(CheckpointError, match=r"do not fit vae as its config\.json describes it"):
        nacre.load(folder)


def test_tied_weights_are_saved(tmp_path):
    (tmp_path / "tied.py").write_text(
        "from torch import nn\nfrom nacre import Objective\n"
        "class Tied(nn.Module):\n"
        "    def __init__(self, shape):\n"
        "        super().__init__()\n"
        "        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)\n"
        "        self.b.weight = self.a.weight\n"
        "    def objectives(self):\n"
        "        return [Objective(name='only', loss=self.loss, over=('a', 'b'))]\n"
        "    def loss(self, x, step):\n"
        "        return (self.b(self.a(x)) - x).square().mean(), {}\n"
    )
    name = f"{tmp_path / 'tied.py'}:Tied"
    run = nacre.train(name, data="toy:ring8", out=tmp_path / "run", **QUICK)
    module = nacre.load(run, model=name).module
    assert module.a.weight is module.b.weight
