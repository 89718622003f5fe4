"""What every model promises, checked: on the catalogue by the tests, on your own by `nacre check-model FILE:CLASS`."""

import copy
import inspect
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nacre import images
from nacre.contract.subject import BATCH, Subject, objectives, with_classes
from nacre.data import DataSettings
from nacre.engine import checkpoint, sampling
from nacre.engine.checkpoint import differences, same
from nacre.engine.settings import Training
from nacre.engine.update import Update, in_motion
from nacre.errors import NacreError
from nacre.networks import has_batch_norm, is_image
from nacre.pretrained import Pretrained, load
from nacre.protocols import capabilities
from nacre.run import resume, train
from nacre.run.config import PLACES
from nacre.spec import fields, find_class, spec


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        name: what was checked, as a sentence.
        passed: None if it does not apply to the model.
        detail: what was seen.
    """

    name: str
    passed: bool | None
    detail: str = ""


class Broken(Exception):
    """A promise that a model does not keep."""


class NotApplicable(Exception):
    """A promise that a model does not make."""


def check_model(
    name: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    shape: tuple[int, ...] = (1, 16, 16),
    backend: str = "aot_eager",
) -> list[Finding]:
    """Check a model against the contract.

    Args:
        name: of the catalogue, or "FILE.py:CLASS".
        parameters: of its constructor.
        shape: of the items to build it for.
        backend: what torch.compile uses in the comparison with eager execution.
    """
    subject = Subject(with_classes(spec(name, parameters)), tuple(shape), backend)
    first = _examined(it_trains, subject)
    return [first] + ([_examined(check, subject) for check in CHECKS[1:]] if first.passed else [])


def it_trains(subject: Subject) -> str:
    """it can be built, and a step of every objective can be taken (the rest is checked if so)"""
    model = subject.build()
    table = objectives(model)
    demand(bool(table), "its table of objectives is empty")
    for update in in_motion(model, Training(steps=1, batch_size=BATCH)):
        update(update.objective.when.start, subject.batch())
    return f"{len(table)} objectives"


def parameters_documented(subject: Subject) -> str:
    """the constructor's keywords have types, defaults and names of their own"""
    listed = fields(find_class(subject.spec.name))
    others = PLACES | {field.name for source in (DataSettings, Training) for field in fields(source)}
    taken = others & {field.name for field in listed}
    demand(not taken, f"{', '.join(sorted(taken))} would shadow flags of training or data; rename them")
    bare = [field.name for field in listed if field.type is Any or field.default is inspect.Parameter.empty]
    demand(not bare, f"{', '.join(bare)} need a type and a default")
    mute = [field.name for field in listed if not field.help]
    return f"{', '.join(mute)} have no line under `Args:` for the help text" if mute else ""


def objectives_cover(subject: Subject) -> str:
    """objectives name parts that exist, and together cover every parameter"""
    model = subject.build()
    table = objectives(model)
    demand(len({o.name for o in table}) == len(table), "two objectives have the same name")
    training = Training(steps=1, batch_size=BATCH)
    covered = {id(p) for o in table for p in Update(model, o, training).parameters}
    left = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in covered]
    demand(not left, f"no objective is over {', '.join(left[:5])}")
    return ""


def every_parameter_learns(subject: Subject) -> str:
    """every parameter learns"""
    model = subject.build()
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    subject.train(model, subject.round)
    idle = [name for name, p in model.named_parameters() if name in before and torch.equal(p, before[name])]
    hint = "does it cancel out of the loss, as the last bias of a critic does (then leave it out), or is it never used?"
    demand(not idle, f"these did not move in {subject.round} steps: {', '.join(idle[:5])}; {hint}")
    return ""


def only_its_own(subject: Subject) -> str:
    """an objective moves the parameters that it is over, and no others"""
    for index, objective in enumerate(objectives(subject.build())):
        model = subject.build()
        update = Update(model, objectives(model)[index], Training(steps=1, batch_size=BATCH))
        own = {id(p) for p in update.parameters}
        before = {name: p.detach().clone() for name, p in model.named_parameters() if id(p) not in own}
        update(objective.when.start, subject.batch())
        moved = [name for name, p in model.named_parameters() if name in before and not torch.equal(p, before[name])]
        demand(not moved, f"objective '{objective.name}' also moved {', '.join(moved[:5])}")
    return ""


def losses_are_numbers(subject: Subject) -> str:
    """losses are finite scalars with finite parts"""
    model = subject.build()
    for update in in_motion(model, Training(steps=1, batch_size=BATCH)):
        _, logs = update.accumulated(0, subject.batch())
        bad = [name for name, part in logs.items() if part.ndim or not bool(part.isfinite())]
        demand(not bad, f"objective '{update.objective.name}': {', '.join(bad)} is not a finite scalar")
    return ""


def compiled_equals_eager(subject: Subject) -> str:
    """compiled gradients equal eager ones (to 1e-5 of the largest, or as nearly as eager ones equal float64's)"""
    worst = 0.0
    for index, _ in enumerate(objectives(subject.build())):
        eager, compiled = (gradients(subject, index, torch.float32, backend) for backend in (None, subject.backend))
        apart = furthest(eager, compiled)
        if (
            apart > 1e-5
        ):  # rounding alone may move them further, as where a log-likelihood of thousands is exponentiated
            exact = gradients(subject, index, torch.float64, None)
            rounding, own = furthest(exact, eager), furthest(exact, compiled)
            demand(
                own <= 2 * rounding,
                f"they differ by {apart:.1e}, and from float64's by {own:.1e} where eager ones do by {rounding:.1e}",
            )
        worst = max(worst, apart)
    return f"{worst:.1e} with {subject.backend}"


def gradients(subject: Subject, index: int, dtype: torch.dtype, backend: str | None) -> Sequence[Tensor]:
    """What an objective's first step gives."""
    model = subject.build(dtype)
    return after_others(model, index, subject.batch(dtype), backend)


def after_others(model: nn.Module, index: int, batch: Any, backend: str | None = None, parts: int = 1) -> Any:
    """The gradients of an objective in the first step, given what those before it hand on."""
    updates = in_motion(model, Training(steps=1, batch_size=BATCH, accumulate=parts), backend)
    for update in updates[:index]:
        if update.objective.hands:
            update.accumulated(0, batch)
    return updates[index].accumulated(0, batch)[0]


def furthest(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """The largest difference between two lists of tensors, each as a share of its tensor's largest number."""
    pairs = zip(expected, found, strict=True)
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in pairs)


def micro_batches_agree(subject: Subject) -> str:
    """gradients do not depend on micro-batches (to 1e-10 in float64), nor so on ranks"""
    model = subject.build(torch.float64)
    if has_batch_norm(model):
        raise NotApplicable("batch norm sees the batch")
    worst = 0.0
    for index, _ in enumerate(objectives(model)):
        batch = subject.batch(dtype=torch.float64)
        whole, parts = (after_others(model, index, batch, parts=n) for n in (1, 2))
        worst = max(worst, furthest(whole, parts))
    demand(
        worst <= 1e-10, f"they differ by {worst:.1e}; is a loss no mean over the batch, or does it draw its own noise?"
    )
    return f"{worst:.1e}"


def noise_by_address(subject: Subject) -> str:
    """losses draw no noise of their own"""
    model = subject.build()
    for objective in objectives(model):
        update = Update(copy.deepcopy(model), objective, Training(steps=1, batch_size=BATCH))
        before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(1)
        start = torch.default_generator.get_state()
        for part, step in update.micro_batches(0, subject.batch()):
            objective.loss(part, step)
        drew = not torch.equal(start, torch.default_generator.get_state())
        torch.default_generator.set_state(before)
        if drew:
            return f"objective '{objective.name}' does: training repeats exactly, but not on another number of ranks"
    return ""


def resume_is_exact(subject: Subject) -> str:
    """stopped and resumed is bit-identical to never stopped"""
    steps = subject.round + 3
    with folder() as place:
        source = place / "items.npz"
        beside: dict[str, Any] = {} if subject.labels is None else {"labels": subject.labels}
        beside |= {"captions": np.array(subject.captions)} if subject.captions else {}
        np.savez(source, x=subject.items(), **beside)
        common: dict[str, Any] = {"data": str(source), "batch_size": BATCH, "validation": 0.1, "test": 0.0}
        if subject.sides:
            np.savez(place / "others.npz", x=subject.items(side="b"))
            common["data_b"] = str(place / "others.npz")
        common |= {"log_every": 3, "sample_every": 0, "lr_schedule": "constant", **subject.spec.parameters}
        name = subject.spec.name
        with quiet():
            train(name, steps=steps, out=place / "whole", **common)
            train(name, steps=steps - 2, out=place / "halves", **common)
            resume(place / "halves", model=name, steps=steps)
        whole, halves = (checkpoint.load(place / run / "checkpoints", steps) for run in ("whole", "halves"))
    del whole["best"], halves["best"]  # one was judged on its way, the other was not
    different = differences(whole, halves)
    demand(not different, f"these differ: {', '.join(different[:5])}")
    return ""


def sampling_ignores_the_batch(subject: Subject) -> str:
    """a sample does not depend on the batch that it is drawn in (to 1e-5 and one grey level)"""
    model = subject.build()
    if "sample" not in capabilities(model):
        raise NotApplicable("it does not sample")
    subject.train(model, subject.round)
    at_once, one_by_one = (sampling.sample(model, 9, seed=3, chunk=chunk) for chunk in (9, 1))
    worst = float((at_once - one_by_one).abs().max())
    demand(worst <= 1e-5 * max(1.0, float(at_once.abs().max())), f"it differs by {worst:.1e}")
    if is_image(subject.shape):
        grey = (images.to_uint8(at_once).int() - images.to_uint8(one_by_one).int()).abs().max()
        demand(int(grey) <= 1, f"it differs by {int(grey)} grey levels")
    return f"{worst:.1e}"


def save_and_load(subject: Subject) -> str:
    """save and load give the same model back"""
    model = subject.build()
    subject.train(model, 2)
    with folder() as place:
        Pretrained(model, subject.spec, subject.shape, {}).save_pretrained(place / "model")
        again = load(place / "model", model=subject.spec.name)
    demand(again.spec.complete() == subject.spec.complete(), "its parameters changed")
    saved, loaded = model.state_dict(), again.module.state_dict()
    demand(all(same(saved[name], loaded[name]) for name in saved), "its weights changed")
    return ""


def capabilities_hold(subject: Subject) -> str:
    """capabilities give the shapes, ranges and determinism that they promise"""
    model = subject.build()
    subject.train(model, subject.round)
    verbs, batch = capabilities(model), subject.some()
    trained = Pretrained(model, subject.spec, subject.shape, {})
    outputs: dict[str, Callable[[], Tensor]] = {
        "sample": lambda: trained.sample(BATCH),
        "reconstruct": lambda: trained.reconstruct(batch),
        "encode": lambda: trained.encode(batch),
        "log_likelihood": lambda: trained.log_likelihood(batch),
        "realness": lambda: trained.realness(batch),
        "classify": lambda: trained.classify(batch),
    }
    for direction in getattr(model, "directions", ()):
        side = subject.some(side=direction[0])
        outputs[f"translate {direction}"] = lambda side=side, direction=direction: trained.translate(side, direction)  # type: ignore[misc]
    if "encode" in verbs and "decode" in verbs:
        outputs["decode"] = lambda: trained.decode(trained.encode(batch))
    for verb in (verb for verb in outputs if verb.split()[0] in verbs):
        first, second = outputs[verb](), outputs[verb]()
        demand(torch.equal(first, second), f"{verb} gives something else the second time")
        demand(bool(first.isfinite().all()), f"{verb} gives numbers that are not finite")
        _demand_shape(verb, first, subject.shape_b if verb == "translate a2b" else subject.shape)
    return ", ".join(verbs) or "none"


def _demand_shape(verb: str, output: Tensor, shape: tuple[int, ...]) -> None:
    if verb in ("sample", "reconstruct", "decode", "translate a2b", "translate b2a"):
        demand(tuple(output.shape) == (BATCH, *shape), f"{verb} gives {tuple(output.shape)}, not {(BATCH, *shape)}")
        inside = not is_image(shape) or (float(output.min()) >= 0 and float(output.max()) <= 1)
        demand(inside, f"{verb} gives images outside [0, 1]")
    elif verb in ("encode", "classify"):
        columns = {"encode": "latent_dim", "classify": "classes"}[verb]
        demand(output.ndim == 2 and len(output) == BATCH, f"{verb} gives {tuple(output.shape)}, not (N, {columns})")
    else:
        demand(tuple(output.shape) == (BATCH,), f"{verb} gives {tuple(output.shape)}, not (N,)")


CHECKS: tuple[Callable[[Subject], str], ...] = (
    it_trains,
    parameters_documented,
    objectives_cover,
    every_parameter_learns,
    only_its_own,
    losses_are_numbers,
    compiled_equals_eager,
    micro_batches_agree,
    noise_by_address,
    resume_is_exact,
    sampling_ignores_the_batch,
    save_and_load,
    capabilities_hold,
)


def demand(kept: bool, otherwise: str) -> None:
    """Raise Broken with a sentence unless a promise is kept."""
    if not kept:
        raise Broken(otherwise)


@contextmanager
def quiet() -> Iterator[None]:
    """Training that is only a test of training says nothing."""
    logger = logging.getLogger("nacre")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _examined(check: Callable[[Subject], str], subject: Subject) -> Finding:
    name = (check.__doc__ or check.__name__).strip()
    try:
        return Finding(name, True, check(subject))
    except NotApplicable as why:
        return Finding(name, None, str(why))
    except (Broken, NacreError) as error:
        return Finding(name, False, str(error))
    except Exception as error:  # a user's model may fail in any way, and that is a finding
        return Finding(name, False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
