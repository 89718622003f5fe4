"""Completion: blending is exact, known pixels stay, and a search finds what a model knows."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import nacre
from nacre.cli import main
from nacre.cli.inpaint import read_mask
from nacre.editing import masks
from nacre.editing.blend import blend, harmonic, smooth_fill
from nacre.editing.inpaint import Completing, context_weights, inpaint, resample
from nacre.errors import CapabilityError, ConfigError, DataError, ShapeError
from nacre.models.lvae import LVAE
from nacre.seeds import normal

QUICK = Completing(restarts=2, candidates=32, adam_steps=40, lbfgs_steps=40)


def pictures(count=3, channels=3, height=12, width=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, height, width, generator=generator)


def holes():
    inside, frame, all_but_one = (torch.zeros(12, 10, dtype=torch.bool) for _ in range(3))
    inside[4:8, 3:7] = True
    frame[:5, 6:] = True
    frame[9:, :3] = True
    all_but_one[:] = True
    all_but_one[0, 0] = False
    return torch.stack([inside, frame, all_but_one])


@pytest.mark.parametrize("offset", [0.25, -0.4])
def test_a_constant_offset_is_removed_and_known_pixels_are_the_same_bits(offset):
    images, hole = pictures(), holes()
    guide = images + offset * torch.tensor([1.0, 0.5, -1.0])[:, None, None]
    filled = blend(guide, images, hole)
    assert torch.equal(filled[~hole[:, None].expand_as(images)], images[~hole[:, None].expand_as(images)])
    torch.testing.assert_close(filled, images, rtol=0, atol=1e-6)


def test_the_guide_outside_the_holes_border_does_not_matter():
    images, hole = pictures(1), holes()[:1]
    guide = pictures(1, seed=1)
    far = torch.ones_like(hole)
    far[:, 3:9, 2:8] = False
    other = torch.where(far[:, None], torch.full_like(guide, 7.0), guide)
    assert torch.equal(blend(guide, images, hole), blend(other, images, hole))


def test_blending_solves_poissons_equation():
    images, guide, hole = pictures(1), pictures(1, seed=1), holes()[1:2]
    filled = blend(guide, images, hole).double()[0]
    for y, x in hole[0].nonzero().tolist():
        near = [(y + dy, x + dx) for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        near = [(v, u) for v, u in near if 0 <= v < 12 and 0 <= u < 10]
        have = sum(filled[:, y, x] - filled[:, v, u] for v, u in near)
        want = sum(guide.double()[0, :, y, x] - guide.double()[0, :, v, u] for v, u in near)
        torch.testing.assert_close(have, want, rtol=0, atol=1e-5)


def test_a_part_that_touches_nothing_known_stays_the_guides():
    images, guide = pictures(1), pictures(1, seed=1)
    everything = torch.ones(1, 12, 10, dtype=torch.bool)
    assert torch.equal(blend(guide, images, everything), guide)


def test_a_linear_image_is_filled_exactly():
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(10.0), indexing="ij")
    plane = (0.03 * x + 0.02 * y)[None, None]
    torch.testing.assert_close(smooth_fill(plane, holes()[:1]), plane, rtol=0, atol=1e-6)


def test_harmonic_functions_keep_between_their_borders():
    values = np.random.default_rng(0).random((2, 12, 10))
    inside, solution = harmonic(holes()[0].numpy(), values)
    assert len(inside) == 16
    assert values.min() <= solution.min() <= solution.max() <= values.max()


def test_named_holes():
    center = masks.named("center", (8, 12))[0]
    assert center.sum() == 24
    assert center[2:6, 3:9].all()
    assert masks.named("left", (8, 12))[0].float().mean() == 0.5
    random = masks.named("random:0.8", (64, 64), 4, seed=3)
    assert abs(random.float().mean() - 0.8) < 0.02
    assert torch.equal(masks.named("random:0.8", (64, 64), 2, seed=3), random[:2])
    assert not torch.equal(random[0], random[1])
    for name in ("middle", "random", "random:0", "random:1.5", "random:many"):
        with pytest.raises(ConfigError, match="a hole is center, left, or random:P"):
            masks.named(name, (8, 8))


def test_known_pixels_weigh_by_their_missing_neighbours():
    hole = torch.zeros(1, 9, 9, dtype=torch.bool)
    hole[0, 4, 4] = True
    weights = context_weights(hole, 3)
    assert weights[0, 4, 4] == 0
    assert weights[0, 3, 3] == weights[0, 4, 5] == pytest.approx(1 / 9)
    assert weights.sum() == pytest.approx(8 / 9)
    assert context_weights(hole, 3, 0.05)[0, 0, 0] == pytest.approx(0.05)


class Slopes(nn.Module):
    """Images that are planes: brightness and two slopes, and a judge that likes them dark."""

    def __init__(self, size=12, judge=True):
        super().__init__()
        self.shape, self.latent_dim, self.prior = (1, size, size), 3, {"z": normal(3)}
        steps = torch.linspace(-1, 1, size)
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        self.register_buffer("basis", torch.stack([torch.ones_like(x), x, y]))
        if judge:
            self.realness = lambda images: -images.flatten(1).mean(1)

    def decode(self, z):
        return torch.sigmoid(torch.einsum("nk,khw->nhw", z, self.basis))[:, None]

    def sample(self, noise):
        return self.decode(noise["z"])


@pytest.mark.parametrize("mask", ["center", "left", "random:0.8"])
def test_a_search_finds_the_models_own_images(mask):
    model = Slopes()
    z = torch.tensor([[0.3, -1.0, 0.5], [-0.5, 0.2, 1.1], [0.0, 0.9, -0.9]])
    images = model.decode(z)
    hole = masks.named(mask, (12, 12), 3)
    how = Completing(restarts=2, candidates=32, adam_steps=40, lbfgs_steps=60, prior_weight=0.0, latent_weight=0.0)
    done = inpaint(model, torch.where(hole[:, None], torch.nan, images), hole, how)
    torch.testing.assert_close(done.images[:, 0], images, rtol=0, atol=0.01)
    torch.testing.assert_close(done.codes[:, 0], z, rtol=0, atol=0.2)
    assert done.reachable.all()
    assert (done.losses[:, 0] <= done.losses[:, 1]).all()
    keep = ~hole[:, None].expand_as(images)
    for tries in done.images.unbind(1):
        assert torch.equal(tries[keep], images[keep])


def test_a_result_does_not_depend_on_the_other_images():
    model = Slopes()
    images, hole = (
        model.decode(torch.randn(4, 3, generator=torch.Generator().manual_seed(0))),
        masks.named("center", (12, 12)),
    )
    whole = inpaint(model, images, hole, QUICK)
    alone = inpaint(model, images[2:3], hole, QUICK)
    torch.testing.assert_close(whole.images[2:3], alone.images, rtol=0, atol=1e-4)


def test_what_is_out_of_reach_is_said():
    stripes = (torch.arange(12) % 2).float().expand(1, 1, 12, 12)
    done = inpaint(Slopes(), stripes, masks.named("center", (12, 12)), QUICK)
    assert not done.reachable.any()
    assert done.explained.item() < 0.5


def test_the_prior_loss_pulls_towards_what_the_judge_likes():
    model, hole = Slopes(), masks.named("left", (12, 12))
    images = model.decode(torch.tensor([[1.0, 0.0, 0.0]]))
    with_judge, without = (
        inpaint(model, images, hole, Completing(restarts=1, adam_steps=60, lbfgs_steps=20, prior_weight=weight))
        for weight in (1.0, 0.0)
    )
    assert with_judge.made.mean() < without.made.mean() - 0.02


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "vae"
    return nacre.train("vae", out=path, latent_dim=4, hidden=(64,), steps=400, batch_size=64, sample_every=0).path


def test_a_vae_completes_by_sampling(run):
    model = nacre.load(run)
    images = model.sample(4)
    hole = masks.named("left", (8, 8))
    done = resample(model.module, images, hole, chains=3, sweeps=10, seed=1)
    assert done.images.shape == (4, 3, 1, 8, 8)
    keep = ~hole[:, None].expand_as(images)
    assert torch.equal(done.images[:, 1][keep], images[keep])
    assert not torch.equal(done.images[:, 0], done.images[:, 1])
    grey = (torch.where(hole[:, None], images.mean(), images) - images).square()[~keep].mean()
    assert (done.made[:, 0] - images).square()[~keep].mean() < grey
    torch.testing.assert_close(
        resample(model.module, images[1:2], hole, chains=3, sweeps=10, seed=1).made, done.made[1:2]
    )
    with pytest.raises(CapabilityError, match="has no posterior to draw from"):
        resample(Slopes(), torch.rand(1, 1, 12, 12), masks.named("left", (12, 12)))


def test_a_ladder_completes_by_its_own_posterior(monkeypatch):
    torch.manual_seed(0)
    model = LVAE((1, 8, 8), hidden=(16, 8), latent_dim=2).eval()
    images, drawn, real = torch.rand(1, 1, 8, 8), [], LVAE.descend
    monkeypatch.setattr(LVAE, "descend", lambda *given: drawn.append(given[1:]) or real(*given))
    done = resample(model, images, masks.named("left", (8, 8)), chains=1, sweeps=1)
    (noise, features), *_ = [each for each in drawn if each[1] is not None]
    with torch.no_grad():
        layers = real(model, noise, features)[1]  # each latent is drawn given the draw above it
    assert all(bool(each.all()) for each in noise)
    torch.testing.assert_close(done.codes[0, 0], torch.cat([layer.z.flatten() for layer in layers]))


def test_what_cannot_be_meant_is_refused():
    model, hole = Slopes(), torch.zeros(1, 12, 12, dtype=torch.bool)
    with pytest.raises(ShapeError, match="must miss something and leave something"):
        inpaint(model, torch.rand(1, 1, 12, 12), hole)
    with pytest.raises(ShapeError, match="of shape"):
        inpaint(model, torch.rand(1, 3, 12, 12), hole)
    with pytest.raises(ShapeError, match="boolean"):
        inpaint(model, torch.rand(1, 1, 12, 12), hole.float())
    with pytest.raises(CapabilityError, match="does not decode"):
        inpaint(nn.Linear(1, 1), torch.rand(1, 1, 12, 12), hole)


def test_from_the_command_line(run, capsys):
    levels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[2:5, 2:5] = 0
    Image.fromarray(np.stack([levels, alpha], -1)).save("broken.png")
    Image.fromarray(255 - alpha).save("hole.png")
    quick = ["--restarts", "1", "--adam-steps", "5", "--lbfgs-steps", "5", "--candidates", "8"]
    for mask in ("hole.png", "transparent"):
        words = ["inpaint", str(run), "broken.png", "--mask", mask, "--alternatives", "2", *quick, "--json"]
        assert main(words) == 0
        told = json.loads(capsys.readouterr().out)
        assert len(told["images"][0]["loss"]) == 2
        completed = np.asarray(Image.open("completed.png"))
        assert (completed[alpha > 0] == levels[alpha > 0]).all()
        assert np.asarray(Image.open("completed-sheet.png")).shape[1] > 4 * 56
    assert main(["inpaint", str(run), "broken.png", "--method", "sample", "--sweeps", "2", "--out", "all"]) == 0
    assert len(list(Path("all").iterdir())) == 4
    Image.fromarray(np.zeros((9, 9), np.uint8)).save("large.png")
    for words, sentence in (
        (
            ["broken.png", "--mask", "large.png"],
            "the mask large.png is of 9x9 pixels, and the model's images are of 8x8",
        ),
        (["hole.png", "--mask", "transparent"], "hole.png has no transparency"),
        (["broken.png", "hole.png"], "2 images do not go into one file"),
        (["nowhere.png"], "nowhere.png"),
        (["broken.png", "--window", "4"], "window must be odd"),
    ):
        assert main(["inpaint", str(run), *words]) == 2
        assert sentence in capsys.readouterr().err


def turned(pixels, orientation=6):
    """An image file's bytes whose EXIF block says that it is to be turned."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def test_masks_are_turned_as_images_are(tmp_path):
    hole = np.zeros((8, 8), np.uint8)
    hole[0, :3] = 255
    (tmp_path / "mask.png").write_bytes(turned(hole))
    seen = read_mask(tmp_path / "mask.png", "L", (8, 8), "a mask")[0].numpy()
    assert (seen == (np.rot90(hole, -1) > 0)).all()
    clear = np.concatenate([np.zeros((8, 8, 3), np.uint8), 255 - hole[:, :, None]], 2)
    (tmp_path / "clear.png").write_bytes(turned(clear))
    assert (read_mask(tmp_path / "clear.png", "A", (8, 8), "an image")[0].numpy() == seen).all()


def test_a_mask_that_is_none_is_one_sentence(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match="64 megapixels"):
        read_mask(tmp_path / "bomb.png", "L", (8, 8), "a mask")
    whole = turned(np.zeros((8, 8), np.uint8))
    (tmp_path / "damaged.png").write_bytes(whole[:40] + b"\xff" * 20 + whole[60:])
    with pytest.raises(DataError, match="cannot be read as a mask"):
        read_mask(tmp_path / "damaged.png", "L", (8, 8), "a mask")
    with pytest.raises(DataError, match="is a folder"):
        read_mask(tmp_path, "A", (8, 8), "an image with transparent holes")


def test_a_faint_grey_of_16_bits_is_not_white(tmp_path):
    values = np.full((8, 8), 300, np.uint16)
    values[:2] = 40_000
    Image.fromarray(values).save(tmp_path / "mask.png")
    assert int(read_mask(tmp_path / "mask.png", "L", (8, 8), "a mask").sum()) == 16


def test_what_is_transparent_is_not_white(tmp_path):
    painted = np.zeros((8, 8, 4), np.uint8)
    painted[2:4, 2:4] = 255
    Image.fromarray(painted).save(tmp_path / "mask.png")
    seen = read_mask(tmp_path / "mask.png", "L", (8, 8), "a mask")[0].numpy()
    assert (seen == (painted[:, :, 3] > 0)).all()
