"""What benchmarks/captions.py measures with, without its data: coloured digits and their judge, retrieval, groups."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def colored(script):
    return script("colored_digits")


@pytest.fixture(scope="module")
def bench(script):
    return script("captions")


@pytest.fixture(scope="module")
def referee(script):
    return script("caption_referee")


def strokes(count):
    """White bars on black, (count, 28, 28), as thin as a one and with soft edges."""
    grey = np.zeros((count, 28, 28), np.uint8)
    grey[:, 4:24, 13:15] = 255
    grey[:, 4:24, 12] = 90
    return grey


def test_a_fifth_of_the_captions_is_held_out(colored):
    learned, held_out = colored.scenes()
    assert (len(learned), len(held_out)) == (448, 112)
    assert not set(learned) & set(held_out)
    assert all(scene.ink != scene.ground for scene in (*learned, *held_out))
    assert colored.Scene(7, 0, 4).caption == "a red seven on blue"


def test_the_judge_reads_the_colours_of_all_scenes(colored):
    told = [scene for part in colored.scenes() for scene in part]
    painted = torch.from_numpy(colored.painted(strokes(len(told)), told, seed=3)).permute(0, 3, 1, 2) / 255
    seen = {}
    judge = object.__new__(colored.Judge)
    judge.referee = SimpleNamespace(probabilities=lambda grey: seen.setdefault("grey", grey)[:, 0, :10, 0])
    right = judge(painted).right(told)
    assert bool(right["ink"].all())
    assert bool(right["ground"].all())
    expected = torch.from_numpy(strokes(1)).float() / 255
    assert float((seen["grey"] - expected).abs().max()) < 0.05


def test_retrieval_of_what_is_known_and_of_nothing(bench):
    bases = np.repeat(np.arange(120), 2)
    assert bench.retrieved(np.eye(240).repeat(3, 0), bases).mean() == pytest.approx(1)
    guessed = np.random.default_rng(0).normal(size=(240 * 4, 240))
    assert bench.retrieved(guessed, bases).mean() == pytest.approx(0.01, abs=0.006)
    # To take a caption for another one of its base name is no mistake: that one is never a rival.
    assert bench.retrieved(np.kron(np.eye(120), np.array([[1.0, 2.0], [2.0, 1.0]])), bases).mean() == pytest.approx(1)


def test_a_group_counts_once_however_large_it_is(bench):
    assert bench.balanced(np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 0, 1])) == 0.5


def test_the_parts_of_a_caption_and_its_padding(referee):
    table = referee.parts(["red heart", "a"])
    assert [int(count) for count in (table > 0).sum(1)] == [2 + 1 + 6, 1 + 1]
    matcher = referee.Matcher(2).eval()
    vectors = matcher.read(table)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(2))
    assert torch.allclose(vectors[1:], matcher.read(table[1:, :2]), atol=1e-6)
