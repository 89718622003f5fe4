"""The rules of a diagnosis: each looks at a history and yields verdicts, with the number that they rest on.

Thresholds were set on toy densities and the 8×8 digits; `benchmarks/diagnosis.py` tests them on other data, against oracles.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from nacre.metrics import remedies
from nacre.metrics.history import Verdict, View


def _bad(
    view: View, name: str, sentence: str, evidence: Mapping[str, Any], test: Callable[[Mapping[str, Any]], bool]
) -> Verdict:
    step = view.since(test)
    rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in evidence.items()}
    advice = getattr(remedies, name.replace("-", "_"))(view.facts, step, view.lines[-1])
    return Verdict(name, "bad", step, sentence, rounded, advice)


def _is(line: Mapping[str, Any], name: str, test: Callable[[float], bool]) -> bool:
    return line.get(name) is not None and test(line[name])


ASTRAY = 1.5
"""Distance of samples, in standard deviations of the data: that of the mean item is .8, of one at the edge 1 to 1.4."""

WORSE_THAN_NOTHING = -0.5
"""Share of the variance that reconstructions explain: one and the same item, the mean, explains 0."""

FALL = 0.5
"""Share of what a bound has gained that it may lose again: less is the ordinary ups and downs."""


def divergence(view: View) -> Iterator[Verdict]:
    """Numbers that are none, and outputs that are worse than those of a model that knows nothing."""
    if view["finite"] < 1:
        evidence = {"finite": view["finite"]}
        yield _bad(view, "divergence", "some outputs are no longer numbers", evidence, lambda line: True)
    distance, explained = view["distance"], view["explained"]
    if distance >= ASTRAY and not view.improving("distance", -1) and view.old:
        sentence = f"samples are {distance:.2g} standard deviations off the data; any one item of theirs is nearer"
        astray = lambda line: _is(line, "distance", lambda x: x >= ASTRAY)  # noqa: E731
        yield _bad(view, "divergence", sentence, {"distance": distance}, astray)
    elif explained <= WORSE_THAN_NOTHING and not view.improving("explained", 1) and view.old:
        sentence = f"reconstructions are {1 - explained:.1f} times as far off as the mean item is"
        astray = lambda line: _is(line, "explained", lambda x: x <= WORSE_THAN_NOTHING)  # noqa: E731
        yield _bad(view, "divergence", sentence, {"explained": explained}, astray)
    name = "elbo_train" if view.past("elbo_train") else "elbo"  # the other one falls of over-fitting as well
    first, best = next(iter(view.past(name)), math.nan), max(view.past(name), default=math.nan)
    if best - view[name] > max(1.0, FALL * (best - first)):
        sentence = f"the bound fell from {best:.4g} to {view[name]:.4g} nats"
        fallen = lambda line: _is(line, name, lambda x: best - x > 1)  # noqa: E731
        yield _bad(view, "divergence", sentence, {name: view[name], "best": best}, fallen)


COLLAPSED = 0.75
"""Share of the data in kinds that samples hardly have: more is a handful of points."""

ALIKE = 0.1
"""Diversity, of the data's: less is one point and its neighbourhood."""

PARTIAL = 0.45
"""The same share, from which some of the data are missing: kinds that run into each other are not met evenly."""

CLASSES = 0.08
"""Share of the data in classes that samples hardly have: one of ten, or of a dozen."""


def collapse(view: View) -> Iterator[Verdict]:
    """Kinds of items that samples do not have."""
    if any(view.improving(name, better) for name, better in (("lost", -1), ("lost_classes", -1), ("diversity", 1))):
        return
    lost, classes, diversity = view["lost"], view["lost_classes"], view["diversity"]
    measured = {"lost": lost, "diversity": diversity, "lost_classes": classes}
    evidence = {name: value for name, value in measured.items() if not math.isnan(value)}
    what, share = ("classes", classes) if classes >= CLASSES else ("kinds", lost)
    if lost >= COLLAPSED or classes >= COLLAPSED or diversity <= ALIKE:
        lacking = "" if math.isnan(share) else f"lack the {what} that {share:.0%} of the data are of, and "
        sentence = f"samples {lacking}vary {diversity:.2f} times as much as the data"
        alike = partial(_is, name="diversity", test=lambda x: x <= ALIKE)
        lacks = partial(_is, name="lost", test=lambda x: x >= COLLAPSED)
        yield _bad(view, "collapse", sentence, evidence, lambda line: alike(line) or lacks(line))
    elif classes >= CLASSES or lost >= PARTIAL:
        bar, name = (CLASSES, "lost_classes") if classes >= CLASSES else (PARTIAL, "lost")
        sentence = f"samples lack the {what} that {share:.0%} of the data are of, or nearly"
        yield _bad(view, "partial-collapse", sentence, evidence, lambda line: _is(line, name, lambda x: x >= bar))


APART = 0.99
"""Chance that the discriminator ranks a held-out item over a sample: above, it has nothing more to learn from samples."""

SURE = 0.02
"""D(G(z)) on average: under it, log(1 - D(G(z))) has a fiftieth of its slope left. In least-squares games, of translations,
the mean of (D(x) - 1)² and D(G(x))², which is ¼ at equilibrium."""

FLAT = 0.05
"""What a generator is told, beside what it needs to be told: the rest is lost."""


def strong_discriminator(view: View) -> Iterator[Verdict]:
    """A discriminator that is never wrong and passes nothing on."""
    auc, fake, passed, pull = view["auc"], view["d_fake"], view["passed"], view["pull"]
    logistic = not math.isnan(view["value"])
    measured = {"auc": auc, "d_fake": fake, "passed": passed, "pull": pull, "residual": view["residual"]}
    evidence = {name: value for name, value in measured.items() if not math.isnan(value)}
    sure = (fake <= SURE or passed * pull <= FLAT) if logistic else view["residual"] <= SURE
    if auc >= APART and sure:
        sentence = f"D(x) is {view['d_real']:.3f} on real items and D(G(z)) {fake:.2g}: it is never wrong"
        if passed <= FLAT:
            sentence += f", and the generator's loss passes on {passed:.1%} of its slope"
        yield _bad(
            view, "strong-discriminator", sentence, evidence, lambda line: _is(line, "auc", lambda x: x >= APART)
        )


BLIND = 0.6
"""The same chance: under it, the discriminator can hardly tell."""

VISIBLE = 0.9
"""Accuracy of one nearest neighbour between samples and held-out items: above it, they are easily told apart."""


GROSS = 0.4
"""Distance of samples, in standard deviations of the data, that anybody sees."""


def weak_discriminator(view: View) -> Iterator[Verdict]:
    """A discriminator that cannot tell what a neighbour can."""
    auc, judge = view["auc"], view["judge"]
    gross = max(view["distance"] / GROSS, view["lost"] / PARTIAL) >= 1
    if auc <= BLIND and judge >= VISIBLE and gross and not view.improving("distance", -1):
        sentence = f"it tells held-out items from samples {auc:.0%} of the time; a nearest neighbour does {judge:.0%}"
        yield _bad(
            view,
            "weak-discriminator",
            sentence,
            {"auc": auc, "judge": judge},
            lambda line: _is(line, "auc", lambda x: x <= BLIND),
        )


SWING = 0.53
"""Share of the samples that change their class, or kind, within a tenth of the run: the least that no healthy game came to.
Of few looks a tenth is less than one apart, and those next to each other are compared."""


def oscillation(view: View) -> Iterator[Verdict]:
    """Samples that go from one part of the data to another."""
    swing = view.swing()
    if swing >= SWING and not view.calming():
        apart = view.steps[-1] - view.steps[-1 - min(view.reach, len(view.steps) - 1)]
        sentence = f"within {apart:,} steps, {swing:.0%} of the samples change their kind"
        yield _bad(view, "oscillation", sentence, {"swing": swing}, lambda line: "bins" in line)


BY_HEART = 0.62
"""Chance that the discriminator ranks a training item over a held-out one."""

SIGMAS = 3
"""Standard errors that this has to be over one half besides: the items are few."""


def overfit_discriminator(view: View) -> Iterator[Verdict]:
    """A discriminator that knows the training items from others of their kind."""
    most = 256 if math.isnan(view["judged"]) else int(view["judged"])
    items, seen = (min(most, count or most) for count in (view.facts.held_out, view.facts.train))
    error = math.sqrt((1 / items + 1 / seen) / 12)
    bar, auc = max(BY_HEART, 0.5 + SIGMAS * error), view["auc_train"]
    if auc >= bar:
        sentence = f"it ranks a training item over a held-out one {auc:.0%} of the time; half is right"
        yield _bad(
            view,
            "overfit-discriminator",
            sentence,
            {"auc_train": auc, "d_train": view["d_train"], "d_real": view["d_real"]},
            lambda line: _is(line, "auc_train", lambda x: x >= bar),
        )


SILENT = 0.01
"""Nats of a latent's rate under which it says nothing."""

QUIET = 0.5
"""Nats of all latents' rates together under which the decoder does without them."""


def posterior_collapse(view: View) -> Iterator[Verdict]:
    """Latents that say nothing."""
    rate, latents = view["rate"], view["latents"]
    if rate > QUIET or math.isnan(rate) or view.improving("rate", 1):
        return
    kl = view.recent("kl")[-1]
    dead = [number for number, nats in enumerate(kl) if nats < SILENT]
    named = _listed(dead)
    sentence = f"the codes carry {rate:.2g} nats in all; {len(dead)} of {latents:.0f} latents carry none ({named})"
    yield _bad(
        view,
        "posterior-collapse",
        sentence,
        {"rate": rate, "silent": dead, "kl": kl},
        lambda line: _is(line, "rate", lambda x: x <= QUIET),
    )


def _listed(numbers: Sequence[int]) -> str:
    """0-4, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"z{run[0]}" if len(run) == 1 else f"z{run[0]}-z{run[-1]}" for run in runs) or "none"


BLURRED = 0.3
"""Share of the data's variance that reconstructions have to explain."""


def blurry_decoder(view: View) -> Iterator[Verdict]:
    """Reconstructions that are much the same for all items."""
    explained = view["explained"]
    if explained <= BLURRED and not view.improving("explained", 1):
        sentence = f"reconstructions explain {explained:.0%} of the variance of held-out items"
        evidence = {"explained": explained, "sharpness": view["sharpness"], "rate": view["rate"]}
        yield _bad(
            view, "blurry-decoder", sentence, evidence, lambda line: _is(line, "explained", lambda x: x <= BLURRED)
        )


NEAR = 0.85
"""Median distance of samples to their nearest training item, over that of held-out items."""

COPIES = 0.1
"""Share of samples nearer to a training item than 19 in 20 held-out items are: twice what is right."""


PASSES = 5
"""Times that a model has to have seen its training items before it can know them by heart."""


def memorization(view: View) -> Iterator[Verdict]:
    """Samples that are training items. Early on blurred ones, which lie near the middle of all items, look alike."""
    near, copies = view["nearest"], view["copies"]
    seen = view.steps[-1] * view.facts.settings.get("batch_size", math.inf)
    if near <= NEAR and copies >= COPIES and seen >= PASSES * view.facts.train:
        sentence = (
            f"samples lie {near:.2f} times as far from training items as new items do; {copies:.0%} all but copy one"
        )
        yield _bad(
            view,
            "memorization",
            sentence,
            {"nearest": near, "copies": copies},
            lambda line: _is(line, "nearest", lambda x: x <= NEAR),
        )


FEW = 5_000
"""Training items from which on a gap between them and others is not for want of data."""

GAP = 0.08
"""Share of the variance that training items' reconstructions explain more."""

GAP_NATS = 0.05
"""The same of the bound, of its size."""


def little_data(view: View) -> Iterator[Verdict]:
    """What is learned of the training items and of no others, where these are few."""
    if view.facts.train >= FEW:
        return
    gap, nats = view["explained_train"] - view["explained"], view["elbo_train"] - view["elbo"]
    reasons = [verdict.sentence for rule in (overfit_discriminator, memorization) for verdict in rule(view)]
    if nats >= max(GAP_NATS * abs(view["elbo_train"]), SIGMAS * view["elbo_error"]):
        reasons.append(f"the bound is {nats:.3g} nats better on training items than on others")
    if gap >= GAP:
        reasons.append(f"training items' reconstructions explain {gap:.0%} more of the variance than others'")
    if reasons:
        evidence = {"train": view.facts.train, "explained_gap": gap, "elbo_gap": nats}
        known = {name: value for name, value in evidence.items() if not math.isnan(value)}
        yield _bad(
            view, "little-data", f"{view.facts.train:,} items are too few: {reasons[0]}", known, lambda line: True
        )


DEAD = 0.8
"""Share of a part's hidden units that are the same for all items: with ReLU, up to a half are so from the start."""


def dead_units(view: View) -> Iterator[Verdict]:
    """Networks of which little is left."""
    parts = sorted({name for name in view.lines[-1] if name.startswith("dead/")})
    worst = max(parts, key=lambda name: view[name], default="")
    if worst and view[worst] >= DEAD:
        part = worst.removeprefix("dead/")
        sentence = f"{view[worst]:.0%} of the hidden units of the {part} are the same for all items"
        yield _bad(
            view,
            "dead-units",
            sentence,
            {worst: view[worst]},
            lambda line: _is(line, worst, lambda x: x >= DEAD),
        )


OUTSIDE = 0.1
"""Share of the samples' numbers beyond all real ones."""

UNREACHED = 0.15
"""Share of the real numbers beyond all of the samples', where these pile up at the ends of what they reach."""

PILED = 0.2


def value_range(view: View) -> Iterator[Verdict]:
    """Outputs that live in another range than the data."""
    outside = max((x for x in (view["outside"], view["outside_remade"]) if not math.isnan(x)), default=0.0)
    unreached, piled = view["unreached"], view["piled"]
    evidence = {"outside": outside, "unreached": unreached, "piled": piled}
    if outside >= OUTSIDE:
        sentence = f"{outside:.0%} of the outputs' numbers are beyond any real item's"
        yield _bad(view, "value-range", sentence, evidence, lambda line: True)
    elif unreached >= UNREACHED and piled >= PILED and not view["diversity"] <= ALIKE:
        sentence = (
            f"{unreached:.0%} of the data's numbers are out of reach; {piled:.0%} of the outputs' lie at their ends"
        )
        yield _bad(view, "value-range", sentence, evidence, lambda line: True)


DRIFT = 0.5
"""How far samples move when batch norms go by the batch, in spreads of the data."""


def batchnorm_drift(view: View) -> Iterator[Verdict]:
    """Samples that are others once training is over."""
    drift = view["drift"]
    if drift >= DRIFT:
        sentence = (
            f"samples move by {drift:.2g} of the data's spread between batch norms' own statistics and the batch's"
        )
        yield _bad(
            view, "batchnorm-drift", sentence, {"drift": drift}, lambda line: _is(line, "drift", lambda x: x >= DRIFT)
        )


RULES: tuple[Callable[[View], Iterator[Verdict]], ...] = (
    divergence,
    value_range,
    collapse,
    oscillation,
    strong_discriminator,
    weak_discriminator,
    memorization,
    little_data,
    overfit_discriminator,
    posterior_collapse,
    blurry_decoder,
    dead_units,
    batchnorm_drift,
)
"""The gravest first."""

OF_DIRECTIONS = (
    divergence,
    value_range,
    collapse,
    oscillation,
    strong_discriminator,
    weak_discriminator,
    little_data,
    overfit_discriminator,
)
"""What can be told of one direction of a model that translates, from a few translations."""
