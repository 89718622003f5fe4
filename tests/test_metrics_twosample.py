"""Two-sample tests keep their level where the laws are equal, and see the difference where they are not."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nacre.errors import ConfigError, ShapeError
from nacre.metrics import judges, points
from nacre.metrics.twosample import classifier_test, equilibrium, nearest_neighbor_test, summary, threshold


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(p_values):
    """Whether p-values are uniform, by Kolmogorov and Smirnov at 1 %, and under 5 % as often as they should."""
    under = int((np.array(p_values) < 0.05).sum())
    level = stats.binomtest(under, len(p_values), 0.05).pvalue
    return stats.kstest(p_values, "uniform").pvalue > 0.01 and level > 0.01


def test_nearest_neighbor_accuracy_is_that_of_scikit_learn():
    real, fake = normal(60, 3), normal(50, 3, seed=1) + 0.7
    pooled = torch.cat([real, fake]).numpy()
    labels = np.arange(110) < 60
    nearest = NearestNeighbors(n_neighbors=1, algorithm="kd_tree").fit(pooled).kneighbors()[1][:, 0]
    own = labels == labels[nearest]
    found = nearest_neighbor_test(real, fake)
    assert found.accuracy.value == pytest.approx(own.mean(), abs=1e-12)
    assert found.real.value == pytest.approx(own[labels].mean(), abs=1e-12)
    assert found.fake.value == pytest.approx(own[~labels].mean(), abs=1e-12)


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_ties_count_by_the_share_that_is_of_the_own_set(monkeypatch, offset):
    real = torch.tensor([[0.0, 0], [0, 0], [5, 5], [0.3, 0]]) + offset
    fake = torch.tensor([[0.0, 0], [5, 5], [9, 0]]) + offset
    # (0, 0) twice among the reals: one of two ties is own; (5, 5): the fake copy; (.3, 0): two of three; fakes: none, none,
    # and (9, 0), whose nearest are both (5, 5): one of two.
    expected = [0.5, 0.5, 0, 2 / 3, 0, 0, 0.5]
    for size in (1, points.BLOCK):
        monkeypatch.setattr(points, "BLOCK", size)
        found = nearest_neighbor_test(real, fake)
        assert found.accuracy.value == pytest.approx(np.mean(expected), abs=1e-12)
        assert found.real.value == pytest.approx(np.mean(expected[:4]), abs=1e-12)
        assert found.fake.value == pytest.approx(np.mean(expected[4:]), abs=1e-12)


def test_nearest_neighbor_moments_are_those_over_all_labels():
    """Exact mean and variance against 4,000 random labellings of points with many copies and ties."""
    pooled = torch.randint(0, 6, (40, 2), generator=torch.Generator().manual_seed(0)).double()
    distances = torch.cdist(pooled, pooled).fill_diagonal_(torch.inf)
    nearest = (distances == distances.min(1, keepdim=True).values).double()
    nearest /= nearest.sum(1, keepdim=True)
    generator = torch.Generator().manual_seed(1)
    labels = torch.stack([torch.randperm(40, generator=generator) < 25 for _ in range(4_000)])
    scores = torch.einsum("ij,nij->n", nearest, (labels[:, :, None] == labels[:, None]).double())
    found = nearest_neighbor_test(pooled[:25], pooled[25:])
    assert found.accuracy.value == pytest.approx(float(nearest[:25, :25].sum() + nearest[25:, 25:].sum()) / 40)
    assert 40 * found.expected == pytest.approx(float(scores.mean()), abs=4 * float(scores.std()) / math.sqrt(4_000))
    assert 40 * found.accuracy.se == pytest.approx(float(scores.std()), rel=0.05)


def test_copies_of_one_sample_cost_no_more_than_others():
    """Ten thousand equal samples are a hundred million ties."""
    real, fake = normal(1_000, 3), normal(1, 3, seed=1).expand(10_000, -1)
    found = nearest_neighbor_test(real, fake)
    assert found.fake.value == 1
    assert found.p_value < 1e-9


def test_nearest_neighbor_test_keeps_its_level_and_has_power():
    same = [nearest_neighbor_test(normal(120, 4, seed=s), normal(100, 4, seed=s + 900)) for s in range(150)]
    assert uniform([each.p_value for each in same])
    assert np.mean([each.expected for each in same]) == pytest.approx(0.5, abs=0.01)
    assert np.mean([each.accuracy.low < each.expected < each.accuracy.high for each in same]) == pytest.approx(
        0.95, abs=0.05
    )
    apart = nearest_neighbor_test(normal(300, 4), normal(300, 4, seed=1) + 0.5)
    assert apart.p_value < 1e-3
    copied = nearest_neighbor_test(normal(200, 4), normal(200, 4) + 0.01)
    assert copied.accuracy.value == 0
    assert copied.p_copies < 1e-6
    assert copied.p_value > 0.999
    noise = nearest_neighbor_test(normal(200, 8), 40 * normal(200, 8, seed=1))
    assert noise.accuracy.value >= 0.99


def test_intervals_of_what_is_a_chance_end_at_one():
    a, b = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)), torch.full((60, 2), 9.0)
    found = nearest_neighbor_test(a, b + torch.rand(60, 2, generator=torch.Generator().manual_seed(1)))
    assert (found.accuracy.value, found.accuracy.high) == (1, 1)
    assert 0.7 < found.accuracy.low < 1
    near = [(torch.tensor([0.0, 1, 2, 3, 4, 0.5]), torch.tensor([-4.0, -3, -2, -1, 0, 0.25]))]
    auc = summary(near).auc
    assert 0 < auc.low < auc.value < auc.high == 1


def test_nearest_neighbor_test_does_not_depend_on_order_or_blocks(monkeypatch):
    real, fake = normal(80, 5), normal(70, 5, seed=1)
    found = nearest_neighbor_test(real, fake)
    monkeypatch.setattr(points, "BLOCK", 500)
    other = nearest_neighbor_test(real.flip(0), fake.flip(0))
    assert other.accuracy.value == pytest.approx(found.accuracy.value, abs=1e-12)
    assert other.p_value == pytest.approx(found.p_value, abs=1e-12)


def test_summary_of_scores_by_hand():
    real, fake = torch.tensor([2.0, 1, 0, -1]).double(), torch.tensor([-2.0, 1.0, -1, -3]).double()
    found = summary([(real, fake)])
    assert found.accuracy.value == pytest.approx((2.5 + 3) / 8)
    labels = [1] * 4 + [0] * 4
    assert found.auc.value == pytest.approx(roc_auc_score(labels, torch.cat([real, fake])))
    entropy = -float(torch.cat([real.sigmoid().log(), (-fake).sigmoid().log()]).mean())
    assert found.jsd_bound.value == pytest.approx(math.log(2) - entropy)
    assert found.p_value == pytest.approx(stats.norm.sf((5.5 / 8 - 0.5) * 2 * math.sqrt(8)))
    assert "tested on 8 items" in found.caution
    assert summary([(-real, -fake)]).jsd_bound.value == 0
    assert threshold(2_000) == pytest.approx(0.5184, abs=5e-5)
    assert threshold(10_000) == pytest.approx(0.5082, abs=5e-5)


def test_optimal_scores_give_the_jensen_shannon_divergence():
    """Of N(0, 1) and N(1, 1), by the exact logit 1/2 - x; no judge scores more, and this one scores it."""
    grid = torch.linspace(-12, 13, 50_001, dtype=torch.float64)
    p, q = (torch.exp(-((grid - mean) ** 2) / 2) / math.sqrt(2 * math.pi) for mean in (0, 1))
    jsd = float(torch.trapezoid(p * torch.log(2 * p / (p + q)) + q * torch.log(2 * q / (p + q)), grid)) / 2
    covered, area, seen = 0, stats.norm.cdf(1 / math.sqrt(2)), []
    for seed in range(40):
        real, fake = normal(1_000, seed=seed), normal(1_000, seed=seed + 90) + 1
        found = summary([(0.5 - real, 0.5 - fake)])
        covered += int(found.jsd_bound.low < jsd < found.jsd_bound.high) + int(found.auc.low < area < found.auc.high)
        assert summary([(2 - 4 * real, 2 - 4 * fake)]).jsd_bound.value < found.jsd_bound.value
        seen.append([found.jsd_bound.value, found.jsd_bound.se, found.auc.value, found.auc.se])
    assert 71 <= covered <= 80
    bound, bound_error, auc, auc_error = np.array(seen).T
    assert bound_error.mean() == pytest.approx(bound.std(), rel=0.35)
    assert auc_error.mean() == pytest.approx(auc.std(), rel=0.35)


def midpoint(train, labels, test, seed):
    """A quick judge: the side of the plane between the two means."""
    real, fake = train[labels == 1].mean(0), train[labels == 0].mean(0)
    return (test - (real + fake) / 2) @ (real - fake)


def test_classifier_test_keeps_its_level_and_has_power():
    p_values = [
        classifier_test(normal(200, 3, seed=s), normal(200, 3, seed=s + 900), midpoint, splits=1, seed=s).p_value
        for s in range(150)
    ]
    assert uniform(np.array(p_values) + 1e-6 * np.random.default_rng(0).normal(size=150))
    several = [
        classifier_test(normal(100, 3, seed=s), normal(100, 3, seed=s + 900), midpoint, seed=s).p_value
        for s in range(80)
    ]
    assert np.mean(np.array(several) < 0.05) <= 0.06  # the mean over splits is more cautious
    found = classifier_test(normal(2_000, 3), normal(2_100, 3, seed=1) + 0.2, midpoint)
    assert (found.n_test, found.splits, found.caution) == (2_000, 5, "")
    assert found.accuracy.low > 0.52
    assert found.p_value < 1e-3
    assert found.auc.low > 0.5


def test_classifier_test_takes_disjoint_stratified_halves_in_any_order():
    real, fake = normal(41, 2), normal(50, 2, seed=1)
    seen = []

    def judge(train, labels, test, seed):
        seen.append((train, labels, test))
        return test.sum(1)

    first = classifier_test(real, fake, judge, splits=3)
    assert classifier_test(real.flip(0), fake.flip(0), judge, splits=3) == first
    assert first.n_test == 40
    for (train, labels, test), (other, _, _) in zip(seen[:3], seen[3:], strict=True):
        assert torch.equal(train, other)
        both = {tuple(row) for row in train.tolist()} | {tuple(row) for row in test.tolist()}
        assert len(both) == 80
        assert labels.tolist() == [1] * 20 + [0] * 20
        assert {tuple(row) for row in train[labels == 1].tolist()} <= {tuple(row) for row in real.tolist()}
    assert not torch.equal(seen[0][0], seen[1][0])
    with pytest.raises(ConfigError, match="splits must be 1 or more"):
        classifier_test(real, fake, judge, splits=0)
    with pytest.raises(ShapeError, match="scores of two or more real items"):
        summary([])


def test_logistic_judge_finds_the_plane_between_two_gaussians():
    found = classifier_test(normal(1_000, 5), normal(1_000, 5, seed=1) + 1 / math.sqrt(5), judges.logistic, splits=2)
    assert found.accuracy.value == pytest.approx(stats.norm.cdf(0.5), abs=0.04)
    assert classifier_test(normal(400, 5), normal(400, 5, seed=1), judges.logistic).p_value > 0.01
    train, labels, test = (
        normal(400, 3) * torch.tensor([1, 1e3, 1e-3]).double(),
        normal(400, seed=1) > 0,
        normal(9, 3, seed=2),
    )
    theirs = make_pipeline(StandardScaler(), LogisticRegression()).fit(train, labels).decision_function(test)
    torch.testing.assert_close(judges.logistic(train, labels, test, 0), torch.from_numpy(theirs), rtol=0.01, atol=0.01)
    constant = classifier_test(torch.zeros(100, 3), torch.zeros(100, 3), judges.logistic, splits=1)
    assert constant.accuracy.value == 0.5


def images(count, seed=0):
    """Bright squares of 2×2 at random places."""
    batch, places = (
        torch.zeros(count, 1, 8, 8),
        torch.randint(7, (count, 2), generator=torch.Generator().manual_seed(seed)),
    )
    for image, (row, column) in zip(batch, places.tolist(), strict=True):
        image[0, row : row + 2, column : column + 2] = 1
    return batch


def test_convolutional_judge_sees_shapes_but_not_what_lies_between_grey_levels():
    real = images(300)
    fake = images(300, seed=1)
    fake[:, 0] = fake[:, 0].transpose(1, 2).roll(1, 1) * fake[:, 0] + fake[:, 0] * 0.5  # a corner is darker
    found = classifier_test(real, fake.clamp(0, 1), judges.convolutional, splits=1)
    assert found.accuracy.value > 0.95
    assert found.jsd_bound.low > 0.3
    between = classifier_test(real, (images(300, seed=1) + 0.001).clamp(0, 1), judges.convolutional, splits=1)
    assert between.p_value > 0.01
    with pytest.raises(ShapeError, match="needs images"):
        judges.convolutional(normal(9, 4), torch.ones(9), normal(9, 4), 0)


def test_convolutional_judge_is_a_function_of_its_seed_and_of_the_levels():
    train, labels = images(60), (torch.arange(60) < 30).double()
    state = torch.get_rng_state()
    first = judges.convolutional(train, labels, train, 3)
    assert torch.equal(first, judges.convolutional((train * 255).byte(), labels, train, 3))
    assert torch.equal(first, judges.convolutional((train + 0.001).clamp(max=1), labels, train, 3))
    assert not torch.equal(first, judges.convolutional(train, labels, train, 4))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("own", "heard", "reached", "words"),
    [
        (0.5, [("1-NN", 0.507, 10_000)], True, "judges cannot tell"),
        (0.52, [("1-NN", 0.518, 2_000), ("logistic", 0.49, 2_000)], True, "1-NN 0.5180 < 0.5184"),
        (0.5, [("1-NN", 0.51, 10_000)], False, "1-NN tells samples from real items: accuracy 0.5100, threshold 0.5082"),
        (0.5, [("1-NN", 0.5, 4_000), ("logistic", 0.97, 4_000)], False, "logistic tells"),  # D never learned
        (0.53, [("1-NN", 0.5, 2_000)], False, "the discriminator scores 0.530"),
        (0.45, [("1-NN", 0.5, 2_000)], False, "the discriminator scores 0.450"),
        (0.5, [("1-NN", 0.5, 1_000)], False, "no independent judge was tested on 2,000 items or more (most: 1,000)"),
        (0.5, [], False, "no independent judge"),
        (0.5, [("1-NN", 0.98, 1_990), ("logistic", 0.5, 2_000)], False, "1-NN tells samples from real items"),
        (0.5, [("1-NN", 0.515, 1_990), ("logistic", 0.5, 2_000)], True, "(logistic 0.5000 < 0.5184)"),
        (0.5, [("1-NN", 0.98, 500)], False, "1-NN tells samples from real items"),
    ],
)
def test_equilibrium_needs_the_discriminator_and_a_judge(own, heard, reached, words):
    found = equilibrium(own, heard)
    assert found.reached == reached
    assert words in found.reason
