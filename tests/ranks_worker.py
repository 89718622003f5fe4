"""One of several ranks: trains every model a few steps in float64 and leaves what it came to. See test_ranks.py."""

import gc
import sys
import typing
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from nacre import images, seeds
from nacre.contract.subject import with_classes
from nacre.data.captions import tokens
from nacre.engine.average import tensors
from nacre.engine.ranks import Ranks, synchronise
from nacre.engine.settings import Training
from nacre.engine.update import in_motion
from nacre.engine.validate import validate
from nacre.models import CATALOGUE
from nacre.networks import has_batch_norm
from nacre.run.session import build
from nacre.spec import fields, find_class, spec

SHAPE, BATCH, STEPS = (1, 16, 16), 8, 3
SMALL = {"hidden": (16, 8), "width": 4, "judge_width": 4, "latent_dim": 4, "blocks": 1, "pool": BATCH}
READING = {"words": 16, "matching_steps": 1, "text_dim": 8, "condition_dim": 4}


def cases():
    """Every model with every network that it takes, small."""
    for name in CATALOGUE:
        known = {field.name: field.type for field in fields(find_class(name))}
        networks = set(typing.get_args(known.get("network"))) - {"auto"}
        for network in sorted(networks) or [None]:
            told = {**SMALL, "network": network} if network else SMALL
            of_the_other = {"blocks"} if network == "unet" else set()
            taken = {key: value for key, value in told.items() if key in known and key not in of_the_other}
            yield name, with_classes(spec(name, taken)), network
        if "reuse_fakes" in known:
            told = {
                key: value for key, value in (SMALL | {"reuse_fakes": True, "network": "mlp"}).items() if key in known
            }
            yield name, with_classes(spec(name, told)), "reusing"
        if "words" in known:
            told = {key: value for key, value in (SMALL | READING).items() if key in known}
            yield name, spec(name, told), "reading"


def results(ranks):
    """For each case: parameters, buffers, logged parts and the validation after some steps."""
    return {f"{name} {network}": result(chosen, ranks) for name, chosen, network in cases()}


def result(chosen, ranks):
    model = build(chosen, SHAPE, 0).double()
    labels = torch.arange(BATCH) % model.classes if getattr(model, "classes", 0) else None
    if ranks.size > 1:
        synchronise(model, ranks)
    training = Training(steps=STEPS, batch_size=BATCH, accumulate=1 if has_batch_norm(model) else 2)
    updates = in_motion(model, training, ranks=ranks)
    noise = seeds.noise(seeds.uniform(*SHAPE), "items", rows=range(BATCH * STEPS + 11)).double()
    parts = {}
    texts = torch.from_numpy(tokens([f"{number} things" for number in range(BATCH)]))
    for step in range(STEPS):
        batch = noise[step * BATCH : (step + 1) * BATCH]
        beside = [] if labels is None else [labels]
        beside += [1 - batch] if getattr(model, "sides", None) else []
        beside += [texts, texts.roll(1, 0)[:, None]] if getattr(model, "words", 0) else []
        part = ranks.part(BATCH)
        for update in updates:
            if step in update.objective.when:
                rows = slice(part.start, part.stop)
                parts = update(step, (batch[rows], *(each[rows] for each in beside)) if beside else batch[rows])
    held_out = images.to_uint8(noise).numpy()
    score = validate(model, held_out, np.arange(BATCH * STEPS, len(held_out)), ranks)
    return {
        "weights": [tensor.clone() for tensor in tensors(model)],
        "logs": [part.double() for part in parts.values()],
        "score": [torch.tensor(score.value, dtype=torch.float64)] if score else [],
    }


def main(rank, size, port, out):
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", int(port), int(size), is_master=rank == "0", timeout=timedelta(seconds=60))
    dist.init_process_group("gloo", store=store, rank=int(rank), world_size=int(size))
    ranks = Ranks(int(rank), int(size), dist.group.WORLD)
    torch.save(results(ranks), f"{out}/{rank}.pt")
    assert ranks.any(rank == "1", torch.device("cpu"))
    assert ranks.first(lambda: rank) == "0"
    dist.barrier()
    del ranks
    gc.collect()  # as launch.joined does
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
