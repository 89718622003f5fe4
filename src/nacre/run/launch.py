"""How a run comes by its ranks: the only place that makes a Fabric, and only where there is more than one."""

import gc
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from queue import Queue
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore

from nacre.engine.ranks import ALONE, Ranks
from nacre.engine.settings import Training
from nacre.errors import ConfigError, RunError

REQUEST = "NACRE_RANK_REQUEST"
"""What a rank that nacre started is to do, as JSON in its environment."""

COMMAND = "rank"
"""The command by which nacre starts a rank; not for users."""

logger = logging.getLogger("nacre")

WORTH_SAYING = 10
"""Seconds of waiting for the others after which one says so."""

PATIENCE = 20
"""Seconds that the first rank leaves those it started to end by themselves."""

SOLITARY = 1800
"""Seconds that the others wait for what the first rank does alone (looks at training, pictures, files) where it gives no
signs of life."""

BEAT = 5.0
"""Seconds between its signs of life: through gloo, whose messages another thread may send than the one that works."""


def is_follower() -> bool:
    """Whether this process was started as a rank other than the first: it keeps quiet."""
    told = os.environ
    if "WORLD_SIZE" in told and "LOCAL_RANK" in told:
        return told.get("RANK", "0") != "0"
    if "SLURM_STEP_NUM_TASKS" in told:
        return told.get("SLURM_PROCID", "0") != "0"
    return "MASTER_ADDR" in told and told.get("NODE_RANK", "0") != "0"


@contextmanager
def joined(training: Training, device: torch.device, request: Mapping[str, Any]) -> Iterator[Ranks]:
    """This process's place among the ranks, which are started first unless torchrun, SLURM or the like did that.

    Args:
        training: how many devices on how many nodes; what came from a launcher counts for more.
        device: the kind of device, which decides how ranks talk.
        request: what the ranks that are started here are to do: a function of `nacre.run` and its arguments.

    Raises:
        ConfigError: there are not so many devices, or several nodes and no address to meet at.
        RunError: the others did not come.
    """
    launched = _launched()
    local, nodes = _counts(training, device)
    if local * nodes == 1:
        yield ALONE
        return
    if training.strategy in ("nccl",) and device.type != "cuda":
        raise ConfigError(
            f"--strategy {training.strategy} is for CUDA devices, and this is {device.type}; leave it out."
        )
    if training.strategy == "mpi" and not dist.is_mpi_available():
        raise ConfigError("--strategy mpi is for a torch that was built with MPI, and this one was not; leave it out.")
    Ranks(0, local * nodes).check(training.batch_size or 0, training.accumulate)
    environment, threads, children = dict(os.environ), torch.get_num_threads(), []
    try:
        if not launched:
            children = _start(local, nodes, request)
        ours = not launched or REQUEST in os.environ
        ranks = _wait_for(partial(_meet, local, nodes, training, device, ours), children, device)
        yield ranks
        ranks.any(False, device)  # no one leaves while another is still talking to it
    finally:
        gc.collect()  # a process group that is still held when the interpreter ends can abort it
        if dist.is_initialized():
            dist.destroy_process_group()
        _see_off(children)
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)


def first_of_all(training: Training, device: torch.device) -> Ranks:
    """The first rank of as many as there are to be, before they have met: its part of a batch is every rank's in size.

    Raises:
        ConfigError: as `joined`.
    """
    local, nodes = _counts(training, device)
    return Ranks(0, local * nodes)


def _counts(training: Training, device: torch.device) -> tuple[int, int]:
    """Ranks a node, and nodes."""
    return _launched() or (_devices(training, device), training.nodes)


def _launched() -> tuple[int, int] | None:
    """Ranks a node, and nodes, of the launcher that started this process; None if none did."""
    told = os.environ
    try:
        if "WORLD_SIZE" in told and "LOCAL_RANK" in told:
            local = int(told.get("LOCAL_WORLD_SIZE", told["WORLD_SIZE"]))
            return local, int(told["WORLD_SIZE"]) // local
        if "SLURM_STEP_NUM_TASKS" in told:  # of srun; sbatch and salloc alone start one process
            nodes = int(told.get("SLURM_STEP_NUM_NODES", 1))
            return int(told["SLURM_STEP_NUM_TASKS"]) // nodes, nodes
    except (ValueError, ZeroDivisionError):
        raise ConfigError(
            "WORLD_SIZE, LOCAL_WORLD_SIZE and SLURM_STEP_NUM_… in the environment should be numbers of ranks; unset them if no "
            "launcher started this."
        ) from None
    return None


def _devices(training: Training, device: torch.device) -> int:
    """Ranks on this machine."""
    present = torch.cuda.device_count() if device.type == "cuda" else os.cpu_count() or 1
    wanted = present if training.devices == -1 else training.devices
    if device.type not in ("cpu", "cuda") and wanted > 1:
        raise ConfigError(
            f"--devices {wanted} needs CUDA devices or a CPU, and this is {device.type}; take --devices 1."
        )
    if device.type == "cuda" and wanted > present:
        raise ConfigError(f"--devices {wanted} was asked for and {present} CUDA devices are here; -1 takes them all.")
    return wanted


def _start(local: int, nodes: int, request: Mapping[str, Any]) -> list[subprocess.Popen[bytes]]:
    """Start this node's other ranks. The environment then says who is who, as it does under a launcher.

    Fabric's own launcher kills all ranks when one has died, the one that reports and writes among them.
    """
    if nodes > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise ConfigError(
            f"--nodes {nodes} needs MASTER_ADDR and MASTER_PORT, of the first node, and NODE_RANK in the environment of each "
            "node; or start the command with torchrun."
        )
    node = int(os.environ.get("NODE_RANK", 0))
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(_free_port()))
    # Each rank would take every core for itself.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // local)))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    os.environ |= {"WORLD_SIZE": str(local * nodes), "LOCAL_WORLD_SIZE": str(local), "NODE_RANK": str(node)}

    def place(number: int) -> dict[str, str]:
        return {"LOCAL_RANK": str(number), "RANK": str(node * local + number)}

    told = {**os.environ, REQUEST: json.dumps(dict(request))}
    command = [sys.executable, "-m", "nacre", COMMAND]
    children = [subprocess.Popen(command, env={**told, **place(number)}) for number in range(1, local)]
    os.environ |= place(0)
    return children


def _wait_for(meeting: Callable[[], Ranks], children: Sequence[subprocess.Popen[bytes]], device: torch.device) -> Ranks:
    """Let the ranks meet, and meanwhile see to it that all that were started here are alive.

    torch waits for the others in a call that hears no signal, for half an hour; so that call has a thread of its own.

    Raises:
        RunError: one of them ended before they met.
    """
    found: Queue[Ranks | BaseException] = Queue()

    def meet() -> None:
        try:
            found.put(meeting())
        except BaseException as error:
            found.put(error)

    parent, begun, patient = os.getppid(), time.monotonic(), True
    threading.Thread(target=meet, daemon=True).start()
    while found.empty():
        lost = any(child.poll() is not None for child in children) or (REQUEST in os.environ and os.getppid() != parent)
        if lost:
            raise RunError("one of the ranks ended before all had met; its own sentence says why, or it was killed.")
        if patient and time.monotonic() - begun > WORTH_SAYING:
            patient = False
            logger.info("waiting for the other ranks")
        time.sleep(0.02)
    answer = found.get()
    if isinstance(answer, BaseException):
        raise answer
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))  # Fabric did so for the thread that met
    return answer


def _meet(local: int, nodes: int, training: Training, device: torch.device, ours: bool) -> Ranks:
    """Wait for the others, as long as it takes them to read their data; `ours`: nacre started them."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    class Started(LightningEnvironment):
        """Ranks that nacre started: Fabric is to start none, even if this process is just giving up."""

        @property
        def creates_processes_externally(self) -> bool:
            return True

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    backend = None if training.strategy == "auto" else training.strategy
    # Lightning would otherwise take a batch script under SLURM, which starts no ranks by itself, for one of its ranks.
    own = Started() if ours else None
    strategy = DDPStrategy(process_group_backend=backend, cluster_environment=own)
    try:
        fabric = Fabric(accelerator=device.type, devices=local, num_nodes=nodes, strategy=strategy)
        if "TORCHELASTIC_RESTART_COUNT" in os.environ:
            _meet_anew(backend or ("nccl" if device.type == "cuda" else "gloo"))
        fabric.launch()
        # From here on a rank that is not heard of for so long is taken for lost.
        group = dist.new_group(timeout=timedelta(seconds=training.timeout))
        beat = min(BEAT, training.timeout / 4) if dist.get_backend() == "gloo" else None
        patience = training.timeout if beat else max(SOLITARY, training.timeout)
        patient = dist.new_group(timeout=timedelta(seconds=patience))
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise RunError(f"the {local * nodes} ranks could not be brought together ({reason}).") from error
    return Ranks(fabric.global_rank, fabric.world_size, group, patient, beat)


def _meet_anew(backend: str) -> None:
    """Form the process group on a part of torchrun's store of its own for every restart.

    torchrun keeps one store over its restarts, and what the ranks of an earlier attempt wrote there, the addresses
    they were listening at among it, sends those of the next one to ports that are closed.
    """
    told = os.environ
    agent = told.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    rank, world_size = int(told["RANK"]), int(told["WORLD_SIZE"])
    address, port = told["MASTER_ADDR"], int(told["MASTER_PORT"])
    store = TCPStore(address, port, world_size, is_master=rank == 0 and not agent, multi_tenant=True)
    part = PrefixStore(f"nacre/{told['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=part, rank=rank, world_size=world_size)


def _see_off(children: list[subprocess.Popen[bytes]]) -> None:
    """Wait for the ranks that were started here; one that hangs is ended."""
    for child in children:
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
