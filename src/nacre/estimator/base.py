"""What every estimator does: parameters, checking arrays, fitting, and being pickled, saved and loaded."""

import dataclasses
import math
import numbers
import os
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import assert_all_finite, check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from nacre.engine.settings import Training
from nacre.errors import ConfigError
from nacre.estimator.course import Course, packed, unpacked
from nacre.pretrained import Pretrained, load
from nacre.run.labels import FEW, too_few
from nacre.spec import Field, Spec, coerce, fields, find_class, spec

OF_TRAINING = ("steps", "epochs", "batch_size", "lr", "lr_schedule", "warmup", "clip", "ema", "precision", "device")
"""Settings of training that are parameters of an estimator; the others are a run's."""

PASSES = 500
"""Passes over the data after which training ends if neither `steps` nor `epochs` is given: few items need fewer steps than
a model recommends."""

OWN = {
    "steps": Field(
        "steps",
        int | None,
        None,
        f"batches to train for; by default what the model recommends, but {PASSES} passes over the data at most.",
    ),
    "batch_size": Field(
        "batch_size",
        int | None,
        None,
        "items in a step, or all if there are fewer; by default what the model recommends.",
    ),
    "conditional": Field(
        "conditional", bool, False, "learn the distribution of X for each class in `y`, which is otherwise ignored."
    ),
    "augment": Field(
        "augment",
        bool | None,
        None,
        "show the discriminator augmented images only, real and generated (DiffAugment, Zhao et al. 2020); by default where "
        f"`fit` is given under {FEW:,} images.",
    ),
    "random_state": Field(
        "random_state",
        Any,
        None,
        "of everything random in fitting: an integer for results that repeat, a RandomState, or None for NumPy's own.",
    ),
}
"""Parameters that mean something of their own here."""


def _takes_parts(estimator: "Estimator") -> bool:
    if estimator._learns_from_labels:
        raise AttributeError(f"{type(estimator).__name__} must see all labels at once to know the classes; use fit.")
    return True


class Estimator(BaseEstimator):  # type: ignore[misc]
    """A model as a scikit-learn estimator; `nacre.estimator.estimator` makes the class of each.

    X is real vectors (N, D), or images (N, H, W) or (N, C, H, W), uint8 or floats in [0, 1]; results are float32.

    Attributes:
        model_: the trained model, as `nacre.load` would give it.
        n_features_in_: numbers in an item.
        n_iter_: steps taken.
        classes_: the labels in `y`, if the model was given any.
    """

    model_name: ClassVar[str]
    model_: Pretrained
    n_features_in_: int
    n_iter_: int
    classes_: np.ndarray
    _item_shape: tuple[int, ...]
    _course: Course

    @classmethod
    def parameters_of(cls, model: str) -> list[Field]:
        """The parameters of a model's estimator: the model's own, those of training, and `random_state`."""
        target = find_class(model)
        own = [field for field in fields(target) if field.name != "classes"]
        own = [OWN["augment"] if field.name == "augment" else field for field in own]
        if len(own) < len(fields(target)) and not getattr(target, "supervised", False):
            own.append(OWN["conditional"])
        training = {field.name: field for field in fields(Training)}
        return [*own, *(OWN.get(name, training[name]) for name in OF_TRAINING), OWN["random_state"]]

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on X from the beginning.

        Args:
            X: (N, D), (N, H, W) or (N, C, H, W).
            y: (N,) labels, for a model that learns from them (-1: not known, if it also learns without); otherwise
                ignored.

        Raises:
            ConfigError: a parameter cannot be meant.
            TrainingError: a weight is no longer a number.
        """
        items = self._items(X, reset=True)
        labels = self._labels(y, items)
        shape = items.shape[1:]
        chosen = self._chosen(augment=too_few(shape, len(items)))
        course = Course(chosen, shape, self._training(chosen, shape, len(items)))
        course.go_on(items, labels=labels)
        self.__dict__.pop("_course", None)
        return self._finished(course)

    @available_if(_takes_parts)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Go on training with one pass over X: one step if X is a batch. Shuffle the data if you pass them in parts.

        After `fit` it goes on from the fitted weights, with fresh optimizers. What learns from labels has no `partial_fit`.

        Raises:
            ConfigError: the model's plan of training depends on its length.
        """
        items = self._items(X, reset=not hasattr(self, "model_"))
        course = self._course if hasattr(self, "_course") else self._going_on(items.shape[1:])
        if not course.endless:
            raise ConfigError(
                f"what {type(self).__name__} does depends on how long it will train, which partial_fit does not know; "
                "use fit, or lr_schedule='constant' if that is all."
            )
        course.go_on(items, passes=1)
        self._course = course
        return self._finished(course)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model folder that `nacre.load`, the command line and `from_pretrained` read."""
        check_is_fitted(self)
        return self.model_.save_pretrained(path)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> Self:
        """A fitted estimator of a run, a model folder, or a model on the hub ("user/name").

        Raises:
            ConfigError: nothing is there, or it is another model.
        """
        model = load(path, model=cls.model_name)
        given = dict(model.spec.parameters)
        classes = given.pop("classes", 0)
        if classes and "conditional" in cls().get_params():
            given["conditional"] = True
        fitted = cls(**given)
        fitted.model_, fitted._item_shape = model, tuple(model.facts.get("item shape", model.shape))
        fitted.n_features_in_, fitted.n_iter_ = math.prod(model.shape), int(model.facts.get("steps", 0))
        if classes:
            names, type_ = np.array(model.classes), np.dtype(model.facts.get("label type", "U"))
            fitted.classes_ = names == "True" if type_.kind == "b" else names.astype(type_)
        return fitted

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = bool(getattr(find_class(self.model_name), "supervised", False))
        return tags

    def __reduce__(self) -> tuple[Any, ...]:
        # By the model's name: the class is made when it is asked for.
        return _blank, (self.model_name,), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "model_" in state:
            state["model_"] = packed(state["model_"])
        if "_course" in state:
            state["_course"] = state["_course"].state()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "model_" in state:
            state["model_"] = unpacked(state["model_"])
        if "_course" in state:
            state["_course"] = Course.from_state(state["_course"])
        super().__setstate__(state)

    @property
    def _learns_from_labels(self) -> bool:
        return bool(getattr(find_class(self.model_name), "supervised", False) or getattr(self, "conditional", False))

    def _items(self, X: Any, *, reset: bool) -> np.ndarray:
        """X checked: (N, D) float32, or (N, C, H, W) uint8 or float32."""
        if (X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim) > 2:
            X = check_array(X, dtype=[np.float32, np.uint8], allow_nd=True, estimator=self, input_name="X")
        else:
            X = validate_data(self, X, dtype=np.float32, reset=reset)
        if reset:
            self._item_shape = tuple(X.shape[1:])
            self.n_features_in_ = math.prod(self._item_shape)
        if X.shape[1:] != self._item_shape:
            expected = ", ".join(map(str, self._item_shape))
            raise ValueError(f"{type(self).__name__} was fitted to X of shape (N, {expected}), got {X.shape}.")
        return X if X.ndim == 2 else _images(X)

    def _asked(self, X: Any) -> np.ndarray:
        """X checked, for a fitted model."""
        check_is_fitted(self)
        items = self._items(X, reset=False)
        return items if items.flags.writeable else items.copy()  # torch warns of the others

    def _given(self, items: Tensor) -> np.ndarray:
        """Items in the shape that X had in fit."""
        return items.numpy().reshape(len(items), *self._item_shape)

    def _number_of(self, label: Any) -> int:
        """The number of a class."""
        if not self._learns_from_labels:
            raise ConfigError(f"this {type(self).__name__} is not conditional, so it samples no label.")
        if label not in self.classes_:
            raise ValueError(
                f"label must be one of classes_ ({', '.join(map(str, self.classes_[:20]))}), got {label!r}."
            )
        return int(np.flatnonzero(self.classes_ == label)[0])

    @property
    def _classes(self) -> dict[str, int]:
        return {"classes": len(self.classes_)} if self._learns_from_labels else {}

    def _labels(self, y: Any, items: np.ndarray) -> np.ndarray | None:
        """(N,) int64 numbers of classes, -1 where one is not known; None for a model that learns without labels."""
        self.__dict__.pop("classes_", None)
        if not self._learns_from_labels:
            return None
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} requires y to be passed, but the target y is None; it learns from labels."
            )
        y = column_or_1d(y, warn=True)
        check_consistent_length(items, y)
        assert_all_finite(y, estimator_name=type(self).__name__, input_name="y")
        check_classification_targets(y)
        some_unknown = getattr(find_class(self.model_name), "semi_supervised", False) and y.dtype.kind in "if"
        known = y != -1 if some_unknown else np.full(len(y), True)
        self.classes_, numbers_ = np.unique(y[known], return_inverse=True)
        if isinstance(self, ClassifierMixin) and len(self.classes_) < 2:
            count = ("no class", "one class")[len(self.classes_)]
            raise ValueError(f"{type(self).__name__} tells classes apart, but y names {count}; give it two or more.")
        labels = np.full(len(y), -1)
        labels[known] = numbers_
        return labels

    def _chosen(self, *, augment: bool = False) -> Spec:
        """The model with this estimator's parameters, and with its classes if it learns from labels.

        Args:
            augment: for a model that can, where the parameter leaves it open.
        """
        own = {field.name for field in fields(find_class(self.model_name))} & set(self.get_params())
        given = {name: _plain(getattr(self, name)) for name in own}
        if "augment" in own and given["augment"] is None:
            given["augment"] = augment
        chosen = spec(self.model_name, given)
        return Spec(chosen.name, dict(chosen.parameters) | self._classes)

    def _training(self, chosen: Spec, shape: tuple[int, ...], count: int | None = None) -> Training:
        """Settings of training with the batch size resolved, and the steps for `count` items if it is known."""
        known = [field for field in fields(Training) if field.name in OF_TRAINING]
        asked = coerce(known, {name: _plain(getattr(self, name)) for name in OF_TRAINING}, type(self).__name__)
        training = Training(**asked, seed=random_seed(self.random_state))
        recommended = {"steps": 10_000, "batch_size": 64, **chosen.recommended(shape)}
        batch_size = training.batch_size or recommended["batch_size"]
        if count is None:
            return dataclasses.replace(training, steps=None, epochs=None, batch_size=batch_size)
        batch_size = min(batch_size, count)
        passes = math.ceil((training.epochs or PASSES) * count / batch_size)
        steps = passes if training.epochs else training.steps or min(recommended["steps"], passes)
        return dataclasses.replace(training, steps=steps, epochs=None, batch_size=batch_size)

    def _going_on(self, shape: tuple[int, ...]) -> Course:
        """A course of its own for partial fits: of a new model, or from the weights that were fitted."""
        if not hasattr(self, "model_"):
            chosen = self._chosen()
            return Course(chosen, shape, self._training(chosen, shape))
        course = Course(self.model_.spec, shape, self._training(self.model_.spec, shape), self.n_iter_)
        course.start_from(self.model_.module)
        return course

    def _finished(self, course: Course) -> Self:
        training = course.training
        facts: dict[str, Any] = {"steps": course.done, "batch size": training.batch_size, "seed": training.seed}
        facts["item shape"] = list(self._item_shape)
        if self._classes:
            facts |= {"classes": [str(label) for label in self.classes_], "label type": self.classes_.dtype.str}
        self.model_ = Pretrained(course.result(), course.spec, course.shape, facts)
        self.n_iter_ = course.done
        return self


def _blank(model: str) -> Estimator:
    """An estimator of a model without its state; what unpickling starts from."""
    from nacre.estimator import estimator

    made = estimator(model)
    return made.__new__(made)


def _images(X: np.ndarray) -> np.ndarray:
    """Images checked, (N, C, H, W)."""
    name = "images (N, H, W), or (N, C, H, W) with 1 to 4 channels, were expected"
    if X.ndim > 4 or (X.ndim == 4 and X.shape[1] > 4):
        hint = "; move the channels with np.moveaxis(X, -1, 1)" if X.ndim == 4 and X.shape[3] <= 4 else ""
        raise ValueError(f"X has the shape {X.shape}; {name}{hint}.")
    if X.dtype != np.uint8 and not 0 <= X.min() <= X.max() <= 1:
        raise ValueError(f"images are uint8 or floats in [0, 1], got {X.min():.3g} to {X.max():.3g}; rescale them.")
    return X[:, None] if X.ndim == 3 else X


def _plain(value: Any) -> Any:
    """Python's number for NumPy's, as a grid of parameters may hold them."""
    return value.item() if isinstance(value, np.generic) else value


def random_seed(random_state: Any) -> int:
    """An integer as it is; from anything else, one is drawn."""
    if isinstance(random_state, numbers.Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))
