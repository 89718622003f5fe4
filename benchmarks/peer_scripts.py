"""How others train the same models: the loops of the usual scripts in our own words, pythae as released, and JAX.

Each is a generator that yields after every step, or a function that trains some steps; all have float32, torch's default
settings and images that are decoded one by one, as the scripts have them. `benchmarks/peers.py` runs them beside nacre.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.optim import Adam
from torch.utils.data import DataLoader, Dataset

Run = Callable[[int], None]
"""Trains some steps."""

VAE_SIZES = (784, 400, 20)
GAN_SIZES = {"generator": (100, 128, 256, 512, 1024, 784), "discriminator": (784, 512, 256, 1)}


def stepping(steps_of: Iterator[Any]) -> Run:
    """Trains by taking steps from a generator; waits for the last one's result, which JAX hands out early."""

    def run(steps: int) -> None:
        (last,) = deque(islice(steps_of, steps), maxlen=1)
        if hasattr(last, "block_until_ready"):
            last.block_until_ready()

    return run


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images one by one by way of Pillow, as torchvision's data sets and its ToTensor and Normalize give them.

    Args:
        items: uint8 (N, C, H, W).
        normalize: from [0, 1] to [-1, 1].
    """

    def __init__(self, items: np.ndarray, normalize: bool = False) -> None:
        last = np.ascontiguousarray(items.transpose(0, 2, 3, 1))
        self.items = last[..., 0] if last.shape[-1] == 1 else last
        self.normalize = normalize

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = torch.from_numpy(np.array(Image.fromarray(self.items[index])))
        pixels = pixels.view(*pixels.shape[:2], -1).permute(2, 0, 1).contiguous()
        image = pixels.to(torch.float32).div(255)
        return (image.sub_(0.5).div_(0.5) if self.normalize else image), 0


def endless(items: np.ndarray, batch: int, *, normalize: bool = False) -> Iterator[Tensor]:
    """Batches of images, epoch after epoch in a new order."""
    loader = DataLoader(Pictures(items, normalize), batch, shuffle=True, drop_last=True)
    while True:
        for images, _ in loader:
            yield images


class ScriptVAE(nn.Module):
    """784-400-20-400-784 with ReLU; mean and log-variance have a layer each."""

    def __init__(self) -> None:
        super().__init__()
        pixels, hidden, latent = VAE_SIZES
        self.hidden = nn.Linear(pixels, hidden)
        self.mean, self.log_var = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.up, self.out = nn.Linear(latent, hidden), nn.Linear(hidden, pixels)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = F.relu(self.hidden(x.flatten(1)))
        return self.mean(hidden), self.log_var(hidden)

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.out(F.relu(self.up(z))))


def script_vae(model: ScriptVAE, items: np.ndarray, batch: int) -> Iterator[None]:
    """The VAE of the beginners' examples: cross-entropy on probabilities, and the loss asked for at every step."""
    optimizer = Adam(model.parameters(), lr=1e-3)
    total = 0.0
    for x in endless(items, batch):
        optimizer.zero_grad()
        mean, log_var = model.encode(x)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_var)
        distortion = F.binary_cross_entropy(model.decode(z), x.flatten(1), reduction="sum")
        rate = -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
        loss = distortion + rate
        loss.backward()
        total += loss.item()
        optimizer.step()
        yield


def pythae_vae(nets: ScriptVAE, items: np.ndarray, batch: int, folder: Path) -> Run:
    """pythae's own `train_step` over a loader that is cut into chunks; its progress bar is taken off."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import ProgressBarCallback

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.mean, self.log_var = nets.hidden, nets.mean, nets.log_var

        def forward(self, x: Tensor) -> ModelOutput:
            hidden = F.relu(self.hidden(x.flatten(1)))
            return ModelOutput(embedding=self.mean(hidden), log_covariance=self.log_var(hidden))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.out = nets.up, nets.out

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=torch.sigmoid(self.out(F.relu(self.up(z)))).view(-1, *shape))

    shape = items.shape[1:]
    logging.disable(logging.INFO)  # it greets on the console
    config = VAEConfig(input_dim=shape, latent_dim=VAE_SIZES[-1], reconstruction_loss="bce")
    data = BaseDataset(torch.from_numpy(items) / 255, torch.zeros(len(items)))
    how = BaseTrainerConfig(output_dir=str(folder), per_device_train_batch_size=batch, learning_rate=1e-3, no_cuda=True)
    trainer = BaseTrainer(VAE(config, Encoder(), Decoder()), data, training_config=how)
    trainer.prepare_training()
    logging.disable(logging.NOTSET)
    handler = trainer.callback_handler
    handler.callbacks = [each for each in handler.callbacks if not isinstance(each, ProgressBarCallback)]
    chunks = Chunks(trainer.train_loader)
    trainer.train_loader = chunks

    def run(steps: int) -> None:
        chunks.steps = steps
        trainer.train_step(1)

    return run


class Chunks:
    """A loader that stops after some steps and goes on from there the next time."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader, self.dataset, self.steps = loader, loader.dataset, 0
        self.batches = (inputs for _ in iter(int, 1) for inputs in loader)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        return islice(self.batches, self.steps)


def jax_vae(items: np.ndarray, batch: int) -> Iterator[Any]:
    """The same VAE in JAX: images on the device, and gather, noise, gradients and Adam in one jitted step."""
    import jax
    import jax.numpy as jnp
    import optax

    pixels, hidden, latent = VAE_SIZES
    optimizer = optax.adam(1e-3)
    data = jnp.asarray(items.reshape(len(items), pixels))

    def layer(x: Any, weights: Any) -> Any:
        return x @ weights["w"] + weights["b"]

    def loss(weights: Any, x: Any, noise: Any) -> Any:
        mean, log_var = jnp.split(layer(jax.nn.relu(layer(x, weights[0])), weights[1]), 2, axis=1)
        z = mean + noise * jnp.exp(log_var / 2)
        logits = layer(jax.nn.relu(layer(z, weights[2])), weights[3])
        distortion = (jax.nn.softplus(logits) - x * logits).sum(1)
        rate = (mean**2 + jnp.exp(log_var) - 1 - log_var).sum(1) / 2
        return (distortion + rate).mean()

    def step(weights: Any, state: Any, data: Any, chosen: Any, index: Any) -> Any:
        x = data[chosen].astype(jnp.float32) / 255
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), index), (batch, latent))
        value, gradients = jax.value_and_grad(loss)(weights, x, noise)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(weights, updates), state, value

    rng = np.random.default_rng(0)
    sizes = ((pixels, hidden), (hidden, 2 * latent), (latent, hidden), (hidden, pixels))
    weights = [{"w": jnp.asarray(rng.normal(0, a**-0.5, (a, b)), jnp.float32), "b": jnp.zeros(b)} for a, b in sizes]
    state = optimizer.init(weights)
    train = jax.jit(step, donate_argnums=(0, 1))
    index = 0
    while True:
        order = rng.permutation(len(items))
        for start in range(0, len(items) - batch + 1, batch):
            weights, state, value = train(weights, state, data, order[start : start + batch], index)
            index += 1
            yield value


def gan_generator() -> list[nn.Module]:
    """Widths doubling to 1024, batch norm from the second hidden layer on; no output activation."""
    layers: list[nn.Module] = []
    *sizes, pixels = GAN_SIZES["generator"]
    for index, (before, after) in enumerate(pairwise(sizes)):
        layers += [nn.Linear(before, after), *([nn.BatchNorm1d(after, 0.8)] if index else []), nn.LeakyReLU(0.2)]
    return [*layers, nn.Linear(sizes[-1], pixels)]


def gan_discriminator() -> list[nn.Module]:
    """Two hidden layers; no output activation."""
    first, second, third, out = GAN_SIZES["discriminator"]
    leaky = nn.LeakyReLU(0.2)
    return [nn.Flatten(), nn.Linear(first, second), leaky, nn.Linear(second, third), leaky, nn.Linear(third, out)]


def script_gan(generator: nn.Module, discriminator: nn.Module, items: np.ndarray, batch: int) -> Iterator[None]:
    """The collections' GAN: the generator first, its images used twice, binary cross-entropy on probabilities."""
    of_generator = Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    of_discriminator = Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    criterion = nn.BCELoss()
    for real in endless(items, batch, normalize=True):
        yes, no = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        of_generator.zero_grad()
        fake = generator(torch.randn(len(real), 100))
        forged = criterion(discriminator(fake), yes)
        forged.backward()
        of_generator.step()
        of_discriminator.zero_grad()
        told = (criterion(discriminator(real), yes) + criterion(discriminator(fake.detach()), no)) / 2
        told.backward()
        of_discriminator.step()
        forged.item(), told.item()
        yield


def script_wgan_gp(generator: nn.Module, critic: nn.Module, points: np.ndarray, batch: int) -> Iterator[None]:
    """WGAN-GP on points in the plane: eager double backward; a step is one of the critic, every fifth also plays both."""
    of_generator = Adam(generator.parameters(), lr=1e-4, betas=(0.0, 0.9))
    of_critic = Adam(critic.parameters(), lr=1e-4, betas=(0.0, 0.9))
    latent = next(generator.parameters()).shape[1]
    for step, real in enumerate(endless_points(points, batch), start=1):
        of_critic.zero_grad()
        with torch.no_grad():
            fake = generator(torch.randn(batch, latent))
        mix = torch.rand(batch, 1)
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        scores = critic(between)
        slope = torch.autograd.grad(scores, between, torch.ones_like(scores), create_graph=True, retain_graph=True)[0]
        penalty = ((slope.norm(2, dim=1) - 1) ** 2).mean() * 10
        loss = critic(fake).mean() - critic(real).mean() + penalty
        loss.backward()
        of_critic.step()
        loss.item()
        if step % 5 == 0:
            of_generator.zero_grad()
            forged = -critic(generator(torch.randn(batch, latent))).mean()
            forged.backward()
            of_generator.step()
            forged.item()
        yield


def endless_points(points: np.ndarray, batch: int) -> Iterator[Tensor]:
    """Batches of points, epoch after epoch in a new order."""
    while True:
        order = np.random.permutation(len(points))
        for start in range(0, len(points) - batch + 1, batch):
            yield torch.from_numpy(points[order[start : start + batch]])


def dcgan_generator(size: int, width: int = 64, latent: int = 100) -> nn.Module:
    """DCGAN's, for 32 or 64 pixels; the last layer has a bias, as nacre's has."""
    channels = [width * size // 8 >> level for level in range(size.bit_length() - 3)]
    layers: list[nn.Module] = [nn.ConvTranspose2d(latent, channels[0], 4, 1, 0, bias=False)]
    for before, after in pairwise([*channels, 3]):
        last = after == 3
        layers += [nn.BatchNorm2d(before), nn.ReLU(True), nn.ConvTranspose2d(before, after, 4, 2, 1, bias=last)]
    return nn.Sequential(*layers, nn.Tanh())


def dcgan_discriminator(size: int, width: int = 64) -> nn.Module:
    """DCGAN's, for 32 or 64 pixels; first and last layer have a bias, as nacre's have."""
    channels = [3, *(width << level for level in range(size.bit_length() - 3))]
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        first = before == 3
        layers += [nn.Conv2d(before, after, 4, 2, 1, bias=first)]
        layers += [*([] if first else [nn.BatchNorm2d(after)]), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 4, 1, 0), nn.Sigmoid())


def script_dcgan(generator: nn.Module, discriminator: nn.Module, items: np.ndarray, batch: int) -> Iterator[None]:
    """The DCGAN tutorial: real and fake backwards one after the other, five numbers asked for at every step."""
    of_generator = Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    of_discriminator = Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    criterion = nn.BCELoss()
    for real in endless(items, batch, normalize=True):
        yes, no = torch.ones(len(real)), torch.zeros(len(real))
        discriminator.zero_grad()
        on_real = discriminator(real).view(-1)
        told_real = criterion(on_real, yes)
        told_real.backward()
        fake = generator(torch.randn(len(real), 100, 1, 1))
        on_fake = discriminator(fake.detach()).view(-1)
        told_fake = criterion(on_fake, no)
        told_fake.backward()
        of_discriminator.step()
        generator.zero_grad()
        again = discriminator(fake).view(-1)
        forged = criterion(again, yes)
        forged.backward()
        of_generator.step()
        [number.item() for number in (on_real.mean(), on_fake.mean(), again.mean(), told_real + told_fake, forged)]
        yield


def bare(model: nn.Module, points: Tensor, batch: int) -> Iterator[None]:
    """A model of one part, trained in plain torch with as little around it as will do."""
    weights = list(model.part.parameters())
    optimizer, total = Adam(weights, lr=1e-3, fused=True), torch.zeros(())
    for epoch in count():
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(epoch))
        for chosen in order.split(batch)[: len(points) // batch]:
            loss = model.part(points.index_select(0, chosen)).square().mean()
            (weights[0].grad,) = torch.autograd.grad(loss, weights)
            optimizer.step()
            total += loss.detach()
            yield
