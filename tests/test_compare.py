"""Comparisons: which differences are called real, what is written down, what is refused, and what goes on after a kill."""

import csv
import io
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import nacre
from nacre.cli import main
from nacre.engine import checkpoint
from nacre.errors import ConfigError, Interrupted, TrainingError
from nacre.metrics import intervals
from nacre.metrics.intervals import Estimate, around
from nacre.run.comparison import Column, assemble, compare, compare_models, course, measure, page, words
from nacre.run.comparison.budget import Budget
from nacre.run.comparison.differences import (
    Contrast,
    between_estimates,
    degrees,
    of_distances,
    of_seeds,
    standard_error,
    verdicts,
)
from nacre.run.comparison.table import table
from nacre.run.evaluation import Evaluation, Row

GAUSS = math.inf


def row(name, value, se=1.0, *, better="lower", floor=None, n=100, protocol="", group=""):
    return Row(name, around(value, se, 10**9, n), floor, better, protocol or f"{name} of {n}", "", group)


def column(name, *rows_by_seed, facts=None):
    found = [
        Evaluation(f"runs/{name}", "vae", "digits", "test", 100, 0, "x", "", tuple(rows), 1.0) for rows in rows_by_seed
    ]
    return Column(name, tuple(found), tuple(range(len(found))), facts or {})


def test_holm_is_that_of_the_textbook():
    # Three p-values .01, .04, .03 of N(0, 1): adjusted .03, .06, .06 (Holm 1979).
    chances = [0.01, 0.04, 0.03]
    found = verdicts([Contrast(float(stats.norm.isf(p / 2)), 1.0, GAUSS) for p in chances])
    assert [each.p for each in found] == pytest.approx([0.03, 0.06, 0.06])
    assert [each.real for each in found] == [True, False, False]


def test_a_difference_is_real_if_and_only_if_its_interval_excludes_zero():
    generator = np.random.default_rng(0)
    for _ in range(200):
        values, ses = generator.normal(0, 3, 12), generator.uniform(0.5, 2, 12)
        found = verdicts([Contrast(v, s, d) for v, s, d in zip(values, ses, [3.0, 9.0, GAUSS] * 4, strict=True)])
        assert all(each.real == (each.low > 0 or each.high < 0) == (each.p < 0.05) for each in found)


def test_what_has_no_error_is_not_tested_and_copies_are_no_difference():
    found = verdicts([Contrast(1.0, math.nan, GAUSS), Contrast(1.0, 0.0, GAUSS), Contrast(0.0, math.nan, GAUSS)])
    assert [each.real for each in found] == [False] * 3
    assert math.isnan(found[0].p)
    assert math.isnan(found[1].p)
    assert (found[2].p, found[2].low, found[2].high) == (1.0, 0.0, 0.0)


def test_equals_are_called_different_as_seldom_as_is_said():
    """500 tables of three equal models on eight metrics, of which the jackknife knows the errors by ten groups only."""
    generator = np.random.default_rng(1)
    wrong = 0
    for _ in range(500):
        columns = []
        for name in "abc":
            ses = np.sqrt(generator.chisquare(9, 8) / 9)
            values = generator.normal(0, 1, 8)
            rows = [
                Row(str(i), around(v, s, 9, 100), None, "lower", "", "")
                for i, (v, s) in enumerate(zip(values, ses, strict=True))
            ]
            columns.append(column(name, rows))
        wrong += any(pair.better for _, pair in table(columns, "").pairs)
    assert wrong <= stats.binom.isf(0.001, 500, 0.05)
    assert wrong >= 2  # it is not blind either


def test_equal_models_of_three_seeds_are_called_different_as_seldom_as_is_said():
    generator = np.random.default_rng(2)
    wrong = 0
    for _ in range(300):
        values = generator.normal(0, 1, (2, 4, 3))
        columns = [
            column(name, *[[row(str(m), values[i, m, s], 1e-3) for m in range(4)] for s in range(3)])
            for i, name in enumerate("ab")
        ]
        wrong += any(pair.better for _, pair in table(columns, "").pairs)
    assert wrong <= stats.binom.isf(0.001, 300, 0.05)


def test_welch_is_that_of_scipy():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(8, generator=generator).double(), 2 * torch.randn(5, generator=generator).double() + 1
    reference = stats.ttest_ind(a.numpy(), b.numpy(), equal_var=False)
    for contrast in (between_estimates(intervals.mean(a), intervals.mean(b)), of_seeds(a.tolist(), b.tolist())):
        assert contrast.p == pytest.approx(reference.pvalue, rel=1e-6)
        assert contrast.degrees == pytest.approx(reference.df, rel=1e-6)


def test_degrees_and_errors_are_read_off_an_estimate():
    assert degrees(around(3.0, 0.1, 9, 50)) == pytest.approx(9)
    assert degrees(intervals.cut(around(0.99, 0.01, 9, 50), 0, 1)) == pytest.approx(9)
    assert degrees(around(3.0, 0.1, 10**9, 50)) == GAUSS
    all_of_them = intervals.share(90, 90)
    assert all_of_them.se == 0
    assert standard_error(all_of_them) == pytest.approx((1 - all_of_them.low) / 1.96, rel=1e-3)
    assert math.isnan(standard_error(Estimate(1, math.nan, math.nan, math.nan, 5)))


def test_distances_to_the_floor_are_compared_on_either_side():
    floor = around(0.5, 0.01, 10**9, 100)
    over, under = around(0.6, 0.01, 10**9, 100), around(0.45, 0.01, 10**9, 100)
    assert of_distances(over, around(0.7, 0.01, 10**9, 100), floor).value == pytest.approx(-0.1)
    assert of_distances(under, around(0.3, 0.01, 10**9, 100), floor).value == pytest.approx(-0.15)
    across = of_distances(over, under, floor)
    assert across.value == pytest.approx(0.05)
    assert across.se == pytest.approx(0.01 * math.sqrt(6))


def test_seeds_that_agree_by_chance_are_known_no_better_than_they_were_measured():
    same = [[row("modes", 8.0, 0.5)], [row("modes", 8.0, 0.5)], [row("modes", 8.0, 0.5)]]
    other = [[row("modes", 7.9, 0.5)], [row("modes", 7.9, 0.5)], [row("modes", 7.9, 0.5)]]
    (line,) = table([column("a", *same), column("b", *other)], "").lines
    assert line.cells[0].se == pytest.approx(0.5 / math.sqrt(3))
    assert line.tie


def test_the_best_are_those_that_nothing_tells_apart():
    rows = {"a": (1.0, 0.0), "b": (1.5, 5.0), "c": (20.0, 90.0)}
    columns = [
        column(name, [row("far", far), row("high", high, better="higher")]) for name, (far, high) in rows.items()
    ]
    found = table(columns, "")
    assert [line.best for line in found.lines] == [("a", "b"), ("c",)]
    assert not any(line.tie for line in found.lines)
    assert table(columns[:2], "").lines[0].tie
    assert words.marks(found, found.lines[0]) == ["best", "tied", ""]
    assert words.marks(found, table(columns[:2], "").lines[0]) == ["", "", ""]
    assert words.order(found.lines[0]) == "a before c; b before c"
    alone = table([column("a", [row("x", 1.0)]), column("b", [row("y", 1.0)])], "").lines
    assert [line.best for line in alone] == [(), ()]
    assert [line.cells[1] for line in alone] == [None, alone[1].cells[1]]


def test_one_seed_says_nothing_of_a_model_that_has_several():
    columns = [column("a", [row("x", 1.0)], [row("x", 1.1)]), column("b", [row("x", 90.0)])]
    (line,) = table(columns, "").lines
    assert not table(columns, "").pairs
    assert line.best == ()


def test_metrics_come_by_group_and_what_cannot_be_better_is_not_judged():
    rows = [
        [
            row("own", value, better="floor", group="one"),
            row("Its own discriminator: accuracy", value, group="two"),
            row("far", value, group="one"),
        ]
        for value in (1.0, 90.0)
    ]
    lines = table([column("a", rows[0]), column("b", rows[1])], "").lines
    assert [line.name for line in lines] == ["own", "far", "Its own discriminator: accuracy"]
    assert [line.best for line in lines] == [(), ("a",), ()]


def test_what_was_measured_otherwise_is_not_compared_and_that_is_said():
    bounds = [
        row("ELBO", -90.0, protocol="of 80 items, Bernoulli."),
        row("ELBO", -10.0, protocol="of 80 items, Gaussian."),
    ]
    columns = [column("a", [bounds[0], row("x", 1.0)]), column("b", [bounds[1], row("x", 1.0, n=50)])]
    found = table(columns, "")
    assert not found.pairs
    assert [note.partition(" was measured in different ways")[0] for note in found.notes] == ["ELBO", "x"]
    assert "Bernoulli" in found.lines[0].protocol
    assert "Gaussian" in found.lines[0].protocol


def test_results_within_a_protocol_do_not_make_it_another():
    protocols = [
        "p = 6e-63 of 385 items in labels-v1/digits-78032ab0",
        "p = .44 of 385 items in labels-v1/digits-78032ab0",
    ]
    columns = [column(name, [row("x", 1.0, protocol=each)]) for name, each in zip("ab", protocols, strict=True)]
    found = table(columns, "")
    assert len(found.pairs) == 1
    assert found.lines[0].protocol == "p = … of 385 items in labels-v1/digits-78032ab0"


def test_single_items_are_compared_in_pairs():
    generator = torch.Generator().manual_seed(0)
    hard = 10 * torch.randn(200, generator=generator).double()
    values = [hard + 0.1 * torch.randn(200, generator=generator).double() + shift for shift in (0.0, 0.1)]
    columns = []
    for name, each in zip("ab", values, strict=True):
        bound = Row("ELBO", intervals.mean(each), None, "higher", "", "")
        columns.append(replace(column(name, [bound]), by_item={"ELBO": each}))
    (line,) = table(columns, "").lines
    assert line.best == ("b",)
    assert line.pairs[0].paired
    assert not table([replace(each, by_item={}) for each in columns], "").lines[0].pairs[0].better
    assert line.pairs[0].verdict.p == pytest.approx(stats.ttest_rel(*values).pvalue, rel=1e-6)


@pytest.fixture
def awkward():
    """A comparison whose names would break CSV and LaTeX that are not careful."""
    rows = [
        [row('50 % & "all"_{x}\n', 1.0 + i, 0.1), row("≈ a", 1.0, better="floor", floor=around(0.5, 0.1, 9, 9))]
        for i in (0, 9)
    ]
    columns = [column("a_b #1, \\x", rows[0], facts={"steps": 5000}), column("c~d^e", [rows[1][0]])]
    return table(columns, "N = 100 & 50 %", failures={"wgan": "it failed"})


def test_csv_comes_back_as_it_was_written(awkward):
    lines = list(csv.DictReader(io.StringIO(words.as_csv(awkward))))
    assert [line["model"] for line in lines] == ["a_b #1, \\x", "c~d^e"] * 2
    assert lines[0]["metric"] == '50 % & "all"_{x}\n'
    assert float(lines[0]["value"]) == 1.0
    assert float(lines[0]["high"]) == pytest.approx(1.196, abs=1e-3)
    assert [line["place"] for line in lines] == ["best", "", "", ""]
    ties = table([column(name, [row("x", 1.0)]) for name in "ab"], "")
    assert [line["place"] for line in csv.DictReader(io.StringIO(words.as_csv(ties)))] == ["", ""]
    assert lines[3]["value"] == ""
    assert float(lines[2]["floor"]) == 0.5


def test_latex_escapes_what_it_must(awkward):
    text = words.as_latex(awkward)
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[%#]", body)
    cells = [len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines() if line.endswith(r"\\")]
    assert cells == [3, 3, 3]
    assert body.count("{") - body.count(r"\{") == body.count("}") - body.count(r"\}")
    assert r"a\_b \#1, \textbackslash{}x" in body
    assert r"$\mathbf{1.00} \pm 0.20$" in body
    assert " & -- & " in body
    assert body.isascii() or set(filter(lambda c: not c.isascii(), body)) <= set("é")
    for command in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{lrrr}"):
        assert command in body


def test_json_holds_no_nan(awkward):
    told = json.loads(json.dumps(awkward.as_dict(), allow_nan=False))
    assert told["metrics"][1]["values"]["c~d^e"] is None
    assert told["metrics"][0]["differences"][0]["real"]
    assert told["failures"] == {"wgan": "it failed"}


def test_the_table_fits_the_terminal(awkward):
    for width in (80, 140):
        assert "a_b #1, \\x" in words.text(awkward, width)
    many = table([column(f"model-{i}", [row("Fréchet distance", 10.0 * i)]) for i in range(12)], "N = 5")
    told = words.text(many, 80).partition(words.LEGEND)[0]
    assert max(map(len, told.splitlines())) <= 80
    assert all(told.count(f"model-{i} ") + told.count(f"model-{i}\n") for i in range(12))


@pytest.mark.parametrize(
    ("typed", "batch", "pace", "steps"),
    [
        ("images=2M", 64, 1.0, 31250),
        ("images=10", 64, 1.0, 1),
        ("minutes=1.5", 64, 0.5, 180),
        ("steps=5k", 9, 1.0, 5000),
        ("images=6e2", 6, 1.0, 100),
    ],
)
def test_a_budget_buys_steps(typed, batch, pace, steps):
    budget = Budget.parse(typed)
    assert budget.steps(batch, pace) == steps
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize("typed", ["10", "images", "images=", "hours=3", "minutes=2M", "steps=0", "images=-5"])
def test_what_is_no_budget_is_refused(typed):
    with pytest.raises(ConfigError, match="--budget takes images=2M, minutes=10 or steps=5000"):
        Budget.parse(typed)


# Runs


QUICK = {"batch_size": 32, "hidden": (16,), "latent_dim": 2, "sample_every": 0, "test": 0.25, "validation": 0.1}


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """900 points about (3, 3, -3), as a source."""
    path = tmp_path_factory.mktemp("data") / "points.npy"
    generator = np.random.default_rng(0)
    np.save(path, generator.normal([3, 3, -3], 0.3, (900, 3)).astype(np.float32))
    return str(path)


@pytest.fixture(scope="module")
def runs(points, tmp_path_factory):
    """A trained run, one that is hardly trained, and a copy of the first."""
    out = tmp_path_factory.mktemp("runs")
    for name, steps in (("trained", 400), ("untrained", 1)):
        nacre.train("vae", data=points, out=out / name, steps=steps, likelihood="gaussian", **QUICK)
    shutil.copytree(out / "trained", out / "copy")
    return [out / name for name in ("trained", "untrained", "copy")]


@pytest.fixture(scope="module")
def compared(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared")
    return compare(runs, out=out, samples=100), out


def answer(capsys, *words_):
    code = main(["compare", *map(str, words_)])
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys, *words_):
    code, _, err = answer(capsys, *words_)
    (line,) = [line for line in err.splitlines() if line.startswith("nacre: ")]
    assert code == 2
    return line


def test_training_is_a_real_difference_and_a_copy_is_none(compared):
    found, _ = compared
    lines = {line.name: line for line in found.lines}
    assert lines["Fréchet distance"].best == ("trained", "copy")
    assert lines["Reconstruction error"].best == ("trained", "copy")
    copies = [pair for _, pair in found.pairs if {pair.first, pair.second} == {"trained", "copy"}]
    assert len(copies) > 5
    assert all(pair.verdict.p == 1 and not pair.better for pair in copies)
    paired = {line.name for line, pair in found.pairs if pair.paired}
    assert "Reconstruction error" in paired
    assert "Fréchet distance" not in paired
    assert "another training seed" in found.covers


def test_how_long_each_run_trained_is_said(compared, runs, points, tmp_path):
    found, out = compared
    facts = [each["facts"] for each in found.as_dict()["columns"]]
    assert facts == [{"steps done": steps, "steps planned": steps} for steps in (400, 1, 400)]
    told = words.text(found)
    assert re.search(r"steps done +steps planned\n.*trained +400 +400\n.*untrained +1 +1\n", told)
    assert "not trained equally long (steps: trained 400, untrained 1, copy 400)" in " ".join(told.split())
    assert "steps planned" in page.document(found)
    alike = compare([runs[0], runs[2]], out=out, samples=100)
    assert not any("equally long" in note for note in alike.notes)
    shutil.copytree(runs[0], tmp_path / "cut")
    config = tmp_path / "cut" / "config.yaml"
    config.write_text(config.read_text().replace("steps: 400", "steps: 900"))
    cut = compare([runs[0], tmp_path / "cut"], out=out, samples=100)
    assert "cut is not at its end: 400 of 900 steps" in cut.notes


def test_what_was_measured_is_kept(compared, runs, monkeypatch):
    found, out = compared
    monkeypatch.setattr(measure, "examined", lambda _: pytest.fail("measured again"))
    again = compare(runs, out=out, samples=100)
    assert json.dumps(again.as_dict()) == json.dumps(found.as_dict())
    assert [
        np.array_equal(a.pages["samples"], b.pages["samples"])
        for a, b in zip(again.columns, found.columns, strict=True)
    ]
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        compare(runs, out=out, samples=99)


def test_the_command_writes_a_page_that_stands_alone(compared, runs, capsys):
    _, out = compared
    code, told, _ = answer(capsys, *runs, "--samples", 100, "--out", out)
    assert code == 0
    assert "trained before untrained" in told
    assert str(out / "compare.html") in told
    text = (out / "compare.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert text.count("<img ") == 4
    assert text.count("<svg ") == len(compared[0].lines)
    assert len(list(csv.DictReader(io.StringIO((out / "compare.csv").read_text())))) == 3 * len(compared[0].lines)
    code, told, _ = answer(capsys, *runs, "--samples", 100, "--out", out, "--json")
    assert json.loads(told)["columns"][0]["name"] == "trained"
    assert [Path(file).name for file in json.loads(told)["files"]] == ["compare.html", "compare.csv", "compare.tex"]


def test_what_cannot_be_compared_is_refused_in_a_sentence(runs, points, tmp_path, capsys):
    digits = nacre.train("vae", out=tmp_path / "digits", steps=1, batch_size=8, hidden=(8,), sample_every=0).path
    elsewhere = np.load(points) + 1
    np.save(tmp_path / "other.npy", elsewhere)
    other = nacre.train("vae", out=tmp_path / "other", data=str(tmp_path / "other.npy"), steps=1, **QUICK).path
    assert "takes two or more runs" in refused(capsys, runs[0])
    assert "each once" in refused(capsys, runs[0], runs[0])
    assert "1×8×8" in refused(capsys, runs[0], digits)
    assert "--data SOURCE" in refused(capsys, runs[0], other)
    assert "--budget, --batch-size would be of training" in refused(
        capsys, *runs, "--batch-size", 4, "--budget", "steps=1"
    )
    assert "takes a --budget as well" in refused(capsys, "--models", "vae")
    assert "leave out --model" in refused(capsys, runs[0], "--models", "vae", "--budget", "steps=1")
    assert "did you mean" in refused(capsys, "--models", "vea", "--budget", "steps=1")
    code, told, _ = answer(capsys, runs[0], other, "--data", points, "--samples", 60, "--out", tmp_path / "both")
    assert code == 0
    assert f"test items of {points}" in " ".join(told.split())


@pytest.fixture
def quickly(monkeypatch):
    """Measure nothing: a number by model and seed."""

    def fake(run, place, settings):
        value = 10.0 * run.name.startswith("vae") + 0.1 * int(run.name[-1])
        found = column(str(run), [row("Fréchet distance", value)]).evaluations[0]
        return measure.Measured(found, {}, False, {})

    monkeypatch.setattr(assemble, "measured", fake)


def models(points, out="compared", names=("vae", "wgan_gp"), **changed):
    settings = {"budget": "images=640", "seeds": 2, "data": points, **QUICK, **changed}
    return compare_models(names, out=out, **settings)


def test_models_are_trained_alike_and_a_table_over_seeds_comes_out(points, quickly):
    found = models(points, seeds=3)
    assert [column.name for column in found.columns] == ["vae", "wgan_gp"]
    (line,) = found.lines
    assert line.cells[0].value == pytest.approx(10.1)
    assert line.cells[0].n == 3
    assert line.best == ("wgan_gp",)
    assert "training seeds" in found.covers
    for each in found.columns:
        assert each.facts["images seen"] == 640
        assert each.facts["steps"] == 20
        assert each.facts["minutes of training"] > 0
    for name, seed in (("vae", 0), ("wgan_gp", 2)):
        written = nacre.run.config.read(Path(f"compared/{name}-seed{seed}"))
        assert (written["training"]["seed"], written["training"]["steps"], written["model"]) == (seed, 20, name)
        assert written["data"]["test"] == 0.25


def test_a_killed_comparison_goes_on_and_ends_where_it_would_have(points, quickly, monkeypatch):
    models(points, out="whole")
    trained = []
    real = course.train

    def killed(model, *, out, steps, **flags):
        trained.append(out.name)
        if len(trained) == 2:
            real(model, out=out, steps=7, **flags)
            raise KeyboardInterrupt
        return real(model, out=out, steps=steps, **flags)

    monkeypatch.setattr(course, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        models(points, out="killed")
    assert trained == ["vae-seed0", "wgan_gp-seed0"]
    models(points, out="killed")
    assert trained[2:] == ["vae-seed1", "wgan_gp-seed1"]
    for name in ("vae-seed0", "wgan_gp-seed0"):
        a, b = (checkpoint.load(Path(out) / name / "checkpoints", 20) for out in ("whole", "killed"))
        assert not checkpoint.differences(a["model"], b["model"])
    models(points, out="killed", seeds=3, names=("vae",))
    assert trained[4:] == ["vae-seed2"]


def test_a_changed_flag_is_refused_by_name(points, quickly):
    models(points, names=("vae",), seeds=1)
    with pytest.raises(ConfigError, match=r"--budget \(was images=640, is steps=9\), --latent-dim \(was 2, is 3\)"):
        models(points, names=("vae",), seeds=1, budget="steps=9", latent_dim=3)
    with pytest.raises(ConfigError, match=r"--conditional \(was False, is True\)"):
        models(points, names=("vae",), seeds=1, conditional=True)
    models(points, names=("vae",), seeds=1, keep=1, log_every=7)  # nothing that enters training
    Path("something").mkdir()
    Path("something/else.txt").touch()
    with pytest.raises(ConfigError, match="exists and is no comparison"):
        models(points, out="something")
    with pytest.raises(ConfigError, match="--steps is decided by --budget"):
        models(points, out="other", steps=5)
    with pytest.raises(ConfigError, match="none of vae has the flag --r1"):
        models(points, out="other", names=("vae",), r1=1.0)
    with pytest.raises(ConfigError, match="each once"):
        models(points, out="other", names=("vae", "vae"))


def test_a_signal_is_answered_with_what_to_do(points, quickly, monkeypatch, capsys):
    def stopped(model, *, out, **flags):
        raise Interrupted(nacre.Run(out, 3, 9), 15)

    monkeypatch.setattr(course, "train", stopped)
    code, told, _ = answer(capsys, "--models", "vae", "--data", points, "--budget", "steps=9", "--out", "c")
    assert code == 143
    assert told == "stopped and saved at step 3 of c/vae-seed0; the same command goes on\n"


def test_minutes_buy_as_many_steps_as_were_measured_once(points, quickly, monkeypatch):
    monkeypatch.setattr(course, "trial", lambda session: 0.06)
    found = models(points, names=("vae",), seeds=1, budget="minutes=0.01")
    assert found.columns[0].facts["steps"] == 10
    monkeypatch.setattr(course, "trial", lambda session: pytest.fail("measured again"))
    models(points, names=("vae",), seeds=1, budget="minutes=0.01")


def test_a_model_that_fails_is_named_and_the_rest_goes_on(points, quickly, monkeypatch, capsys):
    real = course.train

    def failing(model, *, seed, **flags):
        if model == "wgan_gp" and seed == 1:
            raise TrainingError("a weight is no longer a number")
        return real(model, seed=seed, **flags)

    monkeypatch.setattr(course, "train", failing)
    flags = ["--data", points, "--budget", "steps=4", "--seeds", "2", "--hidden", "16", "--test", "0.25", "--out", "c"]
    code, told, err = answer(capsys, "--models", "vae,transfer,wgan_gp", *flags, "--sample-every", "0")
    assert code == 1
    assert "transfer is missing: transfer is to learn from labels" in " ".join(told.split())
    assert "wgan_gp, seed 1 is missing: a weight is no longer a number" in told
    assert "about" in err
    assert "[4/4]" in err
    assert "vae-seed1" in {path.name for path in Path("c").iterdir()}
    assert Path("c/compare.html").is_file()


def test_an_autoencoder_is_compared_through_a_mixture_of_its_codes(points):
    found = models(points, names=("ae",), seeds=1, settings=assemble.Settings(samples=60))
    assert found.columns[0].name == "ae + mixture"
    names = {line.name for line in found.lines}
    assert {"Fréchet distance", "Reconstruction error"} <= names
    assert Path("compared/ae-seed0/mixture.safetensors").is_file()
    assert "training seeds" not in found.covers
    assert page.document(found).count("<svg ") == len(found.lines)
