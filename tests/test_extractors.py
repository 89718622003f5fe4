"""Extractors and the referee: what their numbers depend on, what they are called, and what they refuse."""

import dataclasses
import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from nacre.data import DataSettings, load
from nacre.errors import CheckpointError, ConfigError, ShapeError
from nacre.metrics import classifiers, resizing
from nacre.metrics.classifiers import Classifier, Referee, as_extractor
from nacre.metrics.distances import frechet_distance
from nacre.metrics.extractors import Card, Extractor, levels, random_extractor
from nacre.metrics.inception import Inception, inception
from nacre.metrics.transformer import transformer
from nacre.run import extractors


def pictures(count=6, channels=3, height=20, width=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def digits():
    return load(DataSettings(data="digits"))


@pytest.fixture
def quick(monkeypatch):
    """Training of a second."""
    monkeypatch.setattr(extractors, "STEPS", 40)


# Random weights


def test_random_weights_are_the_same_on_every_machine():
    """The hash of the weights: if this changes, so must the version, for every number in these features has changed."""
    assert random_extractor().name == "random-v1/seed-0/a1dc86d4"
    assert random_extractor(1).name != random_extractor(0).name


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (11, 37), (130, 70)])
def test_images_of_any_size_and_kind_have_features(channels, size):
    extractor = random_extractor()
    features = extractor(pictures(3, channels, *size))
    assert features.shape == (3, extractor.dim) == (3, 256)
    assert features.dtype == torch.float32
    assert features.isfinite().all()
    assert len(features.unique(dim=0)) == 3


def test_features_do_not_depend_on_the_batch():
    extractor, items = random_extractor(), pictures(30, 1, 28, 28)
    whole = extractor(items)
    for size in (1, 7, 1000):
        assert (extractor(items, batch_size=size) - whole).abs().max() < 1e-5
    assert torch.equal(extractor(items), whole)


def test_floats_and_grey_levels_and_arrays_are_the_same_images():
    extractor, items = random_extractor(), pictures()
    assert torch.equal(extractor(items / 255), extractor(items))
    assert torch.equal(extractor((items.double() + 0.2) / 255.5), extractor(items))
    assert torch.equal(extractor(items.numpy()), extractor(items))


def test_random_features_tell_worse_images(digits):
    items = torch.from_numpy(digits.items[:1200])
    extractor = random_extractor()
    real, others = extractor(items[:600]), extractor(items[600:])
    blurred = extractor(F.avg_pool2d(items[600:].float(), 3, 1, 1) / 255)
    collapsed = others[:1].expand(600, -1) + 0
    floor = frechet_distance(real, others, groups=0).value.value
    assert frechet_distance(real, blurred, groups=0).value.value > 3 * floor
    assert frechet_distance(real, collapsed, groups=0).value.value > 3 * floor


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (torch.zeros(4, 2), "vectors are compared as they are"),
        (torch.zeros(4, 5, 9, 9), "1 to 4 channels"),
        (torch.zeros(0, 1, 9, 9), "1 to 4 channels"),
        (torch.zeros(4, 1, 9, 7), "8 pixels or more"),
        (torch.full((4, 1, 9, 9), 1.5), "rescale"),
        (torch.full((4, 1, 9, 9), torch.nan), "rescale"),
        (torch.zeros(4, 1, 9, 9, dtype=torch.int64), "rescale"),
    ],
)
def test_what_is_no_image_is_refused(items, words):
    with pytest.raises(ShapeError, match=words):
        levels(items)


# Size and channels


@pytest.mark.parametrize("size", [(299, 299), (13, 9)])
def test_clean_is_pillow(size):
    image = torch.rand(1, 1, 32, 41, generator=torch.Generator().manual_seed(0))
    pillow = Image.fromarray(image[0, 0].numpy()).resize(size[::-1], Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(pillow))
    assert float(expected.max()) > 1 or size == (13, 9)  # bicubic overshoots, and clean-fid clips
    assert (resizing.clean(image, size)[0, 0] - expected.clamp(0, 1)).abs().max() < 1e-5


def test_tensorflow1_interpolates_from_the_corner():
    """Output i of 7 to 12 pixels is the value at 7i/12; past the last pixel, that pixel."""
    image = torch.rand(2, 3, 7, 5, generator=torch.Generator().manual_seed(0))
    found = resizing.tensorflow1(image, (12, 5))
    for i in range(12):
        low = 7 * i // 12
        high, share = min(low + 1, 6), 7 * i / 12 - low
        assert torch.allclose(found[:, :, i], image[:, :, low] * (1 - share) + image[:, :, high] * share, atol=1e-6)


def test_protocols_are_the_identity_at_their_size_and_differ_elsewhere():
    image = pictures(2).float() / 255
    same = [rule(image, (20, 24)) for rule in resizing.PROTOCOLS.values()]
    assert all(torch.allclose(each, image, atol=1e-6) for each in same)
    smaller = [rule(image, (9, 9)) for rule in resizing.PROTOCOLS.values()]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (smaller[one] - smaller[other]).abs().max() > 0.05


def test_channels_of_every_kind_become_those_of_every_other():
    page = pictures(2, 4).float() / 255
    for count in (1, 2, 3, 4):
        batch = page[:, :count]
        assert torch.equal(resizing.with_channels(batch, count), batch)
        for wanted in (1, 2, 3, 4):
            assert resizing.with_channels(batch, wanted).shape == (2, wanted, 20, 24)
    clear = torch.cat([page[:, :3], torch.zeros(2, 1, 20, 24)], 1)
    assert torch.allclose(resizing.with_channels(clear, 1), torch.ones(2, 1, 20, 24))
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert torch.allclose(resizing.with_channels(red, 1), torch.full((1, 1, 8, 8), 0.299))


# Networks of labels


def test_auto_learns_from_labels_and_keeps_it(digits, quick, monkeypatch, tmp_path):
    first = extractors.extractor(digits)
    assert first.card.kind == "labels"
    assert first.name == f"labels-v1/digits-{digits.fingerprint[:8]}/seed-0/{first.card.sha256[:8]}"
    assert first.card.accuracy > 0.8
    assert first.card.tested == len(digits.rows("test"))
    assert first.card.steps == 40
    [path] = (tmp_path / "cache" / "extractors").iterdir()
    monkeypatch.setattr(extractors, "train", None)
    again = extractors.extractor(digits)
    assert again.card == first.card
    assert torch.equal(again(digits.items[:20]), first(digits.items[:20]))
    assert path.suffix == ".safetensors"


def test_a_damaged_cache_is_made_again(digits, quick, monkeypatch, tmp_path, caplog):
    first = extractors.extractor(digits, "labels")
    [path] = (tmp_path / "cache" / "extractors").iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    again = extractors.extractor(digits, "labels")
    assert "trained again" in caplog.text
    assert again.card == first.card
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractors, "train", None)
        assert extractors.extractor(digits, "labels").card == first.card


def test_a_cache_that_cannot_be_written_only_costs_time(digits, quick, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path / "file"))
    assert extractors.extractor(digits, "labels").card.kind == "labels"
    assert "cannot be written" in caplog.text


def test_training_sees_the_training_images_alone_and_repeats(digits, monkeypatch):
    monkeypatch.setattr(extractors, "STEPS", 5)
    other = digits.items.copy()
    other[digits.split != 0] = 255
    changed = dataclasses.replace(digits, items=other)
    hashes = [
        classifiers.weights_sha256(extractors.train(each, kind, seed).state_dict())
        for each, kind, seed in (
            (digits, "labels", 0),
            (changed, "labels", 0),
            (digits, "labels", 1),
            (digits, "pinned", 0),
        )
    ]
    assert hashes[0] == hashes[1]
    assert len({hashes[0], *hashes[2:]}) == 3


def test_classifiers_take_nothing_from_the_ambient_generator(digits, monkeypatch):
    monkeypatch.setattr(extractors, "STEPS", 2)
    hashes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        hashes.append(classifiers.weights_sha256(extractors.train(digits, "labels").state_dict()))
        after = torch.rand(1)
        torch.manual_seed(seed)
        assert torch.equal(after, torch.rand(1))
    assert hashes[0] == hashes[1]


def test_images_of_another_size_and_colour_are_brought_to_the_networks(digits):
    network = classifiers.initialized(Classifier((1, 8, 8), 10), "labels", 0)
    extractor = as_extractor(network, Card(kind="labels", sha256="0", seed=0))
    items = torch.from_numpy(digits.items[:5])
    larger = F.interpolate(items, scale_factor=2, mode="nearest").expand(-1, 3, -1, -1)
    assert torch.allclose(extractor(items.expand(-1, 3, -1, -1)), extractor(items), atol=1e-3)
    assert torch.cdist(extractor(larger), extractor(items)).argmin(1).tolist() == [0, 1, 2, 3, 4]
    assert Classifier((3, 256, 128), 2).size == (64, 32)


def test_without_labels_weights_are_random(digits):
    bare = dataclasses.replace(digits, labels=None, classes=())
    assert extractors.extractor(bare).card.kind == "random"
    few = dataclasses.replace(digits, labels=np.where(np.arange(len(digits)) < 300, digits.labels, -1))
    assert extractors.extractor(few).card.kind == "random"
    for data in (bare, few):
        with pytest.raises(ConfigError, match="500 labelled training images"):
            extractors.extractor(data, "labels")


@pytest.mark.parametrize("which", ["vgg", "inception", "dinov2:", "clip"])
def test_an_unknown_extractor_is_refused_with_the_choices(digits, which):
    with pytest.raises(ConfigError, match="auto, random, labels"):
        extractors.extractor(digits, which)


def test_vectors_and_thumbnails_have_no_extractor(digits):
    with pytest.raises(ConfigError, match="vectors"):
        extractors.extractor(load(DataSettings(data="toy:ring8")))
    with pytest.raises(ConfigError, match="8 pixels or more"):
        extractors.extractor(dataclasses.replace(digits, items=digits.items[:, :, :4, :4]))


# The referee


@pytest.fixture(scope="module")
def pair(digits, tmp_path_factory):
    """An extractor and a referee."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractors, "STEPS", 40)
        patch.setenv("NACRE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return extractors.extractor(digits), extractors.referee(digits)


def test_the_referee_is_another_network_and_neither_takes_the_others_place(pair):
    extractor, referee = pair
    referee.check(extractor)
    referee.check(random_extractor())
    assert referee.card.architecture != extractor.card.architecture
    assert referee.card.accuracy > 0.8
    with pytest.raises(ConfigError, match="is the referee, which only judges"):
        as_extractor(referee.network, referee.card)
    with pytest.raises(ConfigError, match="a referee must be none"):
        Referee(extractor.network, extractor.card)
    disguised = Extractor(referee.network, 96, dataclasses.replace(referee.card, kind="labels"))
    with pytest.raises(ConfigError, match="not independent"):
        referee.check(disguised)


def test_a_referees_file_is_refused_as_an_extractor(pair, tmp_path):
    path = tmp_path / "x.safetensors"
    classifiers.store(pair[1].network, pair[1].card, path)
    with pytest.raises(ConfigError, match="referee"):
        as_extractor(*classifiers.load(path))


def test_a_referee_says_probabilities_and_passes_no_gradient(digits, pair):
    referee = pair[1]
    rows = digits.rows("test")
    items = torch.from_numpy(digits.items[rows]).float().div(255).requires_grad_()
    told = referee.probabilities(items)
    assert told.dtype == torch.float64
    assert torch.allclose(told.sum(1), torch.ones(len(rows)).double())
    assert (told.argmax(1).numpy() == digits.labels[rows]).mean() == pytest.approx(referee.card.accuracy)
    assert referee.features(items).shape == (len(rows), referee.dim)
    assert not told.requires_grad
    assert not any(weight.requires_grad for weight in referee.network.parameters())


# Files


def test_half_the_bits_are_read_back_with_their_own_hash(tmp_path):
    network = classifiers.initialized(Classifier((1, 28, 28), 10), "labels", 3).eval()
    path = tmp_path / "x.safetensors"
    whole = classifiers.store(network, Card(kind="labels", sha256="", seed=3), path)
    size = path.stat().st_size
    card = classifiers.store(network, Card(kind="labels", sha256="", seed=3), path, half=True)
    assert path.stat().st_size < 0.6 * size
    assert card.sha256 != whole.sha256
    read, told = classifiers.load(path)
    assert told == card
    items = pictures(4, 1, 28, 28) / 255
    assert torch.allclose(read(items), network(items), atol=0.02)  # batch norms as in use, not as in training


def test_weights_that_are_not_those_that_were_written_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    card = classifiers.store(Classifier((1, 8, 8), 3), Card(kind="labels", sha256="", seed=0), path)
    weights = load_file(path)
    weights["head.bias"] += 1
    layout = {"shape": [1, 8, 8], "classes": 3, "architecture": "pooled"}
    save_file(weights, path, {"card": json.dumps(dataclasses.asdict(card)), "layout": json.dumps(layout)})
    with pytest.raises(CheckpointError, match="not those that were written"):
        classifiers.load(path)
    save_file(weights, path)
    with pytest.raises(CheckpointError, match="no classifier that can be read"):
        classifiers.load(path)
    with pytest.raises(CheckpointError, match="no classifier that can be read"):
        classifiers.load(tmp_path / "absent.safetensors")


# Inception


def block_a(x, pool):
    double = {"3x3dbl_1": (64, x, 1, 1), "3x3dbl_2": (96, 64, 3, 3), "3x3dbl_3": (96, 96, 3, 3)}
    return {"1x1": (64, x, 1, 1), "5x5_1": (48, x, 1, 1), "5x5_2": (64, 48, 5, 5), **double, "_pool": (pool, x, 1, 1)}


def block_b(x):
    return {name: size for name, size in {"3x3": (384, x, 3, 3), **block_a(x, 1)}.items() if name.startswith("3x3")}


def block_c(x, c):
    single = {"7x7_1": (c, x, 1, 1), "7x7_2": (c, c, 1, 7), "7x7_3": (192, c, 7, 1), "7x7dbl_1": (c, x, 1, 1)}
    double = {"7x7dbl_2": (c, c, 7, 1), "7x7dbl_3": (c, c, 1, 7), "7x7dbl_4": (c, c, 7, 1), "7x7dbl_5": (192, c, 1, 7)}
    return {"1x1": (192, x, 1, 1), **single, **double, "_pool": (192, x, 1, 1)}


def block_d(x):
    sevens = {"7x7x3_1": (192, x, 1, 1), "7x7x3_2": (192, 192, 1, 7), "7x7x3_3": (192, 192, 7, 1)}
    return {"3x3_1": (192, x, 1, 1), "3x3_2": (320, 192, 3, 3), **sevens, "7x7x3_4": (192, 192, 3, 3)}


def block_e(x):
    single = {"3x3_1": (384, x, 1, 1), "3x3_2a": (384, 384, 1, 3), "3x3_2b": (384, 384, 3, 1)}
    double = {"3x3dbl_1": (448, x, 1, 1), "3x3dbl_2": (384, 448, 3, 3)}
    pair = {"3x3dbl_3a": (384, 384, 1, 3), "3x3dbl_3b": (384, 384, 3, 1)}
    return {"1x1": (320, x, 1, 1), **single, **double, **pair, "_pool": (192, x, 1, 1)}


STEM = {"1a_3x3": (32, 3, 3, 3), "2a_3x3": (32, 32, 3, 3), "2b_3x3": (64, 32, 3, 3), "3b_1x1": (80, 64, 1, 1)}
BLOCKS = {
    **{"5b": block_a(192, 32), "5c": block_a(256, 64), "5d": block_a(288, 64), "6a": block_b(288)},
    **{f"6{name}": block_c(768, c) for name, c in zip("bcde", (128, 160, 160, 192), strict=True)},
    **{"7a": block_d(768), "7b": block_e(1280), "7c": block_e(2048)},
}
"""The published network's convolutions: outputs, inputs, height and width (Szegedy et al. 2016; names of torchvision)."""


def weights_of(make, share=1):
    """Weights by torchvision's names, of a network with 1/share of the channels."""
    units = {f"Conv2d_{name}": size for name, size in {**STEM, "4a_3x3": (192, 80, 3, 3)}.items()}
    units |= {f"Mixed_{block}.branch{part}": size for block, parts in BLOCKS.items() for part, size in parts.items()}
    weights = {}
    for name, (outputs, inputs, height, width) in units.items():
        inputs = inputs if inputs == 3 else inputs // share
        weights[f"{name}.conv.weight"] = make(outputs // share, inputs, height, width)
        for part in ("weight", "bias", "running_mean", "running_var"):
            numbers = make(outputs // share)
            weights[f"{name}.bn.{part}"] = numbers / 20 if part in ("bias", "running_mean") else numbers
    return weights


def narrow(seed=0):
    """Random weights of a sixteenth of the channels."""
    generator = torch.Generator().manual_seed(seed)

    def make(*shape):
        if len(shape) == 1:
            return torch.rand(shape, generator=generator) + 0.5
        return torch.randn(shape, generator=generator) * float(2 / np.prod(shape[1:])) ** 0.5

    return weights_of(make, share=16)


def test_inception_has_the_published_sizes():
    """21,785,568 weights are torchvision's 27,161,264 without the auxiliary and the last classifier."""
    network = Inception(weights_of(lambda *shape: torch.empty(*shape, device="meta")), "clean")
    trained = [w for name, w in network.named_parameters() if name.endswith(("kernel", "gain", "shift"))]
    assert sum(weight.numel() for weight in trained) == 21_785_568
    assert network(torch.empty(2, 3, 299, 299, device="meta")).shape == (2, network.dim) == (2, 2048)


def reference(weights, name, x, padding=0, stride=1):
    """A convolution, a batch norm and ReLU, in float64."""
    kernel, (gain, shift, mean, variance) = (
        weights[f"{name}.conv.weight"],
        (
            weights[f"{name}.bn.{part}"].double().view(-1, 1, 1)
            for part in ("weight", "bias", "running_mean", "running_var")
        ),
    )
    h = F.conv2d(x, kernel.double(), stride=stride, padding=padding)
    return ((h - mean) / (variance + 1e-3).sqrt() * gain + shift).clamp(min=0)


def test_inceptions_pooling_is_that_of_the_published_weights():
    """Means count no padding; the very last block has the maximum instead."""
    weights = narrow()
    network = Inception(weights)
    x = torch.randn(2, 12, 5, 6, generator=torch.Generator().manual_seed(0))
    shares = F.avg_pool2d(torch.ones(1, 1, 5, 6).double(), 3, 1, 1)
    pooled = F.avg_pool2d(x.double(), 3, 1, 1) / shares
    name = "Mixed_5b.branch"
    expected = [
        reference(weights, f"{name}1x1", x.double()),
        reference(weights, f"{name}5x5_2", reference(weights, f"{name}5x5_1", x.double()), 2),
        reference(
            weights,
            f"{name}3x3dbl_3",
            reference(weights, f"{name}3x3dbl_2", reference(weights, f"{name}3x3dbl_1", x.double()), 1),
            1,
        ),
        reference(weights, f"{name}_pool", pooled),
    ]
    assert torch.allclose(network.block("Mixed_5b", "A", x, last=False).double(), torch.cat(expected, 1), atol=1e-4)
    wide = torch.randn(1, 128, 4, 4, generator=torch.Generator().manual_seed(1))
    found = network.block("Mixed_7c", "E", wide, last=True)[:, -12:].double()
    expected = reference(weights, "Mixed_7c.branch_pool", F.max_pool2d(wide.double(), 3, 1, 1))
    assert torch.allclose(found, expected, atol=1e-4)


def test_inception_is_read_from_either_file_without_its_head(tmp_path):
    weights = {**narrow(), "fc.weight": torch.zeros(8, 128), "fc.bias": torch.zeros(8)}
    torch.save(weights, tmp_path / "fid.pth")
    save_file(weights, tmp_path / "fid.safetensors")
    one, other = inception(tmp_path / "fid.pth"), inception(tmp_path / "fid.safetensors", "pytorch-fid")
    assert one.dim == 128
    assert one.name == f"inception-v3/tensorflow1/{one.card.sha256[:8]}"
    assert other.name == f"inception-v3/pytorch-fid/{one.card.sha256[:8]}"
    items = pictures(3, 1, 28, 28)
    features = one(items)
    assert features.shape == (3, 128)
    assert (one(items, batch_size=1) - features).abs().max() < 1e-5
    assert (other(items) - features).abs().max() > 1e-3
    assert inception(tmp_path / "fid.pth", "clean").card.sha256 == one.card.sha256


class Trap:
    """A pickle that runs code."""

    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    torch.save({"weights": Trap()}, tmp_path / "other.pth")
    Path("sprung").unlink(missing_ok=True)
    for name in ("trap.pth", "other.pth"):
        with pytest.raises(CheckpointError, match="read safely"):
            inception(tmp_path / name)
    assert not Path("sprung").exists()


def test_what_is_no_inception_is_refused(tmp_path, digits):
    weights = narrow()
    del weights["Mixed_6c.branch7x7dbl_4.conv.weight"]
    with pytest.raises(CheckpointError, match=r"Mixed_6c.branch7x7dbl_4.conv.weight is missing"):
        Inception(weights)
    weights = narrow()
    del weights["Mixed_6c.branch_pool.bn.running_var"]
    with pytest.raises(CheckpointError, match=r"Mixed_6c.branch_pool.bn.running_var is missing"):
        Inception(weights)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="table of tensors"):
        inception(tmp_path / "list.pth")
    with pytest.raises(ConfigError, match="there is no file of Inception weights"):
        extractors.extractor(digits, f"inception:{tmp_path / 'absent.pth'}")
    torch.save(narrow(), tmp_path / "fid.pth")
    with pytest.raises(ConfigError, match="the protocol is one of"):
        extractors.extractor(digits, f"inception-opencv:{tmp_path / 'fid.pth'}")
    assert extractors.extractor(digits, f"inception-pytorch-fid:{tmp_path / 'fid.pth'}").card.protocol == "pytorch-fid"


# Transformers


class Stub(nn.Module):
    """Stands for a model of transformers: its "features" are the mean colours of what it is given."""

    asked: ClassVar[dict] = {}
    missing: ClassVar[list] = []
    config = SimpleNamespace(patch_size=2, image_size=24, hidden_size=3, projection_dim=3)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    @classmethod
    def from_pretrained(cls, folder, **options):
        cls.asked = {"folder": folder, **options}
        return cls(), {"missing_keys": cls.missing}

    def forward(self, pixel_values):
        self.seen = pixel_values
        means = pixel_values.mean((2, 3))
        return SimpleNamespace(last_hidden_state=torch.stack([means, means + 1], 1), image_embeds=means)


@pytest.fixture
def stub(monkeypatch, tmp_path):
    told = SimpleNamespace(is_progress_bar_enabled=lambda: False, disable_progress_bar=lambda: None)
    models = {"Dinov2Model": Stub, "CLIPVisionModelWithProjection": Stub}
    library = SimpleNamespace(**models, utils=SimpleNamespace(logging=told))
    monkeypatch.setitem(sys.modules, "transformers", library)
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(("kind", "size"), [("dinov2", 32), ("clip", 24)])
def test_transformers_are_asked_for_safe_local_weights_and_given_standard_colours(stub, digits, kind, size):
    extractor = extractors.extractor(digits, f"{kind}:{stub}")
    assert extractor.dim == 3
    assert extractor.name.startswith(f"{kind}/clean-uint8/")
    asked = {**Stub.asked}
    assert asked.pop("folder") == str(stub)
    assert asked["local_files_only"] and asked["use_safetensors"] and asked["dtype"] == torch.float32  # noqa: PT018
    assert asked["trust_remote_code"] is False
    grey = torch.full((2, 1, 9, 15), 0.5)
    mean, std = {
        "dinov2": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        "clip": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
    }[kind]
    expected = (torch.tensor(128 / 255) - torch.tensor(mean)) / torch.tensor(std)
    assert torch.allclose(extractor(grey), expected.expand(2, 3), atol=1e-5)
    assert extractor.network.model.seen.shape == (2, 3, size, size)


def test_a_model_that_lacks_weights_is_refused(stub, monkeypatch):
    monkeypatch.setattr(Stub, "missing", ["encoder.layer.0"])
    with pytest.raises(CheckpointError, match=r"lacks weights of Dinov2Model: encoder.layer.0"):
        transformer("dinov2", stub)


def test_without_transformers_or_its_files_a_sentence_says_so(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no model folder"):
        transformer("clip", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match="needs transformers"):
        transformer("clip", tmp_path)


@pytest.mark.parametrize("kind", ["dinov2", "clip"])
def test_tiny_models_of_transformers_are_read(kind, tmp_path):
    import transformers

    torch.manual_seed(0)
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    if kind == "dinov2":
        config = transformers.Dinov2Config(**tiny, mlp_ratio=1, image_size=28, patch_size=14)
        model = transformers.Dinov2Model(config)
    else:
        config = transformers.CLIPVisionConfig(**tiny, image_size=32, patch_size=16, projection_dim=8)
        model = transformers.CLIPVisionModelWithProjection(config)
    model.save_pretrained(tmp_path, safe_serialization=True)
    extractor = transformer(kind, tmp_path)
    items = pictures(3)
    features = extractor(items)
    assert features.shape == (3, 16 if kind == "dinov2" else 8)
    assert (extractor(items, batch_size=1) - features).abs().max() < 1e-5
    assert extractor.name == transformer(kind, tmp_path).name


# The pinned classifiers


@pytest.mark.parametrize(("name", "least"), [("mnist", 0.985), ("fashion-mnist", 0.89)])
def test_pinned_weights_come_with_nacre(name, least):
    extractor = classifiers.pinned(name)
    assert extractor.card.kind == "pinned"
    assert extractor.card.accuracy > least
    assert extractor.card.tested == 10_000
    assert extractor.name.startswith(f"pinned-v1/{name}-")
    card = Path(classifiers.__file__).parent / "pinned" / "README.md"
    assert f"`{extractor.name}`" in card.read_text(encoding="utf-8")
    assert extractor(pictures(4, 3, 28, 28)).shape == (4, 128)


def test_the_pinned_classifier_of_mnist_reads_other_peoples_digits(digits):
    """Those of scikit-learn, of 8×8 pixels and another scanner, far more often than by chance (0.1)."""
    path = Path(classifiers.__file__).parent / "pinned" / "mnist.safetensors"
    network, _ = classifiers.load(path)
    inner = F.interpolate(torch.from_numpy(digits.items[:300]) / 255, size=20, mode="bilinear")
    told = network.eval().logits(F.pad(inner, (4,) * 4)).argmax(1)
    assert (told.numpy() == digits.labels[:300]).mean() > 0.4


def test_an_unknown_pinned_classifier_is_refused_with_the_names(digits):
    with pytest.raises(ConfigError, match="fashion-mnist, mnist"):
        extractors.extractor(digits, "pinned:cifar10")
    assert extractors.extractor(digits, "pinned:mnist").card.data == "mnist"
