"""A trained model in use: no data, no logger, no trainer."""

import inspect
import os
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nacre import images
from nacre.data.captions import unknown, words
from nacre.data.sentences import reader_of
from nacre.engine import checkpoint, folder, sampling
from nacre.engine.numerics import device_for
from nacre.engine.validate import score_of
from nacre.errors import CapabilityError, CheckpointError, ConfigError, ShapeError
from nacre.models import CATALOGUE
from nacre.networks import is_image
from nacre.protocols import SamplesFromText, capabilities, device_of, require
from nacre.spec import Spec, spec


class Pretrained:
    """A trained model: sample, encode, decode, reconstruct, and share it.

    Images go in and come out as float tensors (N, C, H, W) in [0, 1] on the CPU; uint8 arrays (0..255) are taken too.
    Vectors are (N, D) of any reals. A model that cannot do what it is asked raises a CapabilityError.

    Attributes:
        module: the network itself, in evaluation mode.
        spec: what it was built from.
        shape: shape of an item.
        facts: what is known of its training.
    """

    def __init__(self, module: nn.Module, spec: Spec, shape: tuple[int, ...], facts: Mapping[str, Any]) -> None:
        self.module, self.spec, self.shape, self.facts = module.eval().requires_grad_(False), spec, shape, dict(facts)

    def __repr__(self) -> str:
        return f"Pretrained({self.spec.name}, shape={self.shape}, can: {', '.join(self.capabilities)})"

    @property
    def capabilities(self) -> list[str]:
        """What the model can be asked for."""
        return capabilities(self.module)

    def sample(
        self,
        count: int = 16,
        *,
        seed: int = 0,
        batch_size: int = sampling.CHUNK,
        first: int = 0,
        label: int | str | None = None,
        truncation: float | None = None,
        reject_worst: float = 0.0,
    ) -> Tensor:
        """`count` new items: (count, *shape). Number i of a seed is the same whatever the count and the batch size.

        Args:
            count: how many, from number `first` on.
            label: of a conditional model the class of all, by number or name; by default one is drawn for each.
            truncation: t, for latents in [-t, t] only: less variety, fewer failures.
            reject_worst: share of the candidates that the model's own judge turns away.
        """
        if not isinstance(count, int) or count < 1:
            raise ConfigError(f"the number of samples must be 1 or more, got {count}.")
        number = None if label is None else self.class_number(label)
        rest: dict[str, Any] = {"truncation": truncation, "reject_worst": reject_worst}
        return sampling.draw(
            self.module, range(first, first + count), seed=seed, chunk=batch_size, label=number, **rest
        )[0]

    def imagine(
        self,
        *prompts: str,
        count: int = 1,
        seed: int = 0,
        steps: int = 0,
        truncation: float | None = None,
        reject_worst: float = 0.0,
        batch_size: int = sampling.CHUNK,
        text_encoder: str | None = None,
    ) -> Tensor:
        """`count` images of each prompt, of a model that learned from captions: (prompts · count, *shape), prompt by prompt.

        Image i of every prompt has the same latent, where none is rejected. Words that training never saw are read by their
        letters, or by the sentence encoder that the model was trained with.

        Args:
            prompts: texts.
            count: images of each.
            seed: of the latents.
            steps: images on the way from one prompt to the next, both included; 0 for the prompts alone.
            truncation: as in `sample`.
            reject_worst: share of `count` / (1 - share) candidates that go with the prompt worst, by what the model has
                learned of texts and images, and are turned away. Not on a walk.
            text_encoder: folder of the model's sentence encoder, if it is no longer where it was.

        Raises:
            CapabilityError: the model has read no captions, or is to reject and never learned by what.
            ConfigError: no prompt, an empty one, or fewer than two to walk between; the sentence encoder is another one.
        """
        module = self.module
        if not isinstance(module, SamplesFromText) or not module.words:
            raise CapabilityError(
                f"{self.spec.name} has read no captions, so it takes no prompt; train stackgan on images with captions."
            )
        if not prompts or not all(isinstance(prompt, str) and words(prompt) for prompt in prompts):
            raise ConfigError("a prompt is a text of one word at least, got none.")
        if steps == 1 or (steps and len(prompts) < 2):
            raise ConfigError("a walk takes two prompts and two steps at least.")
        if count < 1:
            raise ConfigError(f"the number of images must be 1 or more, got {count}.")
        sampling.check_share(reject_worst)
        if steps and reject_worst:
            raise ConfigError(
                "a walk is of one latent, and nothing of it can be rejected; leave --reject-worst or --to out."
            )
        told = torch.from_numpy(reader_of(module, text_encoder)(prompts))
        with sampling.evaluating(module):
            vectors = module.read(told.to(device_of(module))).cpu()
        if steps:
            shares = torch.linspace(0, 1, steps)[:, None]
            ways = [torch.lerp(one, other, shares) for one, other in pairwise(vectors)]
            vectors = torch.nn.functional.normalize(torch.cat(ways), dim=1)
        rest: dict[str, Any] = {"seed": seed, "chunk": batch_size, "truncation": truncation}
        if reject_worst:
            return sampling.best_fitting(module, vectors, count, reject_worst=reject_worst, **rest)
        texts, numbers = vectors.repeat_interleave(count, 0), torch.arange(count).repeat(len(vectors))
        return sampling.imagine(module, texts, numbers, **rest)

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of a prompt that the captions of training never had."""
        return unknown(prompt, self.facts.get("vocabulary") or ())

    def encode(self, items: Tensor | np.ndarray, *, batch_size: int = sampling.CHUNK) -> Tensor:
        """Codes of items: (N, latent_dim); of a VAE, the posterior means."""
        return sampling.apply(require(self.module, "encode").encode, self._items(items), self.module, batch_size)

    def decode(self, codes: Tensor | np.ndarray, *, batch_size: int = sampling.CHUNK) -> Tensor:
        """Items of codes (N, latent_dim): (N, *shape)."""
        codes = torch.as_tensor(codes)
        expected = getattr(self.module, "code_dim", getattr(self.module, "latent_dim", None))
        if codes.ndim != 2 or (expected and codes.shape[1] != expected):
            raise ShapeError(f"decode takes codes of shape (N, {expected or 'latent_dim'}), got {tuple(codes.shape)}.")
        return sampling.apply(require(self.module, "decode").decode, codes, self.module, batch_size)

    def reconstruct(
        self, items: Tensor | np.ndarray, *, draws: int | None = None, batch_size: int = sampling.CHUNK
    ) -> Tensor:
        """Items through the model and back: (N, *shape); of a `vae` also by `draws` samples of its posterior, (N, draws, *shape).

        An item's samples are always the same, whatever its companions.

        Raises:
            CapabilityError: the model does not reconstruct, or in one way only.
        """
        able, items = require(self.module, "reconstruct"), self._items(items)
        if draws is None:
            return sampling.apply(able.reconstruct, items, self.module, batch_size)
        if "draws" not in inspect.signature(able.reconstruct).parameters:
            raise CapabilityError(f"{self.spec.name} reconstructs in one way only; leave draws out, or take a vae.")
        return sampling.reconstruct(self.module, items, draws, chunk=batch_size)

    def log_likelihood(self, items: Tensor | np.ndarray, *, seed: int = 0, batch_size: int = sampling.CHUNK) -> Tensor:
        """The (bound on the) log-likelihood of items in nats: (N,) float64. `likelihood_name` of the module names it."""
        return sampling.log_likelihood(self.module, self._items(items), seed=seed, chunk=batch_size)

    def realness(self, items: Tensor | np.ndarray, *, batch_size: int = sampling.CHUNK) -> Tensor:
        """How real the model's own judge finds items: (N,)."""
        return sampling.apply(require(self.module, "realness").realness, self._items(items), self.module, batch_size)

    def classify(self, items: Tensor | np.ndarray, *, batch_size: int = sampling.CHUNK) -> Tensor:
        """Probabilities of the classes: (N, classes)."""
        return sampling.apply(require(self.module, "classify").classify, self._items(items), self.module, batch_size)

    def translate(self, items: Tensor | np.ndarray, direction: str | None = None, *, batch_size: int = 32) -> Tensor:
        """Images of one kind as another's: (N, C, H, W) ↦ (N, C', H, W). Height and width may be any.

        Args:
            items: of the side that the direction begins at.
            direction: "a2b" or "b2a", as far as the model goes there; by default its first.

        Raises:
            ShapeError: images of another shape or range, or that hold no numbers.
            ConfigError: a direction that the model does not go.
        """
        direction = self.direction(direction)
        given = torch.as_tensor(items)
        if given.ndim != 4 or given.shape[1] != self.channels(direction):
            raise ShapeError(
                f"translate takes images of shape (N, {self.channels(direction)}, H, W), got {tuple(given.shape)}."
            )
        if not min(given.shape[2:]):
            raise ShapeError(f"translate takes images of one pixel at least, got {tuple(given.shape)}.")
        module, given = self.module, images.to_float(given)
        _check_values(given, image=True)
        return sampling.apply(lambda x: module.translate(x, direction), given, module, batch_size)  # type: ignore[operator]

    def direction(self, asked: str | None = None) -> str:
        """A direction that the model translates in; by default its first."""
        able = list(self.facts.get("directions") or require(self.module, "translate").directions)
        if asked is not None and asked not in able:
            raise ConfigError(f"the model translates {' and '.join(able)}; got direction {asked!r}.")
        return asked or able[0]

    def channels(self, direction: str) -> int:
        """Channels of the images that are translated."""
        return int(self.shape[0] if direction == "a2b" else self.module.shape_b[0])  # type: ignore[index]

    @property
    def classes(self) -> list[str]:
        """Names of the classes that the model was trained with; empty for a model without labels."""
        count = int(getattr(self.module, "classes", 0))
        names = self.facts.get("classes") or []
        return [str(names[number]) if number < len(names) else str(number) for number in range(count)]

    def class_number(self, label: int | str) -> int:
        """The number of a class that is given by number or name."""
        names = self.classes
        number = names.index(label) if label in names else int(label) if str(label).isdecimal() else -1
        if names and not 0 <= number < len(names):
            raise ConfigError(f"the model knows the classes {', '.join(names[:20])}; got label {label!r}.")
        return number

    def to(self, device: str | torch.device) -> "Pretrained":
        """Move the model to a device."""
        self.module.to(device_for(str(device)))
        return self

    def save_pretrained(self, path: str | os.PathLike[str]) -> Path:
        """Write a model folder: `config.json`, `model.safetensors` and a model card."""
        path = Path(path)
        parameters = self.spec.complete()
        folder.write(path, self.module, name=self.spec.name, parameters=parameters, shape=self.shape, facts=self.facts)
        return path

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike[str], *, model: str | None = None, device: str = "cpu"
    ) -> "Pretrained":
        """The same as `nacre.load`."""
        return load(path, model=model, device=device)

    def push_to_hub(self, repo_id: str, *, private: bool = True, token: str | None = None) -> str:
        """Upload the model folder to the Hugging Face hub; returns its address.

        Args:
            repo_id: "user/name".
            private: whether a repository that has to be made is private.
            token: of the hub; by default the one that `hf auth login` stored.

        Raises:
            CheckpointError: the hub cannot be reached, or refused.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            with tempfile.TemporaryDirectory() as aside:
                self.save_pretrained(aside)
                return str(api.upload_folder(repo_id=repo_id, folder_path=aside, commit_message="Upload with nacre"))
        except _hub_errors() as error:
            raise CheckpointError(f"{repo_id} could not be written to the hub ({_first_line(error)}).") from None

    def _items(self, items: Tensor | np.ndarray) -> Tensor:
        """Checked items, float. Raises ShapeError for another shape, range or anything that is not a number."""
        tensor = images.to_float(
            torch.as_tensor(np.ascontiguousarray(items) if isinstance(items, np.ndarray) else items)
        )
        if tuple(tensor.shape[1:]) != self.shape:
            raise ShapeError(
                f"{self.spec.name} was built for items of shape (N, {', '.join(map(str, self.shape))}), got "
                f"{tuple(tensor.shape)}; resize them, or train at their size."
            )
        _check_values(tensor, is_image(self.shape))
        return tensor


def _check_values(items: Tensor, image: bool) -> None:
    """Raise ShapeError for items that are not numbers, and for images out of their range."""
    if not bool(items.isfinite().all()):
        raise ShapeError("the items hold NaN or infinity; repair or drop those items first.")
    if image and items.numel() and not 0 <= items.min() <= items.max() <= 1:
        raise ShapeError(
            f"images are floats in [0, 1] or uint8, got values from {items.min():.3g} to {items.max():.3g}; rescale them."
        )


def load(
    path: str | os.PathLike[str],
    *,
    model: str | None = None,
    checkpoint: str | int | None = None,
    device: str = "cpu",
) -> Pretrained:
    """A trained model from a run, a model folder, or the Hugging Face hub ("user/name").

    Args:
        model: "FILE.py:CLASS" for a model of your own: nothing that a folder names is ever run.
        checkpoint: "best", or a step, of a run; by default the latest weights.
        device: "cpu", "cuda", "mps" or "auto".

    Raises:
        ConfigError: nothing is there, or it is a model of somebody's own and `model` does not say whose code to run.
        CheckpointError: it is damaged, incomplete, or from a newer version.
    """
    root = Path(path)
    place = _model_folder(root) if root.exists() else _from_hub(os.fspath(path))
    config, weights = folder.read(place)
    name = config["model"]
    if name not in CATALOGUE and model is None:
        raise ConfigError(
            f"this is a model of somebody's own; if it is yours, say where its code is: --model FILE.py:CLASS ({name})"
        )
    if name in CATALOGUE and model not in (None, name):
        raise ConfigError(f"{place} holds a '{name}', and '{model}' was asked for; leave the model out.")
    try:
        chosen = spec(model or name, config["parameters"])
        module = chosen.build(config["shape"])
        facts = config["facts"]
        if checkpoint is not None:
            state = _state_at(root, str(checkpoint))
            weights, facts = state["average"] or state["model"], _facts_at(state, facts)
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"the weights in {place} do not fit {name} as its {folder.CONFIG} describes it ({reason})."
        ) from None
    return Pretrained(module.to(device_for(device)), chosen, tuple(config["shape"]), facts)


def _model_folder(root: Path) -> Path:
    if (root / "model" / folder.CONFIG).is_file():
        return root / "model"
    if (root / "config.yaml").is_file():
        raise CheckpointError(f"{root} has not reached its first checkpoint; `nacre resume {root}` goes on with it.")
    return root


def _state_at(run: Path, which: str) -> dict[str, Any]:
    """One checkpoint of a run."""
    checkpoints = run / "checkpoints"
    present = checkpoint.steps(checkpoints)
    if not present:
        raise CheckpointError(f"{run} has no checkpoints.")
    if which == "best":
        best = checkpoint.load(checkpoints, present[-1])["best"]
        step = best[0] if best else present[-1]
    elif which.isdecimal() and int(which) in present:
        step = int(which)
    else:
        raise ConfigError(f"--checkpoint takes 'best' or a step of {', '.join(map(str, present))}; got '{which}'.")
    return checkpoint.load(checkpoints, step)


def _facts_at(state: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    """What a run says of its last step, as it is for one of its checkpoints."""
    score = score_of(state)
    facts = {name: fact for name, fact in last.items() if name != "validation"} | {"steps": state["step"]}
    return facts | ({"validation": str(score)} if score else {})


def _from_hub(repo: str) -> Path:
    if repo.count("/") != 1 or repo.startswith((".", "/", "~")):
        raise ConfigError(f"there is no run or model folder at {repo}.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=[folder.CONFIG, folder.WEIGHTS, folder.CARD]))
    except _hub_errors() as error:
        raise CheckpointError(
            f"{repo} is no folder here and could not be had from the hub ({_first_line(error)})."
        ) from None


def _hub_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises when there is no network, no such place, or no right to it: its own errors, and the
    base of the errors of whichever HTTP library it stands on. Imported when they are needed: it takes a while.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    return (*HfHubHTTPError.__bases__, HFValidationError, LocalEntryNotFoundError, OSError)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
