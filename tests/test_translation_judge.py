"""What translations are held against in benchmarks/translation.py, by hand."""

import pytest
import torch


@pytest.fixture(scope="module")
def bench(script):
    return script("translation")


@pytest.fixture(scope="module")
def style(script):
    return script("style")


def random_images(count, seed, channels=3, side=16):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, channels, side, side), generator=generator, dtype=torch.uint8)


def test_levels_of_a_darkened_set_come_back(bench):
    wanted = random_images(40, 0)
    own = wanted // 2
    output = bench.relevelled(own[:5].float() / 255, own, wanted)
    assert torch.allclose(output, wanted[:5] / 255, atol=1.01 / 255)
    assert torch.allclose(bench.relevelled(own[:5] / 255, own, own), own[:5] / 255, atol=1e-6)


def test_each_channel_has_a_curve_of_its_own(bench):
    own = random_images(40, 0)
    wanted = own.clone()
    wanted[:, 1] = 255 - own[:, 1]  # the same distribution: it must not be inverted
    wanted[:, 2] //= 4
    output = bench.relevelled(own / 255, own, wanted) * 255
    assert (output[:, 0] - own[:, 0]).abs().max() < 1
    assert (output[:, 1] - own[:, 1]).abs().mean() < 2
    assert (output[:, 2] - own[:, 2] / 4).abs().max() < 2


def test_a_drawing_is_the_outline(bench):
    photo = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    photo[:, :, 8:20, 8:20] = torch.tensor([200, 20], dtype=torch.uint8).view(2, 1, 1, 1)
    drawing = bench.drawn(photo)
    assert torch.equal(drawing[0], drawing[1])  # whatever the contrast
    assert set(drawing.unique().tolist()) == {0, 255}
    assert drawing[0, 0, 10:18, 10:18].max() == 0
    assert drawing[0, 0, :6].max() == 0
    assert drawing[0, 0, 8, 10:18].min() == 255


def test_the_nearest_is_a_training_image_and_its_pair_is_of_the_other_style(bench):
    train = {"a2b": random_images(30, 1), "b2a": random_images(30, 2)}
    test = {way: each[:4].float() / 255 for way, each in train.items()}
    found = bench.plain(bench.Bench(train, train, test, {}, {}), "a2b")
    assert torch.equal(found["a2b", "nearest pair"], test["b2a"])
    nearest = found["a2b", "nearest"]
    assert all(any(torch.equal(image, other / 255) for other in train["b2a"]) for image in nearest)
    assert bench.copies(train["a2b"][:7], train["a2b"][3:]) == 4


def test_distances_and_ratios_of_what_is_known(bench):
    test = {"a2b": torch.zeros(8, 3, 16, 16), "b2a": torch.full((8, 3, 16, 16), 0.5)}
    right = {"style": lambda made, way: made.mean((1, 2, 3)) > 0.2}
    judged = bench.Bench({}, None, test, {"L1": bench.l1, "1 - SSIM": bench.unlike}, right)
    values, intervals = bench.measured(judged, "a2b", torch.full((8, 3, 16, 16), 0.25), test["a2b"])
    assert values["L1"] == pytest.approx(0.25)
    assert values["L1, ratio"] == pytest.approx(0.5)
    assert intervals["L1, ratio"] == pytest.approx((0.5, 0.5))
    assert values["L1, nearer"] == values["style"] == 1
    assert intervals["style"][0] < 0.7  # eight of eight prove little
    perfect, _ = bench.measured(judged, "a2b", test["b2a"], test["a2b"])
    assert perfect["L1, ratio"] == perfect["1 - SSIM, ratio"] == 0


@pytest.mark.parametrize("judge", ["forest", "network"])
def test_the_judges_of_style_see_through_noise_and_through_few_colours(style, judge):
    """Flat squares of four colours, and the same with shading: what tells them apart is no single level."""
    generator = torch.Generator().manual_seed(0)
    colors = torch.randint(40, 160, (80, 3, 1, 1), generator=generator)
    shading = torch.linspace(-1, 1, 24).view(1, 1, 24, 1)
    flat = torch.full((80, 3, 32, 32), 255.0)
    shaded = flat.clone()
    flat[:, :, 4:28, 4:28] = colors.float()
    shaded[:, :, 4:28, 4:28] = colors + 40 * shading
    sets = {"a2b": shaded.byte(), "b2a": flat.byte()}
    train = {way: each[:60] for way, each in sets.items()}
    right = style.forest(train) if judge == "forest" else style.networks(train, count=2, steps=60, batch=8)
    for copy in ((0.0, 0.0, 0), (6.0, 0.3, 0), (0.0, 0.0, 12)):
        for way, other in (("a2b", "b2a"), ("b2a", "a2b")):
            shown = style.copied(sets[other][60:], *copy).float() / 255
            assert right(shown, way).float().mean() > 0.9
            assert right(style.copied(sets[way][60:], *copy).float() / 255, way).float().mean() < 0.1


def test_copies_differ_by_what_they_are_asked_to(style):
    items = random_images(4, 3)
    assert torch.equal(style.copied(items, 0.0, 0.0, 0), items)
    level = torch.full_like(items, 128)
    assert torch.equal(style.copied(level, 0.0, 1.0, 4), level)
    few = style.copied(items, 0.0, 0.0, 2)
    assert all(len(image.flatten(1).unique(dim=1).T) <= 2 for image in few)
    assert style.copied(level, 2.0, 0.0, 0).float().std() == pytest.approx(2, rel=0.1)
