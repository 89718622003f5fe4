"""Two sides: their data, translators and judges, image pools, and weights of the authors' code."""

import json
import math
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import nacre
from nacre import cli, seeds
from nacre.data import DataSettings, load, sides
from nacre.data.stream import Pairs, Stream
from nacre.engine.ranks import Ranks
from nacre.engine.settings import Training
from nacre.engine.update import Update, in_motion
from nacre.errors import CheckpointError, ConfigError, DataError, ShapeError
from nacre.models.cyclegan import CycleGAN
from nacre.models.pix2pix import Pix2Pix
from nacre.networks import translation
from nacre.networks.translation import Pool, doubling
from nacre.protocols import Step
from nacre.schedules import factor

TINY = {"width": 4, "judge_width": 4, "blocks": 1}


def write_images(folder: Path, names: list[str], grey: bool = False, size: tuple[int, int] = (18, 16)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(names))
    for name in names:
        pixels = rng.integers(0, 256, size if grey else (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


@pytest.fixture
def both(tmp_path):
    """A folder in the authors' layout: 12 + 3 grey images of A and 9 + 3 colour images of B."""
    write_images(tmp_path / "trainA", [f"{n}.png" for n in range(12)], grey=True)
    write_images(tmp_path / "testA", ["a.png", "b.png", "c.png"], grey=True)
    write_images(tmp_path / "trainB", [f"{n}.png" for n in range(9)])
    write_images(tmp_path / "testB", ["b.png", "c.png", "d.png"])
    return tmp_path


def test_a_folder_in_the_authors_layout_has_two_sides(both):
    found = load(DataSettings(data=str(both), validation=0.0))
    assert found.other is not None
    assert (found.shape, found.other.shape) == ((1, 18, 16), (3, 18, 16))
    assert (len(found.rows("train")), len(found.rows("test"))) == (12, 3)
    assert (len(found.other.rows("train")), len(found.other.rows("test"))) == (9, 3)
    again = load(DataSettings(data=found.source, data_b=found.other.source, validation=0.0))
    assert again.fingerprint == found.fingerprint


def test_two_sources_are_brought_to_the_size_of_the_first(tmp_path):
    write_images(tmp_path / "a", ["x.png", "y.png"])
    write_images(tmp_path / "b", ["u.png", "v.png", "w.png"], size=(40, 30))
    found = load(DataSettings(data=str(tmp_path / "a"), data_b=str(tmp_path / "b"), validation=0.0, test=0.0))
    assert found.other is not None
    assert found.other.shape == found.shape == (3, 18, 16)


def test_the_fingerprint_is_of_both_sides(tmp_path):
    write_images(tmp_path / "a", ["x.png", "y.png"])
    write_images(tmp_path / "b", ["u.png", "v.png"])
    settings = DataSettings(data=str(tmp_path / "a"), data_b=str(tmp_path / "b"), validation=0.0, test=0.0)
    before = load(settings).fingerprint
    write_images(tmp_path / "b", ["u.png", "v.png", "w.png"])
    assert load(settings).fingerprint != before


def test_vectors_have_no_other_side(tmp_path):
    with pytest.raises(DataError, match="toy:ring8 holds no images"):
        load(DataSettings(data="toy:ring8", data_b="toy:grid25"))


def test_pairs_are_made_by_name_and_counted(both):
    found = load(DataSettings(data=str(both), validation=0.0))
    rows, others = sides.paired_rows(found, "train")
    assert [found.names[row] for row in rows] == [found.other.names[row] for row in others]
    assert len(rows) == 9
    rows, others = sides.paired_rows(found, "test")
    assert (
        [found.names[row] for row in rows] == ["test/b.png", "test/c.png"] == [found.other.names[row] for row in others]
    )
    told = sides.about_unpaired(found)
    assert told is not None
    assert told.startswith("5 images have no partner by name and are left out (A's ")


def test_no_common_name_is_one_sentence(tmp_path):
    write_images(tmp_path / "a", ["x.png", "y.png"])
    write_images(tmp_path / "b", ["u.png", "v.png"])
    found = load(DataSettings(data=str(tmp_path / "a"), data_b=str(tmp_path / "b"), validation=0.0, test=0.0))
    with pytest.raises(DataError, match=r"no image of .*a is called as one of .*b is"):
        sides.partners(found)


def test_streams_of_one_seed_keep_pairs_and_of_two_make_new_ones_each_epoch():
    items = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1).repeat(4, 2).repeat(4, 3)
    rows, partners = np.array([0, 2, 4, 6, 8]), np.array([8, 6, 4, 2, 0])
    pairs = Pairs(Stream(items, rows, 2, seed=3), Stream(items, partners, 2, seed=3))
    for step in range(10):
        a, b = pairs.batch(step)
        assert (a.int() + b.int() == 8).all()
    apart = Pairs(Stream(items, rows, 5, seed=3), Stream(items, rows, 5, seed=4))
    seen = {tuple(zip(*(side[:, 0, 0, 0].tolist() for side in apart.batch(step)), strict=True)) for step in range(6)}
    assert len(seen) == 6


def test_a_judge_sees_patches_of_the_published_sizes():
    assert [translation.patch(layers) for layers in (1, 2, 3)] == [16, 34, 70]
    judge = translation.patch_judge(1, (1, 64, 64), width=4, layers=2)
    x = torch.rand(1, 1, 64, 64, requires_grad=True)
    values = nn.Sequential(*[m for m in judge.model if not isinstance(m, nn.GroupNorm)])(x)
    (slope,) = torch.autograd.grad(values[0, 0, 7, 7], x)
    seen = slope[0, 0].abs().sum(0).nonzero()
    assert int(seen.max() - seen.min()) + 1 == 34
    assert [translation.fitting_layers((3, side, side)) for side in (16, 28, 32, 64, 128)] == [1, 1, 2, 3, 3]


def test_a_judge_sees_the_steps_between_pixels_lifted():
    judge = translation.patch_judge(1, (1, 16, 16), edges=32.0)
    judge.model = nn.Identity()
    shade = torch.linspace(0, 15 / 255, 16).expand(1, 1, 16, 16)
    image, across, down = judge(shade)[0]
    torch.testing.assert_close(image, 2 * shade[0, 0] - 1)
    torch.testing.assert_close(across[:, :15], torch.full((16, 15), math.tanh(32 / 255)))
    assert not across[:, 15].any()
    assert not down.any()


def test_all_that_judges_see_has_noise_of_the_step_and_translations_have_none():
    shown = []
    model = CycleGAN((3, 16, 16), width=4, judge_width=4, blocks=1, pool=0, instance_noise=0.1)
    for judge in (model.judge_a, model.judge_b):
        judge.register_forward_pre_hook(lambda _, given: shown.append(given[0].detach()))
    batch = (torch.rand(64, 3, 16, 16), torch.rand(64, 3, 16, 16))
    for objective in model.objectives():
        step = Step(torch.tensor(0), seeds.noises(objective.draws, objective.name, rows=range(64)))
        objective.loss(batch, step)
    fakes = [model.translate(batch[0], "a2b"), model.translate(batch[1], "b2a")]
    clean = [fakes[0], fakes[1], batch[0], fakes[1], batch[1], fakes[0]]
    noises = [seen - image.detach() for seen, image in zip(shown, clean, strict=True)]
    assert all(abs(float(noise.std()) - 0.1) < 0.002 for noise in noises)
    assert not any(torch.equal(one, other) for one, other in combinations(noises, 2))


def test_a_resize_leaves_no_dots_where_a_deconvolution_does():
    torch.manual_seed(0)
    plain = torch.ones(1, 4, 6, 6)
    for kernel in (3, 4):
        dots = doubling(4, 2, "deconvolution", kernel=kernel)(plain)[:, :, 2:-2, 2:-2]
        none = doubling(4, 2, "resize", kernel=kernel)(plain)
        assert dots.shape == none[:, :, 2:-2, 2:-2].shape
        assert dots.flatten(2).std(2).min() > 0.01
        assert none.flatten(2).std(2).max() < 1e-6


@pytest.mark.parametrize("upsampling", ["deconvolution", "resize"])
@pytest.mark.parametrize("kind", ["resnet", "unet"])
def test_a_translator_takes_any_size_and_keeps_it(kind, upsampling):
    network = translation.translator(3, 1, (3, 32, 32), kind=kind, width=4, upsampling=upsampling)
    for size in ((32, 32), (31, 47), (18, 65)):
        output = network(torch.rand(2, 3, *size)).detach()
        assert output.shape == (2, 1, *size)
        assert 0 <= float(output.min()) <= float(output.max()) <= 1


@pytest.mark.parametrize("kind", ["resnet", "unet"])
def test_images_one_by_one_have_the_gradients_of_their_batch(kind):
    network = translation.translator(3, 3, (3, 16, 16), kind=kind, width=4).double()
    network.to(memory_format=torch.channels_last)
    batch = seeds.noise(seeds.uniform(3, 16, 16), "images", rows=range(2)).double()
    weights = list(network.parameters())

    def gradients(items):
        items = items.contiguous(memory_format=torch.channels_last)
        return torch.autograd.grad(network(items).pow(3).sum(), weights)

    for whole, first, second in zip(gradients(batch), gradients(batch[:1]), gradients(batch[1:]), strict=True):
        torch.testing.assert_close(first + second, whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kind", "of_the_other"), [("resnet", {"depth": 2}), ("unet", {"blocks": 2})])
def test_numbers_of_the_other_network_are_refused(kind, of_the_other):
    with pytest.raises(ConfigError, match="Leave it out"):
        Pix2Pix((3, 16, 16), network=kind, width=4, **of_the_other)


def test_blocks_follow_the_paper():
    def of(side: int) -> int:
        network = translation.translator(3, 3, (3, side, side), width=4)
        return sum(isinstance(module, translation.ResidualBlock) for module in network.modules())

    assert (of(128), of(256)) == (6, 9)


def pool_after(pool: Pool, batches: int, size: int, parts: int = 1) -> torch.Tensor:
    """What a pool shows, image by image, where image number n is filled with n."""
    shown = []
    for step in range(batches):
        new = torch.arange(step * size, (step + 1) * size).float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
        each = size // parts
        for part in range(parts):
            rows = range(part * each, (part + 1) * each)
            chance = seeds.noise(seeds.uniform(1), 0, "show", at=step, rows=rows)
            row = seeds.noise(seeds.position(), 0, "row", at=step, rows=rows)
            shown.append(pool(new[rows.start : rows.stop], chance, row, torch.tensor(step)))
    return torch.cat(shown)[:, 0, 0, 0]


def test_a_pool_shows_old_images_half_of_the_time_and_each_of_them_once():
    shown = pool_after(Pool(10, (1, 2, 2)), 500, 4)
    number = torch.arange(len(shown))
    old = shown != number
    assert (shown[:4] == number[:4]).all()
    assert 0.45 < float(old[100:].float().mean()) < 0.55
    assert bool((shown <= number).all())
    assert len(set(shown[old].tolist())) == int(old.sum())  # an image that is shown again has left the pool
    ages = (number - shown)[old]
    assert 17 < float(ages.mean()) < 23  # a slot comes up once in ten images, and every second time its image goes


def test_a_pool_does_not_depend_on_how_the_batch_is_split():
    whole, parts = Pool(10, (1, 2, 2)), Pool(10, (1, 2, 2))
    assert torch.equal(pool_after(whole, 50, 4), pool_after(parts, 50, 4, parts=2))
    assert torch.equal(whole.images, parts.images)


def test_a_pool_without_room_says_so_and_one_of_nothing_shows_what_is_new():
    new, row, index = torch.rand(4, 1, 2, 2), torch.arange(4), torch.tensor(0)
    with pytest.raises(ConfigError, match="a pool of 3 images has no room for a batch of 4"):
        Pool(3, (1, 2, 2))(new, torch.zeros(4, 1), row, index)
    assert torch.equal(Pool(0, (1, 2, 2))(new, torch.zeros(4, 1), row, index), new)
    model = CycleGAN((1, 16, 16), width=4, judge_width=4, blocks=1, pool=3)
    with pytest.raises(ConfigError, match="a pool of 3 images has no room for a batch of 4"):
        in_motion(model, Training(steps=1, batch_size=4), ranks=Ranks(0, 2))  # which holds two of the four


def test_the_translators_loss_is_the_papers():
    torch.manual_seed(0)
    model = CycleGAN((3, 16, 16), **TINY)
    a, b = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    loss, parts = model.translators_loss((a, b), Step(torch.tensor(0), {}))
    fake_b, fake_a = model.a2b(a), model.b2a(b)
    wide = lambda x: 2 * x - 1  # noqa: E731
    l1 = nn.functional.l1_loss
    expected = ((model.judge_b(fake_b) - 1) ** 2).mean() + ((model.judge_a(fake_a) - 1) ** 2).mean()
    expected = expected + 10 * (l1(wide(model.b2a(fake_b)), wide(a)) + l1(wide(model.a2b(fake_a)), wide(b)))
    expected = expected + 5 * (l1(wide(model.a2b(b)), wide(b)) + l1(wide(model.b2a(a)), wide(a)))
    torch.testing.assert_close(loss, expected)
    assert set(parts) == {"fooling_a", "fooling_b", "cycle", "identity"}


def test_identity_needs_equal_channels():
    assert CycleGAN((1, 16, 16), channels_b=3, **TINY).identity == 0
    with pytest.raises(ConfigError, match="A has 1 channels and B 3"):
        CycleGAN((1, 16, 16), channels_b=3, identity=0.5, **TINY)


@pytest.mark.parametrize("model", [CycleGAN, Pix2Pix])
def test_vectors_are_refused(model):
    with pytest.raises(ConfigError, match="translates images of 8 pixels and more, got vectors of 2 numbers"):
        model((2,))


def test_images_without_a_partner_are_counted_and_named(tmp_path, caplog):
    write_images(tmp_path / "a", [f"{n}.png" for n in range(8)])
    write_images(tmp_path / "b", [f"{n}.png" for n in range(1, 10)])
    two = {"data": str(tmp_path / "a"), "data_b": str(tmp_path / "b"), "validation": 0.3, "test": 0.0}
    caplog.set_level("INFO", logger="nacre")
    nacre.train("pix2pix", out=tmp_path / "run", steps=1, batch_size=1, width=4, judge_width=4, signal_every=0, **two)
    assert "3 images have no partner by name and are left out (A's 0.png, B's 8.png, B's 9.png)" in caplog.text
    rows = [len(sides.paired_rows(load(DataSettings(**two)), split)[0]) for split in ("train", "validation")]
    assert f"{rows[0]} items of 3×18×16 to train on, {rows[1]} to validate with" in caplog.text


def test_pix2pix_learns_to_invert():
    torch.manual_seed(0)
    model = Pix2Pix((1, 16, 16), width=8, judge_width=4)
    updates = [Update(model, objective, Training(steps=150, batch_size=8, lr=2e-3)) for objective in model.objectives()]
    smooth = nn.AvgPool2d(5, 1, 2)
    a = smooth(torch.rand(64, 1, 16, 16))
    a = (a - a.amin()) / (a.amax() - a.amin())
    for step in range(150):
        rows = torch.arange(step * 8, step * 8 + 8) % 56
        for update in updates:
            update(step, (a[rows], 1 - a[rows]))
    with torch.no_grad():
        error = (model.translate(a[56:], "a2b") - (1 - a[56:])).abs().mean()
        before = (a[56:] - (1 - a[56:])).abs().mean()
    assert error < before / 2


def test_the_learning_rate_is_flat_and_then_falls():
    found = [factor("flat-linear", step, 100, 0) for step in (0, 50, 75, 99, 100)]
    assert found == pytest.approx([1, 1, 0.5, 0.02, 0])


class Theirs(nn.Module):
    """The authors' residual generator, in its own layout: biases everywhere, dropout in the blocks if asked for."""

    def __init__(self, width: int, blocks: int, dropout: bool) -> None:
        super().__init__()
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU()]
        for c in (width, 2 * width):
            layers += [nn.Conv2d(c, 2 * c, 3, 2, 1), nn.InstanceNorm2d(2 * c), nn.ReLU()]
        layers += [TheirBlock(4 * width, dropout) for _ in range(blocks)]
        for c in (4 * width, 2 * width):
            layers += [nn.ConvTranspose2d(c, c // 2, 3, 2, 1, 1), nn.InstanceNorm2d(c // 2), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class TheirBlock(nn.Module):
    def __init__(self, c: int, dropout: bool) -> None:
        super().__init__()
        one = [nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c), nn.ReLU()]
        between = [nn.Dropout(0.5)] if dropout else []
        self.conv_block = nn.Sequential(*one, *between, nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv_block(x)


class TheirLevel(nn.Module):
    """A level of the authors' U-Net, the outermost with a tanh and the innermost with nothing beneath."""

    def __init__(self, outer: int, inner: int, sub: nn.Module | None, inputs: int | None = None) -> None:
        super().__init__()
        self.outermost = inputs is not None
        down = nn.Conv2d(inputs or outer, inner, 4, 2, 1)
        up = nn.ConvTranspose2d(2 * inner if sub else inner, outer, 4, 2, 1)
        if self.outermost:
            layers = [down, sub, nn.ReLU(), up, nn.Tanh()]
        elif sub is None:
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, nn.InstanceNorm2d(outer)]
        else:
            layers = [nn.LeakyReLU(0.2), down, nn.InstanceNorm2d(inner), sub, nn.ReLU(), up, nn.InstanceNorm2d(outer)]
        self.model = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class TheirUNet(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        inner = TheirLevel(8 * width, 8 * width, None)
        for outer, hidden in ((4 * width, 8 * width), (2 * width, 4 * width), (width, 2 * width)):
            inner = TheirLevel(outer, hidden, inner)
        self.model = TheirLevel(3, width, inner, inputs=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class TheirJudge(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for before, after, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
            layers += [
                nn.Conv2d(before * width, after * width, 4, stride, 1),
                nn.InstanceNorm2d(after * width),
                nn.LeakyReLU(0.2),
            ]
        self.model = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


@pytest.mark.parametrize(
    "theirs", [Theirs(4, 3, False), Theirs(4, 2, True), TheirUNet(4)], ids=["resnet", "dropout", "unet"]
)
def test_weights_of_the_authors_code_give_their_outputs(theirs, tmp_path):
    from nacre.run.convert import convert_cyclegan

    judge = TheirJudge(4)
    torch.manual_seed(1)
    for module in (theirs, judge):
        for parameter in module.parameters():
            nn.init.normal_(parameter, 0, 0.2)
    torch.save(theirs.state_dict(), tmp_path / "latest_net_G_A.pth")
    torch.save(judge.state_dict(), tmp_path / "latest_net_D_A.pth")
    files = {"a2b": tmp_path / "latest_net_G_A.pth", "judge_b": tmp_path / "latest_net_D_A.pth"}
    model = convert_cyclegan(files, 64)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = (theirs.eval()(2 * x - 1) + 1) / 2
        torch.testing.assert_close(model.translate(x, "a2b"), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(model.module.judge_b(x), judge(2 * x - 1), atol=1e-4, rtol=1e-5)
    assert model.facts["directions"] == ["a2b"]


def test_what_is_no_state_dict_is_refused_and_never_run(tmp_path):
    from nacre.run.convert import convert_cyclegan

    torch.save({"weights": [1, 2]}, tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        convert_cyclegan({"a2b": tmp_path / "list.pth"}, 64)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        convert_cyclegan({"a2b": tmp_path / "text.pth"}, 64)
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(CheckpointError):
        convert_cyclegan({"a2b": tmp_path / "linear.pth"}, 64)


def test_a_unet_converts_at_the_size_that_it_was_trained_at(tmp_path):
    """Five halvings of 32 pixels end in one; nacre's own would stop at two."""
    from nacre.run.convert import convert_cyclegan

    torch.manual_seed(0)
    theirs = TheirUNet(4)
    torch.save(theirs.state_dict(), tmp_path / "G.pth")
    model = convert_cyclegan({"a2b": tmp_path / "G.pth"}, 32)
    assert model.spec.complete()["depth"] == 5
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = (theirs.eval()(2 * x - 1) + 1) / 2
    torch.testing.assert_close(model.translate(x, "a2b"), expected, atol=1e-5, rtol=0)


def test_files_that_convert_does_not_expect_are_one_sentence(tmp_path, capsys):
    for name, module in (("G", Theirs(4, 2, False)), ("D", TheirJudge(4))):
        torch.save(module.state_dict(), tmp_path / f"{name}.pth")
    (tmp_path / "junk.pth").write_text("hello")
    (tmp_path / "photos").mkdir()
    write_images(tmp_path / "photos", ["x.png"])
    for words, sentence in (
        (["junk.pth", "--out", "new"], "junk.pth cannot be read as weights"),
        (["G.pth", "--judge-b", "junk.pth", "--out", "new"], "junk.pth cannot be read as weights"),
        (["G.pth", "--judge-b", "G.pth", "--out", "new"], "G.pth is of no judge of patches"),
        (["G.pth", "--out", "new", "--image-size", "0"], "--image-size must be 8 or more, got 0"),
        (["G.pth", "--out", "photos"], "photos is there already and not empty"),
    ):
        given = [str(tmp_path / word) if word.endswith(".pth") or word in ("new", "photos") else word for word in words]
        assert cli.main(["convert", *given]) in (1, 2)
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("cyclegan")
    write_images(place / "trainA", [f"{n}.png" for n in range(12)], grey=True)
    write_images(place / "trainB", [f"{n}.png" for n in range(9)])
    settings = {"steps": 4, "checkpoint_every": 2, "validation": 0.25, "test": 0.0}
    return nacre.train("cyclegan", data=str(place), out=place / "run", **settings, **TINY)


def test_a_run_on_two_sides_writes_what_it_needs(run):
    written = (run.path / "config.yaml").read_text()
    assert "#A" in written
    assert "#B" in written
    assert "lr_schedule: flat-linear" in written
    assert (run.path / "a2b.png").exists()
    assert (run.path / "b2a.png").exists()
    model = nacre.load(run)
    assert model.translate(torch.rand(2, 1, 18, 16)).shape == (2, 3, 18, 16)
    assert model.translate(torch.rand(1, 3, 30, 21), "b2a").shape == (1, 1, 30, 21)
    assert run.score is not None


def test_a_run_on_two_sides_is_resumed_to_the_bit_its_pools_included(run, tmp_path):
    settings = {"batch_size": 2, "lr_schedule": "constant", "validation": 0.0, "test": 0.0, "log_every": 2, **TINY}
    source = str(run.path.parent)
    nacre.train("cyclegan", data=source, out=tmp_path / "whole", steps=7, **settings)
    nacre.train("cyclegan", data=source, out=tmp_path / "halves", steps=4, **settings)
    nacre.resume(tmp_path / "halves", steps=7)
    whole, halves = (nacre.load(tmp_path / name).module.state_dict() for name in ("whole", "halves"))
    assert float(whole["pool_a.filled"].sum()) > 3
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


def test_a_run_goes_on_wherever_its_two_sides_lie(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place, settings = run.path.parent, {"steps": 2, "validation": 0.0, "test": 0.0, **TINY}
    for side in "AB":
        shutil.copytree(place / f"train{side}", tmp_path / side)
    begun = nacre.train("cyclegan", data="A", data_b="B", out="run", **settings)
    again = nacre.train("cyclegan", data="A", data_b="B", out="run", or_resume=True, **settings)
    assert (begun.done, again.done) == (2, 2)
    for side in "AB":
        (tmp_path / side).rename(tmp_path / f"moved{side}")
    assert nacre.resume("run", data="movedA", data_b="movedB").done == 2
    nacre.train("cyclegan", data=str(place), out="folder", **settings)
    assert nacre.train("cyclegan", data=str(place), out="folder", or_resume=True, **settings).done == 2
    with pytest.raises(DataError, match="not what folder was trained on"):
        nacre.resume("folder", data_b="movedA")


def test_images_are_translated_at_their_own_size(run, tmp_path, capsys):
    write_images(tmp_path / "in" / "deep", ["x.png"], size=(37, 50))
    write_images(tmp_path / "in", ["y.png"], grey=True, size=(21, 16))
    assert cli.main(["translate", str(run.path), str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["direction"] == "a2b"
    with Image.open(tmp_path / "out" / "deep" / "x.png") as image:
        assert (image.size, image.mode) == ((50, 37), "RGB")
    one = [
        "translate",
        str(run.path),
        str(tmp_path / "in" / "y.png"),
        "--direction",
        "b2a",
        "--out",
        str(tmp_path / "y.png"),
    ]
    assert cli.main(one) == 0
    with Image.open(tmp_path / "y.png") as image:
        assert (image.size, image.mode) == ((16, 21), "L")
        shown = np.asarray(image)
    with Image.open(tmp_path / "in" / "y.png") as image:
        x = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)[None] / 255
    expected = nacre.load(run).translate(x, "b2a")[0, 0].numpy() * 255
    assert np.abs(shown - expected).max() <= 1


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_an_animation_is_translated_frame_by_frame_at_its_own_pace(run, tmp_path, suffix, capsys):
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)) for _ in range(3)]
    given, pauses = tmp_path / f"a{suffix}", [80, 200, 300]
    frames[0].save(given, save_all=True, append_images=frames[1:], duration=pauses, loop=2)
    assert cli.main(["translate", str(run.path), str(given), "--out", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "a.gif") as image:
        assert image.n_frames == 3
        assert image.info["loop"] == 2
        found = []
        for number in range(3):
            image.seek(number)
            found.append(image.info["duration"])
    assert found == pauses
    assert cli.main(["translate", str(run.path), str(given), "--out", str(tmp_path / "b.png")]) == 2
    assert "is an animation of 3 frames; give --out a .gif" in capsys.readouterr().err


def test_images_that_differ_by_their_suffix_alone_both_come_out(run, tmp_path):
    write_images(tmp_path / "in", ["a.png", "a.bmp", "b.png"])
    assert cli.main(["translate", str(run.path), str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-bmp.png", "a-png.png", "b.png"]


def test_an_image_is_never_written_over(run, tmp_path, capsys):
    write_images(tmp_path / "in", ["a.png", "b.png"])
    before = (tmp_path / "in" / "a.png").read_bytes()
    for out in (tmp_path / "in", tmp_path / "in" / "a.png"):
        source = tmp_path / "in" if out.is_dir() else out
        assert cli.main(["translate", str(run.path), str(source), "--out", str(out)]) == 2
        assert "is one of the images to be translated and would be lost" in capsys.readouterr().err
    assert (tmp_path / "in" / "a.png").read_bytes() == before
    assert cli.main(["translate", str(run.path), str(tmp_path / "in" / "a.png"), "--out", "a.jpg"]) == 2
    assert "--out takes a .png, a .gif for an animation, or a folder; got a.jpg" in capsys.readouterr().err


def test_bad_files_are_named_and_skipped(run, tmp_path, capsys):
    write_images(tmp_path / "in", ["a.png", "c.png"])
    (tmp_path / "in" / "b.png").write_bytes(b"no image")
    words = ["translate", str(run.path), str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert "2 images translated" in told
    assert "1 left out" in told
    assert "b.png cannot be read" in told
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
    for name in ("a.png", "c.png"):
        (tmp_path / "in" / name).write_bytes(b"no image")
    assert cli.main(words) == 2
    assert "none of the 3 images" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4), (7, 30)])
@pytest.mark.parametrize("kind", ["resnet", "unet"])
def test_tiny_images_are_translated_as_well(kind, size):
    network = translation.translator(3, 1, (3, 16, 16), kind=kind, width=4)
    assert network(torch.rand(1, 3, *size)).shape == (1, 1, *size)


@pytest.mark.parametrize(("value", "sentence"), [(math.nan, "hold NaN"), (2.0, "rescale them")])
def test_arrays_that_are_no_images_are_refused(run, value, sentence):
    with pytest.raises(ShapeError, match=sentence):
        nacre.load(run).translate(torch.full((1, 1, 8, 8), value))


def test_an_image_of_no_pixels_is_one_sentence(run):
    with pytest.raises(ShapeError, match="one pixel at least"):
        nacre.load(run).translate(torch.rand(1, 1, 0, 4))


def test_tiles_of_a_pointwise_translation_are_the_whole():
    from nacre.run.translation import tiled

    x = torch.rand(1, 3, 50, 75)
    whole, one = tiled(lambda part: part.flip(1) ** 2, x, 100)
    parts, several = tiled(lambda part: part.flip(1) ** 2, x, 20)
    assert (one, several) == (1, 15)
    torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--direction", "c2d"], "the model translates a2b and b2a; got direction 'c2d'"),
        (["--tile", "3"], "--tile must be 16 pixels or more"),
    ],
)
def test_translations_that_cannot_be_meant(run, tmp_path, flags, sentence, capsys):
    write_images(tmp_path, ["x.png"])
    assert cli.main(["translate", str(run.path), str(tmp_path / "x.png"), *flags]) == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_without_images_is_one_sentence(run, tmp_path, capsys):
    assert cli.main(["translate", str(run.path), str(tmp_path)]) == 2
    assert "there is no image at" in capsys.readouterr().err


def test_translations_do_not_lie_in_a_run_and_say_what_was_made_grey(run, tmp_path, capsys):
    write_images(tmp_path, ["colour.png"])
    given = [str(run.path), str(tmp_path / "colour.png"), "--direction", "a2b"]
    assert cli.main(["translate", *given, "--out", str(run.path)]) == 2
    assert "holds a run or a model" in capsys.readouterr().err
    assert cli.main(["translate", *given, "--out", str(tmp_path / "out.png")]) == 0
    assert "1 stored in colour and made grey first" in capsys.readouterr().out


def test_a_model_of_one_side_does_not_translate(tmp_path, capsys):
    run = nacre.train("ae", data="digits", out=tmp_path / "run", steps=2, batch_size=8, hidden=(8,), latent_dim=2)
    write_images(tmp_path / "in", ["x.png"])
    assert cli.main(["translate", str(run.path), str(tmp_path / "in")]) == 2
    assert "AE does not translate; only models that learn from two kinds of images" in capsys.readouterr().err


def test_sides_that_cannot_be_meant(both, tmp_path_factory, capsys):
    other = tmp_path_factory.mktemp("other")
    write_images(other / "b", [f"{n}.png" for n in range(4)])
    write_images(other / "half" / "trainA", [f"{n}.png" for n in range(4)])
    (other / "half" / "trainB").mkdir()
    for words, sentence in (
        (["--data", str(both), "--data-b", str(other / "b")], "holds trainA and trainB already; leave --data-b out"),
        (["--data", str(other / "half")], "trainB holds no image; each side needs some"),
        (["--data", str(both), "--channels-b", "1"], "built for 1 channels on side B, and"),
    ):
        assert cli.main(["train", "cyclegan", *words, "--steps", "1", "--out", str(other / "run")]) == 2
        assert sentence in capsys.readouterr().err


def test_one_kind_of_images_is_not_enough(tmp_path, capsys):
    write_images(tmp_path / "a", [f"{n}.png" for n in range(4)])
    assert cli.main(["train", "cyclegan", "--data", str(tmp_path / "a"), "--out", str(tmp_path / "run")]) == 2
    assert "learns from two kinds of images" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_converted_weights_translate_from_the_command_line(tmp_path, capsys):
    torch.save(Theirs(4, 2, False).state_dict(), tmp_path / "netG.pth")
    assert (
        cli.main(["convert", str(tmp_path / "netG.pth"), "--out", str(tmp_path / "model"), "--image-size", "32"]) == 0
    )
    write_images(tmp_path / "in", ["x.png"], size=(20, 30))
    assert cli.main(["translate", str(tmp_path / "model"), str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert cli.main(["translate", str(tmp_path / "model"), str(tmp_path / "in"), "--direction", "b2a"]) == 2
    assert "the model translates a2b; got direction 'b2a'" in capsys.readouterr().err
