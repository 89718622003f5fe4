"""`nacre interpolate`, `invert`, `arithmetic` and `sample --numbered`, end to end on small runs."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import nacre
from nacre.cli import main, sheets, using
from nacre.editing import Direction
from nacre.engine.validate import spread

QUICK = {"batch_size": 16, "sample_every": 0, "compile": "off"}
SHORT = ["--adam-steps", "5", "--lbfgs-steps", "5", "--restarts", "1", "--candidates", "16"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A VAE with a two-dimensional latent, a GAN and an autoencoder, each of a few steps on 8×8 digits."""
    root = tmp_path_factory.mktemp("runs")
    made = {
        "vae": nacre.train("vae", out=root / "vae", steps=200, latent_dim=2, hidden=(32,), **QUICK).path,
        "gan": nacre.train("gan", out=root / "gan", steps=20, latent_dim=4, hidden=(16,), **QUICK).path,
        "ae": nacre.train("ae", out=root / "ae", steps=20, latent_dim=3, hidden=(16,), **QUICK).path,
        "labels": nacre.train(
            "gan", out=root / "labels", steps=5, latent_dim=4, hidden=(16,), conditional=True, **QUICK
        ).path,
        "points": nacre.train(
            "vae", data="toy:ring8", out=root / "points", steps=5, latent_dim=3, hidden=(16,), **QUICK
        ).path,
    }
    for name, brightness in (("a", 40), ("b", 200)):
        folder = root / "faces" / name
        folder.mkdir(parents=True)
        for number in range(3):
            pixels = np.full((8, 8), brightness + 5 * number, np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    Image.fromarray(np.full((12, 20, 3), 90, np.uint8)).save(root / "large.png")
    return made | {"root": root}


def answer(capsys, *words):
    """The exit code, standard output and standard error of a command run in this process."""
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def told(capsys, *words):
    """What a command answers as JSON, and what it says beside it."""
    code, out, err = answer(capsys, *words, "--json")
    assert code == 0, err
    return json.loads(out), err


def refused(capsys, *words):
    """The one sentence with which a command is refused."""
    code, out, err = answer(capsys, *words)
    assert code in (1, 2), (out, err)
    lines = [line for line in err.splitlines() if line.startswith("nacre: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def size_of(path):
    with Image.open(path) as image:
        return image.size


# Interpolation.


def test_random_latents_of_a_gan_in_a_strip(runs, capsys, tmp_path):
    facts, _ = told(capsys, "interpolate", runs["gan"], "--n", "3", "--frames", "4", "--out", tmp_path / "w.png")
    assert facts["path"] == "spherical"
    assert facts["legs"] == 2
    width, height = size_of(tmp_path / "w.png")
    assert width / height == pytest.approx(2, abs=0.05)


def test_between_images_through_the_encoder(runs, capsys, tmp_path):
    faces = runs["root"] / "faces"
    words = [faces / "a" / "0.png", faces / "b" / "0.png"]
    facts, _ = told(capsys, "interpolate", runs["ae"], *words, "--frames", "5", "--out", tmp_path / "w.npz")
    kept = np.load(tmp_path / "w.npz")
    assert facts["path"] == "linear"
    assert np.allclose(kept["codes"][0, 2], (kept["codes"][0, 0] + kept["codes"][0, 4]) / 2, atol=1e-5)
    model = nacre.load(runs["ae"])
    assert np.allclose(kept["items"][0, 0], model.decode(kept["codes"][0, :1])[0], atol=1e-6)
    code, _, err = answer(capsys, "interpolate", runs["ae"], *words, "--out", tmp_path / "w.png")
    assert code == 0, err


def test_between_samples_by_their_numbers(runs, capsys, tmp_path):
    told(capsys, "interpolate", runs["gan"], "3", "7", "--seed", "5", "--frames", "2", "--out", tmp_path / "w.npz")
    samples = nacre.load(runs["gan"]).sample(8, seed=5)
    assert np.allclose(np.load(tmp_path / "w.npz")["items"][0], samples[[3, 7]], atol=1e-6)


def test_two_latents_are_shown_whole(runs, capsys, tmp_path):
    facts, _ = told(capsys, "interpolate", runs["vae"], "--side", "5", "--out", tmp_path / "m.png")
    assert facts["side"] == 5
    width, height = size_of(tmp_path / "m.png")
    assert width == height
    facts, _ = told(capsys, "interpolate", runs["vae"], "--no-map", "--out", tmp_path / "w.png")
    assert facts["legs"] == 4


def test_a_film(runs, capsys, tmp_path):
    told(capsys, "interpolate", runs["gan"], "--n", "3", "--frames", "4", "--loop", "--out", tmp_path / "w.gif")
    with Image.open(tmp_path / "w.gif") as film:
        assert film.n_frames == 9
        assert film.info["loop"] == 0
        assert film.size == (256, 256)


def test_mp4_by_ffmpeg_or_a_sentence(runs, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "ffmpeg" in refused(capsys, "interpolate", runs["gan"], "--out", tmp_path / "w.mp4")
    program = tmp_path / "ffmpeg"
    program.write_text('#!/bin/sh\nfor last; do :; done\nwc -c > "$last"\necho "$@" > "$(dirname "$0")/words"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sheets.shutil, "which", lambda name: str(program))
    told(capsys, "interpolate", runs["gan"], "--n", "2", "--frames", "3", "--out", tmp_path / "w.mp4")
    assert int((tmp_path / "w.mp4").read_text()) == 3 * 256 * 256
    assert "256x256" in (tmp_path / "words").read_text()
    program.write_text("#!/bin/sh\necho no such encoder >&2\nexit 1\n")
    assert "no such encoder" in refused(capsys, "interpolate", runs["gan"], "--out", tmp_path / "w.mp4")


def test_labels_of_a_walk(runs, capsys, tmp_path):
    told(capsys, "interpolate", runs["labels"], "--label", "3", "--n", "2", "--out", tmp_path / "w.npz")
    codes = np.load(tmp_path / "w.npz")["codes"]
    assert (codes[..., 4:].argmax(-1) == 3).all()


def test_walks_that_cannot_be(runs, capsys, tmp_path):
    assert "no prior" in refused(capsys, "interpolate", runs["ae"])
    assert "--map" in refused(capsys, "interpolate", runs["gan"], "--map")
    assert "not conditional" in refused(capsys, "interpolate", runs["gan"], "--label", "1")
    assert "two stops" in refused(capsys, "interpolate", runs["gan"], "4")
    assert "--out" in refused(capsys, "interpolate", runs["gan"], "--out", "w.avi")
    assert "vectors" in refused(capsys, "interpolate", runs["points"], runs["root"] / "large.png", "3")


# Inversion.


def test_samples_of_a_gan_are_inverted(runs, capsys, tmp_path):
    answer(capsys, "sample", runs["gan"], "-n", "3", "--out", tmp_path / "samples")
    facts, _ = told(capsys, "invert", runs["gan"], tmp_path / "samples", "--out", tmp_path / "i.npz")
    kept = np.load(tmp_path / "i.npz")
    assert facts["converged"] == 3
    assert all(image["residual"] < 1e-3 for image in facts["images"])
    assert kept["codes"].shape == (3, 4)
    assert size_of(tmp_path / "i.png")[0] > size_of(tmp_path / "i.png")[1]


def test_no_command_replaces_what_it_was_given(runs, capsys, tmp_path):
    """Images on the command line, sets named by a flag, archives, and what a link leads to."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            level = np.full((8, 8), 60 * number + 10 * (name == "b"), np.uint8)
            Image.fromarray(level).save(tmp_path / name / f"{number}.png")
    a, b = tmp_path / "a", tmp_path / "b"
    (tmp_path / "link.png").symlink_to(a / "0.png")
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).integers(0, 255, (6, 1, 8, 8), np.uint8))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    way = ["--plus", a, "--minus", b]
    for words in (
        ["reconstruct", runs["vae"], a / "0.png", "--out", a / "0.png"],
        ["reconstruct", runs["vae"], a / "0.png", "--out", tmp_path / "link.png"],
        ["reconstruct", runs["vae"], "--data", a, "--out", a / "1.png"],
        ["reconstruct", runs["vae"], "--data", tmp_path / "x.npz", "--out", tmp_path / "x.npz"],
        ["encode", runs["vae"], "--data", tmp_path / "x.npz", "--out", tmp_path / "x.npz"],
        ["edit", runs["gan"], a / "0.png", "--toward", a, "--from", b, "--out", b / "0.png"],
        ["edit", runs["gan"], a / "0.png", "--toward", a, "--from", b, "--sheet", b / "0.png"],
        ["arithmetic", runs["vae"], *way, "--to", a / "0.png", "--out", b / "0.png"],
        ["anomaly", runs["ae"], a, "--data", b, "--sheet", b / "0.png"],
        ["sample", runs["ae"], "--prior", "gmm", "--data", b, "-n", "2", "--out", b / "0.png"],
        ["data", a, "--sheet", a / "0.png"],
    ):
        assert "was given, and would be replaced" in refused(capsys, *words)
    both = ["--out", tmp_path / "same.png", "--sheet", tmp_path / "same.png"]
    assert "two results would go to" in refused(capsys, "inpaint", runs["vae"], a / "0.png", "--mask", "center", *both)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_alternatives_are_not_mixed_with_older_ones(runs, capsys, tmp_path):
    image = runs["root"] / "faces" / "a" / "1.png"
    words = [
        "inpaint",
        runs["vae"],
        image,
        "--mask",
        "center",
        "--method",
        "sample",
        "--sweeps",
        "2",
        "--sheet",
        "none",
    ]
    answer(capsys, *words, "--out", tmp_path / "done")
    assert len(list((tmp_path / "done").iterdir())) == 4
    assert "holds 3 older images" in refused(capsys, *words, "--alternatives", "1", "--out", tmp_path / "done")


def test_numbers_and_rates_that_cannot_be_meant(runs, capsys, tmp_path):
    words = ["arithmetic", runs["vae"], "--plus", "3", "--minus", "5", "--to", "9" * 20, "--out", tmp_path / "x.png"]
    assert "samples are numbered from 0 to" in refused(capsys, *words)
    image = runs["root"] / "faces" / "a" / "1.png"
    words = ["inpaint", runs["vae"], image, "--mask", "center", "--lr", "-1", "--out", tmp_path / "x.png"]
    assert "lr must be positive, got -1" in refused(capsys, *words)
    assert not (tmp_path / "x.png").exists()


def test_what_is_refused_leaves_no_direction(runs, capsys, tmp_path):
    faces = runs["root"] / "faces"
    words = ["arithmetic", runs["vae"], "--plus", faces / "b", "--minus", faces / "a", "--to", faces / "a"]
    refused(capsys, *words, "--keep-residual", "--save-direction", tmp_path / "d.safetensors")
    assert not (tmp_path / "d.safetensors").exists()


def test_data_named_by_a_flag_is_noted_as_images_are_and_bad_files_are_left_out(runs, capsys, tmp_path):
    for number in range(3):
        Image.fromarray(np.full((9, 9, 3), 60 * number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"none")
    for words in (["reconstruct", runs["vae"], "--data", tmp_path], ["encode", runs["vae"], "--data", tmp_path]):
        _, err = told(capsys, *words, "--out", tmp_path / "out.npz")
        assert "3 of 3 images were of another size, and made 8x8" in err
        assert "3 of 3 images were stored in colour, and made grey; 1 file left out that cannot be read: bad.png" in err


def test_new_samples_are_not_mixed_with_older_ones(runs, capsys, tmp_path):
    answer(capsys, "sample", runs["gan"], "-n", "5", "--out", tmp_path / "samples")
    words = ["sample", runs["gan"], "--seed", "1", "--out", tmp_path / "samples"]
    assert "holds 2 older images besides the 3 asked for" in refused(capsys, *words, "-n", "3")
    assert answer(capsys, *words, "-n", "5")[0] == 0
    assert "holds single samples" in refused(capsys, *words, "-n", "5", "--format", "png")
    answer(capsys, "sample", runs["gan"], "-n", "5", "--format", "npz", "--out", tmp_path / "shards")
    assert "holds shards" in refused(capsys, "sample", runs["gan"], "-n", "5", "--out", tmp_path / "shards")
    assert "holds a run or a model" in refused(capsys, "sample", runs["gan"], "--out", runs["gan"])


def test_images_out_of_reach_are_named(runs, capsys, tmp_path):
    faces = runs["root"] / "faces" / "a"
    code, out, err = answer(
        capsys, "invert", runs["gan"], faces, *SHORT, "--train-encoder", "5", "--out", tmp_path / "i.npz"
    )
    assert code == 0, err
    assert sum("not reached" in line or ": still moving" in line for line in out.splitlines()) == 3
    assert "0 of 3 images reached" in out


def test_images_of_another_size_are_resized_with_a_note(runs, capsys, tmp_path):
    _, err = told(capsys, "invert", runs["gan"], runs["root"] / "large.png", *SHORT, "--out", tmp_path / "i.npz")
    assert "1 of 1 images were of another size, and made 8x8" in err


def test_many_images_are_one_note_and_what_was_not_cut_is_not_said_to_be(runs, capsys, tmp_path):
    coloured = []
    for number in range(3):
        coloured.append(tmp_path / f"{number}.png")
        Image.fromarray(np.full((8, 8, 3), 60 * number, np.uint8)).save(coloured[-1])
    folder = ["reconstruct", runs["vae"], tmp_path]
    for command in (["interpolate", runs["vae"], *coloured], ["reconstruct", runs["vae"], *coloured], folder):
        _, err = told(capsys, *command, "--out", tmp_path / "out.npz")
        assert [line for line in err.splitlines() if "images" in line] == [
            "3 of 3 images were stored in colour, and made grey."
        ]


def test_a_list_that_is_half_of_numbers_is_neither_samples_nor_a_file(runs, capsys):
    words = ["arithmetic", runs["vae"], "--plus", "1,2,x", "--minus", "3", "--to", "4"]
    assert "samples are listed by their numbers, as 3,17,42; 'x' in '1,2,x' is none" in refused(capsys, *words)


def test_the_sign_before_a_long_name_stays():
    from PIL import ImageFont

    from nacre.cli.sheets import _shortened

    font = ImageFont.load_default()
    short = _shortened("+ faces/smiling/0123456789.png", 60, font)
    assert short.startswith("+ …")
    assert short.endswith(".png")
    assert font.getlength(short) <= 60


def test_a_caption_alone_in_its_row_is_not_cut_at_its_image():
    words, four = "a caption of some length", torch.zeros(4, 1, 64, 64)
    alone, crowded = (sheets.captioned(four, [words, other, "", ""], 2) for other in ("", "b"))
    under = slice(sheets.GAP + 64, None)
    right_half = slice(2 * sheets.GAP + 64, None)
    assert (alone[under, right_half] < 200).sum() > (crowded[under, right_half] < 200).sum() > 0


def test_what_cannot_be_inverted(runs, capsys, tmp_path):
    assert "nothing.png" in refused(capsys, "invert", runs["gan"], "nothing.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert "cannot be read as an image" in refused(capsys, "invert", runs["gan"], tmp_path / "broken.png")
    large = runs["root"] / "large.png"
    assert "restarts" in refused(capsys, "invert", runs["gan"], large, "--restarts", "0")
    assert "--out" in refused(capsys, "invert", runs["gan"], large, "--out", "i.png")


# One image in, one image out.


def test_reconstructing_images_that_are_named(runs, capsys, tmp_path):
    faces = runs["root"] / "faces" / "a"
    facts, _ = told(capsys, "reconstruct", runs["vae"], faces / "0.png", faces, "--out", tmp_path / "r.npz")
    assert facts["count"] == 4
    model, back = nacre.load(runs["vae"]), np.load(tmp_path / "r.npz")["images"]
    grey = np.full((1, 1, 8, 8), 40, np.uint8)
    assert np.array_equal(back[0], back[1])
    assert np.allclose(back[0] / 255, model.reconstruct(grey)[0], atol=1 / 255)
    _, err = told(capsys, "reconstruct", runs["vae"], runs["root"] / "large.png", "--out", tmp_path / "r.png")
    assert "1 of 1 images were of another size" in err
    assert "leave one" in refused(capsys, "reconstruct", runs["vae"], faces, "-n", "2")


# Arithmetic.


def test_folders_give_a_direction_that_is_kept_and_used_again(runs, capsys, tmp_path):
    faces = runs["root"] / "faces"
    kept = tmp_path / "bright.safetensors"
    words = ["arithmetic", runs["vae"], "--plus", faces / "b", "--minus", faces / "a"]
    facts, _ = told(
        capsys, *words, "--to", faces / "a" / "0.png", "--save-direction", kept, "--out", tmp_path / "x.npz"
    )
    assert facts["items"] == 1
    moved = np.load(tmp_path / "x.npz")
    model = nacre.load(runs["vae"])
    assert np.allclose(moved["codes"][0, 2] - moved["codes"][0, 0], Direction.load(kept).vector, atol=1e-5)
    assert np.allclose(moved["items"][0], model.decode(moved["codes"][0]), atol=1e-6)
    facts, err = told(
        capsys, "arithmetic", runs["vae"], "--plus", kept, "--to", faces / "a" / "0.png", "--out", tmp_path / "y.npz"
    )
    assert "other weights" not in err
    assert np.allclose(np.load(tmp_path / "y.npz")["items"], moved["items"], atol=1e-6)
    assert "another model" in refused(capsys, "arithmetic", runs["gan"], "--plus", kept, "--to", "1")


def test_what_the_model_loses_of_an_image_is_kept(runs, capsys, tmp_path):
    faces = runs["root"] / "faces"
    words = ["arithmetic", runs["vae"], "--plus", faces / "b", "--minus", faces / "a", "--keep-residual"]
    told(capsys, *words, "--to", faces / "a" / "1.png", "--strengths", "0,1", "--out", tmp_path / "x.npz")
    items = np.load(tmp_path / "x.npz")["items"][0]
    assert np.allclose(items[0], 45 / 255, atol=1e-6)
    assert np.ptp(items[1]) > 0
    matched = [*words, "--keep-colours", "--strengths", "0,1", "--out", tmp_path / "y.npz"]
    told(capsys, *matched, "--to", faces / "a" / "1.png")
    items = np.load(tmp_path / "y.npz")["items"][0]
    assert np.allclose(items.mean((1, 2, 3)), 45 / 255, atol=1e-3), "brighter examples make nothing brighter"
    assert "image files alone" in refused(capsys, *words, "--to", faces / "a" / "1.png", "3")
    assert "image files alone" in refused(capsys, *words, "--to", faces / "a")


def test_equal_letters_change_nothing(runs, capsys, tmp_path):
    faces = runs["root"] / "faces"
    told(
        capsys,
        "arithmetic",
        runs["vae"],
        "--plus",
        faces / "b",
        "--minus",
        faces / "b",
        "--to",
        "1",
        "2",
        "--out",
        tmp_path / "x.npz",
    )
    items = np.load(tmp_path / "x.npz")["items"]
    assert np.array_equal(items, np.repeat(items[:, :1], items.shape[1], 1))


def test_means_of_three_samples_with_their_neighbours(runs, capsys, tmp_path):
    words = ["--plus", "3,17,42", "--minus", "5,9,30", "--to", "8,21,33"]
    told(capsys, "arithmetic", runs["gan"], *words, "--out", tmp_path / "x.png")
    assert size_of(tmp_path / "x-neighbours.png")[0] > size_of(tmp_path / "x.png")[0]
    told(capsys, "arithmetic", runs["gan"], *words, "--out", tmp_path / "x.npz", "--strengths", "1")
    from nacre.editing import numbered_codes

    module = nacre.load(runs["gan"]).module
    plus, minus, to = (numbered_codes(module, numbers).mean(0) for numbers in ([3, 17, 42], [5, 9, 30], [8, 21, 33]))
    assert np.allclose(np.load(tmp_path / "x.npz")["codes"][0, 0], to - minus + plus, atol=1e-5)


def test_directions_without_examples(runs, capsys, tmp_path):
    folder = tmp_path / "ways"
    facts, _ = told(
        capsys,
        "arithmetic",
        runs["gan"],
        "--directions",
        "sefa",
        "--count",
        "2",
        "--save-direction",
        folder,
        "--out",
        tmp_path / "d.png",
    )
    assert len(facts["shares"]) == 2
    assert Direction.load(folder / "sefa-2.safetensors").facts["kind"] == "sefa"
    facts, _ = told(
        capsys, "arithmetic", runs["ae"], "--directions", "pca", "--count", "3", "--out", tmp_path / "p.png"
    )
    assert sum(facts["shares"]) == pytest.approx(1)
    assert "sefa" in refused(capsys, "arithmetic", runs["gan"], "--directions", "pca")
    two = ["arithmetic", runs["vae"], "--directions", "sefa", "--out", folder.parent / "two.png"]
    assert told(capsys, *two)[0]["directions"] == 2


def test_the_mean_code_is_of_items_from_all_over_the_data(runs, capsys, tmp_path, monkeypatch):
    asked, real = [], using.in_batches
    monkeypatch.setattr(using, "in_batches", lambda *given: asked.append(given[2]) or real(*given))
    told(capsys, "arithmetic", runs["ae"], "--directions", "pca", "--count", "1", "--out", tmp_path / "p.png")
    of_directions, of_mean = asked
    assert np.array_equal(of_mean, spread(of_directions, 1000))
    assert len(of_mean) == 1000 < len(of_directions)


def test_arithmetic_that_cannot_be(runs, capsys, tmp_path):
    assert "--plus" in refused(capsys, "arithmetic", runs["vae"])
    assert "--minus" in refused(capsys, "arithmetic", runs["vae"], "--plus", "1", "--to", "2")
    assert "--to" in refused(capsys, "arithmetic", runs["vae"], "--plus", "1", "--minus", "2")
    assert "--strengths" in refused(
        capsys, "arithmetic", runs["vae"], "--plus", "1", "--minus", "2", "--to", "3", "--strengths", "x"
    )
    assert "no prior" in refused(capsys, "arithmetic", runs["ae"], "--plus", "1", "--minus", "2", "--to", "3")
    assert "leave --plus" in refused(capsys, "arithmetic", runs["gan"], "--directions", "sefa", "--plus", "1")


# Numbers.


def test_numbered_samples_keep_their_latents(runs, capsys, tmp_path):
    told(capsys, "sample", runs["gan"], "-n", "5", "--seed", "3", "--numbered", "--out", tmp_path / "s.png")
    kept = np.load(tmp_path / "s.npz")
    model = nacre.load(runs["gan"])
    assert kept["numbers"].tolist() == [0, 1, 2, 3, 4]
    assert np.allclose(model.decode(kept["codes"]), model.sample(5, seed=3), atol=1e-6)
    assert "--numbered" in refused(capsys, "sample", runs["gan"], "--numbered", "--out", tmp_path / "s")
    assert "truncation" in refused(capsys, "sample", runs["gan"], "--numbered", "--truncation", "1")


# Nothing that was given is replaced, and nothing that cannot be is begun.


@pytest.fixture
def faces(runs, tmp_path):
    """A copy of three images, to lose."""
    return shutil.copytree(runs["root"] / "faces" / "a", tmp_path / "mine")


def test_what_was_given_is_not_replaced(runs, faces, capsys):
    image = faces / "0.png"
    before = {path.name: path.read_bytes() for path in faces.iterdir()}
    sets = ["--toward", runs["root"] / "faces" / "b", "--from", runs["root"] / "faces" / "a", "--steps", "1"]
    for words in (
        ["invert", runs["gan"], image, "--out", image.with_suffix(".npz"), *SHORT],
        ["interpolate", runs["vae"], image, faces / "1.png", "--out", image],
        ["edit", runs["gan"], faces, *sets, "--out", faces],
        ["edit", runs["gan"], image, *sets, "--out", "elsewhere.png", "--sheet", image],
        ["inpaint", runs["gan"], image, "--out", image],
        ["anomaly", runs["vae"], faces, "--sheet", image],
        ["arithmetic", runs["vae"], "--plus", image, "--to", faces / "1.png", "--out", image],
    ):
        assert "would be replaced" in refused(capsys, *words)
    assert {path.name: path.read_bytes() for path in faces.iterdir()} == before


def test_latents_of_samples_do_not_replace_another_archive(runs, capsys, tmp_path):
    np.savez(tmp_path / "u.npz", mine=np.ones(3))
    words = ["sample", runs["vae"], "-n", "4", "--numbered", "--out"]
    assert "holds something else" in refused(capsys, *words, tmp_path / "u.png")
    for _ in range(2):
        told(capsys, *words, tmp_path / "again.png")


def test_images_of_one_name_have_files_of_their_own():
    names = ["a/0.png", "b/0.png", "c/0000-0.png"]
    assert len(set(using.stems(names))) == 3
    assert using.stems(["a/0.png", "b/0.png", "c/1.png"]) == ["0000-0", "0001-0", "1"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["interpolate", "vae", "--map", "--side", "4000"], "take a smaller --side"),
        (["interpolate", "gan", "-n", "3", "--frames", "1000000"], "take fewer --frames"),
        (["interpolate", "gan", "--frames", "20000", "--out", "long.gif"], "a film has 5,000 frames at most"),
        (["interpolate", "vae", "--seed", "-1"], "a seed must be from 0 to 4294967295, got -1"),
        (["arithmetic", "vae", "--plus", "3", "--to", "4", "--seed", "4294967296"], "a seed must be from 0"),
        (["interpolate", "vae", "--batch-size", "0"], "--batch-size must be 1 or more, got 0"),
        (["arithmetic", "vae", "--plus", "3", "--to", "4", "--most", "-1"], "--most must be 1 or more"),
        (["sample", "vae", "-n", "1e6"], "-n takes a whole number, got '1e6'"),
    ],
)
def test_what_cannot_be_is_refused_before_it_begins(runs, capsys, words, sentence):
    command, run, *rest = words
    assert sentence in refused(capsys, command, runs[run], *rest)


def test_strengths_may_begin_with_a_minus(runs, capsys, tmp_path):
    words = ["arithmetic", runs["gan"], "--plus", "3", "--minus", "4", "--to", "8", "--out", tmp_path / "a.npz"]
    assert told(capsys, *words, "--strengths", "-1,1")[0]["strengths"] == [-1, 1]
    assert "--strengths takes numbers" in refused(capsys, *words, "--strengths", "")


def test_a_sheet_of_directions_is_of_one_item(runs, capsys, tmp_path):
    words = ["arithmetic", runs["gan"], "--directions", "sefa", "--out", tmp_path / "s.png"]
    assert "name one" in refused(capsys, *words, "--to", "1", "2")


def test_a_saved_direction_stands_alone(runs, capsys, tmp_path):
    kept = tmp_path / "d.safetensors"
    told(capsys, "arithmetic", runs["gan"], "--plus", "3", "--minus", "4", "--save-direction", kept)
    words = ["arithmetic", runs["gan"], "--to", "1", "--plus", kept]
    assert "stands alone" in refused(capsys, *words, kept)
    assert "stands alone" in refused(capsys, *words, "3", "--minus", "4")


def test_latents_that_are_counted_are_walked_through_and_not_mapped(runs, capsys, tmp_path):
    facts, _ = told(capsys, "interpolate", runs["vae"], "--n", "3", "--out", tmp_path / "w.png")
    assert facts["legs"] == 2
    assert "--map no" in refused(capsys, "interpolate", runs["vae"], "--side", "5", "--out", tmp_path / "w.gif")


def test_an_edit_that_may_change_nothing_is_refused(runs, capsys, tmp_path):
    faces, mask = runs["root"] / "faces", tmp_path / "black.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(mask)
    words = ["edit", runs["gan"], faces / "a" / "0.png", "--from", faces / "a", "--toward", faces / "b"]
    assert "is white nowhere" in refused(capsys, *words, "--mask", mask, "--out", tmp_path / "e.png")


def test_an_export_wants_a_folder(runs, capsys):
    assert "say where the files go" in refused(capsys, "export", runs["gan"], "--onnx", "")


def test_a_dash_behind_a_value_of_its_own_is_no_list(runs, capsys, tmp_path):
    words = ["arithmetic", runs["gan"], "--plus", "3", "--minus", "4", "--to", "8", f"--out={tmp_path / 'a.npz'}"]
    assert "-1,2" in refused(capsys, *words, "-1,2")


@pytest.mark.parametrize("fit", ["pad", "squash"])
def test_what_a_model_is_given_is_brought_to_its_size_as_in_training(fit, capsys, tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "wide").mkdir()
    for number in range(16):
        Image.fromarray(random.integers(0, 256, (8, 24), np.uint8)).save(tmp_path / "wide" / f"{number}.png")
    data = {"data": str(tmp_path / "wide"), "image_size": 8, "fit": fit, "validation": 0, "test": 0}
    run = nacre.train("ae", out="run", steps=1, latent_dim=2, hidden=(8,), **QUICK, **data).path

    def codes(place, *words):
        told(capsys, "encode", place, *words, "--out", "codes.npz")
        return np.load("codes.npz")["codes"]

    own = codes(run)
    assert np.array_equal(codes(run, "--data", tmp_path / "wide"), own)
    assert np.array_equal(codes(run / "model", "--data", tmp_path / "wide"), own)
    named, err = told(capsys, "reconstruct", run, *sorted((tmp_path / "wide").iterdir()))
    assert named["mse"] == pytest.approx(told(capsys, "reconstruct", run)[0]["mse"])
    assert "16 of 16 images were of another size, and made 8x8" in err
    assert "cut at the centre" not in err
    facts = json.loads((run / "model" / "config.json").read_text())
    assert facts["facts"].pop("fit") == fit
    (run / "model" / "config.json").write_text(json.dumps(facts))  # an older folder, whose run alone says it
    assert np.array_equal(codes(run, "--data", tmp_path / "wide"), own)
    assert not np.array_equal(codes(run / "model", "--data", tmp_path / "wide"), own)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sample", "gan", "--numbered", "--format", "png"], "--numbered is of the model's own samples"),
        (["sample", "ae", "--numbered", "--prior", "gmm"], "leave --prior gmm and --format out"),
        (["inpaint", "vae", "large.png", "--sweeps", "3"], "--sweeps is of --method sample"),
        (
            ["inpaint", "vae", "large.png", "--method", "sample", "--adam-steps", "3"],
            "--adam-steps would be of --method",
        ),
        (
            ["interpolate", "gan", "1,2", "--n", "9", "--fps", "3", "--side", "5"],
            "--n, --fps, --side would change nothing",
        ),
        (["interpolate", "vae", "--map", "--frames", "4"], "--frames would change nothing"),
    ],
)
def test_a_flag_that_would_change_nothing_is_refused(words, sentence, runs, capsys):
    words = [runs["root"] / word if word == "large.png" else runs.get(word, word) for word in words]
    assert sentence in refused(capsys, *words)


def test_data_named_by_a_flag_are_opened_once(runs, capsys, monkeypatch, tmp_path):
    from nacre.data import arrays

    opened = []
    np.save(tmp_path / "x.npy", np.zeros((4, 8, 8), np.uint8))
    check = arrays._check_header
    monkeypatch.setattr(arrays, "_check_header", lambda *words: opened.append(words) or check(*words))
    told(capsys, "encode", runs["ae"], "--data", tmp_path / "x.npy")
    assert len(opened) == 1
