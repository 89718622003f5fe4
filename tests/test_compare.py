"""Comparisons: which differences are called real, what is written down, what is refused, and what goes on after a kill."""

import csv
import io
import json
import math
import re

import numpy as np
import pytest
import torch
from scipy import stats

from nacre.errors import ConfigError
from nacre.metrics import intervals
from nacre.metrics.intervals import Estimate, around
from nacre.run.comparison import Column, words
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


def row(name, value, se=1.0, *, better="lower", floor=None, n=100, low=None, high=None):
    estimate = around(value, se, 10**9, n)
    return Row(name, estimate, floor, better, f"{name} of {n}", "")


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
    """1,000 tables of three equal models on eight metrics, of which the jackknife knows the errors by ten groups only."""
    generator = np.random.default_rng(1)
    wrong = 0
    for _ in range(1000):
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
    assert wrong <= stats.binom.isf(0.001, 1000, 0.05)
    assert wrong >= 5  # it is not blind either


def test_equal_models_of_three_seeds_are_called_different_as_seldom_as_is_said():
    generator = np.random.default_rng(2)
    wrong = 0
    for _ in range(400):
        values = generator.normal(0, 1, (2, 4, 3))
        columns = [
            column(name, *[[row(str(m), values[i, m, s], 1e-3) for m in range(4)] for s in range(3)])
            for i, name in enumerate("ab")
        ]
        wrong += any(pair.better for _, pair in table(columns, "").pairs)
    assert wrong <= stats.binom.isf(0.001, 400, 0.05)


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
    assert words.best(found.lines[0]) == "a = b"
    alone = table([column("a", [row("x", 1.0)]), column("b", [row("y", 1.0)])], "").lines
    assert [line.best for line in alone] == [(), ()]
    assert [line.cells[1] for line in alone] == [None, alone[1].cells[1]]


def test_one_seed_says_nothing_of_a_model_that_has_several():
    columns = [column("a", [row("x", 1.0)], [row("x", 1.1)]), column("b", [row("x", 90.0)])]
    (line,) = table(columns, "").lines
    assert not table(columns, "").pairs
    assert line.best == ()


@pytest.mark.parametrize(
    ("value", "half", "told"),
    [(12.345, 0.46, "12.35"), (1234.6, 56.0, "1235"), (0.00123, 0.00004, "0.001230"), (5.0, math.nan, "5"),
     (math.nan, 1.0, "–"), (1.23e-9, 4e-10, "1.2e-09")],
)  # fmt: skip
def test_numbers_have_the_digits_that_mean_something(value, half, told):
    assert words.number(value, half) == told


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
