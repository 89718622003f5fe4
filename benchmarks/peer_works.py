"""What nacre and its peers are given to train in `benchmarks/peers.py`, and the limits that the machine itself sets."""

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import peer_scripts as peers
from nacre import networks
from nacre.data import DataSet, DataSettings, load
from nacre.engine import loop, numerics
from nacre.engine.average import Average
from nacre.engine.record import Record
from nacre.engine.settings import Training
from nacre.models.gan import GAN
from nacre.networks.adversarial import Generator, Judge
from nacre.protocols import Logs, Objective, Step
from nacre.run.session import COMPILE_BACKEND, Session, build, updates_of
from nacre.run.streams import stream_of
from nacre.spec import Spec, spec

os.environ.setdefault("JAX_PLATFORMS", "cpu")
CPU = torch.device("cpu")
FOREVER = 10**9
SCRATCH = tempfile.TemporaryDirectory(prefix="peers-")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class Contestant:
    """Somebody who trains some steps when called.

    Attributes:
        name: nacre's start with "nacre".
        run: trains so many steps.
        items: what one step counts for, in samples.
        group: contestants of one group count as one, the fastest of them.
    """

    name: str
    run: peers.Run
    items: float
    group: str = ""

    def chunk(self, steps: int) -> tuple[float, float]:
        """Train some steps; returns the cores that others took meanwhile, and the seconds."""
        before, begun = busy() - time.process_time(), time.perf_counter()
        self.run(steps)
        took = time.perf_counter() - begun
        return (busy() - time.process_time() - before) / took, took


def busy() -> float:
    """Seconds that the cores have worked, for whomever, since the machine was started; 0 where Linux does not tell."""
    ticks = Path("/proc/stat")
    if not ticks.exists():
        return 0.0
    user, nice, system, _idle, _waiting, *interrupts = map(int, ticks.read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


@dataclass
class Work:
    """One thing to train.

    Attributes:
        name: of the row, and for --only.
        contestants: who trains it.
        bars: the ratios wanted of nacre in float32 and in bfloat16 over a peer; None where there is none.
        protocol: what is particular about it.
        facts: to be kept with the row.
    """

    name: str
    contestants: list[Contestant]
    bars: dict[str, tuple[float | None, float | None]]
    protocol: str
    facts: dict[str, Any] = field(default_factory=dict)


class Quiet(Record):
    """Writes down what a run writes down, but a chunk's end is not a run's."""

    def finish(self, done: int, *, complete: bool) -> None:
        """Nothing: the next chunk goes on from here."""


def nacre_run(
    model: nn.Module,
    dataset: DataSet,
    batch: int,
    *,
    compiled: bool = False,
    chosen: Spec | None = None,
    **settings: Any,
) -> peers.Run:
    """nacre's loop on a model, some steps at a time. All that is asked of the engine is in here."""
    training = Training(
        steps=FOREVER,
        batch_size=batch,
        device="cpu",
        log_every=100,
        sample_every=0,
        checkpoint_every=FOREVER,
        **settings,
    )
    session = Session(chosen or Spec("own", {}), dataset, training, model, stream_of(dataset, training, CPU, model))
    updates = updates_of(session, model, COMPILE_BACKEND if compiled else None)
    average = Average(model, training.ema)
    folder = Path(tempfile.mkdtemp(dir=SCRATCH.name))
    record = Quiet(folder, model, average, updates, training, dataset.items, np.arange(0), lambda *_: None)
    record.bar.disable = True  # the peers show none
    done = 0

    def run(steps: int) -> None:
        nonlocal done
        done = loop.train(updates, average, session.stream, record, start=done, steps=done + steps)

    return as_nacre(run)


def as_nacre(run: peers.Run) -> peers.Run:
    """With nacre's numeric settings, which are gone when the peers' turn comes."""

    def settled(steps: int) -> None:
        with torch.random.fork_rng(devices=[]), numerics.applied(CPU):
            run(steps)

    return settled


def nacre_contestants(
    make: Callable[[], nn.Module], dataset: DataSet, batch: int, *, compiles: bool, **settings: Any
) -> list[Contestant]:
    """nacre in both precisions, compiled too where that is of use, and with its average as well."""
    found = []
    for compiled in (False, True)[: 1 + compiles]:
        for ema in (0.0, 0.999)[: 1 + (compiled == compiles)]:
            for precision in DTYPES:
                words = ["nacre", precision, *(["compiled"] if compiled else []), *(["ema"] if ema else [])]
                run = nacre_run(make(), dataset, batch, compiled=compiled, precision=precision, ema=ema, **settings)
                found.append(Contestant(" ".join(words), run, batch))
    return found


def vae_mlp(data: str | None) -> Work:
    """A VAE of 784-400-20 on small grey images, batch 128."""
    batch, dataset = 128, images(1, 28, data)
    _, hidden, latent = peers.VAE_SIZES
    chosen = spec("vae", {"latent_dim": latent, "hidden": (hidden,), "network": "mlp", "likelihood": "bernoulli"})
    make = partial(build, chosen, dataset.shape, 0)
    script, items = peers.ScriptVAE(), pixels(dataset)
    contestants = nacre_contestants(make, dataset, batch, compiles=True, chosen=chosen)
    contestants += [Contestant("script", peers.stepping(peers.script_vae(script, items, batch)), batch)]
    if installed("pythae"):
        run = peers.pythae_vae(peers.ScriptVAE(), items, batch, Path(SCRATCH.name))
        contestants += [Contestant("pythae", run, batch)]
    if installed("jax", "optax"):
        contestants += [Contestant("jax", peers.stepping(peers.jax_vae(items, batch)), batch)]
    for name, dtype in DTYPES.items():
        run = as_nacre(peers.stepping(matrix_products(batch, dtype)))
        contestants += [Contestant(f"matrix products {name}", run, batch)]
    bars = {"pythae": (3.0, 4.8), "script": (4.5, 7.0), "jax": (1.0, 1.4), **limits("matrix products", 0.75, 0.65)}
    return Work("vae-mlp", contestants, bars, VAE_PROTOCOL, {"parameters": parameters(nacre=make(), script=script)})


VAE_PROTOCOL = (
    "VAE 784-400-20-400-784, batch 128, Adam 1e-3. nacre draws 784 uniforms an image to binarize it, which no peer does. "
    "script: per-image Pillow loader without workers, cross-entropy on probabilities, loss.item() each step. pythae: its own "
    "BaseTrainer.train_step on the same nets with 'bce', batch 128 and lr 1e-3 (not its defaults), without its progress "
    "bar, its copies of the best model and its checkpoints. jax: one jitted step with optax.adam, float32, data on the "
    "device, waited for at a chunk's end; it uses all cores, so torch should too. matrix products: forward and backward of "
    "the four layers alone, on nacre's matrix path; the ratio is the share of the step that they take."
)


def matrix_products(batch: int, dtype: torch.dtype) -> Iterator[None]:
    """A VAE step's matrix products and nothing else: forward, weights' gradients, inputs' gradients but the first."""
    wide, hidden, latent = peers.VAE_SIZES
    sizes = ((wide, hidden), (hidden, 2 * latent), (latent, hidden), (hidden, wide))
    x = [torch.randn(batch, before, dtype=dtype) for before, _ in sizes]
    weights = [torch.randn(after, before, dtype=dtype) for before, after in sizes]
    slopes = [torch.randn(batch, after, dtype=dtype) for _, after in sizes]
    while True:
        for index in range(len(sizes)):
            torch.mm(x[index], weights[index].t())
            torch.mm(slopes[index].t(), x[index])
            if index:
                torch.mm(slopes[index], weights[index])
        yield


class ScriptGAN(GAN):
    """nacre's GAN with the nets of the collections' script, so that both do the same work."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, latent_dim=peers.GAN_SIZES["generator"][0], r1=0.0, network="mlp", reuse_fakes=True)
        layers = nn.Sequential(*peers.gan_generator(), nn.Unflatten(1, shape))
        self.generator = Generator(shape, self.latent_dim, lambda *_: layers)
        self.discriminator = Judge(shape, lambda *_: nn.Sequential(*peers.gan_discriminator()))


def gan_mlp(data: str | None) -> Work:
    """A GAN of fully connected layers on small grey images, batch 64."""
    batch, dataset = 64, images(1, 28, data)
    generator = nn.Sequential(*peers.gan_generator(), nn.Tanh(), nn.Unflatten(1, dataset.shape))
    discriminator = nn.Sequential(*peers.gan_discriminator(), nn.Sigmoid())
    script = peers.script_gan(generator, discriminator, pixels(dataset), batch)
    make = partial(ScriptGAN, dataset.shape)
    contestants = nacre_contestants(make, dataset, batch, compiles=True, lr=2e-4)
    contestants += [Contestant("script", peers.stepping(script), batch)]
    facts = {"parameters": parameters(nacre=make(), script=nn.ModuleList([generator, discriminator]))}
    return Work("gan-mlp", contestants, {"script": (2.4, 2.8)}, GAN_PROTOCOL, facts)


GAN_PROTOCOL = (
    "GAN, batch 64, 28×28, latent 100, generator 128-256-512-1024 with batch norm, discriminator 512-256, Adam 2e-4. Both "
    "train the same layers: nacre's GAN (--r1 0) is given the script's nets, since its own MLPs have no batch norm. As the "
    "script, nacre uses the generator's images twice (--reuse-fakes). script: per-image "
    "Pillow loader without workers, binary cross-entropy on probabilities, two item() a step."
)


def wgan_gp(data: str | None) -> Work:
    """A WGAN-GP on points in the plane, batch 256, five steps of the critic for one of the generator."""
    batch, dataset, hidden = 256, load(DataSettings(data="toy:ring8")), (512, 512, 512)
    chosen = spec("wgan_gp", {"latent_dim": 2, "n_critic": 5, "hidden": hidden})
    make = partial(build, chosen, dataset.shape, 0)
    generator, critic = networks.mlp((2, *hidden, 2)), networks.mlp((2, *hidden, 1), bias=False)
    script = peers.script_wgan_gp(generator, critic, pixels(dataset), batch)
    contestants = nacre_contestants(make, dataset, batch, compiles=True, chosen=chosen)
    contestants += [Contestant("script", peers.stepping(script), batch)]
    facts = {"parameters": parameters(nacre=make(), script=nn.ModuleList([generator, critic]))}
    return Work("wgan-gp", contestants, {"script": (2.3, 4.0)}, WGAN_PROTOCOL, facts)


WGAN_PROTOCOL = (
    "WGAN-GP on toy:ring8, MLP 2-512-512-512, latent 2, batch 256, Adam 1e-4; a step is one of the critic, every fifth also "
    "one of the generator; samples are the critic's. The penalty's norm is float32 in both precisions. script: "
    "points from memory, eager double backward by autograd.grad(create_graph=True), item() of each loss."
)


def dcgan(size: int, data: str | None) -> Work:
    """DCGAN on colour images of `size` pixels, batch 64."""
    batch, dataset = 64, images(3, size, None, 20_000 if size == 32 else 5_000)
    chosen = spec("gan", {"latent_dim": 100, "width": 64, "r1": 0.0, "network": "conv", "reuse_fakes": True})
    make = partial(build, chosen, dataset.shape, 0)
    generator, discriminator = peers.dcgan_generator(size), peers.dcgan_discriminator(size)
    script = peers.script_dcgan(generator, discriminator, pixels(dataset), batch)
    useful = useful_flops(generator, discriminator, size)
    contestants = nacre_contestants(make, dataset, batch, compiles=False, chosen=chosen, lr=2e-4)
    contestants += [Contestant("script", peers.stepping(script), batch)]
    bars = {"script": (1.35, 2.1)}
    if size == 64:
        contestants += convolutions(batch, useful)
        bars |= limits("convolutions", 0.65, 0.5)
    facts = {"useful_gflop_per_sample": useful / 1e9}
    facts["parameters"] = parameters(nacre=make(), script=nn.ModuleList([generator, discriminator]))
    return Work(f"dcgan-{size}", contestants, bars, DCGAN_PROTOCOL, facts)


DCGAN_PROTOCOL = (
    "DCGAN, width 64, latent 100, 3 channels, batch 64, Adam 2e-4, random pixels; nacre's gan with --r1 0 and --reuse-fakes: "
    "both use the generator's images twice. The script's first and last layers are given the biases that nacre's have. "
    "script: per-image Pillow loader without workers, NCHW, "
    "five item() a step. convolutions: forward passes of DCGAN's inner layers alone, channels last, the fastest of them; the "
    "ratio is useful FLOP a second over it, useful being what one iteration cannot do without."
)


def useful_flops(generator: nn.Module, discriminator: nn.Module, size: int) -> float:
    """What an iteration cannot do without, a sample: G and back, D and back on real and fake, D and back to its input."""
    forward_g = convolution_flops(generator, torch.zeros(1, 100, 1, 1))
    forward_d = convolution_flops(discriminator, torch.zeros(1, 3, size, size))
    judge = 2 * (3 * sum(forward_d) - forward_d[0])  # nobody needs the gradient of images
    return 3 * sum(forward_g) - forward_g[0] + judge + 2 * sum(forward_d)


def convolution_flops(net: nn.Module, x: Tensor) -> list[float]:
    """Of each convolution's forward pass on `x`, two for a multiplication and an addition."""
    found: list[float] = []

    def note(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        narrow = output if isinstance(module, nn.Conv2d) else inputs[0]
        found.append(2.0 * module.weight.numel() * narrow.shape[-1] * narrow.shape[-2])

    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    hooks = [module.register_forward_hook(note) for module in net.modules() if isinstance(module, kinds)]
    with torch.no_grad():
        net.eval()(x)
    net.train()
    for hook in hooks:
        hook.remove()
    return found


def convolutions(batch: int, useful: float) -> list[Contestant]:
    """DCGAN's inner convolutions alone; what they do counts in samples of the whole iteration."""
    found = []
    for name, dtype in DTYPES.items():
        for channels, side in ((64, 32), (128, 16), (256, 8)):
            run = as_nacre(peers.stepping(convolution(batch, channels, side, dtype)))
            flops = batch * 2 * channels * 2 * channels * 16 * (side // 2) ** 2
            found += [Contestant(f"{channels} channels {name}", run, flops / useful, f"convolutions {name}")]
    return found


def convolution(batch: int, channels: int, side: int, dtype: torch.dtype) -> Iterator[None]:
    """A 4×4 convolution of stride 2 forward."""
    last = torch.channels_last
    x = torch.randn(batch, channels, side, side, dtype=dtype).to(memory_format=last)
    weight = torch.randn(2 * channels, channels, 4, 4, dtype=dtype).to(memory_format=last)
    while True:
        F.conv2d(x, weight, stride=2, padding=1)
        yield


class OneParameter(nn.Module):
    """Next to nothing to compute: what a step takes is the engine's."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(1, 1, bias=False)

    def objectives(self) -> list[Objective]:
        return [Objective(name="only", loss=self.loss, over=("part",))]

    def loss(self, x: Tensor, step: Step) -> tuple[Tensor, Logs]:
        return self.part(x).square().mean(), {}


def engine(data: str | None) -> Work:
    """What nacre's loop itself takes."""
    batch, points = 64, np.random.default_rng(0).normal(size=(60_000, 1)).astype(np.float32)
    dataset = saved(points)
    contestants = [
        Contestant("bare", peers.stepping(peers.bare(OneParameter(), torch.from_numpy(pixels(dataset)), batch)), batch)
    ]
    for name, ema in {"nacre fp32": 0.0, "nacre fp32 ema": 0.999}.items():
        contestants += [Contestant(name, nacre_run(OneParameter(), dataset, batch, ema=ema), batch)]
    return Work("engine", contestants, {}, ENGINE_PROTOCOL)


ENGINE_PROTOCOL = (
    "A model of one parameter, batch 64 of one number each, fused Adam, no noise; bare: the same in a loop of plain torch. "
    "microseconds_more is nacre's time a step less the bare loop's in the same round."
)


def images(channels: int, size: int, data: str | None, number: int = 60_000) -> DataSet:
    """MNIST where it is asked for and fits, otherwise random pixels, as nacre loads them."""
    if channels == 1 and (data or os.environ.get("NACRE_DATA")):
        return load(DataSettings(data=f"mnist:{data}" if data else "mnist"))
    shape = (number, channels, size, size)
    return saved(np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8))


def saved(items: np.ndarray) -> DataSet:
    """An array by way of a file."""
    path = Path(SCRATCH.name) / f"{'x'.join(map(str, items.shape))}.npy"
    np.save(path, items)
    return load(DataSettings(data=str(path), mirror=False))


def pixels(dataset: DataSet) -> np.ndarray:
    """What nacre trains on, in memory, for the peers."""
    return np.ascontiguousarray(dataset.items[dataset.rows("train")])


def installed(*packages: str) -> bool:
    """Whether a peer can be imported; says how to get it if not."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        print(f"{' and '.join(missing)} not installed, so left out; pip install -e '.[peers]' brings it.")
    return not missing


def parameters(**nets: nn.Module) -> dict[str, int]:
    """How many each has."""
    return {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}


def limits(name: str, fp32: float, bf16: float) -> dict[str, tuple[float | None, float | None]]:
    """The machine's own limit for each precision, to which only nacre in that precision is held."""
    return {f"{name} fp32": (fp32, None), f"{name} bf16": (None, bf16)}


WORKS = {
    "vae-mlp": vae_mlp,
    "gan-mlp": gan_mlp,
    "wgan-gp": wgan_gp,
    "dcgan-32": partial(dcgan, 32),
    "dcgan-64": partial(dcgan, 64),
    "engine": engine,
}
