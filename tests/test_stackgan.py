"""Text to image: captions as numbers, the batches that hold wrong ones, the tree and its judges, prompts."""

import json
import time

import numpy as np
import pytest
import torch
from PIL import Image

import nacre
from nacre import cli
from nacre.data import captions
from nacre.data.sentences import reader_of
from nacre.data.stream import WRONG, Captioned, Stream
from nacre.engine.settings import Training
from nacre.engine.update import Update
from nacre.errors import CapabilityError, ConfigError, DataError
from nacre.models.stackgan import StackGAN, color_distance, shown
from nacre.networks.text import TextEncoder
from nacre.networks.tree import Beside, scale_shapes, smaller
from nacre.protocols import Step
from nacre.run.config import request
from nacre.run.plan import plan
from nacre.run.session import trial

COLORS = {"red": (230, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 230), "white": (245, 245, 245)}
TINY = {"width": 4, "judge_width": 8, "blocks": 0, "latent_dim": 8, "text_dim": 16, "condition_dim": 8}


def write_emoji(folder, count=48, bare=0):
    """Plain squares of four colours with their captions; the last `bare` have none."""
    folder.mkdir()
    names, rows = list(COLORS), []
    for number in range(count):
        color = names[number % 4]
        pixels = np.full((16, 16, 3), COLORS[color], np.uint8)
        pixels[number // 4 % 8, :, :] //= 2  # no two are equal
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
        if number < count - bare:
            rows.append({"file_name": f"{number:03}.png", "text": f"a {color} square, number {number}"})
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder


def test_words_and_their_letters():
    assert captions.words("Waving hand: medium-dark SKIN tone") == [
        "waving",
        "hand",
        ":",
        "medium",
        "-",
        "dark",
        "skin",
        "tone",
    ]
    assert captions.words("") == []
    one, other = set(captions.features("grinning")), set(captions.features("grin"))
    assert len(one & other) >= 3
    assert captions.features("red") != captions.features("der")


def test_tokens_are_a_table_whatever_the_caption():
    table = captions.tokens(["red heart", "", "x" * 10_000, " ".join(["word"] * 500)])
    assert table.shape == (4, captions.WORDS, captions.FEATURES)
    assert table.min() == 0
    assert table.max() <= captions.BUCKETS
    assert not table[1].any()
    assert (table[0, 2:] == 0).all()
    assert np.array_equal(captions.tokens(["Red  HEART"])[0], table[0])
    assert captions.unread(" ".join(["word"] * 500)) == 484


def test_unknown_words_are_told():
    known = captions.vocabulary(["a red heart", "a blue cat"])
    assert known == ["a", "blue", "cat", "heart", "red"]
    assert captions.unknown("a crimson heart", known) == ["crimson"]


def test_wrong_captions_are_other_texts_and_a_function_of_step_and_row():
    texts = ["red", "red", "blue", "green"] * 4
    items = np.zeros((16, 1, 4, 4), np.uint8)

    def stream(part=None):
        return Captioned(Stream(items, np.arange(16), 8, part=part), captions.tokens(texts))

    for step in range(5):
        _, own, wrong = stream().batch(step)
        assert wrong.shape == (8, WRONG, captions.WORDS, captions.FEATURES)
        assert bool((wrong != own[:, None]).flatten(2).any(2).all())
        parts = [stream(part).batch(step) for part in (range(4), range(4, 8))]
        assert torch.equal(torch.cat([part[2] for part in parts]), wrong)
    drawn = {
        tuple(text[0, 0].tolist()) for step in range(20) for text in stream().batch(step)[2].flatten(0, 1)[:, None]
    }
    assert len(drawn) == 3


def test_half_of_the_wrong_captions_differ_in_one_word_where_there_are_such():
    texts = [f"a {ink} {digit} on {ground}" for ink in "rgb" for digit in "0123456789" for ground in "xyz"] + ["alone"]
    table = captions.tokens(texts)
    batches = Captioned(Stream(np.zeros((91, 1, 4, 4), np.uint8), np.arange(91), 16), table)
    near, alone = [], []
    for step in range(30):
        _, own, wrong = batches.batch(step)
        different = (wrong[..., 0] != own[:, None, :, 0]).sum(2)
        assert int(different.min()) > 0
        by_itself = own[:, 1, 0] == 0
        near.append((different[~by_itself] == 1).float().mean())
        alone.append(different[by_itself])
    # Of 90 others, 13 differ in one word by chance: a half, and 13 / 90 of the other half.
    assert float(torch.stack(near).mean()) == pytest.approx(0.5 + 0.5 * 13 / 90, abs=0.02)
    assert int(torch.cat(alone).min()) > 1


def test_one_caption_for_all_is_refused():
    with pytest.raises(DataError, match="two different captions"):
        Captioned(Stream(np.zeros((4, 1, 4, 4), np.uint8), np.arange(4), 2), captions.tokens(["Red", "red"] * 2))


def test_sizes_double_up_to_the_datas():
    assert scale_shapes((3, 64, 64)) == [(3, 16, 16), (3, 32, 32), (3, 64, 64)]
    assert scale_shapes((3, 256, 256)) == [(3, 64, 64), (3, 128, 128), (3, 256, 256)]
    assert scale_shapes((1, 28, 28)) == [(1, 28, 28)]
    assert scale_shapes((3, 33, 50), 2) == [(3, 17, 25), (3, 33, 50)]
    model = StackGAN((3, 33, 50), words=4, **TINY)
    made = model.generator(torch.zeros(2, 16))
    assert [tuple(each.shape[1:]) for each in made] == model.shapes
    assert [each.shape for each in smaller(torch.rand(2, 3, 33, 50), model.shapes)] == [each.shape for each in made]


def test_the_text_encoder_minds_neither_padding_nor_an_empty_caption():
    torch.manual_seed(0)
    encoder = TextEncoder(captions.BUCKETS, 8)
    table = torch.from_numpy(captions.tokens(["red heart", "blue cat", ""]))
    vectors = encoder(table)
    assert torch.allclose(vectors.norm(dim=1)[:2], torch.ones(2))
    assert bool(vectors.isfinite().all())
    assert torch.allclose(encoder(table[:, :3]), vectors, atol=1e-6)
    assert torch.equal(encoder(table[None, :2])[0], vectors[:2])


def test_judges_hold_a_wrong_text_against_a_real_image_and_not_the_image():
    torch.manual_seed(0)
    model = StackGAN((3, 16, 16), words=16, **TINY).eval()
    texts = ["red", "blue", "green", "white"]
    table = torch.from_numpy(captions.tokens(texts))
    x, noise = torch.rand(4, 3, 16, 16), {"z": torch.randn(4, 8), "condition": torch.randn(4, 8)}
    loss, _ = model.judges_loss((x, table, table.roll(1, 0)[:, None]), Step(torch.tensor(0), noise))
    told, other = (model.gaussian(model.text(each))[0] for each in (table, table.roll(1, 0)))
    mean, log_var = model.gaussian(model.text(table))
    fake = model.generator(torch.cat([mean + (log_var / 2).exp() * noise["condition"], noise["z"]], 1))[0]
    judge, log = model.judges[0], torch.nn.functional.logsigmoid
    real_, fake_ = judge(x), judge(fake)
    expected = (
        -log(judge.pair(real_, told)).mean()
        - log(-judge.pair(real_, other)).mean()
        - log(-judge.pair(fake_, told)).mean()
    )
    expected = expected - log(judge.image(real_)).mean() - log(-judge.image(fake_)).mean()
    torch.testing.assert_close(loss, expected)


def test_a_code_beside_features_is_convolved_as_if_it_stood_at_every_pixel():
    torch.manual_seed(0)
    for height, width in ((4, 4), (2, 7), (9, 3)):
        layer = Beside(3, 5, 4).double()
        features, code = torch.randn(2, 3, height, width).double(), torch.randn(2, 5).double()
        everywhere = code[:, :, None, None].expand(-1, -1, height, width)
        expected = torch.nn.functional.conv2d(torch.cat([features, everywhere], 1), layer.weight, padding=1)
        torch.testing.assert_close(layer(features, code), expected)


def test_made_images_are_held_against_their_captions_by_what_the_encoder_learned():
    torch.manual_seed(0)
    model = StackGAN((3, 16, 16), words=16, matching=3.0, **TINY).eval()
    table = torch.from_numpy(captions.tokens(["red", "blue", "green", "white"]))
    noise = {"z": torch.randn(4, 8), "condition": torch.randn(4, 8)}
    batch = (torch.rand(4, 3, 16, 16), table, torch.stack([table.roll(1, 0), table.roll(2, 0)], 1))
    loss, parts = model.generator_loss(batch, Step(torch.tensor(0), noise))
    mean, log_var = model.gaussian(model.text(table))
    fake = model.generator(torch.cat([mean + (log_var / 2).exp() * noise["condition"], noise["z"]], 1))[-1]
    expected, _ = model.matching_loss((fake, *batch[1:]), Step(torch.tensor(0), noise))
    torch.testing.assert_close(parts["matching"], expected)
    torch.testing.assert_close(loss, parts["fooling_0"] + 2 * parts["kl"] + 3 * expected)
    assert (
        "matching"
        not in StackGAN((3, 16, 16), words=16, matching_steps=0, **TINY).generator_loss(
            batch, Step(torch.tensor(0), noise)
        )[1]
    )


def test_augmented_judges_see_all_sizes_moved_and_cut_alike_and_the_encoder_does_not():
    torch.manual_seed(0)
    model = StackGAN((3, 32, 32), words=16, augment=True, scales=2, **TINY)
    assert {"augment_made", "augment_real"} <= set(model.objectives()[1].draws)
    half, noise = torch.rand(5, 3, 16, 16), torch.rand(5, 4)
    small, large = shown([half, half.repeat_interleave(2, 2).repeat_interleave(2, 3)], noise)
    assert not torch.equal(small, half)
    # Centres and moves of twice the size are twice as far, give or take the rounding of a pixel.
    assert float((smaller(large, model.shapes)[0] - small).abs().flatten(1).median(1).values.max()) < 0.3
    still, uncut = shown([half], torch.full((5, 4), 0.5))[0], half[:, :, :4]
    assert torch.allclose(still[:, :, :4], uncut, atol=1e-6)


def test_the_condition_does_not_drown_in_its_noise_at_the_start():
    torch.manual_seed(0)
    model = StackGAN((3, 16, 16), words=16)
    vectors = torch.nn.functional.normalize(torch.randn(64, 128), dim=1)
    with torch.no_grad():
        mean, log_var = model.gaussian(vectors)
    assert float(mean.std() / (log_var / 2).exp().mean()) > 0.2


def test_colour_consistency_is_of_means_and_covariances():
    torch.manual_seed(0)
    small = torch.rand(2, 3, 8, 8)
    assert float(color_distance(small, small.repeat_interleave(2, 2).repeat_interleave(2, 3))) < 1e-12
    brighter = (small + 0.1).requires_grad_()
    assert float(color_distance(small, brighter).detach()) == pytest.approx(
        0.04, rel=1e-4
    )  # (2 × .1)², the means alone
    leader = small.clone().requires_grad_()
    color_distance(leader, brighter).backward()
    assert leader.grad is None


def test_the_text_encoder_learns_which_caption_belongs_to_which_image():
    torch.manual_seed(0)
    model = StackGAN((3, 16, 16), words=16, matching_steps=60, **TINY)
    names = list(COLORS)
    x = torch.stack([torch.tensor(COLORS[name]).view(3, 1, 1).expand(3, 16, 16) / 255 for name in names] * 4)
    x = (x + 0.05 * torch.rand(x.shape)).clamp(0, 1)
    table = torch.from_numpy(captions.tokens(names * 4))
    wrong = torch.stack([table.roll(shift, 0) for shift in (1, 2, 3)], 1)
    update = Update(model, model.objectives()[0], Training(steps=60, batch_size=16, lr=3e-3))
    for step in range(60):
        parts = update(step, (x, table, wrong))
    assert float(parts["right"]) == 1.0


def test_vectors_are_refused():
    with pytest.raises(ConfigError, match="stackgan makes images of 8 pixels and more"):
        StackGAN((2,))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("stackgan")
    emoji = write_emoji(place / "emoji", bare=4)
    settings = {
        "steps": 12,
        "batch_size": 8,
        "matching_steps": 4,
        "checkpoint_every": 6,
        "validation": 0.2,
        "test": 0.0,
    }
    return nacre.train("stackgan", data=str(emoji), out=place / "run", **settings, **TINY)


def test_a_run_keeps_its_words_and_answers_prompts(run):
    model = nacre.load(run)
    assert "square" in model.facts["vocabulary"]
    assert not model.spec.complete()["augment"]  # few as they are: it is for the end of a training
    one = model.imagine("a red square", count=3, seed=1)
    assert one.shape == (3, 3, 16, 16)
    assert torch.allclose(model.imagine("a blue square", "a red square", count=3, seed=1)[3:], one, atol=1e-5)
    assert not torch.equal(model.imagine("a blue square", count=3, seed=1), one)
    assert model.imagine("red", "blue", steps=5).shape == (5, 3, 16, 16)
    assert torch.allclose(model.imagine("red", "blue", steps=5)[[0, 4]], model.imagine("red", "blue"), atol=1e-5)
    assert model.unknown_words("a crimson square") == ["crimson"]
    assert model.sample(4).shape == (4, 3, 16, 16)


def test_prompts_on_the_command_line(run, tmp_path, capsys):
    assert (
        cli.main(["sample", str(run.path), "--prompt", "a crimson square", "-n", "4", "--out", str(tmp_path / "a.png")])
        == 0
    )
    assert "never seen in training, read by their letters: crimson" in capsys.readouterr().out
    assert cli.main(["sample", str(run.path), "--prompt", "x" * 9000, "--out", str(tmp_path / "x.png")]) == 0
    assert len(capsys.readouterr().out) < 300
    (tmp_path / "prompts.txt").write_text("red square\n\nblue square\n", encoding="utf-8")
    asked = [
        "sample",
        str(run.path),
        "--prompts",
        str(tmp_path / "prompts.txt"),
        "-n",
        "2",
        "--json",
        "--out",
        str(tmp_path / "b.png"),
    ]
    assert cli.main(asked) == 0
    assert json.loads(capsys.readouterr().out)["prompts"] == ["red square", "blue square"]
    assert (
        cli.main(
            ["sample", str(run.path), "--prompt", "red", "--to", "blue", "-n", "5", "--out", str(tmp_path / "w.png")]
        )
        == 0
    )


def test_of_the_images_of_a_prompt_those_that_fit_it_best_are_kept_in_their_order(run):
    model = nacre.load(run)
    every = model.imagine("red square", "blue square", count=10).view(2, 10, 3, *model.shape[1:])
    kept = model.imagine("red square", "blue square", count=4, reject_worst=0.6, batch_size=3).view(
        2, 4, *every.shape[2:]
    )
    told = torch.from_numpy(reader_of(model.module)(["red square", "blue square"]))
    with torch.no_grad():
        cosines = [model.module.eye(x) @ text for x, text in zip(every, model.module.read(told), strict=True)]
    for items, of, chosen in zip(every, cosines, kept, strict=True):
        torch.testing.assert_close(chosen, items[of.topk(4).indices.sort().values])


def test_a_model_whose_encoder_never_learned_rejects_nothing():
    model = StackGAN((3, 16, 16), words=16, matching_steps=0, **TINY)
    with pytest.raises(CapabilityError, match="has not learned which text an image goes with"):
        model.fitting(torch.rand(2, 3, 16, 16), torch.rand(2, 128))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--prompt", ""], "a prompt is a text of one word at least"),
        (["--prompt", "red", "--label", "3"], "--prompt or --prompts goes with"),
        (["--prompt", "red", "--numbered"], "--prompt or --prompts goes with"),
        (["--prompt", "red", "--shards", "2"], "--prompt or --prompts goes with"),
        (["--to", "blue"], "give both"),
        (["--prompt", "red", "--prompt=blue"], "was given twice"),
        (["--prompt", "red", "--prompts", "texts.txt"], "give one of them"),
        (["--prompts", "no-such-file.txt"], "cannot be read as text"),
        (["--prompt", "red", "--to", "blue", "-n", "1"], "two steps at least"),
        (["--prompt", "red", "--to", "blue", "-n", "3", "--reject-worst", ".5"], "nothing of it can be rejected"),
        (["--prompt", "red", "--reject-worst", "1"], "from 0 to below 1, got 1"),
    ],
)
def test_prompts_that_cannot_be_meant(run, flags, sentence, capsys):
    assert cli.main(["sample", str(run.path), *flags]) == 2
    assert sentence in capsys.readouterr().err


def test_a_model_without_text_takes_no_prompt(tmp_path):
    run = nacre.train("stackgan", data="digits", out=tmp_path / "run", steps=2, batch_size=8, image_size=16, **TINY)
    model = nacre.load(run)
    assert model.spec.complete()["words"] == 0
    with pytest.raises(CapabilityError, match="has read no captions"):
        model.imagine("seven")


def test_the_forecast_counts_the_game_though_the_first_steps_are_the_encoders(tmp_path, monkeypatch):
    def slow(self, batch, step, loss=StackGAN.judges_loss):
        time.sleep(0.05)
        return loss(self, batch, step)

    monkeypatch.setattr(StackGAN, "judges_loss", slow)
    flags = {"data": str(write_emoji(tmp_path / "emoji")), "steps": 100, "batch_size": 8, "matching_steps": 60, **TINY}
    session = plan(request("stackgan", {**flags, "validation": 0.0, "test": 0.0}, None)).session()
    assert trial(session) >= 0.4 * 0.05


def test_stopped_and_resumed_is_the_same_run(tmp_path):
    emoji = write_emoji(tmp_path / "emoji")
    common = {
        "data": str(emoji),
        "batch_size": 8,
        "matching_steps": 3,
        "log_every": 2,
        "validation": 0.0,
        "test": 0.0,
        **TINY,
    }
    nacre.train("stackgan", out=tmp_path / "whole", steps=8, **common)
    nacre.train("stackgan", out=tmp_path / "halves", steps=5, **common)
    nacre.resume(tmp_path / "halves", steps=8)
    whole, halves = (nacre.load(tmp_path / name).module.state_dict() for name in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
