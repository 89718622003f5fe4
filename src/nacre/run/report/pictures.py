"""The pictures of a report: samples beside real items, reconstructions, neighbours, walks and maps of latents."""

import base64
import io
from html import escape

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nacre import images
from nacre.editing import latents
from nacre.editing.interpolate import manifold, walk
from nacre.engine import sampling
from nacre.engine.validate import spread
from nacre.errors import NacreError
from nacre.protocols import Decodes, Encodes, Reconstructs, Samples
from nacre.run.evaluation import Examination
from nacre.run.evaluation.subject import Subject
from nacre.run.report import svg

SHOWN, COLUMNS = 64, 8
"""Samples and held-out items on a page, and in a row."""

POINTS = 2_000
"""Of a cloud, of each kind."""

QUERIES, NEIGHBORS, PAIRS = 8, 5, 12
"""Samples whose nearest training items are shown, how many of these, and the closest pairs of all."""

LEGS, FRAMES, SIDE = 5, 9, 16
"""Walks, pictures of each, and pictures along a side of the map of a two-dimensional latent."""

CELL, LARGEST = 58, 128
"""Pixels that an image is shown at, about; and to which larger ones are made smaller."""

PART = 2048
"""Training items that samples are held against at a time."""


def sample_figures(subject: Subject) -> list[str]:
    """Samples, and as many held-out items."""
    if not isinstance(subject.model.module, Samples):
        return []
    if not subject.image:
        return _clouds(subject)
    made, real = subject.samples[:SHOWN], _some(subject, SHOWN)
    return [
        figure(f"{len(made)} samples, the first of seed {subject.seed}", (made, COLUMNS)),
        figure(f"{len(real)} {subject.split} items, for comparison", (real, COLUMNS)),
    ]


def _some(subject: Subject, most: int) -> Tensor:
    """At most so many held-out items, of all classes of a folder."""
    return subject.items(spread(subject.held_out_rows, most))


def _clouds(subject: Subject) -> list[str]:
    """Vectors by their first two numbers."""
    made, real = (each[:POINTS].double().numpy() for each in (subject.samples, _some(subject, POINTS)))
    made = made[np.isfinite(made).all(1)]
    points = np.concatenate([real, made])
    points = np.column_stack([points[:, 0], points[:, 1] if points.shape[1] > 1 else np.zeros(len(points))])
    groups = np.repeat([0, 1], [len(real), len(made)])
    dims = "" if subject.dataset.shape[0] < 3 else ", by their first two numbers"
    title = f"{len(made):,} samples over {len(real):,} {subject.split} items{dims}"
    names, inks = [f"{subject.split} items", "samples"], ("var(--muted)", "var(--c0)")
    return [svg.cloud(title, points, groups, names, size=460, inks=inks)]


def reconstruction_figures(subject: Subject) -> list[str]:
    """Held-out items, each with what comes back."""
    if not isinstance(subject.model.module, Reconstructs) or not subject.image:
        return []
    real = _some(subject, SHOWN // 2)
    back = subject.model.reconstruct(images.to_float(real), batch_size=subject.batch_size)
    pairs = torch.cat([images.to_float(real), back], 3)
    return [figure(f"{len(real)} {subject.split} items, each with its reconstruction to the right", (pairs, COLUMNS))]


def neighbor_figures(examination: Examination) -> list[str]:
    """The pairs of a sample and a training item that are the closest of all, and what lies nearest to some samples."""
    subject, copying = examination.subject, examination.copying
    if copying is None or not subject.image:
        return []
    closest = copying.closest[:PAIRS]
    made = subject.samples[closest[:, 0]]
    train = subject.items(subject.train_rows[closest[:, 1].numpy()])
    pairs = torch.cat([made, train], 3)
    queries = subject.samples[:QUERIES]
    near = subject.items(_nearest(subject, queries).flatten())
    return [
        figure(
            f"The {len(closest)} closest pairs of all {copying.n:,} samples: sample, and its training item to the right",
            (pairs, 3),
        ),
        figure(
            f"Samples, and beside each its {NEIGHBORS} nearest training items on pixels",
            (queries, 1),
            (near, NEIGHBORS),
        ),
    ]


def _nearest(subject: Subject, queries: Tensor) -> np.ndarray:
    """Rows of the training items that are nearest on pixels: (Q, NEIGHBORS)."""
    wanted = images.to_float(queries).flatten(1)
    best = torch.full((len(queries), 0), 0.0)
    index = torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(subject.train_rows), PART):
        part = subject.floats(subject.train_rows[start : start + PART]).flatten(1)
        numbers = torch.arange(start, start + len(part)).expand(len(queries), -1)
        best, index = torch.cat([best, torch.cdist(wanted, part)], 1), torch.cat([index, numbers], 1)
        order = best.argsort(dim=1, stable=True)[:, :NEIGHBORS]
        best, index = best.gather(1, order), index.gather(1, order)
    return subject.train_rows[index.numpy()]


def latent_figures(subject: Subject) -> list[str]:
    """Where held-out items lie in the latent space, and what a two-dimensional one decodes to."""
    module = subject.model.module
    found = []
    if isinstance(module, Encodes):
        rows = spread(subject.held_out_rows, POINTS)
        codes = subject.model.encode(subject.floats(rows), batch_size=subject.batch_size)
        codes = codes[:, : codes.shape[1] - latents.label_count(module)].flatten(1).double()
        if codes.shape[1] > 1:
            places, words = _in_plane(codes)
            groups, names = _by_label(subject, rows)
            known = groups >= 0
            title = f"Codes of {int(known.sum()):,} {subject.split} items, {words}"
            found.append(svg.cloud(title, places[known], groups[known], names))
    normal = isinstance(module, Decodes) and isinstance(module, Samples) and latents.is_normal(module)
    if normal and latents.code_dim(module) == 2 and subject.image:
        with sampling.evaluating(module):
            decoded = manifold(module, SIDE).cpu()  # type: ignore[arg-type]
        found.append(
            figure("What the latent plane decodes to, each picture for an equal share of the prior", (decoded, SIDE))
        )
    return found


def _in_plane(codes: Tensor) -> tuple[np.ndarray, str]:
    """(N, 2) of codes (N, D): as they are, or their first two principal components."""
    if codes.shape[1] == 2:
        return codes.numpy(), "both of its numbers"
    centered = codes - codes.mean(0)
    _, spread, axes = torch.linalg.svd(centered, full_matrices=False)
    share = float(spread[:2].square().sum() / spread.square().sum().clamp(min=1e-30))
    words = f"first two principal components of {codes.shape[1]} numbers ({share:.0%} of the variance)"
    return (centered @ axes[:2].T).numpy(), words


def _by_label(subject: Subject, rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The colour of each item, by its class where there are few enough to be told apart; -1 leaves it out."""
    labels, classes = subject.labels(rows), subject.dataset.classes
    if labels is None or not 1 < len(classes) <= svg.INKS or not (labels >= 0).any():
        return np.zeros(len(rows), np.int64), [f"{subject.split} items"]
    return labels, list(classes)


def walk_figures(subject: Subject) -> list[str]:
    """Ways from one latent to the next."""
    module = subject.model.module
    if not subject.image or not isinstance(module, Decodes):
        return []
    try:
        if isinstance(module, Samples):
            stops, words = latents.numbered_codes(module, range(LEGS), seed=subject.seed), "sample"
        else:
            stops, words = subject.model.encode(images.to_float(_some(subject, LEGS))), f"{subject.split} item"
        path = walk(module, stops, FRAMES, closed=True)
    except NacreError:  # latents of a law that has no walks
        return []
    shown = latents.decode(module, path.flatten(0, 1)).cpu()
    return [figure(f"A walk in each row, from the latent of one {words} to that of the next", (shown, FRAMES))]


def figure(title: str, *grids: tuple[Tensor, int]) -> str:
    """Grids of images (N, C, H, W), uint8 or in [0, 1], each with its columns, side by side under a title."""
    drawn = "".join(_image(images.to_float(items), columns, title) for items, columns in grids)
    return f'<figure><figcaption>{escape(title)}</figcaption><div class="row">{drawn}</div></figure>'


def _image(batch: Tensor, columns: int, title: str) -> str:
    """A grid as a picture inside the page; small images are enlarged, and what is between them is transparent."""
    height = batch.shape[2]
    if height > LARGEST:
        batch = torch.nn.functional.interpolate(batch, scale_factor=LARGEST / height, mode="area")
    factor = max(1, round(CELL / height))
    batch = batch.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    gap = max(1, batch.shape[2] // 28)
    between = images.grid(torch.zeros_like(batch[:, :1]), columns, gap) == 255
    page = images.grid(batch, columns, gap)
    if page.ndim == 2 or page.shape[2] < 3:
        page = np.repeat(page[..., None] if page.ndim == 2 else page[..., :1], 3, axis=2)
    page = np.dstack([page[..., :3], np.where(between, 0, 255).astype(np.uint8)])
    stored = io.BytesIO()
    Image.fromarray(page).save(stored, format="PNG", optimize=True)
    data = base64.b64encode(stored.getvalue()).decode("ascii")
    width = round(page.shape[1] * min(1.0, CELL / batch.shape[2]))
    return f'<img alt="{escape(title)}" width="{width}" src="data:image/png;base64,{data}">'
