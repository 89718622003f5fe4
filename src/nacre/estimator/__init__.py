"""scikit-learn estimators: `from nacre.estimator import VAE`, and so for every model of the catalogue.

A class is made of a model when it is first asked for. Its parameters are the model's own keywords, those of training, and
`random_state`; its methods are what the model is capable of. Those that translate between two kinds of images have none.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, cast

from nacre.errors import ConfigError
from nacre.estimator.abilities import Classifier, Density, Reconstructor, Sampler, Transformer
from nacre.estimator.base import Estimator
from nacre.models import CATALOGUE
from nacre.spec import Field, find_class, summary

__all__ = ["Estimator", "estimator"]

MIXINS: dict[str, type] = {
    "classify": Classifier,
    "log_likelihood": Density,
    "reconstruct": Reconstructor,
    "sample": Sampler,
    "encode": Transformer,
}
"""What a model can do ↦ the methods that come with it; where two have a `score`, the first one's counts."""


@lru_cache
def estimator(model: str) -> type[Estimator]:
    """The estimator class of a model.

    Args:
        model: a name of the catalogue, or "FILE.py:CLASS" for your own.

    Raises:
        ConfigError: there is no such model, or it learns from two kinds of images and not from one X.
    """
    model_class = find_class(model)
    if hasattr(model_class, "sides"):
        raise ConfigError(f"{model} learns from two kinds of images, and an estimator is given one X; use nacre.train.")
    bases = (*(mixin for verb, mixin in MIXINS.items() if hasattr(model_class, verb)), Estimator)
    parameters = Estimator.parameters_of(model)
    attributes = {
        "__doc__": _documentation(model_class, parameters),
        "__init__": _constructor({field.name: field.default for field in parameters}),
        "__module__": __name__,
        "model_name": model,
    }
    return cast(type[Estimator], type(model_class.__name__, bases, attributes))


def _constructor(defaults: Mapping[str, Any]) -> Callable[..., None]:
    """An `__init__` that takes these keywords and stores them as they are, as scikit-learn's `clone` wants it."""
    self_ = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    keywords = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default) for name, default in defaults.items()
    ]
    signature = inspect.Signature([self_, *keywords])

    def __init__(self: Any, **parameters: Any) -> None:
        bound = signature.bind(self, **parameters)  # a TypeError for an unknown name, as of any function
        bound.apply_defaults()
        vars(self).update({name: value for name, value in bound.arguments.items() if name != "self"})

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    return __init__


def _documentation(model_class: type, parameters: list[Field]) -> str:
    """The model's own sentence, and the meaning of every parameter."""
    lines = [f"    {field.name}: {field.help}" for field in parameters]
    return "\n".join([summary(model_class), "", "Args:", *lines, ""])


def __getattr__(name: str) -> Any:
    for model, place in CATALOGUE.items():
        if place.rpartition(":")[2] == name:
            return estimator(model)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    classes = (find_class(model) for model in CATALOGUE)
    return sorted([*__all__, *(each.__name__ for each in classes if not hasattr(each, "sides"))])
