"""Row-by-row minimisation, walks, inversion, arithmetic and directions, against closed forms and other implementations."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import nn

from nacre import editing, seeds
from nacre.editing import latents, optimise, perception
from nacre.editing.directions import upright
from nacre.engine import sampling
from nacre.errors import CapabilityError, CheckpointError, ConfigError, ShapeError
from nacre.models.ae import AE
from nacre.models.gan import GAN
from nacre.models.iwae import IWAE
from nacre.models.lvae import LVAE
from nacre.models.transfer import Transfer
from nacre.models.vae import VAE

DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """x = A z + .5, z standard normal."""

    def __init__(self, latent_dim=5, size=12, classes=0):
        super().__init__()
        self.shape, self.latent_dim, self.classes = (size,), latent_dim, classes
        self.code_dim = latent_dim + classes
        self.prior = {"z": seeds.normal(latent_dim)} | ({"label": seeds.category(classes)} if classes else {})
        self.layer = nn.Linear(self.code_dim, size)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(size, self.code_dim, generator=generator()))
            self.layer.bias.fill_(0.5)

    def decode(self, z):
        return self.layer(z)

    def sample(self, noise):
        return self.decode(latents.with_labels(self, noise["z"], noise.get("label")))


class Ravine(nn.Module):
    """Items that bend with the latent, and a judge."""

    shape, latent_dim = (1, 8, 8), 6

    def __init__(self):
        super().__init__()
        self.prior = {"z": seeds.normal(6)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.make = nn.Sequential(
                nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8))
            )
            self.judge = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.LeakyReLU(), nn.Flatten(), nn.Linear(72, 1))

    def decode(self, z):
        return self.make(z)

    def sample(self, noise):
        return self.decode(noise["z"])

    def realness(self, x):
        return self.judge(x).squeeze(1)


@pytest.fixture(scope="module")
def ravine():
    return Ravine()


# Minimising row by row.


def rosenbrock(x, rows=None):
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


def test_lbfgs_finds_the_minimum_of_quadratics_of_any_scale():
    count, dim = 4, 8
    roots = torch.randn(count, dim, dim, dtype=DOUBLE, generator=generator())
    curves = (
        torch.einsum("nij,nkj->nik", roots, roots) * torch.tensor([1e-4, 1.0, 1e2, 1e6], dtype=DOUBLE)[:, None, None]
    )
    curves = curves + 0.1 * curves.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(dim, dtype=DOUBLE)
    wanted = torch.randn(count, dim, dtype=DOUBLE, generator=generator(1))

    def loss(x, rows):
        apart = x - wanted[rows]
        return torch.einsum("ni,nij,nj->n", apart, curves[rows], apart) / 2

    found = optimise.lbfgs(loss, torch.zeros(count, dim, dtype=DOUBLE), steps=200)
    assert torch.allclose(found.points, wanted, atol=1e-6)
    assert found.settled.all()


def test_lbfgs_is_as_quick_as_others_on_rosenbrock():
    start = 1.5 * torch.randn(3, 10, dtype=DOUBLE, generator=generator())
    found = optimise.lbfgs(rosenbrock, start, steps=120, tolerance=0)
    assert torch.allclose(found.points, torch.ones_like(start), atol=1e-6)
    for row, value in zip(start, found.losses, strict=True):
        settings = {"maxiter": 120, "ftol": 0, "gtol": 1e-9}
        theirs = optimize.minimize(
            optimize.rosen, row.numpy(), jac=optimize.rosen_der, method="L-BFGS-B", options=settings
        )
        assert value.item() < 1e-12
        assert theirs.fun < 1e-8


def test_lbfgs_meets_torch_from_where_both_are_alone():
    start = torch.tensor([[-1.2, 1.0, 0.5]], dtype=DOUBLE)
    point = start.clone().requires_grad_()
    other = torch.optim.LBFGS(
        [point], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10, tolerance_change=0
    )

    def closure():
        other.zero_grad()
        loss = rosenbrock(point).sum()
        torch.autograd.backward(loss)
        return loss

    other.step(closure)
    found = optimise.lbfgs(rosenbrock, start, steps=200, tolerance=0)
    assert torch.allclose(found.points, point.detach(), atol=1e-6)


@pytest.mark.parametrize("method", ["adam", "lbfgs"])
def test_a_row_goes_its_own_way(method):
    minimise = getattr(optimise, method)
    start = torch.randn(5, 6, dtype=DOUBLE, generator=generator(2))
    start[3] *= 50
    together = minimise(rosenbrock, start, steps=40)
    alone = [minimise(rosenbrock, row[None], steps=40) for row in start]
    assert torch.equal(together.points, torch.cat([each.points for each in alone]))
    assert torch.equal(together.settled, torch.cat([each.settled for each in alone]))


def test_a_row_that_runs_out_of_steps_has_not_settled():
    start = 1.5 * torch.randn(2, 10, dtype=DOUBLE, generator=generator())
    assert not optimise.lbfgs(rosenbrock, start, steps=5).settled.any()


def test_a_loss_that_breaks_off_is_not_stepped_over():
    def loss(x, rows):
        return torch.where(x[:, 0] > 1, torch.nan, (x - 3).square().sum(1))

    found = optimise.lbfgs(loss, torch.zeros(1, 2, dtype=DOUBLE), steps=50)
    assert found.losses.isfinite().all()
    assert found.points[0, 0] <= 1
    assert not optimise.lbfgs(loss, 2 * torch.ones(1, 2, dtype=DOUBLE), steps=5).settled.any()


# Walks.


def test_slerp_stays_on_the_sphere_and_meets_its_ends():
    start, end = 7 * torch.nn.functional.normalize(torch.randn(2, 20, 9, generator=generator()), dim=2)
    share = torch.linspace(0, 1, 11)[:, None]
    way = editing.slerp(start, end, share)
    assert torch.allclose(way.norm(dim=2), torch.full((11, 20), 7.0), atol=1e-5)
    assert torch.equal(way[0], start)
    assert torch.equal(way[-1], end)
    turned = torch.nn.functional.cosine_similarity(way[1:], way[:-1], dim=2).clamp(max=1).acos()
    assert torch.allclose(turned, turned[:1].expand_as(turned), atol=2e-3)


def test_slerp_between_unequal_opposite_equal_and_zero():
    a = torch.tensor([3.0, 0.0, 0.0])
    half = torch.tensor(0.5)
    assert torch.allclose(editing.slerp(a, torch.tensor([0.0, 1.0, 0.0]), half), torch.tensor([2**0.5, 2**0.5, 0.0]))
    assert editing.slerp(a, -a, half).norm() == pytest.approx(3)
    assert torch.allclose(editing.slerp(a, a, half), a)
    assert torch.allclose(editing.slerp(a, 0 * a, half), a / 2)


def test_a_walk_is_spherical_for_a_normal_prior_and_straight_for_codes():
    stops = torch.randn(3, 8, generator=generator())
    gan, ae = GAN((1, 8, 8), latent_dim=8), AE((1, 8, 8), latent_dim=8)
    way, straight = editing.walk(gan, stops, 5), editing.walk(ae, stops, 5)
    assert way.shape == (2, 5, 8)
    assert torch.equal(way[0, 0], stops[0])
    assert torch.equal(way[1, -1], stops[2])
    assert torch.allclose(straight[0, 2], (stops[0] + stops[1]) / 2)
    assert way[0, 2].norm() > 1.1 * straight[0, 2].norm()
    assert editing.walk(gan, stops, 5, closed=True).shape == (3, 5, 8)
    with pytest.raises(ConfigError):
        editing.walk(gan, stops[:1], 5)


# Latents of models.


def test_which_latents_are_normal():
    shape = (1, 16, 16)
    assert latents.is_normal(VAE(shape))
    assert latents.is_normal(GAN(shape, classes=3))
    assert not latents.is_normal(AE(shape))
    assert not latents.is_normal(LVAE(shape))
    assert latents.is_normal(IWAE(shape, upper_dims=()))
    assert not latents.is_normal(IWAE(shape, latent_dim=6, upper_dims=(3,)))


@pytest.mark.parametrize(
    "model", [GAN((1, 8, 8)), GAN((1, 8, 8), classes=3), VAE((1, 8, 8), classes=2)], ids=["gan", "classes", "vae"]
)
def test_numbered_codes_decode_to_the_samples_of_these_numbers(model):
    samples = sampling.sample(model, 80, seed=3)
    codes = editing.numbered_codes(model, [70, 2, 33], seed=3)
    assert torch.allclose(latents.decode(model, codes), samples[[70, 2, 33]], atol=1e-6)
    assert torch.equal(editing.random_codes(model, 5, seed=3)[2], codes[1])


def test_labels_are_put_into_codes_and_checked():
    model = GAN((1, 8, 8), latent_dim=4, classes=3)
    codes = editing.random_codes(model, 2, labels=torch.tensor([2, 0]))
    assert codes[:, 4:].tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(ConfigError):
        editing.random_codes(model, 1, labels=torch.tensor([3]))
    with pytest.raises(ConfigError):
        editing.random_codes(GAN((1, 8, 8)), 1, labels=torch.tensor([0]))


def test_an_autoencoder_has_nothing_to_draw_from():
    with pytest.raises(CapabilityError, match="no prior"):
        editing.random_codes(AE((1, 8, 8)), 2)


# Inversion.


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_inversion_recovers_the_latents_of_a_linear_decoder(dtype):
    model = Linear().to(dtype)
    codes = torch.randn(7, 5, generator=generator(1)).to(dtype)
    found = editing.invert(model, latents.decode(model, codes), editing.Search(prior_weight=0.0))
    assert torch.allclose(found.codes, codes, atol=1e-4)
    assert found.converged.all()
    assert (found.searches == 1).all()
    assert (found.residual < 1e-8).all()


def test_the_prior_shrinks_by_the_closed_form():
    """argmin ‖A z + b - x‖²/P + w ‖z‖²/D is a ridge regression."""
    model = Linear().to(DOUBLE)
    item = latents.decode(model, torch.randn(1, 5, generator=generator(1), dtype=DOUBLE))
    weight, size, dim = 0.3, 12, 5
    matrix = model.layer.weight.detach()
    ridge = matrix.T @ matrix / size + weight / dim * torch.eye(dim, dtype=DOUBLE)
    wanted = torch.linalg.solve(ridge, matrix.T @ (item[0] - 0.5) / size)
    found = editing.invert(model, item, editing.Search(prior_weight=weight, restarts=1))
    assert torch.allclose(found.codes[0], wanted, atol=1e-5)


def test_an_image_out_of_reach_is_reported():
    model = Linear()
    matrix = model.layer.weight.detach()
    beyond = torch.linalg.qr(matrix, mode="complete").Q[:, -1]
    within = latents.decode(model, torch.randn(1, 5, generator=generator()))
    found = editing.invert(model, torch.cat([within, within + 3 * beyond]), editing.Search(prior_weight=0.0))
    assert found.converged.tolist() == [True, False]
    assert found.settled.tolist() == [True, True]
    assert found.searches.tolist() == [1, 4]
    assert found.residual[1].item() == pytest.approx(9 / 12, rel=1e-3)
    assert torch.allclose(found.remade[1], within[0], atol=1e-2)


def test_a_search_that_was_cut_short_says_so(ravine):
    item = torch.rand(1, 1, 8, 8, generator=generator())
    found = editing.invert(ravine, item, editing.Search(restarts=1, adam_steps=2, lbfgs_steps=2))
    assert not found.settled.any()
    assert not found.converged.any()


def test_samples_are_found_again_with_the_help_of_the_judge(ravine):
    codes = editing.random_codes(ravine, 6, seed=5)
    found = editing.invert(ravine, latents.decode(ravine, codes))
    assert found.converged.all()
    assert (found.residual < 1e-4).all()


def test_an_inversion_does_not_depend_on_its_companions(ravine):
    reachable = latents.decode(ravine, editing.random_codes(ravine, 3, seed=5))
    noise = torch.rand(4, 1, 8, 8, generator=generator())
    items = torch.cat([reachable, noise])
    search = editing.Search(restarts=2, adam_steps=40, lbfgs_steps=60)
    together = editing.invert(ravine, items, search)
    for chunk in (1, 3):
        apart = editing.invert(ravine, items.flip(0), search, chunk=chunk)
        assert torch.allclose(together.codes, apart.codes.flip(0), atol=1e-4)
        assert torch.equal(together.searches, apart.searches.flip(0))


def test_convolutions_need_no_double_precision():
    torch.manual_seed(0)
    model = GAN((1, 16, 16), latent_dim=8, width=8)
    items = torch.rand(5, 1, 16, 16, generator=generator())
    search = editing.Search(restarts=1, adam_steps=30, lbfgs_steps=30)
    together = editing.invert(model, items, search)
    apart = editing.invert(model, items.flip(0), search, chunk=2)
    assert torch.allclose(together.codes, apart.codes.flip(0), atol=1e-4)


def test_the_label_is_found_with_the_latent_or_given():
    model = Linear(latent_dim=3, size=14, classes=4)
    codes = editing.random_codes(model, 6, seed=2)
    items = latents.decode(model, codes)
    found = editing.invert(model, items, editing.Search(prior_weight=0.0, restarts=32))
    assert torch.equal(found.codes[:, 3:], codes[:, 3:])
    wrong = (codes[:, 3:].argmax(1) + 1) % 4
    forced = editing.invert(model, items, labels=wrong)
    assert torch.equal(forced.codes[:, 3:].argmax(1), wrong)
    with pytest.raises(ConfigError):
        editing.invert(model, items, labels=wrong + 4)


def test_a_trained_encoder_is_a_better_start(ravine):
    told = []
    start = editing.train_encoder(ravine, steps=100, batch_size=32, tell=told.append)
    codes = editing.random_codes(ravine, 32, seed=9)
    guess = start(latents.decode(ravine, codes))
    assert (guess - codes).square().mean() < 0.7
    assert len(told) == 100
    found = editing.invert(ravine, latents.decode(ravine, codes[:4]), editing.Search(restarts=1), start=start)
    assert found.converged.all()


def test_find_encodes_where_it_can():
    model = VAE((1, 8, 8), latent_dim=3).eval()
    items = torch.rand(5, 1, 8, 8, generator=generator())
    found = editing.find(model, items, chunk=2)
    with torch.no_grad():
        assert torch.allclose(found.codes, model.encode(items), atol=1e-6)
    assert (found.searches == 0).all()
    assert torch.allclose(found.residual, (found.remade - items).square().flatten(1).mean(1))
    refined = editing.invert(model, items, editing.Search(restarts=2, adam_steps=20, lbfgs_steps=20))
    assert (refined.residual <= found.residual + 1e-6).all()


def test_what_cannot_be_inverted_says_what_is_lacking():
    with pytest.raises(CapabilityError, match="does not decode"):
        editing.invert(Transfer((1, 16, 16), classes=2), torch.rand(1, 1, 16, 16))
    with pytest.raises(ShapeError, match="resize"):
        editing.invert(GAN((1, 8, 8)), torch.rand(1, 1, 9, 9))
    with pytest.raises(ConfigError):
        editing.Search(restarts=0)


def test_the_judge_is_seen_layer_by_layer(ravine):
    x = torch.rand(3, 1, 8, 8, generator=generator())
    see = perception.sight(ravine)
    (seen,) = see(x)
    assert torch.equal(seen, ravine.judge[:3](x))
    assert perception.difference([seen], [seen]).tolist() == [0, 0, 0]
    assert torch.allclose(perception.difference([2 * seen], [seen]), torch.ones(3))
    assert perception.sight(VAE((1, 8, 8))) is None
    packed = perception.sight(GAN((1, 16, 16), pack=2).eval())
    assert all(len(layer) == 3 for layer in packed(torch.rand(3, 1, 16, 16)))


# Arithmetic and directions.


def test_arithmetic_with_equal_letters_is_the_identity():
    model = GAN((1, 8, 8), latent_dim=4)
    codes, other = editing.random_codes(model, 3), editing.random_codes(model, 5, seed=1)
    moved = editing.move(model, codes, editing.direction(model, other, other), torch.tensor([0.0, 1.0, -2.0]))
    assert torch.equal(moved.codes, codes[:, None].expand(-1, 3, -1))
    assert torch.equal(moved.items[:, 1], moved.items[:, 0])


def test_arithmetic_is_c_minus_a_plus_b():
    model = Linear()
    a, b, c = (editing.random_codes(model, 3, seed=seed) for seed in range(3))
    moved = editing.move(model, c, editing.direction(model, b, a), torch.tensor([1.0, 0.5]))
    assert torch.allclose(moved.codes[:, 0], c - a.mean(0) + b.mean(0), atol=1e-6)
    assert torch.allclose(moved.items[:, 1], model.decode(c + (b.mean(0) - a.mean(0)) / 2), atol=1e-5)


def test_arithmetic_leaves_labels_alone():
    model = GAN((1, 8, 8), latent_dim=4, classes=3)
    codes = [editing.random_codes(model, 2, labels=torch.full((2,), label)) for label in range(3)]
    moved = editing.move(model, codes[0], editing.direction(model, codes[1], codes[2]), torch.tensor([1.5]))
    assert torch.equal(moved.codes[:, 0, 4:], codes[0][:, 4:])
    around = editing.neighbours(model, codes[0][0])
    assert torch.equal(around[:, 4:], codes[0][:1, 4:].expand(8, -1))


def test_arithmetic_that_keeps_what_the_model_loses():
    model, sharp = VAE((1, 8, 8), latent_dim=2, hidden=(8,)).eval(), torch.rand(3, 1, 8, 8, generator=generator())
    codes, way = model.encode(sharp), torch.tensor([1.0, -1.0])
    kept = editing.move(model, codes, way, torch.tensor([0.0, 2.0]), originals=sharp).items
    assert torch.allclose(kept[:, 0], sharp, atol=1e-6)
    changed = model.decode(codes + 2 * way) - model.decode(codes)
    assert torch.allclose(kept[:, 1], (sharp + changed).clamp(0, 1), atol=1e-6)
    assert 0 <= kept.min() <= kept.max() <= 1
    points = Linear()
    given = torch.full((3, *points.shape), 5.0)
    codes = editing.random_codes(points, 3)
    kept = editing.move(points, codes, torch.ones(5), torch.ones(1), originals=given).items[:, 0]
    assert torch.allclose(kept, given + points.decode(codes + 1) - points.decode(codes), atol=1e-5)
    with pytest.raises(ShapeError, match="one a code"):
        editing.move(points, codes, torch.ones(5), torch.ones(1), originals=given[:1])


def test_neighbours_lie_within_a_quarter():
    model = Linear(latent_dim=200)
    code = editing.random_codes(model, 1)[0]
    around = editing.neighbours(model, code) - code
    assert around.shape == (8, 200)
    assert 0.24 < around.abs().max() <= 0.25
    assert around.std().item() == pytest.approx(0.25 / math.sqrt(3), rel=0.05)


def test_arithmetic_refuses_codes_of_another_space():
    model = Linear()
    with pytest.raises(ShapeError):
        editing.direction(model, torch.zeros(2, 5), torch.zeros(0, 5))
    with pytest.raises(ShapeError):
        editing.move(model, torch.zeros(2, 5), torch.zeros(4), torch.ones(1))


def test_principal_directions_are_those_of_pca():
    decomposition = pytest.importorskip("sklearn.decomposition")
    codes = torch.randn(200, 6, dtype=DOUBLE, generator=generator()) * torch.tensor(
        [5.0, 3.0, 2.0, 1.0, 0.5, 0.1], dtype=DOUBLE
    )
    ways, shares = editing.principal(codes, 3)
    theirs = decomposition.PCA(3).fit(codes.numpy())
    unit = upright(torch.from_numpy(theirs.components_))
    assert torch.allclose(ways, unit * torch.from_numpy(theirs.explained_variance_).sqrt()[:, None], atol=1e-9)
    assert np.allclose(shares, theirs.explained_variance_ratio_)
    with pytest.raises(ConfigError):
        editing.principal(codes[:3], 3)


def test_factorized_directions_move_the_first_layer_most():
    model = Linear(latent_dim=5, size=40, classes=2)
    ways, shares = editing.factorized(model, 5)
    weights = model.layer.weight.detach()[:, :5]
    assert torch.allclose((weights @ ways[:, :5].T).norm(dim=0), torch.linalg.svdvals(weights), atol=1e-5)
    assert (ways[:, 5:] == 0).all()
    assert shares.sum().item() == pytest.approx(1)
    assert (shares[:-1] >= shares[1:]).all()


def test_the_first_layer_of_a_convolutional_generator():
    model = GAN((1, 16, 16), latent_dim=6, norm="none").eval()
    ways, shares = editing.factorized(model, 6)
    first = next(layer for layer in model.generator if isinstance(layer, nn.ConvTranspose2d))
    with torch.no_grad():
        out = first(ways.view(6, 6, 1, 1)) - first(torch.zeros(1, 6, 1, 1))
    energy = out.flatten(1).square().sum(1)
    assert torch.allclose(energy / energy.sum(), shares, atol=1e-5)


def test_a_ladder_has_no_single_first_layer():
    with pytest.raises(CapabilityError, match="first layer"):
        editing.factorized(LVAE((1, 16, 16)), 2)


def test_directions_are_kept_and_read_back(tmp_path):
    way = editing.Direction(torch.randn(5, generator=generator()), {"kind": "mean difference", "plus": ["smile"]})
    way.save(tmp_path / "smile.safetensors")
    back = editing.Direction.load(tmp_path / "smile.safetensors")
    assert torch.equal(back.vector, way.vector)
    assert back.facts == way.facts
    back.check(Linear())
    with pytest.raises(ConfigError, match="another model"):
        back.check(Linear(latent_dim=4))


def test_what_is_no_direction_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"direction": torch.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    for name in ("other", "broken"):
        with pytest.raises(CheckpointError):
            editing.Direction.load(tmp_path / f"{name}.safetensors")
    with pytest.raises(ConfigError, match=r"there is no direction at .*missing.safetensors"):
        editing.Direction.load(tmp_path / "missing.safetensors")


def test_the_promised_names_are_there():
    assert all(callable(getattr(editing, name)) for name in editing.__all__)
    assert "slerp" in dir(editing)
    with pytest.raises(AttributeError):
        _ = editing.nothing
