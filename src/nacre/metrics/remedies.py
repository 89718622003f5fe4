"""What to do about a verdict: a sentence, and a command that changes one thing and keeps all else as it was.

The order is that of the evidence: a zero-centred gradient penalty makes the game converge near its equilibrium, which momentum,
small learning rates and one-sided tricks do not (Mescheder et al. 2018, "Which Training Methods for GANs do actually
Converge?"); packing is against mode collapse (Lin et al. 2018), augmentation against a discriminator that knows its items by
heart (Karras et al. 2020; Zhao et al. 2020), and a KL weight that starts small against posterior collapse (Bowman et al. 2016).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from nacre.metrics.history import Facts

Line = Mapping[str, Any]

COMMAND = re.compile(r": (nacre (?:'[^']*'|[^;'])+)")
"""A command in advice: behind a colon, up to a semicolon that is not in quotes."""


def choices(advice: str) -> Iterator[tuple[str, str]]:
    """Advice taken apart, so that a command can be copied: reasons, each with its command alone, or ""."""
    while advice:
        found = COMMAND.search(advice)
        reasons = (advice[: found.start()] if found else advice).split("; or ")
        yield from ((reason, "") for reason in reasons[:-1])
        yield reasons[-1], found[1].strip() if found else ""
        advice = advice[found.end() :].removeprefix("; ").removeprefix("or ") if found else ""


def fork(facts: Facts, since: int, flag: str, value: object) -> str:
    """The command that goes on from before it was so, with one thing changed."""
    start = max((step for step in facts.saved if step <= since and step < facts.steps), default=0)
    return f"nacre fork {facts.run} --at {start} --{flag.replace('_', '-')} {value}"


def penalty(facts: Facts, since: int) -> str:
    """A zero-centred gradient penalty, or a larger one; "" for a model without."""
    for flag in ("r1", "gamma" if "gamma_steps" in facts.settings else "r1"):
        if flag in facts.settings:
            now = float(facts.settings[flag])
            return fork(facts, since, flag, f"{10 * now if now else 1:g}")
    return ""


def a_penalty(facts: Facts) -> str:
    """What `penalty` asks for, in words: a model may have one that is too small."""
    now = facts.settings.get("gamma" if "gamma_steps" in facts.settings else "r1")
    return f"a {'larger ' if now else ''}zero-centred gradient penalty (R1)"


def slower(facts: Facts, since: int, line: Line, times: int) -> str:
    """A smaller learning rate, where it is known what it was."""
    rates = [value for name, value in line.items() if name.startswith("lr/") and value]
    rate = facts.settings.get("lr") or max(rates, default=None)
    if rate is None:
        return f"a new run with an --lr that is 1/{times} of what it was"
    return fork(facts, since, "lr", f"{rate / times:.2g}")


def best(facts: Facts) -> str:
    """The command that takes the weights which held-out items judged best."""
    if "channels_b" in facts.settings:
        return f"nacre translate {facts.run} IMAGES --checkpoint best"
    return f"nacre sample {facts.run} --checkpoint best"


def divergence(facts: Facts, since: int, line: Line) -> str:
    tame = penalty(facts, since)
    if tame and not facts.failure:
        return f"tame the discriminator with {a_penalty(facts)}: {tame}; or go slower: {slower(facts, since, line, 4)}"
    clipped, warmed = fork(facts, since, "clip", 1), fork(facts, 0, "warmup", 500)
    return f"go slower: {slower(facts, since, line, 10)}; or clip the gradients: {clipped}; or start slowly: {warmed}"


def collapse(facts: Facts, since: int, line: Line) -> str:
    """Convergence first: a generator that chases its judge collapses on its way."""
    if ("beta" in facts.settings or "likelihood" in facts.settings) and (line.get("rate") or 0) > 1:
        return (
            "codes lie elsewhere than where samples are drawn; draw them from a mixture that is fitted to the codes: "
            f"nacre sample {facts.run} --prior gmm; or train longer (nacre resume with more --steps)"
        )
    if "beta" in facts.settings or "likelihood" in facts.settings:
        return f"samples are all alike because the codes say little: {posterior_collapse(facts, since, line)}"
    tame = penalty(facts, since)
    pack = "; or judge items in packs, which have to be as mixed as real ones, in a new run with --pack 2"
    if tame:
        return f"make the game converge with {a_penalty(facts)}: {tame}" + (pack if "pack" in facts.settings else "")
    if "n_critic" in facts.settings:
        return f"let the critic come closer to its best: {fork(facts, since, 'n_critic', 2 * facts.settings['n_critic'])}{pack}"
    if "cycle" in facts.settings:
        more = 2 * float(facts.settings["cycle"])
        return f"hold translations to their images: {fork(facts, since, 'cycle', f'{more:g}')}"
    if "gamma" in facts.settings:
        more = min(0.9, float(facts.settings["gamma"]) + 0.2)
        return f"ask for more diversity: {fork(facts, since, 'gamma', f'{more:g}')}"
    return f"go slower: {slower(facts, since, line, 4)}"


partial_collapse = collapse


def oscillation(facts: Facts, since: int, line: Line) -> str:
    """R1 first: without a zero-centred penalty, the game has no reason to converge at all."""
    tame = penalty(facts, since)
    if tame:
        return f"make it converge with {a_penalty(facts)}: {tame}"
    if "gp_weight" in facts.settings or "clip_value" in facts.settings:
        return (
            f"the critic is behind the generator: {fork(facts, since, 'n_critic', 2 * int(facts.settings['n_critic']))}; or "
            "change to a game with a zero-centred penalty (`nacre train gan --r1 1`, `nacre train r3gan`)"
        )
    return f"go slower: {slower(facts, since, line, 4)}"


def strong_discriminator(facts: Facts, since: int, line: Line) -> str:
    if facts.settings.get("loss") == "minimax":
        switched = fork(facts, since, "loss", "non-saturating")
        return f"give the generator a loss that does not saturate: {switched}"
    tame = penalty(facts, since)
    if tame:
        return f"keep the discriminator's slope where the samples are (R1): {tame}"
    if "judge_width" in facts.settings:
        smaller = max(4, int(facts.settings["judge_width"]) // 2)
        return f"go slower: {slower(facts, since, line, 4)}; or take a smaller judge, in a new run with --judge-width {smaller}"
    return f"go slower: {slower(facts, since, line, 4)}"


def weak_discriminator(facts: Facts, since: int, line: Line) -> str:
    if "judge_width" in facts.settings:
        wider = f"take a larger judge, in a new run with --judge-width {2 * int(facts.settings['judge_width'])}"
        if "l1" in facts.settings:
            less = fork(facts, since, "l1", f"{float(facts.settings['l1']) / 10:g}")
            return f"the L1 distance outweighs the judge: {less}; or {wider}"
        return wider
    for flag in ("r1", "gamma", "r2") if "gamma_steps" in facts.settings else ("r1", "r2"):  # BEGAN's γ is no penalty
        now = facts.settings.get(flag)
        if isinstance(now, int | float) and now >= 1:
            return f"the gradient penalty holds the discriminator down: {fork(facts, since, flag, f'{now / 10:g}')}"
    if "n_critic" in facts.settings:
        more = 2 * int(facts.settings["n_critic"])
        return f"give the critic more turns: {fork(facts, since, 'n_critic', more)}"
    if facts.settings.get("spectral_norm"):
        return "spectral normalization holds the discriminator down: start a new run without --spectral-norm"
    larger = "a wider discriminator (--width, or --discriminator-hidden of an MLP) in a new run"
    return f"go slower, so that it keeps up: {slower(facts, since, line, 2)}; or take {larger}"


def overfit_discriminator(facts: Facts, since: int, line: Line) -> str:
    if facts.settings.get("augment") is False:
        return f"show it augmented images (DiffAugment): {fork(facts, since, 'augment', 'true')}; or find more images"
    tame = penalty(facts, since)
    if tame:
        return f"find more items, or hold it back: {tame}"
    return f"find more items, or take the checkpoint that is judged best: {best(facts)}"


def posterior_collapse(facts: Facts, since: int, line: Line) -> str:
    beta = facts.settings.get("beta")
    if isinstance(beta, int | float) and beta > 1:
        return f"the rate is weighted {beta:g} times: {fork(facts, since, 'beta', 1)}"
    if facts.settings.get("kl_warmup") == 0:
        return (
            f"let the rate cost little at first: {fork(facts, 0, 'kl_warmup', max(1, facts.steps // 4))}; or grant each latent "
            f"some nats: {fork(facts, 0, 'free_bits', 0.1)}"
        )
    if "free_bits" in facts.settings:
        more = 2 * float(facts.settings["free_bits"]) or 0.1
        return f"grant each latent some nats: {fork(facts, 0, 'free_bits', f'{more:g}')}"
    return f"go slower: {slower(facts, since, line, 4)}"


def blurry_decoder(facts: Facts, since: int, line: Line) -> str:
    beta = facts.settings.get("beta")
    if isinstance(beta, int | float) and beta > 1:
        return f"let the codes say more: {fork(facts, since, 'beta', f'{max(1, beta / 4):g}')}"
    if facts.settings.get("sigma"):
        return "the likelihood forgives too much: leave --sigma out, and it is learned (a new run)"
    return "train longer (nacre resume with more --steps), or with a larger --latent-dim or --hidden in a new run"


def memorization(facts: Facts, since: int, line: Line) -> str:
    before = max((step for step in facts.saved if step <= since), default="best")
    weights = f"nacre sample {facts.run} --checkpoint {before}"
    return f"find more items, or take a smaller model; or use the weights from before: {weights}"


def little_data(facts: Facts, since: int, line: Line) -> str:
    if facts.settings.get("augment") is False:
        return f"find more items, or augment: {fork(facts, 0, 'augment', 'true')}"
    return (
        "find more items, take a smaller model, or start from weights that were trained on similar ones (--init-from); "
        f"of this run, the best is: {best(facts)}"
    )


def dead_units(facts: Facts, since: int, line: Line) -> str:
    elsewhere = "; or choose units that cannot die (--activation elu)" if "activation" in facts.settings else ""
    return f"units die of steps that are too large: {slower(facts, 0, line, 10)}{elsewhere}"


def value_range(facts: Facts, since: int, line: Line) -> str:
    return (
        "bring data and outputs to one range: images are in [0, 1] at a model's door (a tanh gives [-1, 1]: (x + 1) / 2), and "
        "vectors are best standardised; then train anew"
    )


def batchnorm_drift(facts: Facts, since: int, line: Line) -> str:
    if facts.settings.get("ema"):
        return f"the averaged weights have the statistics of others: {fork(facts, since, 'ema', 0)}; or take larger batches"
    return "take larger batches, or a network without batch norm (--norm none) in a new run"
