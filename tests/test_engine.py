"""The engine: averages, accumulation, clipping, turns, the ledger, layouts."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW

from nacre import images, seeds
from nacre.data.stream import Stream
from nacre.engine.adam import fast
from nacre.engine.average import Average
from nacre.engine.ledger import Ledger
from nacre.engine.settings import Training
from nacre.engine.update import Update, in_motion, lengths
from nacre.errors import ConfigError, DataError, TrainingError
from nacre.models.gan import GAN
from nacre.models.lvae import LVAE
from nacre.models.vae import VAE
from nacre.models.wgan_gp import WGANGP
from nacre.protocols import ALWAYS, Objective


class Line(nn.Module):
    """y = w x, by least squares to 2 x."""

    def __init__(self, optimizer=partial(SGD, lr=0.1), when=ALWAYS, after=None):
        super().__init__()
        self.part = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.part.weight)
        self.row = Objective(name="fit", loss=self.loss, over=("part",), optimizer=optimizer, when=when, after=after)

    def objectives(self):
        return [self.row]

    def loss(self, x, step):
        error = (self.part(x) - 2 * x).square().mean()
        return error, {"index": step.index.float()}


def update_of(model, **training):
    return Update(model, model.objectives()[0], Training(**{"steps": 10, "batch_size": 4, **training}))


def test_one_step_is_gradient_descent():
    model, x = Line(), torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    logs = update_of(model)(3, x)
    assert model.part.weight.item() == pytest.approx(0.1 * 2 * 2 * x.square().mean().item())
    assert logs["loss"].item() == pytest.approx(4 * x.square().mean().item())
    assert logs["index"].item() == 3


@pytest.mark.parametrize(
    "optimizer",
    [
        partial(Adam, lr=0.01, betas=(0.5, 0.9)),
        partial(AdamW, lr=0.01, weight_decay=0.1),
        partial(Adam, lr=0.01, amsgrad=True),
        partial(Adam, lr=0.01, maximize=True, eps=1e-4),
    ],
)
def test_adam_is_torchs(optimizer):
    torch.manual_seed(0)
    mine, theirs = (nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3, 2)) for _ in range(2))
    theirs.load_state_dict(mine.state_dict())
    ours = optimizer(mine.parameters())
    step, reference = fast(ours), optimizer(theirs.parameters(), foreach=False, fused=False)
    for turn in range(8):
        if turn == 4:  # a state that is loaded is taken up
            ours.load_state_dict(copy.deepcopy(ours.state_dict()))
        for group in (*ours.param_groups, *reference.param_groups):
            group["lr"] = 0.01 / (turn + 1)
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        step()
        reference.step()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert {float(state["step"]) for state in ours.state.values()} == {8.0}


def stale(optimizer, turns, again=None):
    """A weight that gets a gradient every time beside one that gets no more after the first; where it stands at the end."""
    weights = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    descent = optimizer([weights])
    step = fast(descent) if again is not None else descent.step
    for turn in range(turns):
        if turn == again:
            descent.load_state_dict(copy.deepcopy(descent.state_dict()))
        weights.grad = torch.tensor([0.1 * (-1) ** turn, float(turn == 0)])
        step()
    return weights.detach(), descent.state[weights]


def test_moments_that_no_longer_count_are_zero_and_no_weight_moves_for_it():
    """Else they are subnormal after some 850 steps, and slow."""
    adam = partial(Adam, lr=0.01)
    (plain, slow), (ours, quick) = stale(partial(adam, fused=False, foreach=False), 2000), stale(adam, 2000, again=-1)
    smallest = torch.finfo(torch.float32).tiny
    assert 0 < slow["exp_avg"][1] < smallest
    assert quick["exp_avg"][1] == 0
    assert quick["exp_avg"][0] != 0
    assert quick["exp_avg_sq"][1] > 0
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("again", [3, 64, 100, 200, 383])
def test_moments_vanish_at_the_same_steps_in_a_run_that_was_stopped(again):
    (whole, one), (parts, other) = (stale(partial(Adam, lr=0.01), 400, again=at) for at in (-1, again))
    assert torch.equal(whole, parts)
    assert all(torch.equal(one[name], other[name]) for name in ("exp_avg", "exp_avg_sq", "step"))


def test_an_epsilon_that_moments_are_beside_nothing_of_keeps_them():
    assert stale(partial(Adam, lr=0.01, eps=1e-20), 600, again=-1)[1]["exp_avg"][1] > 0


def test_micro_batches_give_the_same_step():
    x = torch.randn(4, 1)
    weights = []
    for accumulate in (1, 2, 4):
        model = Line()
        update_of(model, accumulate=accumulate)(0, x)
        weights.append(model.part.weight.item())
    assert weights == pytest.approx([weights[0]] * 3, rel=1e-6)


def test_clipping_bounds_the_step():
    model = Line()
    update_of(model, clip=0.5)(0, torch.full((4, 1), 100.0))
    assert model.part.weight.item() == pytest.approx(0.1 * 0.5, rel=1e-4)


def test_learning_rate_is_a_function_of_the_step():
    model = Line(partial(Adam, lr=1.0))
    update = update_of(model, lr=0.2, lr_schedule="linear", warmup=2)
    seen = []
    for step in (9, 0, 1, 2, 6):
        update.set_rates(step)
        seen.append(update.optimizer.param_groups[0]["lr"])
    assert seen == pytest.approx([0.2 / 8, 0.1, 0.2, 0.2, 0.1])


def test_after_receives_the_logged_parts():
    seen = []
    model = Line(after=lambda logs: seen.append(sorted(logs)))
    update_of(model)(0, torch.ones(4, 1))
    assert seen == [["index", "loss"]]


def test_lengths_count_the_turns():
    model = WGANGP((2,), hidden=(4,), n_critic=5)
    training = Training(steps=100, batch_size=4)
    updates = [Update(model, objective, training) for objective in model.objectives()]
    for steps in (0, 4, 5, 9, 10, 100):
        expected = {o.name: sum(step in o.when for step in range(steps)) for o in model.objectives()}
        assert lengths(updates, steps) == expected


def test_a_part_that_is_not_there_is_named():
    model = Line()
    objective = Objective(name="fit", loss=model.loss, over=("generator",))
    with pytest.raises(ConfigError, match="is over 'generator', which the model does not have; its parts are: part"):
        Update(model, objective, Training(steps=1, batch_size=4))


def test_fused_adam_on_channels_last_equals_plain_adam_on_contiguous():
    """Fused optimizers on a CPU ignore strides; a gradient laid out otherwise would move wrong weights."""

    class Conv(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Conv2d(3, 8, 3)

        def objectives(self):
            return [Objective(name="fit", loss=self.loss, over=("part",), optimizer=partial(Adam, lr=0.01))]

        def loss(self, x, step):
            # A gradient that is contiguous whatever the weight's layout.
            return self.part(x).square().mean() + (self.part.weight.contiguous().flatten() ** 3).sum(), {}

    torch.manual_seed(0)
    plain = Conv()
    fused = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    x = torch.randn(4, 3, 9, 9)
    reference = Adam(plain.parameters(), lr=0.01, foreach=False, fused=False)
    update = Update(fused, fused.objectives()[0], Training(steps=3, batch_size=4))
    assert update.optimizer.param_groups[0]["fused"]
    for step in range(3):
        reference.zero_grad()
        plain.loss(x, None)[0].backward()
        reference.step()
        update(step, x)
    torch.testing.assert_close(fused.part.weight, plain.part.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model_class", [VAE, GAN, WGANGP, LVAE])
def test_bf16_keeps_weights_losses_and_parts_in_float32(model_class):
    model = model_class((6,))
    for update in in_motion(model, Training(steps=10, batch_size=8, precision="bf16")):
        _, logs = update.accumulated(0, torch.randn(8, 6))
        assert {name: part.dtype for name, part in logs.items()} == dict.fromkeys(logs, torch.float32)
        update(0, torch.randn(8, 6))
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("part", [{}, {"shown": torch.zeros(())}])
def test_an_objective_that_does_not_hand_on_what_it_says_is_told_so(part):
    model = Line()
    objective = Objective(
        name="only", loss=lambda x, step: (model.part(x).mean(), part), over=("part",), hands=("shown",)
    )
    with pytest.raises(ConfigError, match="says that it hands on 'shown'"):
        Update(model, objective, Training(steps=1, batch_size=4))(0, torch.randn(4, 1))


def test_average_follows_weights_and_batch_norm_statistics():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average, expected = Average(model, 0.5), copy.deepcopy(model.state_dict())
    for step in range(4):
        with torch.no_grad():
            model[0].weight.add_(torch.randn(3, 2))
        model(torch.randn(8, 2))
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            floating = value.is_floating_point()
            expected[name] = decay * expected[name] + (1 - decay) * value if floating else value.clone()
    for name, value in average.model.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert average.model[1].num_batches_tracked.item() == 4


def test_no_average_is_the_model_itself():
    model = nn.Linear(1, 1)
    assert Average(model, 0).model is model


def test_ledger_means_do_not_depend_on_when_they_are_read():
    values = torch.randn(50).tolist()
    eager, lazy = Ledger(), Ledger()
    for step, value in enumerate(values):
        for ledger in (eager, lazy):
            ledger.add("a", step, {"loss": torch.tensor(value)})
        if step % 7 == 0:
            eager.read()
    assert eager.means() == lazy.means()
    assert lazy.means() == {}


def test_ledger_goes_on_after_a_restart():
    whole, first, second = Ledger(), Ledger(), Ledger()
    for step in range(9):
        logs = {"loss": torch.tensor(step / 7)}
        whole.add("a", step, logs)
        (first if step < 5 else second).add("a", step, logs)
        if step == 4:
            second.load_state_dict(first.state_dict())
    assert second.means() == whole.means()


def test_parts_that_come_in_another_order_keep_their_names():
    ledger = Ledger()
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    for step, logs in enumerate(({"a": one, "b": two}, {"b": two, "a": one}, {"a": one})):
        ledger.add("fit", step, logs)
    assert ledger.means() == {"fit/a": 1.0, "fit/b": 2.0}


def test_ledger_names_the_first_step_that_is_no_number():
    ledger = Ledger()
    for step in range(6):
        ledger.add("critic", step, {"loss": torch.tensor(1.0), "gap": torch.tensor(float("nan") if step > 3 else 0.0)})
    with pytest.raises(TrainingError, match="'gap' of objective 'critic' became nan at step 4"):
        ledger.read()


def test_ledger_names_who_failed_first_and_not_who_stands_first():
    ledger = Ledger()
    for step in range(10):
        ledger.add("judge", step, {"loss": torch.tensor(1.0 if step < 8 else torch.nan)})
        ledger.add("maker", step, {"loss": torch.tensor(1.0 if step < 3 else torch.nan)})
    with pytest.raises(TrainingError, match="objective 'maker' became nan at step 3"):
        ledger.read()


def test_stream_visits_everything_once_an_epoch_without_a_gap():
    items = np.arange(30, dtype=np.float32)[:, None]
    stream = Stream(items, np.arange(3, 28), 4, seed=1)
    seen = np.concatenate([stream.batch(step).numpy().ravel() for step in range(25)])
    for epoch in range(4):
        assert sorted(seen[25 * epoch : 25 * (epoch + 1)]) == list(range(3, 28))
    assert list(seen[:25]) != list(seen[25:50])


def test_stream_is_a_function_of_the_step():
    items = seeds.noise(seeds.normal(1, 4, 4), "items", rows=range(40)).mul(50).byte().numpy()
    first = Stream(items, np.arange(40), 8, seed=2, mirror=True)
    second = Stream(items, np.arange(40), 8, seed=2, mirror=True)
    forwards = [first.batch(step) for step in range(12)]
    assert all(torch.equal(second.batch(step), forwards[step]) for step in reversed(range(12)))


def test_stream_mirrors_half_and_changes_nothing_else():
    items = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4).expand(200, 1, 4, 4).contiguous().numpy()
    batch = Stream(items, np.arange(200), 200, mirror=True).batch(0)
    original = torch.from_numpy(items[0])
    flipped = sum(torch.equal(image, original.flip(-1)) for image in batch)
    kept = sum(torch.equal(image, original) for image in batch)
    assert flipped + kept == 200
    assert 70 < flipped < 130


def test_stream_reads_memory_mapped_items_as_it_reads_others(tmp_path):
    items = images.to_uint8(torch.rand(20, 1, 3, 3)).numpy()
    np.save(tmp_path / "items.npy", items)
    mapped = np.load(tmp_path / "items.npy", mmap_mode="r")
    for step in range(5):
        a, b = (Stream(source, np.arange(20), 6, seed=4).batch(step) for source in (items, mapped))
        assert torch.equal(a, b)


def test_a_source_smaller_than_a_batch_is_one_sentence():
    with pytest.raises(DataError, match="a batch takes 8 items and there are 5 to train on"):
        Stream(np.zeros((5, 2), np.float32), np.arange(5), 8)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 0}, "--steps must be greater than 0"),
        ({"lr": -1.0}, "--lr must be greater than 0"),
        ({"ema": 1.0}, r"--ema must be in \[0, 1\)"),
        ({"seed": -1}, "--seed must be from 0"),
        ({"steps": 5, "epochs": 2.0}, "not both"),
        ({"batch_size": 10, "accumulate": 3}, "does not divide"),
        ({"lr": float("nan")}, "--lr must be greater than 0"),
    ],
)
def test_settings_that_cannot_be_meant(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Training(**settings)


def hot_path(device):
    """A function that plays some steps without a report, and the ledger that they went into."""
    model = WGANGP((2,), hidden=(8,), n_critic=2).to(device).train()
    training = Training(steps=10, batch_size=4, clip=1.0)
    updates = [Update(model, objective, training) for objective in model.objectives()]
    average, ledger = Average(model, 0.9), Ledger()
    items = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    stream = Stream(items, np.arange(20), 4, device=device)

    def steps(numbers):
        for step in numbers:
            batch = stream.batch(step)
            for update in updates:
                if step in update.objective.when:
                    ledger.add(update.objective.name, step, update(step, batch))
            average.update(step)

    steps(range(2))  # optimizers set up their state
    return steps, ledger


def test_the_hot_path_asks_the_device_nothing(monkeypatch):
    """No .item(), .cpu(), .tolist() or bool(tensor) between two reports."""
    steps, ledger = hot_path("cpu")

    def forbidden(self, *arguments, **keywords):
        raise AssertionError("the hot path asked the device")

    with monkeypatch.context() as patch:
        for name in ("item", "cpu", "tolist", "__bool__", "numpy"):
            patch.setattr(torch.Tensor, name, forbidden)
        steps(range(2, 8))
    assert "critic/loss" in ledger.means()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_hot_path_never_waits_for_the_gpu():
    steps, ledger = hot_path("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps(range(2, 8))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert "critic/loss" in ledger.means()
