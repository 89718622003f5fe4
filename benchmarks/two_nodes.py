"""Two nodes across a network that can be cut: `sudo python benchmarks/two_nodes.py` (Linux; makes network namespaces).

Each node is a network namespace with an address of its own; both see the same disk. The run across them must come to
what one process comes to. Then the link is cut in mid-run: both nodes must end within a minute with one sentence, and the
same command, started again, must bring the run to the bit-identical end of a run that was never disturbed. The row says how
long the nodes took to end; that it is there says that all held.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import rows
from nacre.engine import checkpoint

NODES = {"nacre-a": "10.77.0.1", "nacre-b": "10.77.0.2"}
TRAIN = ["train", "vae", "--latent-dim", "2", "--hidden", "[32]", "--batch-size", "16"]
TRAIN += ["--sample-every", "0", "--checkpoint-every", "100"]


def main() -> None:
    """All of it; an assertion says what went wrong."""
    results = arguments().results
    with tempfile.TemporaryDirectory() as folder, network():
        one, whole, cut = (Path(folder) / name for name in ("one", "whole", "cut"))
        alone = [sys.executable, "-m", "nacre", *TRAIN, "--steps", "40", "--out", str(one)]
        subprocess.run(alone, check=True, capture_output=True)
        wait(start(whole, 40))
        for name, values in state(one)["model"].items():
            torch.testing.assert_close(state(whole)["model"][name], values, rtol=1e-4, atol=1e-4)
        print("two nodes come to what one process comes to: yes")

        wait(start(whole, 8000))
        nodes = start(cut, 8000)
        wait_for(cut, 300)
        ip("-n", "nacre-a", "link", "set", "veth", "down")
        begun = time.monotonic()
        answers = [node.communicate(timeout=90) for node in nodes]
        seconds = time.monotonic() - begun
        sentences = [[line for line in err.splitlines() if line.startswith("nacre: ")] for _, err in answers]
        assert seconds < 60, seconds
        assert all(node.returncode == 1 for node in nodes), answers
        assert all(len(said) == 1 and "lost contact" in said[0] for said in sentences), answers
        print(f"the link is cut: both end after {seconds:.0f} s; {sentences[0][0]}")

        ip("-n", "nacre-a", "link", "set", "veth", "up")
        wait(start(cut, 8000))
        different = checkpoint.differences(state(whole), state(cut))
        assert not different, different
        print("started again, the run ends bit-identical to one that was never disturbed: yes")
        protocol = " ".join(str(__doc__).split("\n\n")[1].split())
        print(
            rows.write_row(
                "two-nodes", protocol, {"seconds_to_end": seconds}, [0], 1, results=results, said=sentences[0][0]
            )
        )


def arguments() -> argparse.Namespace:
    """Where the row goes; ends with a sentence where there can be no namespaces."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the row")
    asked = parser.parse_args()
    if os.geteuid() or not shutil.which("ip"):
        parser.error(
            "network namespaces are made by root, with the program `ip` (iproute2); run it with sudo on Linux."
        )
    return asked


@contextmanager
def network() -> Iterator[None]:
    """Two namespaces with a link between them, in the place of what a run that was killed may have left."""
    remove()
    try:
        for node in NODES:
            ip("netns", "add", node)
        ip("link", "add", "veth", "netns", "nacre-a", "type", "veth", "peer", "veth", "netns", "nacre-b")
        for node, address in NODES.items():
            ip("-n", node, "address", "add", f"{address}/24", "dev", "veth")
            ip("-n", node, "link", "set", "veth", "up")
            ip("-n", node, "link", "set", "lo", "up")
        yield
    finally:
        remove()


def remove() -> None:
    """Delete the namespaces that there are."""
    for node in NODES:
        subprocess.run(["ip", "netns", "del", node], check=False, stderr=subprocess.DEVNULL)


def start(run: Path, steps: int) -> list[subprocess.Popen[str]]:
    """The same command on both nodes."""
    words = [
        sys.executable,
        "-m",
        "nacre",
        *TRAIN,
        "--steps",
        str(steps),
        "--out",
        str(run),
        "--nodes",
        "2",
        "--or-resume",
    ]
    meet = {
        "MASTER_ADDR": NODES["nacre-a"],
        "MASTER_PORT": "29511",
        "GLOO_SOCKET_IFNAME": "veth",
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(
            ["ip", "netns", "exec", node, *words],
            env={**os.environ, **meet, "NODE_RANK": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, node in enumerate(NODES)
    ]


def wait(nodes: list[subprocess.Popen[str]]) -> None:
    """Until both are done."""
    for node in nodes:
        _, err = node.communicate(timeout=300)
        assert node.returncode == 0, err


def wait_for(run: Path, step: int) -> None:
    """Until a checkpoint of this step or a later one is there."""
    end = time.monotonic() + 120
    while (checkpoint.steps(run / "checkpoints") or [0])[-1] < step:
        assert time.monotonic() < end
        time.sleep(0.05)


def state(run: Path) -> dict[str, Any]:
    """The last checkpoint of a run."""
    return checkpoint.load(run / "checkpoints", checkpoint.steps(run / "checkpoints")[-1])


def ip(*words: str) -> None:
    """Configure the network."""
    subprocess.run(["ip", *words], check=True)


if __name__ == "__main__":
    main()
