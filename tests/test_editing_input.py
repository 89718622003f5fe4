"""What editing's functions are given wrongly is refused in one sentence, and never answered with nonsense."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from nacre import editing
from nacre.cli.inpaint import read_mask
from nacre.data.decode import read_picture
from nacre.editing import latents, masks
from nacre.editing.anomaly import Detector
from nacre.editing.dfi import Interpolating, interpolate_features
from nacre.editing.inpaint import Completing, inpaint, resample
from nacre.errors import CapabilityError, CheckpointError, ConfigError, DataError, ShapeError
from nacre.models.ae import AE
from nacre.models.gan import GAN
from nacre.models.vae import VAE

QUICK = Completing(restarts=2, candidates=16, adam_steps=3, lbfgs_steps=3)
SEARCH = editing.Search(restarts=1, candidates=16, adam_steps=3, lbfgs_steps=3)
CENTER = masks.named("center", (8, 8))
SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def models():
    """A VAE with a two-dimensional latent, GANs, an autoencoder and a VAE of vectors, none of them trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {
            "vae": VAE(SHAPE, latent_dim=2, hidden=(16,)).eval(),
            "gan": GAN(SHAPE, latent_dim=4, hidden=(16,)).eval(),
            "labels": GAN(SHAPE, latent_dim=4, hidden=(16,), classes=3).eval(),
            "ae": AE(SHAPE, latent_dim=2, hidden=(16,)).eval(),
            "points": VAE((3,), latent_dim=2, hidden=(16,)).eval(),
        }


def pictures(count=3, shape=SHAPE, seed=0):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def spoilt(value, items=None):
    items = pictures() if items is None else items.clone()
    items.view(-1)[0] = value
    return items


def uses(models):
    """Every function of items, by name."""
    detector = Detector(models["vae"]).fit(pictures(5), pictures(9, seed=1))
    return {
        "find, encoded": lambda x: editing.find(models["vae"], x),
        "find, searched": lambda x: editing.find(models["gan"], x, SEARCH),
        "invert": lambda x: editing.invert(models["gan"], x, SEARCH),
        "scores": detector.scores,
        "held out": lambda x: Detector(models["vae"]).fit(pictures(), x),
        "normal": lambda x: Detector(models["vae"], "features").fit(x, pictures()),
        "heat_map": detector.heat_map,
        "inpaint": lambda x: inpaint(models["gan"], x, CENTER, QUICK),
        "resample": lambda x: resample(models["vae"], x, CENTER, chains=2, sweeps=2),
    }


NAMES = ["find, encoded", "find, searched", "invert", "scores", "held out", "normal", "heat_map", "inpaint", "resample"]


@pytest.mark.parametrize("name", NAMES)
def test_items_of_another_shape_are_refused(models, name):
    use = uses(models)[name]
    use(pictures())
    for shape in ((8, 8), (1, 9, 9), (3, 8, 8), (64,)):
        with pytest.raises(ShapeError):
            use(pictures(shape=shape))


@pytest.mark.parametrize("name", NAMES)
def test_images_are_finite_floats_from_zero_to_one(models, name):
    use = uses(models)[name]
    with pytest.raises(ShapeError, match=r"floats in \[0, 1\], got torch.uint8"):
        use((pictures() * 255).to(torch.uint8))
    for value in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(ShapeError, match="NaN or infinity"):
            use(spoilt(value))
    for value in (-0.5, 200.0):
        with pytest.raises(ShapeError, match="rescale"):
            use(spoilt(value))


def test_vectors_are_any_finite_numbers(models):
    points = 100 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    model = models["points"]
    assert editing.find(model, points).codes.shape == (4, 2)
    assert Detector(model).scores(points).shape == (4,)
    for use in (Detector(model).scores, lambda x: editing.find(model, x)):
        with pytest.raises(ShapeError, match="NaN or infinity"):
            use(spoilt(torch.nan, points))
        with pytest.raises(ShapeError, match=r"takes items of shape \(N, 3\), got \(4, 2\)"):
            use(points[:, :2])


def test_nothing_at_all_is_refused(models):
    with pytest.raises(ShapeError, match="no images to complete"):
        inpaint(models["gan"], pictures(0), CENTER, QUICK)
    with pytest.raises(ShapeError, match="no images to complete"):
        resample(models["vae"], pictures(0), CENTER)
    with pytest.raises(ShapeError, match="one at least"):
        interpolate_features(lambda x: [x], pictures(0), pictures(), pictures())


def test_what_lies_in_a_hole_does_not_count(models):
    x = torch.where(CENTER[:, None], torch.nan, pictures())
    assert inpaint(models["gan"], x, CENTER, QUICK).images.isfinite().all()
    assert resample(models["vae"], x, CENTER, chains=2, sweeps=2).images.isfinite().all()


# Deep feature interpolation.


def test_features_are_interpolated_of_images_only():
    def edited(x, source, target):
        return interpolate_features(lambda x: [x], x, source, target, Interpolating(steps=2))

    with pytest.raises(ShapeError, match=r"of images \(N, C, H, W\)"):
        edited(*(torch.rand(4, 3, generator=torch.Generator().manual_seed(0)) for _ in range(3)))
    for place in range(3):
        for wrong in (spoilt(torch.nan), spoilt(torch.inf), spoilt(9.0), (255 * pictures()).to(torch.uint8)):
            given = [pictures(seed=seed) for seed in range(3)]
            given[place] = wrong
            with pytest.raises(ShapeError):
                edited(*given)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_strengths_are_finite(models, value):
    with pytest.raises(ConfigError, match="strength must be a finite number"):
        Interpolating(strength=value)
    with pytest.raises(ConfigError, match="strengths must be finite"):
        editing.move(models["gan"], torch.zeros(1, 4), torch.ones(4), torch.tensor([0.0, value]))


# Directions, walks and codes.


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_direction_that_is_not_finite_is_refused(tmp_path, value):
    for number, vector in enumerate((torch.tensor([1.0, value]), torch.ones(2, 2), torch.tensor(1.0))):
        editing.Direction(vector).save(tmp_path / f"{number}.safetensors")
        with pytest.raises(CheckpointError, match="no row of finite numbers"):
            editing.Direction.load(tmp_path / f"{number}.safetensors")


def test_walks_that_cannot_be_meant(models):
    for stops in (torch.zeros(3, 5), torch.zeros(3), torch.zeros(3, 2, 4)):
        with pytest.raises(ShapeError, match=r"codes of shape \(K, 4\)"):
            editing.walk(models["gan"], stops, 3)
    with pytest.raises(ConfigError, match="a path is one of auto, spherical, linear; got 'zigzag'"):
        editing.walk(models["gan"], torch.ones(3, 4), 3, path="zigzag")


def test_only_a_latent_of_two_normal_numbers_is_shown_whole(models):
    assert editing.manifold(models["vae"], 3).shape == (9, *SHAPE)
    for name in ("gan", "ae", "labels"):
        with pytest.raises(CapabilityError, match="no latent of two normal numbers"):
            editing.manifold(models[name], 3)
    with pytest.raises(ConfigError, match="side must be 1 or more"):
        editing.manifold(models["vae"], 0)


def test_seeds_and_numbers_out_of_range(models):
    gan = models["gan"]
    for use in (
        lambda: editing.random_codes(gan, 2, seed=-1),
        lambda: editing.random_codes(gan, 2, seed=2**32),
        lambda: editing.find(models["vae"], pictures(), seed=-1),
        lambda: editing.invert(gan, pictures(), SEARCH, seed=-1),
        lambda: editing.train_encoder(gan, steps=1, seed=-1),
        lambda: inpaint(gan, pictures(), CENTER, QUICK, seed=-1),
        lambda: resample(models["vae"], pictures(), CENTER, seed=-1),
        lambda: Detector(gan, seed=-1),
    ):
        with pytest.raises(ConfigError, match="a seed must be from 0 to 4294967295"):
            use()
    with pytest.raises(ConfigError, match="one sample at least"):
        editing.numbered_codes(gan, [])


def test_a_single_code_the_last_seed_and_any_sequence_of_numbers_can_be_meant(models):
    gan = models["gan"]
    assert editing.random_codes(gan, 1, seed=2**32 - 1).shape == (1, 4)
    assert torch.equal(editing.numbered_codes(gan, (3,)), editing.random_codes(gan, 4)[3:])
    assert latents.decode(gan, editing.numbered_codes(gan, np.arange(2))).shape == (2, *SHAPE)


def test_labels_are_one_an_item(models):
    model = models["labels"]
    for labels in (torch.tensor([1]), torch.tensor([1, 2, 0, 1]), torch.tensor([[1], [2], [0]]), torch.ones(3)):
        with pytest.raises(ShapeError, match="labels are int64, one an item"):
            editing.random_codes(model, 3, labels=labels)
        with pytest.raises(ShapeError, match="labels are int64, one an item"):
            editing.invert(model, pictures(), SEARCH, labels=labels)


def test_an_encoder_is_trained_for_a_step_at_least(models):
    with pytest.raises(ConfigError, match="steps must be 1 or more"):
        editing.train_encoder(models["gan"], steps=0)
    with pytest.raises(ConfigError, match="batch_size must be 1 or more"):
        editing.train_encoder(models["gan"], steps=1, batch_size=0)


# Completion and anomalies.


def test_a_chain_has_a_sweep_at_least(models):
    for wrong in ({"sweeps": 0}, {"chains": 0}):
        with pytest.raises(ConfigError, match="must be 1 or more, got 0"):
            resample(models["vae"], pictures(), CENTER, **wrong)


def test_a_threshold_needs_held_out_items_and_a_share(models):
    detector = Detector(models["vae"])
    with pytest.raises(ConfigError, match="call fit first"):
        detector.threshold()
    detector.fit(pictures(), pictures(9, seed=1))
    assert np.isfinite(detector.threshold(0.5))
    for rate in (0.0, 1.0, 2.0, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="rate must be a share between 0 and 1"):
            detector.threshold(rate)
        with pytest.raises(ConfigError, match="rate must be a share between 0 and 1"):
            detector.predict(pictures(), rate)


@pytest.mark.parametrize("name", ["vae", "gan", "ae"])
def test_a_completion_does_not_depend_on_its_companions(models, name):
    """Nor on how many are searched at a time: what a long search makes of rounding errors is hidden in float64."""
    how = Completing(restarts=4, candidates=32, adam_steps=60, lbfgs_steps=40)
    x = pictures(9, seed=3)
    together = inpaint(models[name], x, CENTER, how)
    apart = inpaint(models[name], x, CENTER, how, chunk=1)
    assert together.images.dtype == torch.float32
    for part in ("images", "losses", "residual", "explained"):
        torch.testing.assert_close(getattr(together, part), getattr(apart, part), rtol=0, atol=1e-5)
    known = ~CENTER[:, None].expand_as(x)
    assert torch.equal(together.images[:, 0][known], x[known])


# Masks.


def written(path, values, orientation=None):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(values).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_masks_are_turned_as_images_are(tmp_path, orientation):
    white = np.zeros((4, 6), np.uint8)
    white[:2, :1], white[0, 2] = 255, 255
    mask = written(tmp_path / "mask.png", white, orientation=orientation)
    with mask.open("rb") as file:
        upright = torch.from_numpy(read_picture(file).pixels[:, :, 0] > 0)
    assert torch.equal(read_mask(mask, "L", tuple(upright.shape), "a mask")[0], upright)
    clear = np.dstack([np.full((4, 6, 3), 99, np.uint8), 255 - white])
    seen = written(tmp_path / "clear.png", clear, orientation=orientation)
    assert torch.equal(read_mask(seen, "A", tuple(upright.shape), "an image")[0], upright)


def test_a_mask_of_16_bits_is_white_from_the_half_on(tmp_path):
    levels = np.array([[0, 300, 32000], [33200, 65000, 65535]], np.uint16)
    mask = read_mask(written(tmp_path / "mask.png", levels), "L", (2, 3), "a mask")
    assert mask[0].tolist() == [[False, False, False], [True, True, True]]


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def test_masks_that_cannot_be_read(tmp_path):
    head = b"\x89PNG\r\n\x1a\n"
    huge = head + chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)) + chunk(b"IDAT", b"")
    page = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(page, format="PNG")
    sound = page.getvalue()
    broken = {
        "huge": huge,
        "no-head": head + chunk(b"IDAT", b"nothing"),
        "short-head": head + chunk(b"IHDR", b"\x00"),
        "cut": sound[:-30],
        "sum": sound[:29] + b"\x00\x00\x00\x00" + sound[33:],
        "text": b"no picture",
        "empty": b"",
    }
    for name, content in broken.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(content)
        for channel in "LA":
            with pytest.raises(DataError, match="cannot be read as a mask"):
                read_mask(path, channel, (8, 8), "a mask")
