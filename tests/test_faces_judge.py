"""The judge of generated faces, and what is read off a BEGAN's log, against closed forms."""

import pytest
import torch


@pytest.fixture(scope="module")
def faces(script):
    return script("faces")


@pytest.fixture(scope="module")
def began(script):
    return script("began")


def exact(count, variances, seed=0):
    """Points whose sample mean is 0 and whose sample covariance is diagonal with these variances, to rounding."""
    points = torch.randn(count, len(variances), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    white = torch.linalg.qr(points - points.mean(0)).Q * (count - 1) ** 0.5
    return white * torch.tensor(variances, dtype=torch.float64).sqrt()


def test_frechet_of_a_set_and_itself_is_zero(faces):
    points = exact(100, [1.0, 4.0, 0.01])
    assert faces.frechet(points, points) == pytest.approx(0, abs=1e-10)


def test_frechet_of_a_shift_is_its_squared_length(faces):
    points = exact(100, [1.0, 4.0, 0.01])
    assert faces.frechet(points + torch.tensor([3.0, 0.0, 4.0]), points) == pytest.approx(25)


def test_frechet_of_diagonal_gaussians(faces):
    """Σ (σ_a - σ_b)²."""
    a, b = exact(80, [1.0, 9.0]), exact(120, [4.0, 16.0], seed=1)
    assert faces.frechet(a, b) == pytest.approx((1 - 2) ** 2 + (3 - 4) ** 2)


def test_frechet_does_not_depend_on_the_axes(faces):
    a, b = exact(80, [1.0, 9.0, 2.0]), exact(120, [4.0, 1.0, 3.0], seed=1)
    turn = torch.linalg.qr(exact(3, [1.0, 1.0, 1.0], seed=2) + torch.eye(3)).Q
    assert faces.frechet(a @ turn, b @ turn) == pytest.approx(faces.frechet(a, b))


def test_two_points_are_apart_by_their_distance(faces):
    assert faces.apart(torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]]])) == pytest.approx(5)


def test_the_network_is_the_same_each_time(faces):
    one, other = (faces.random_network()(torch.ones(1, 1, 64, 64)) for _ in range(2))
    assert torch.equal(one, other)
    assert one.shape == (1, 256)


def test_worse_faces_score_worse(faces, monkeypatch):
    monkeypatch.setattr(faces, "JUDGED", 150)
    monkeypatch.setattr(faces, "PAIRED", 60)
    blobs = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(blobs, size=64, mode="bilinear")
    judge = faces.Judge(images)
    same, collapsed = judge(images[150:]), judge(images[:1].expand(150, -1, -1, -1))
    assert same["frechet"] == pytest.approx(judge.floor)
    assert collapsed["frechet"] > 10 * judge.floor
    assert same["diversity_pixels"] == pytest.approx(1, abs=0.05)
    assert collapsed["diversity_pixels"] == collapsed["diversity_features"] == 0


def test_balance_is_read_off_the_last_steps(began):
    def line(step, real, fake, k, measure):
        names = {"real": real, "fake": fake, "k": k, "m_global": measure}
        return {"step": step, "losses": {f"discriminator/{name}": value for name, value in names.items()}}

    first = [line(500, 9, 9, 0, 9), {"step": 1000}, line(1000, 1, 1, 0, 0.4), line(1500, 8, 8, 0, 8)]
    last = [line(500, 9, 9, 0, 9), line(900, 0.1, 0.05, 0.2, 0.1), {"step": 900}, line(1000, 0.3, 0.13, 0.4, 0.3)]
    found = began.balance(first, last, gamma=0.5)
    assert found["ratio"] == pytest.approx(0.18 / 0.4)
    assert found["ratio_over_gamma"] == pytest.approx(0.9)
    assert (found["k_mean"], found["k_least"], found["k_most"]) == pytest.approx((0.3, 0.2, 0.4))
    assert found["measure_over_step_1000"] == pytest.approx(0.2 / 0.4)
