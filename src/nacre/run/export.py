"""Models for other runtimes: ONNX files of what a model can do, each compared with PyTorch before it is kept."""

import copy
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nacre import __version__, files, seeds
from nacre.errors import CapabilityError, ConfigError, RunError
from nacre.networks import is_image
from nacre.protocols import Samples, Translates, capabilities

FILES = {
    "sample": "generator",
    "encode": "encoder",
    "decode": "decoder",
    "reconstruct": "autoencoder",
    "classify": "classifier",
    "realness": "discriminator",
    "translate": "translator",
}
"""What a model can be asked for ↦ the file that answers; of translators one for each direction."""

OUTPUTS = {"sample": "items", "encode": "codes", "decode": "items", "reconstruct": "reconstructions"} | {
    "classify": "probabilities",
    "realness": "realness",
    "translate": "translations",
}

TOLERANCE = 1e-5
"""Largest difference between ONNX Runtime and PyTorch that is let pass, relative to values of more than one."""

ROUNDINGS = 4
"""Or so many times what PyTorch is off its own float64 by, if that is more: instance norms of a few pixels magnify rounding."""

BATCHES = (1, 7, 64)
"""Batch sizes that are compared: the graph must not have kept the one that it was traced with."""


@dataclass(frozen=True)
class Exported:
    """One file.

    Attributes:
        verb: what it answers to; of translators with the direction, as "translate a2b".
        path: of the file.
        inputs, outputs: shapes by name; the first dimension, "N", is free.
        difference: the largest that was found between ONNX Runtime and PyTorch, relative to values of more than one.
    """

    verb: str
    path: str
    inputs: Mapping[str, list[Any]]
    outputs: Mapping[str, list[Any]]
    difference: float


class Verb(nn.Module):
    """One thing that a model can be asked for, as a function of tensors in a fixed order."""

    def __init__(self, model: nn.Module, verb: str, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.verb, self.names = model, verb, tuple(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        verb, _, direction = self.verb.partition(" ")
        if direction:
            return getattr(self.model, verb)(*inputs, direction)
        if verb == "sample":
            return self.model.sample(dict(zip(self.names, inputs, strict=True)))  # type: ignore[operator]
        return getattr(self.model, verb)(*inputs)


def export_onnx(
    model: nn.Module, shape: tuple[int, ...], out: Path, *, facts: Mapping[str, Any] | None = None
) -> list[Exported]:
    """Write an ONNX file for each thing that a model does, in evaluation mode, for batches of any size.

    ONNX Runtime must give what PyTorch gives, at three batch sizes, to `TOLERANCE` or a few roundings; a file that does not is
    not written.

    Args:
        model: with the weights that are to be exported; it stays as it is.
        shape: of an item.
        out: folder of the files; made if absent.
        facts: noted in each file's metadata, beside shapes and the version.

    Raises:
        CapabilityError: the model does none of these things.
        ConfigError: the extra `onnx` is not installed.
        RunError: a file cannot be written, the folder holds files of another model, or ONNX Runtime computes something else.
    """
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"export needs {', '.join(missing)}, not installed: pip install {' '.join(missing)}")
    verbs = [verb for verb in FILES if verb in capabilities(model)]
    if not verbs:
        raise CapabilityError(f"{type(model).__name__} can be asked for nothing that is exported ({', '.join(FILES)}).")
    frozen = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    asked = [verb for each in verbs for verb in _directed(frozen, each)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        if strange := sorted({file.name for file in out.glob("*.onnx")} - {_file(verb) for verb in asked}):
            raise RunError(f"{out} holds {', '.join(strange)} of another model; take another folder, or empty it.")
        return [_exported(frozen, verb, shape, out, facts or {}) for verb in asked]
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror or error}); take another folder.") from None


def _directed(model: nn.Module, verb: str) -> list[str]:
    """A verb, or it in every direction."""
    return (
        [f"{verb} {way}" for way in model.directions]
        if isinstance(model, Translates) and verb == "translate"
        else [verb]
    )


def _file(verb: str) -> str:
    """The name of the file that answers to a verb, or to it in one direction."""
    kind, _, direction = verb.partition(" ")
    return "-".join([FILES[kind], *([direction] if direction else [])]) + ".onnx"


def _exported(model: nn.Module, verb: str, shape: tuple[int, ...], out: Path, facts: Mapping[str, Any]) -> Exported:
    kind, _, direction = verb.partition(" ")
    if direction and direction != model.directions[0]:  # type: ignore[index]
        shape = tuple(getattr(model, "shape_b", shape))
    path = out / _file(verb)
    example = inputs_of(model, kind, shape, 2)
    asked = Verb(model, verb, list(example)).eval()
    outputs = {OUTPUTS[kind]: ["N", *asked(*example.values()).shape[1:]]}
    inputs = {name: ["N", *tensor.shape[1:]] for name, tensor in example.items()}
    with files.whole_file(path) as aside:
        with _quietly():
            free = (tuple({0: torch.export.Dim("N")} for _ in example),)
            # Strict: traced from the bytecode. Otherwise `len(x)` would fix the batch size.
            traced = torch.export.export(asked, tuple(example.values()), dynamic_shapes=free, strict=True)
            named = tuple({0: "N"} for _ in example)
            program = torch.onnx.export(
                traced,
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=named,
                verbose=False,
            )
        assert program is not None
        notes = {"nacre": __version__, "verb": verb, "inputs": inputs, "outputs": outputs, **facts}
        program.model.metadata_props.update({name: json.dumps(value, default=str) for name, value in notes.items()})
        program.save(aside, external_data=False)
        tried = [inputs_of(model, kind, shape, count, first=2) for count in BATCHES]
        difference = max(compare(aside, asked, inputs) for inputs in tried)
        allowed = TOLERANCE
        if difference > TOLERANCE:
            allowed = max(TOLERANCE, ROUNDINGS * max(rounding(asked, inputs) for inputs in tried))
        if not difference <= allowed:
            raise RunError(
                f"ONNX Runtime's {path.name} differs from PyTorch by {difference:.1e}, more than {allowed:.0e}, so it was "
                "not written; please report the model's parameters."
            )
    return Exported(verb, str(path), inputs, outputs, difference)


def inputs_of(model: nn.Module, verb: str, shape: tuple[int, ...], count: int, first: int = 0) -> dict[str, Tensor]:
    """What a verb takes, by name, `count` times: noise from the prior, items that vary smoothly, or codes."""
    rows = range(first, first + count)
    if verb == "sample":
        assert isinstance(model, Samples)
        return seeds.noises(model.prior, 0, "export", rows=rows)
    if verb != "decode":
        return {"items": _items(shape, rows)}
    if "encode" in capabilities(model):
        return {"codes": model.encode(_items(shape, rows))}  # type: ignore[operator]
    size = int(getattr(model, "code_dim", None) or getattr(model, "latent_dim"))  # noqa: B009
    return {"codes": seeds.noise(seeds.normal(size), "export", "codes", rows=rows)}


def compare(path: Path, module: nn.Module, inputs: Mapping[str, Tensor]) -> float:
    """The largest difference between a file in ONNX Runtime and a module, relative to values of more than one."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    # An input that the answer does not depend on is no input of the graph.
    fed = {name: tensor.numpy() for name, tensor in inputs.items() if name in {i.name for i in session.get_inputs()}}
    (got,) = session.run(None, fed)
    with torch.no_grad():
        expected = module(*inputs.values()).double().numpy()
    if got.shape != expected.shape:
        return float("inf")
    return float((np.abs(got - expected) / np.maximum(1, np.abs(expected))).max())


def rounding(module: nn.Module, inputs: Mapping[str, Tensor]) -> float:
    """How far a module is from itself in float64, relative to values of more than one."""
    exact = copy.deepcopy(module).double()
    with torch.no_grad():
        expected = exact(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs.values()))
        got = module(*inputs.values()).double()
    return float(((got - expected).abs() / expected.abs().clamp(min=1)).max())


def _items(shape: tuple[int, ...], rows: range) -> Tensor:
    """Smooth random images in [0, 1], or normal vectors."""
    noise = seeds.noise(seeds.normal(*shape), "export", "items", rows=rows)
    if not is_image(shape):
        return noise
    smooth = nn.functional.avg_pool2d(noise, 3, 1, 1, count_include_pad=False)
    return ((smooth + 1) / 2).clamp(0, 1)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporter says about itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
