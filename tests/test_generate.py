"""Samples in shards: whole or absent, the same wherever they are made, and chosen as was asked."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import nacre
from nacre.cli import main
from nacre.data import DataSettings
from nacre.data import load as load_data
from nacre.engine import sampling
from nacre.errors import CapabilityError, ConfigError
from nacre.run.generate import generate, numbers_of

QUICK = {"steps": 6, "batch_size": 8, "sample_every": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "gan"
    return nacre.train("gan", out=path, latent_dim=3, hidden=(8,), conditional=True, **QUICK).path


@pytest.fixture(scope="module")
def model(run):
    return nacre.load(run)


def sampled(capsys, *words):
    code = main(["sample", *map(str, words), "--json"])
    out, err = capsys.readouterr()
    return (json.loads(out) if code == 0 else err), code


def test_shards_are_equal_shares_of_all_numbers():
    for total, count in ((1, 5), (3, 10), (7, 7), (16, 1000)):
        shares = [numbers_of(k, total, count) for k in range(total)]
        assert [number for share in shares for number in share] == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("form", "suffix"), [("parquet", ".parquet"), ("webdataset", ".tar"), ("npz", ".npz")])
def test_a_shard_alone_is_that_of_the_whole_and_a_stopped_run_goes_on(run, form, suffix, capsys):
    words = [run, "-n", 50, "--format", form, "--batch-size", 9]
    told, _ = sampled(capsys, *words, "--shards", 3, "--out", "whole")
    assert (told["shards"], told["made"], told["kept"]) == (3, 3, 0)
    sampled(capsys, *words, "--shard", "1/3", "--out", "alone")
    name = f"samples-00001-of-00003{suffix}"
    whole = (Path("whole") / name).read_bytes()
    assert (Path("alone") / name).read_bytes() == whole
    (Path("whole") / name).unlink()
    told, _ = sampled(capsys, *words, "--shards", 3, "--out", "whole")
    assert (told["made"], told["kept"]) == (1, 2)
    assert (Path("whole") / name).read_bytes() == whole


@pytest.mark.parametrize("form", ["parquet", "webdataset", "png"])
def test_what_is_written_can_be_trained_on(run, model, form, capsys):
    sampled(capsys, run, "-n", 30, "--format", form, "--shards", 2, "--out", "shards", "--truncation", 0.5)
    dataset = load_data(DataSettings(data="shards"))
    assert not any("Not used" in note for note in dataset.notes)
    items, labels = sampling.draw(model.module, range(30), truncation=0.5)
    assert np.abs(dataset.items[:].astype(int) - (items * 255).round().int().numpy()).max() <= 1
    assert dataset.labels is not None
    assert [dataset.classes[label] for label in dataset.labels] == [model.classes[label] for label in labels]


def test_single_files_lie_in_a_folder_for_each_shard(run, capsys):
    sampled(capsys, run, "-n", 7, "--format", "png", "--shards", 2, "--out", "files", "--label", 4)
    found = sorted(str(path.relative_to("files")) for path in Path("files").rglob("*.png"))
    assert found[0] == "samples-00000-of-00002/000000000.png"
    assert found[-1] == "samples-00001-of-00002/000000006.png"
    assert len(found) == 7
    labels = Path("files/samples-00001-of-00002/labels.csv").read_text()
    rows = [line.split(",") for line in labels.splitlines()]
    assert rows[0] == ["file_name", "label", "label_name"]
    assert [row[1] for row in rows[1:]] == ["4"] * 4
    assert load_data(DataSettings(data="files")).classes == ("4",)


def test_what_cannot_be_meant_is_refused(run, capsys):
    sampled(capsys, run, "-n", 20, "--format", "npz", "--shards", 2, "--out", "samples")
    for words, sentence in (
        (["-n", 20, "--format", "npz", "--shards", 2, "--out", "samples", "--seed", 1], "(seed 0 there, 1 asked for)"),
        (["-n", 30, "--format", "npz", "--shards", 2, "--out", "samples"], "(count 20 there, 30 asked for)"),
        (["-n", 20, "--format", "npz", "--shards", 4, "--out", "samples"], "(shards 2 there, 4 asked for)"),
        (["-n", 20, "--format", "npz", "--shard", "3/3"], "--shard takes k/K"),
        (["-n", 20, "--format", "npz", "--shards", 30], "20 samples go into 1 to 20 shards, got 30"),
        (["-n", 20, "--format", "npz", "--shards", 0], "20 samples go into 1 to 20 shards, got 0"),
        (["-n", 20, "--shards", 2], "are of --format"),
        (["-n", 20, "--format", "npz", "--out", "x.npz"], "is called as a file; name a folder"),
        (["-n", 20, "--truncation", 0], "truncation must be above 0"),
        (["-n", 20, "--reject-worst", 1], "the share to reject must be from 0 to below 1"),
    ):
        told, code = sampled(capsys, run, *words)
        assert code == 2
        assert sentence in told


def test_a_shard_that_fails_leaves_nothing_behind(model):
    def draw(rows):
        if rows.start >= 10:
            raise KeyboardInterrupt
        return sampling.draw(model.module, rows)

    for form in ("parquet", "webdataset", "npz", "png"):
        with pytest.raises(KeyboardInterrupt):
            generate(draw, 20, Path(form), form=form, shards=2)
        left = sorted(path.name.split(".")[0] for path in Path(form).iterdir())
        assert left == ["samples", "samples-00000-of-00002"]
        shutil.rmtree(form)


def test_vectors_are_written_as_numbers(capsys):
    vectors = nacre.train("gan", data="toy:ring8", out="ring", latent_dim=2, hidden=(8,), **QUICK)
    expected = nacre.load(vectors).sample(12).numpy()
    sampled(capsys, "ring", "-n", 12, "--format", "npz", "--shards", 1, "--out", "arrays")
    with np.load("arrays/samples-00000-of-00001.npz") as arrays:
        np.testing.assert_allclose(arrays["x"], expected, atol=1e-6)
    sampled(capsys, "ring", "-n", 12, "--format", "parquet", "--out", "table")
    import pyarrow.parquet as pq

    table = pq.read_table("table/samples-00000-of-00001.parquet")
    np.testing.assert_allclose(np.array(table["x"].to_pylist()), expected, atol=1e-6)
    assert table["number"].to_pylist() == list(range(12))
    told, code = sampled(capsys, "ring", "-n", 12, "--format", "png", "--out", "files")
    assert code == 2
    assert "vectors are no PNGs" in told


def test_truncated_latents_follow_the_truncated_normal_law():
    z = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    for t in (0.3, 1.0, 2.5):
        cut = sampling.truncated(z, t)
        assert cut.abs().max() <= t
        assert torch.equal(cut.argsort(), z.argsort()) or (cut.sort().values == cut[z.argsort()]).all()
        assert stats.kstest(cut.double().numpy(), stats.truncnorm(-t, t).cdf).pvalue > 1e-3
    torch.testing.assert_close(sampling.truncated(z, 12.0), z, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(sampling.truncated(torch.tensor([-40.0, 40.0]), 1.0)).all()


def test_the_worst_are_rejected_block_by_block(model, monkeypatch):
    monkeypatch.setattr(sampling, "SELECTED", 8)
    candidates, labels = sampling.draw(model.module, range(32))
    kept, kept_labels = sampling.draw(model.module, range(16), reject_worst=0.5)
    for block in range(2):
        mine = slice(16 * block, 16 * block + 16)
        realness = model.realness(candidates[mine])
        best = realness.argsort(descending=True)[:8].sort().values
        torch.testing.assert_close(kept[8 * block : 8 * block + 8], candidates[mine][best])
        assert torch.equal(kept_labels[8 * block : 8 * block + 8], labels[mine][best])
    part, _ = sampling.draw(model.module, range(5, 12), reject_worst=0.5)
    torch.testing.assert_close(part, kept[5:12])
    assert torch.equal(model.sample(16, reject_worst=0.5), kept)
    assert model.realness(kept).mean() > model.realness(candidates).mean()


def test_rejection_needs_a_judge():
    vae = nacre.train("vae", out="vae", latent_dim=2, hidden=(8,), **QUICK)
    with pytest.raises(CapabilityError, match="judges no images"):
        nacre.load(vae).sample(4, reject_worst=0.2)
    with pytest.raises(ConfigError, match="not conditional"):
        nacre.load(vae).sample(4, label=1)


def test_a_command_that_fails_leaves_no_word_of_it(run, capsys):
    vae = nacre.train("vae", out="vae", latent_dim=3, hidden=(8,), **QUICK).path
    words = [vae, "-n", 20, "--format", "npz", "--out", "samples"]
    assert sampled(capsys, *words, "--reject-worst", 0.3)[1] == 2
    assert sampled(capsys, *words)[1] == 0


def test_shards_of_different_mixtures_do_not_lie_together(capsys):
    ae = nacre.train("ae", out="ae", hidden=(8,), **QUICK).path
    words = [ae, "-n", 20, "--format", "npz", "--prior", "gmm", "--out", "samples"]
    assert sampled(capsys, *words, "--components", 2, "--shard", "0/2")[1] == 0
    told, code = sampled(capsys, *words, "--components", 3, "--shard", "1/2")
    assert code == 2
    assert "(components 2 there, 3 asked for)" in told


def test_a_damaged_note_is_another_folder(run, capsys):
    Path("samples").mkdir()
    Path("samples/samples.json").write_text("[]")
    told, code = sampled(capsys, run, "-n", 20, "--format", "npz", "--out", "samples")
    assert code == 2
    assert "holds other samples" in told
