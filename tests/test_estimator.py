"""The estimators: what scikit-learn asks of one, and that they train what `nacre.train` trains."""

import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nacre
from nacre.errors import ConfigError, NacreError, TrainingError
from nacre.estimator import AE, GAN, VAE, Estimator, Transfer, estimator
from nacre.models import CATALOGUE
from nacre.spec import fields, find_class

CHECKS = """
from nacre.estimator import AE, M2, VAE, Transfer
from sklearn.utils.estimator_checks import check_estimator
unknown = {"check_classifiers_classes": "one of its labels is -1, which to a semi-supervised model says that it is not known"}
for made, expected in (
    (AE(latent_dim=3, hidden=(16,), steps=3), {}),
    (VAE(latent_dim=3, hidden=(16,), steps=3), {}),
    (Transfer(hidden=(16,), frozen_steps=5, steps=60, lr=3e-2), {}),
    (M2(latent_dim=3, hidden=(16,), steps=60, lr=3e-2), unknown),
):
    for result in check_estimator(made, expected_failed_checks=expected, on_skip=None):
        print(result["check_name"], result["status"])
"""

SMALL: dict[str, Any] = {"latent_dim": 3, "hidden": (16,), "steps": 20, "batch_size": 32, "random_state": 0}


def points(count: int = 200, dimensions: int = 5) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 2)) @ rng.normal(size=(2, dimensions)) + 0.1 * rng.normal(size=(count, dimensions))


def pictures(count: int = 64) -> np.ndarray:
    """Digits as uint8 images (N, 8, 8)."""
    return (load_digits().images[:count] * 255 / 16).round().astype(np.uint8)


def test_check_estimator() -> None:
    # In a process of its own: what scikit-learn checks of other libraries' arrays, SciPy must be told of at its import.
    env = {**os.environ, "SCIPY_ARRAY_API": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", CHECKS], capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
    statuses = [line.split()[1] for line in run.stdout.splitlines()]
    assert statuses.count("xfail") == 1
    assert set(statuses) == {"passed", "xfail"}
    assert len(statuses) > 200


ONE_SIDE = [name for name in CATALOGUE if not hasattr(find_class(name), "sides")]


def test_models_of_two_kinds_of_images_have_none() -> None:
    assert "CycleGAN" not in dir(nacre.estimator)
    with pytest.raises(ConfigError, match="cyclegan learns from two kinds of images"):
        estimator("cyclegan")


@pytest.mark.parametrize("name", ONE_SIDE)
def test_every_model_of_the_catalogue_has_one(name: str) -> None:
    made = getattr(nacre.estimator, find_class(name).__name__)
    assert made is estimator(name)
    own = ("classes", "augment")
    wanted = {field.name: field.default for field in fields(find_class(name)) if field.name not in own}
    assert made().get_params().items() >= wanted.items()
    assert clone(made()).get_params() == made().get_params()
    assert all(f"    {parameter}: " in made.__doc__ for parameter in made().get_params())
    assert issubclass(made, Estimator)


@pytest.mark.parametrize(
    ("name", "images"),
    [(name, images) for name in ONE_SIDE for images in (False, True) if images or name != "stackgan"],
)
def test_every_one_can_be_fitted_and_asked(name: str, images: bool) -> None:
    digits = load_digits()
    x, y = (digits.images if images else digits.data)[:40] / 16, digits.target[:40]
    fitted = estimator(name)(steps=2, batch_size=20, random_state=0).fit(x, y)
    rows = {
        verb: getattr(fitted, verb)(x) for verb in ("transform", "score_samples", "predict") if hasattr(fitted, verb)
    }
    assert {len(result) for result in rows.values()} <= {40}
    if hasattr(fitted, "score"):
        assert np.isfinite(fitted.score(x, y))
    if hasattr(fitted, "sample"):
        assert fitted.sample(2, random_state=0).shape == (2, *x.shape[1:])
    again = pickle.loads(pickle.dumps(fitted))
    assert all(np.array_equal(getattr(again, verb)(x), result) for verb, result in rows.items())


def test_signature_is_real() -> None:
    parameters = inspect.signature(VAE).parameters
    assert parameters["latent_dim"].default == 32
    assert parameters["random_state"].default is None
    with pytest.raises(TypeError, match="laten_dim"):
        VAE(laten_dim=2)
    with pytest.raises(ImportError, match="NoSuchModel"):
        from nacre.estimator import NoSuchModel  # noqa: F401


def test_trains_exactly_what_a_run_trains(tmp_path: Path) -> None:
    x = points(dimensions=4).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    settings: dict[str, Any] = {"latent_dim": 3, "hidden": (16,), "steps": 30, "batch_size": 32}
    common: dict[str, Any] = {"validation": 0.0, "test": 0.0, "device": "cpu", "sample_every": 0}
    run = nacre.train("vae", data=str(tmp_path / "x.npz"), seed=3, out=tmp_path / "run", **settings, **common)
    assert np.array_equal(VAE(random_state=3, **settings).fit(x).transform(x), nacre.load(run).encode(x).numpy())


@pytest.mark.parametrize("kind", [AE, VAE, GAN])
def test_equal_random_states_give_equal_results(kind: type[Estimator]) -> None:
    def weights(seed: Any) -> torch.Tensor:
        module = kind(**SMALL | {"random_state": seed}).fit(points()).model_.module
        return torch.cat([p.flatten() for p in module.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert torch.equal(weights(np.random.RandomState(1)), weights(np.random.RandomState(1)))
    assert not torch.equal(weights(1), weights(2))
    assert not torch.equal(weights(None), weights(None))


def test_leaves_generators_and_threads_alone(capsys: pytest.CaptureFixture[str]) -> None:
    def outside() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), torch.get_num_threads()

    before = outside(), torch.get_float32_matmul_precision()
    fitted = VAE(**SMALL).fit(points())
    fitted.score(points())
    fitted.sample(3, random_state=0)
    assert (outside(), torch.get_float32_matmul_precision()) == before
    assert not any(Path().iterdir())
    assert capsys.readouterr() == ("", "")


def test_not_fitted() -> None:
    x, codes = points(), np.zeros((2, 3))
    for ask in ("transform", "score", "score_samples"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(VAE(), ask)(x)
    for call in (
        lambda: VAE().inverse_transform(codes),
        VAE().sample,
        VAE().get_feature_names_out,
        lambda: AE().save("x"),
    ):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            call()


def test_clone_and_pickle() -> None:
    x = points()
    fitted = VAE(**SMALL).fit(x)
    again = pickle.loads(pickle.dumps(fitted))
    assert type(again) is VAE
    assert np.array_equal(again.transform(x), fitted.transform(x))
    assert np.array_equal(again.score_samples(x), fitted.score_samples(x))
    assert not any(isinstance(value, torch.Tensor) for value in fitted.__getstate__()["model_"]["weights"].values())
    fresh = clone(fitted)
    assert fresh.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        fresh.transform(x)


def test_parameters_set_after_fit_count_at_the_next_fit() -> None:
    fitted = AE(**SMALL).fit(points()).set_params(latent_dim=2)
    assert pickle.loads(pickle.dumps(fitted)).transform(points()).shape == (200, 3)
    assert fitted.fit(points()).transform(points()).shape == (200, 2)


def test_pipeline_grid_search_and_cross_validation() -> None:
    x = points()
    pipeline = make_pipeline(StandardScaler(), AE(**SMALL | {"steps": 300}))
    search = GridSearchCV(pipeline, {"ae__latent_dim": np.array([1, 2])}, cv=2, error_score="raise").fit(x)
    assert search.best_params_ == {"ae__latent_dim": 2}  # the points lie about a plane
    assert search.transform(x).shape == (200, 2)
    scores = cross_val_score(VAE(**SMALL), x, cv=2, error_score="raise")
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()


def test_pandas() -> None:
    frame = pd.DataFrame(points(), columns=list("abcde"), index=np.arange(200) + 7)
    codes = VAE(**SMALL).set_output(transform="pandas").fit_transform(frame)
    assert list(codes.columns) == ["vae0", "vae1", "vae2"]
    assert list(codes.index) == list(frame.index)
    fitted = VAE(**SMALL).fit(frame)
    assert list(fitted.feature_names_in_) == list("abcde")
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.transform(frame[list("edcba")])


def test_linear_ae_is_pca() -> None:
    x = load_digits().data / 16
    x -= x.mean(0)
    settings: dict[str, Any] = {"steps": 1500, "batch_size": 256, "lr": 0.03, "lr_schedule": "cosine", "ema": 0.99}
    ae = AE(latent_dim=8, hidden=(), random_state=0, **settings).fit(x)
    error = np.square(ae.inverse_transform(ae.transform(x)) - x).mean()
    pca = PCA(8).fit(x)
    least = np.square(pca.inverse_transform(pca.transform(x)) - x).mean()
    assert error == pytest.approx(least, rel=1e-3)
    assert ae.score(x) == pytest.approx(-error, rel=1e-5)


def test_score_is_the_mean_of_a_bound_in_nats() -> None:
    x = points()
    fitted = VAE(**SMALL | {"steps": 500, "lr": 0.005}).fit(x)
    scores = fitted.score_samples(x)
    assert fitted.score(x) == pytest.approx(scores.mean(), rel=1e-6)
    # By other noise, as `nacre.load(...).log_likelihood` estimates it: equal but for the noise.
    other = [fitted.model_.log_likelihood(x.astype(np.float32), seed=seed).mean().item() for seed in range(20)]
    assert abs(fitted.score(x) - np.mean(other)) < 5 * np.std(other)
    # A bound: the best Gaussian's likelihood on its own data is about as good as it gets.
    assert scores.mean() < PCA(2).fit(x).score(x) + 0.5


def test_an_items_score_depends_on_nothing_else() -> None:
    x = points()
    fitted = VAE(**SMALL).fit(x)
    order = np.random.default_rng(1).permutation(len(x))[:50]
    assert np.allclose(fitted.score_samples(x)[order], fitted.score_samples(x[order]), rtol=1e-5)


@pytest.mark.parametrize("axis", [False, True], ids=["NHW", "NCHW"])
def test_images_in_and_out(axis: bool) -> None:
    x = pictures()
    x = x[:, None] if axis else x
    fitted = VAE(**SMALL).fit(x)
    assert fitted.n_features_in_ == 64
    assert fitted.model_.shape == (1, 8, 8)
    assert fitted.transform(x).shape == (64, 3)
    for items in (fitted.inverse_transform(fitted.transform(x)), fitted.sample(5, random_state=0)):
        assert items.shape[1:] == x.shape[1:]
        assert items.min() >= 0
        assert items.max() <= 1
    assert np.allclose(fitted.score_samples(x), fitted.score_samples(x.astype(np.float32) / 255), rtol=1e-5)
    assert np.isfinite(cross_val_score(VAE(**SMALL), x, cv=2, error_score="raise")).all()


def test_wrong_items() -> None:
    fitted = VAE(**SMALL).fit(pictures())
    with pytest.raises(ValueError, match=r"fitted to X of shape \(N, 8, 8\), got \(64, 7, 8\)"):
        fitted.transform(pictures()[:, 1:])
    with pytest.raises(ValueError, match="fitted to X of shape"):
        fitted.transform(pictures().reshape(64, 64))
    with pytest.raises(ValueError, match="uint8 or floats in"):
        VAE().fit(pictures().astype(float))
    with pytest.raises(ValueError, match="moveaxis"):
        VAE().fit(np.zeros((9, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="contains NaN"):
        VAE().fit(np.full((9, 8, 8), np.nan))
    with pytest.raises(ValueError, match="X has 2 columns, but the codes of VAE have 3"):
        fitted.inverse_transform(np.zeros((4, 2)))


def test_wrong_parameters() -> None:
    for wrong, sentence in [
        ({"latent_dim": 0}, "latent_dim must be 1 or more"),
        ({"latent_dim": "many"}, "takes a whole number"),
        ({"lr": -1.0}, "--lr must be greater than 0"),
        ({"steps": 5, "epochs": 1.0}, "not both"),
    ]:
        with pytest.raises(NacreError, match=sentence):
            VAE(**SMALL | wrong).fit(points())
    with pytest.raises(TrainingError, match="no longer a number"):
        AE(**SMALL | {"lr": 1e30}).fit(points())


def test_samples() -> None:
    fitted = GAN(**SMALL).fit(points())
    assert fitted.sample().shape == (1, 5)
    assert np.array_equal(fitted.sample(7, random_state=1), fitted.sample(7, random_state=1))
    assert not np.array_equal(fitted.sample(7, random_state=1), fitted.sample(7, random_state=2))
    assert not hasattr(fitted, "transform")
    assert not hasattr(fitted, "score_samples")
    with pytest.raises(NotFittedError):
        GAN().sample()


def test_few_images_are_augmented_as_in_a_run(tmp_path: Path) -> None:
    x = (15 * load_digits().images[:100]).astype(np.uint8)
    np.savez(tmp_path / "x.npz", x=x)
    common: dict[str, Any] = {"validation": 0.0, "test": 0.0, "device": "cpu", "sample_every": 0, "mirror": False}
    small = {name: value for name, value in SMALL.items() if name != "random_state"} | {"steps": 3}
    run = nacre.train("gan", data=str(tmp_path / "x.npz"), seed=0, out=tmp_path / "run", **small, **common)
    fitted = GAN(**small, random_state=0).fit(x)
    assert fitted.get_params()["augment"] is None
    assert fitted.model_.module.augment
    assert torch.equal(torch.from_numpy(fitted.sample(3, 1))[:, None], nacre.load(run).sample(3, seed=1))
    assert not GAN(**small, augment=False).fit(x).model_.module.augment
    assert not GAN(**small).partial_fit(x).model_.module.augment


def test_conditional_on_labels() -> None:
    digits = load_digits(n_class=2)
    x, y = digits.images / 16, np.array(["zero", "one"])[digits.target]
    fitted = VAE(**SMALL | {"conditional": True, "steps": 400, "lr": 0.003}).fit(x, y)
    assert list(fitted.classes_) == ["one", "zero"]
    for label in fitted.classes_:
        drawn = fitted.sample(100, random_state=0, label=label).mean(0)
        distances = {other: np.square(drawn - x[y == other].mean(0)).mean() for other in fitted.classes_}
        assert min(distances, key=distances.__getitem__) == label
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.sample(3, 0, label="one"), fitted.sample(3, 0, label="one"))
    with pytest.raises(ValueError, match="one of classes_"):
        fitted.sample(label="two")
    with pytest.raises(ValueError, match="requires y"):
        VAE(conditional=True).fit(x)
    with pytest.raises(ConfigError, match="not conditional"):
        VAE(**SMALL).fit(x).sample(label="one")


def test_partial_fit_is_a_fit_in_parts() -> None:
    x = points().astype(np.float32)
    parts = AE(**SMALL | {"batch_size": 200})
    for _ in range(100):
        parts.partial_fit(x)
    assert parts.n_iter_ == 100
    # A batch of everything has the same gradient in whatever order.
    whole = AE(**SMALL | {"batch_size": 200, "steps": 100}).fit(x)
    assert np.allclose(parts.transform(x), whole.transform(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("ema", [0.9, 0.0])
def test_partial_fit_goes_on_after_pickling(ema: float) -> None:
    x = points()
    one = VAE(**SMALL | {"ema": ema}).partial_fit(x[:100])
    two = pickle.loads(pickle.dumps(one))
    before = one.transform(x)
    assert np.array_equal(before, two.transform(x))
    assert np.array_equal(one.partial_fit(x[100:]).transform(x), two.partial_fit(x[100:]).transform(x))
    assert not np.array_equal(before, one.transform(x))


def test_partial_fit_after_fit_starts_from_what_was_fitted() -> None:
    x = points()
    fitted = AE(**SMALL | {"steps": 500}).fit(x)
    before = fitted.score(x)
    fitted.partial_fit(x)
    assert fitted.n_iter_ == 500 + 7
    assert fitted.score(x) > 1.1 * before  # scores are negative; a new model's is many times worse


def test_partial_fit_refuses_what_depends_on_the_length() -> None:
    with pytest.raises(ConfigError, match="how long it will train"):
        AE(**SMALL | {"lr_schedule": "cosine"}).partial_fit(points())
    assert not hasattr(VAE(**SMALL | {"conditional": True}), "partial_fit")
    with pytest.raises(AttributeError) as raised:
        Transfer().partial_fit(points(), np.arange(200) % 2)
    assert "all labels at once" in str(raised.value.__cause__)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.linspace(0, 1, 200), "Unknown label type: continuous"),
        (np.where(np.arange(200) % 2, np.nan, 1.0), "contains NaN"),
        (np.where(np.arange(200) % 2, np.inf, 1.0), "contains infinity"),
        (np.ones(200), "names one class"),
    ],
)
@pytest.mark.parametrize("name", ["transfer", "m2"])
def test_labels_that_are_no_classes_are_refused(name: str, y: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        estimator(name)(steps=3).fit(points(), y)


@pytest.mark.parametrize("name", ["transfer", "m2"])
def test_a_classifier_that_is_not_fitted_says_so(name: str) -> None:
    for ask in ("predict", "predict_proba"):
        with pytest.raises(NotFittedError):
            getattr(estimator(name)(), ask)(points())


def test_save_and_from_pretrained(tmp_path: Path) -> None:
    fitted = VAE(**SMALL).fit(pictures()[:, None])
    fitted.save(tmp_path / "model")
    again = VAE.from_pretrained(tmp_path / "model")
    assert np.array_equal(again.transform(pictures()[:, None]), fitted.transform(pictures()[:, None]))
    assert again.latent_dim == 3
    assert again.n_iter_ == 20
    assert nacre.load(tmp_path / "model").sample(2).shape == (2, 1, 8, 8)
    with pytest.raises(ConfigError, match="'ae' was asked for"):
        AE.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("labels", [[3, 7], [-1.0, 2.0], [False, True], ["a", "longer"], np.array(["a", "b"], object)])
def test_what_is_loaded_knows_the_types_of_its_labels_and_the_shape_of_its_items(labels: Any, tmp_path: Path) -> None:
    x, y = pictures(), np.asarray(labels)[np.arange(64) % 2]
    fitted = VAE(**SMALL, conditional=True).fit(x, y)
    again = VAE.from_pretrained(fitted.save(tmp_path / "model"))
    assert again.classes_.dtype == fitted.classes_.dtype
    assert again.classes_.tolist() == list(labels)
    assert np.array_equal(again.transform(x), fitted.transform(x))
    drawn = again.sample(2, random_state=0, label=labels[1])
    assert np.array_equal(drawn, fitted.sample(2, random_state=0, label=labels[1]))
    assert drawn.shape == (2, 8, 8)


def test_models_saved_without_types_and_shapes_are_loaded_as_before(tmp_path: Path) -> None:
    fitted = VAE(**SMALL, conditional=True).fit(pictures(), np.arange(64) % 2)
    for fact in ("item shape", "label type"):
        del fitted.model_.facts[fact]
    again = VAE.from_pretrained(fitted.save(tmp_path / "model"))
    assert again.classes_.tolist() == ["0", "1"]
    assert again.sample(2).shape == (2, 1, 8, 8)


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    example = Path(__file__).parent.parent / "examples" / "my_model.py"
    own = estimator(f"{example}:TinyLSGAN")
    fitted = own(latent_dim=4, steps=5, random_state=0).fit(pictures())
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.sample(2, random_state=0), fitted.sample(2, random_state=0))


def test_nacre_alone_does_not_import_scikit_learn() -> None:
    code = "import nacre, sys; nacre.Pretrained; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
