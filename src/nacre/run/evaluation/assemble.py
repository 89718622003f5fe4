"""The evaluation of a run: the rows that its model's capabilities and its data allow, in their order."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nacre.data.progress import bar
from nacre.errors import CapabilityError
from nacre.metrics.intervals import Estimate
from nacre.metrics.memorization import Memorization
from nacre.metrics.verdicts import Verdict
from nacre.protocols import Samples
from nacre.run import config as configuration
from nacre.run.diagnose import diagnose
from nacre.run.evaluation import bounds, classes, copying, distances, judges
from nacre.run.evaluation.judges import Heard
from nacre.run.evaluation.rows import Evaluation, Row
from nacre.run.evaluation.subject import Settings, Subject, subject

Stage = tuple[str, Callable[[], Iterable[Row]]]


@dataclass(frozen=True, eq=False)
class Examination:
    """An evaluation and what it was made of, for a page of pictures.

    Attributes:
        evaluation: the numbers.
        subject: the model, its samples and the real items.
        copying: of a model that samples, what lies nearest to what.
    """

    evaluation: Evaluation
    subject: Subject
    copying: Memorization | None


def evaluate(path: str | os.PathLike[str], **settings: Any) -> Evaluation:
    """Hold a run's model against real items that it has not seen.

    Args:
        path: a run; or where `data` is given, a model folder or a hub id.
        **settings: those of `Settings`: `samples` (10,000), `seed`, `split`, `extractor`, `data`, `checkpoint`, `model`,
            `progress`, `ais`, `device`, `batch_size`.

    Raises:
        NacreError: one sentence on what was expected, what came and what to do.
    """
    return examine(path, Settings(**settings)).evaluation


def examine(path: str | os.PathLike[str], settings: Settings) -> Examination:
    """As `evaluate`, with what the numbers were made of."""
    return examined(subject(path, settings))


def examined(found: Subject) -> Examination:
    """The evaluation of what has been opened."""
    begun, settings = time.monotonic(), found.settings
    heard: list[Heard] = []
    pairs: list[Memorization] = []
    verdicts: list[str] = []
    kl: list[Estimate] = []
    stages = [*_of_samples(found, heard, pairs, verdicts), *_of_items(found, kl)]
    rows = tuple(_played(stages, settings.progress))
    if not rows:
        raise CapabilityError(
            f"of {found.model.spec.name} nothing can be measured on {found.dataset.source}: its items have no labels."
        )
    sampled = isinstance(found.model.module, Samples)
    evaluation = Evaluation(
        run=found.path,
        model=found.model.spec.name,
        data=found.dataset.source,
        split=settings.split,
        samples=settings.samples,
        seed=settings.seed,
        extractor=found.extractor.name if sampled and found.extractor else "",
        referee=found.referee.name if sampled and found.referee else "",
        rows=rows,
        seconds=time.monotonic() - begun,
        n=found.count,
        step=found.step,
        parameters=sum(each.numel() for each in found.model.module.parameters()),
        kl_by_latent=tuple(kl),
        equilibrium=" ".join(verdicts),
        verdicts=diagnosed(Path(found.path)),
        notes=tuple(found.notes),
    )
    return Examination(evaluation, found, pairs[0] if pairs else None)


def diagnosed(run: Path) -> tuple[Verdict, ...]:
    """What the run's own signals say of it; nothing of what is no run."""
    return diagnose(run).verdicts if (run / configuration.NAME).is_file() else ()


def _of_samples(found: Subject, heard: list[Heard], pairs: list[Memorization], verdicts: list[str]) -> Iterator[Stage]:
    """What is asked of a model that samples."""
    if not isinstance(found.model.module, Samples):
        return
    yield "sampling", partial(_looked_up, found, "samples")
    if found.image:
        yield "the extractor", partial(_looked_up, found, "extractor")
        yield "the referee", partial(_looked_up, found, "referee")
        for name in ("sample_features", "held_out_features", "stand_in_features"):
            yield "features", partial(_looked_up, found, name)
    yield "Fréchet distance", partial(distances.frechet_rows, found)
    yield "kernel distance", partial(distances.kernel_rows, found)
    yield "precision and recall", partial(distances.manifold_rows, found)
    yield "sliced Wasserstein", partial(distances.sliced_rows, found)
    yield "diversity", partial(distances.diversity_rows, found)
    yield "modes", partial(classes.mode_rows, found)
    yield "classes", partial(classes.class_rows, found)
    yield "judges", partial(judges.judge_rows, found, heard)
    yield "its discriminator", partial(_own, found, heard, verdicts)
    if found.own:
        yield "training features", partial(_looked_up, found, "train_features")
        yield "copying", partial(copying.copying_rows, found, pairs)
        yield "duplicates", partial(copying.duplicate_rows, found)


def _of_items(found: Subject, kl: list[Estimate]) -> Iterator[Stage]:
    """What is asked of a model that says something of items."""
    yield "likelihood", partial(bounds.likelihood_rows, found)
    yield "annealed importance sampling", partial(bounds.annealed_rows, found)
    yield "latents", partial(bounds.latent_rows, found, kl)
    yield "reconstructions", partial(bounds.reconstruction_rows, found)
    yield "accuracy", partial(bounds.accuracy_rows, found)


def _played(stages: list[Stage], progress: bool) -> Iterator[Row]:
    """The rows of all stages, one after the other."""
    with bar(len(stages), "evaluating", "part", progress) as shown:
        for name, stage in stages:
            shown.set_description(f"evaluating: {name}")
            yield from stage()
            shown.update()


def _looked_up(found: Subject, name: str) -> tuple[Row, ...]:
    """No rows: what is costly to make is made in its own time, so that the progress is true."""
    getattr(found, name)
    return ()


def _own(found: Subject, heard: list[Heard], verdicts: list[str]) -> Iterator[Row]:
    for row, verdict in judges.own_rows(found, heard):
        verdicts.append(verdict)
        yield row
