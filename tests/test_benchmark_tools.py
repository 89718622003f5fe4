"""The judge and the rows of benchmarks/, without MNIST."""

import gzip
import json
import math
import subprocess

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def mnist_judge(script):
    return script("mnist_judge")


@pytest.fixture(scope="module")
def rows(script):
    return script("rows")


@pytest.fixture(scope="module")
def digits(mnist_judge):
    def part(count):
        return mnist_judge.Labelled(noise_images(count, generator), torch.arange(count) % 10)

    generator = torch.Generator().manual_seed(0)
    return mnist_judge.Digits(train=part(30), held_out=part(40), test=part(50))


@pytest.fixture(scope="module")
def judge(mnist_judge, digits):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return mnist_judge.Judge(mnist_judge.Network(), digits)


def noise_images(count, generator):
    return torch.randint(256, (count, 28, 28), generator=generator, dtype=torch.uint8)


def test_prdc_tells_its_two_sets_apart(mnist_judge):
    generator = torch.Generator().manual_seed(1)
    real = torch.randn(300, 4, generator=generator)
    narrow = mnist_judge.prdc(real, real[:200] * 0.2)
    assert narrow["precision"] == 1
    assert narrow["density"] > 1.5
    assert narrow["recall"] < 0.3
    assert narrow["coverage"] < 0.6
    assert set(mnist_judge.prdc(real, real + 100).values()) == {0}


@pytest.mark.parametrize(
    ("counts", "nats"),
    [([5, 5], 0), ([7, 0, 0, 0], math.log(4)), ([3, 1], 0.75 * math.log(1.5) + 0.25 * math.log(0.5))],
)
def test_kl_to_uniform_by_hand(mnist_judge, counts, nats):
    assert mnist_judge.kl_uniform(np.array(counts)) == pytest.approx(nats, abs=1e-15)


def test_kl_of_draws_is_the_counting_bias_where_classes_are_balanced(mnist_judge):
    floor = mnist_judge.kl_of_draws(torch.arange(1_000) % 10, 900)
    bias = 9 / (2 * 900)
    assert floor["mean"] == pytest.approx(bias, rel=0.05)
    assert floor["sd"] == pytest.approx(bias * math.sqrt(2 / 9), rel=0.1)  # 2N KL is nearly χ² with 9 degrees


def test_judge_gives_a_complete_verdict(judge, digits):
    verdict = judge(digits.held_out.images[:, None].numpy())
    assert verdict["n"] == verdict["n_features"] == sum(verdict["histogram"]) == 40
    assert verdict["kl_floor"]["bias"] == 9 / 80
    assert {name: verdict[name] for name in verdict["real"]} == verdict["real"]  # the ceiling judges itself
    assert verdict["recall_ratio"] == verdict["coverage_ratio"] == 1
    assert json.loads(json.dumps(verdict)) == verdict


def test_judge_sees_a_collapse(judge, digits):
    verdict = judge(digits.test.images[:1].expand(45, -1, -1))
    assert verdict["kl_uniform"] == pytest.approx(math.log(10))
    assert verdict["n_features"] == 40  # as many as there are held-out images
    assert verdict["recall"] <= 1 / 50
    assert verdict["recall_ratio"] < 0.1


@pytest.mark.parametrize(
    "samples",
    [np.zeros((9, 28, 28)), np.zeros((5, 28, 28), np.uint8), np.zeros((9, 3, 28, 28), np.uint8), np.uint8(0)],
)
def test_judge_refuses_what_are_not_its_images(judge, samples):
    with pytest.raises(ValueError, match="expected more than 5 uint8 images"):
        judge(samples)


def test_a_classifier_learns_and_its_training_is_seeded(mnist_judge, monkeypatch):
    monkeypatch.setattr(mnist_judge, "EPOCHS", 4)
    monkeypatch.setattr(mnist_judge, "BATCH", 20)
    images = torch.zeros(100, 28, 28, dtype=torch.uint8)
    labels = torch.arange(100) % 10
    for row, label in enumerate(labels):
        top, left = 8 + 10 * (int(label) // 5), 2 + 5 * (int(label) % 5)  # apart enough for shifts to confuse none
        images[row, top : top + 3, left : left + 3] = 255
    digits = mnist_judge.Labelled(images, labels)
    ambient = torch.get_rng_state()
    networks = [mnist_judge.train(digits, seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), ambient)
    first, again, other = map(mnist_judge.weights_sha256, networks)
    assert first == again != other
    with torch.inference_mode():
        logits, features = networks[0].eval()(images)
    assert features.shape == (100, mnist_judge.FEATURES)
    assert (logits.argmax(1) == labels).float().mean() > 0.6


def test_shifts_move_whole_images_by_at_most_two_pixels(mnist_judge):
    image = torch.zeros(28, 28, dtype=torch.uint8)
    image[10, 20] = 9
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        moved = mnist_judge.shifted(image.expand(500, -1, -1))
    _, heights, widths = moved.nonzero(as_tuple=True)
    assert moved.sum() == 500 * 9
    assert {(int(h), int(w)) for h, w in zip(heights, widths, strict=True)} == {
        (h, w) for h in range(8, 13) for w in range(18, 23)
    }


def test_weights_survive_the_disk_and_damage_is_noticed(mnist_judge, judge, monkeypatch, tmp_path):
    path = tmp_path / "judges" / "judge.safetensors"
    with pytest.raises(RuntimeError, match="expected a classifier of accuracy"):
        mnist_judge.save(judge, path)
    assert not path.exists()
    monkeypatch.setattr(mnist_judge, "MINIMUM_ACCURACY", 0.0)
    mnist_judge.save(judge, path)
    assert mnist_judge.weights_sha256(mnist_judge.load(path)) == judge.sha256
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        mnist_judge.load(path)
    monkeypatch.setattr(mnist_judge, "RECIPE", "0")
    with pytest.raises(ValueError, match="expected a judge of recipe 0"):
        mnist_judge.load(path)


def test_idx_files_are_read_packed_or_not(mnist_judge, tmp_path):
    content = b"\x00\x00\x08\x03" + np.array([2, 3, 4], ">i4").tobytes() + bytes(range(24))
    (tmp_path / "plain").write_bytes(content)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(content))
    (tmp_path / "other").write_bytes(b"\x89PNG")
    for name in ("plain", "packed"):
        assert np.array_equal(mnist_judge.read_idx(tmp_path / name), np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    with pytest.raises(ValueError, match="other is not an idx file"):
        mnist_judge.read_idx(tmp_path / "other")


def test_interval_by_hand(rows):
    """1, 2, 3: s = 1, s.e. = 1/√3, t(2, .975) = 4.30265."""
    found = rows.interval([1, 2, 3])
    reach = 4.302653 / math.sqrt(3)
    expected = {"mean": 2, "standard_error": 1 / math.sqrt(3), "low": 2 - reach, "high": 2 + reach}
    assert found == pytest.approx(expected, rel=1e-6)
    assert rows.interval([4.0]) == {"mean": 4.0, "standard_error": None, "low": None, "high": None}


def test_a_row_says_what_was_measured_and_where(rows, monkeypatch, tmp_path):
    monkeypatch.setattr(rows, "COMMIT", "0123456789abcdef-dirty")
    values = {"recall": [0.5, 0.7], "floor": torch.tensor(0.25), "loss": [1.0, math.nan]}
    path = rows.write_row("ring8", "two runs", values, seeds=range(2), n=100, results=tmp_path / "new", note=np.ones(2))
    row = json.loads(path.read_text())
    assert path.name == f"{row['date'][:10]}-ring8-0123456.json"
    assert row["commit"] == "0123456789abcdef-dirty"
    assert (row["protocol"], row["n"], row["seeds"], row["note"]) == ("two runs", 100, [0, 1], [1.0, 1.0])
    assert row["values"]["recall"]["mean"] == pytest.approx(0.6)
    assert row["values"]["floor"] == 0.25
    assert row["values"]["loss"]["each"] == [1.0, None]
    assert row["values"]["loss"]["mean"] is None
    assert row["machine"].keys() == {"cpu", "cores", "threads", "memory_gib", "gpu", "system"}
    assert row["versions"].keys() == {"python", "torch", "numpy", "nacre"}
    assert row["wall_seconds"] > 0


def test_no_row_is_replaced_and_none_is_half_written(rows, tmp_path):
    paths = [rows.write_row("a", "", {"x": 1.0}, [0], 1, results=tmp_path, wall_seconds=seconds) for seconds in (1, 2)]
    assert [json.loads(path.read_text())["wall_seconds"] for path in paths] == [1, 2]
    with pytest.raises(TypeError):
        rows.write_row("a", "", {"x": 1.0}, [0], 1, results=tmp_path, odd=object())
    assert sorted(tmp_path.iterdir()) == sorted(paths)


@pytest.mark.parametrize(
    ("name", "values", "extra", "message"),
    [
        ("No Spaces", {}, {}, "lower-case"),
        ("a", {"x": [1.0, 2.0]}, {}, "each of 1 seeds"),
        ("a", {}, {"date": "today"}, "date cannot be extra"),
    ],
)
def test_a_row_that_cannot_be_meant_is_refused(rows, tmp_path, name, values, extra, message):
    with pytest.raises(ValueError, match=message):
        rows.write_row(name, "", values, [0], 1, results=tmp_path, **extra)


def test_commit_of_a_repository(rows, tmp_path):
    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    git("init")
    assert rows.commit_of(tmp_path) == "unknown"
    git("commit", "--allow-empty", "--no-verify", "-m", "first")
    clean = rows.commit_of(tmp_path)
    assert len(clean) == 40
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "row.json").touch()
    assert rows.commit_of(results) == clean
    (tmp_path / "code.py").touch()
    assert rows.commit_of(results) == f"{clean}-dirty"
