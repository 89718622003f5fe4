"""What leaves nacre: ONNX files of every model beside PyTorch, and 100,000 samples in Parquet files.

    python benchmarks/hand_over.py [--mnist DIR] [--only onnx|parquet] [--count 100000]

ONNX protocol: each model of the catalogue with default flags on MNIST (28×28) for --steps steps, then `nacre export --onnx`: the
largest difference between ONNX Runtime and PyTorch over all files of a model, at batches of 1, 7 and 64, relative to values of
more than one. `transfer` reuses the encoder of the `ae`; those of two sides are given the same set twice.

Parquet protocol: `nacre sample RUN -n COUNT --format parquet` of a `gan` of MNIST, in a process whose anonymous memory (RssAnon)
is read five times a second; its largest value while the first tenth of the files was written, and over all; seconds from start to
end; the samples counted in the files.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

import rows
from nacre.models import CATALOGUE
from nacre.spec import find_class

NACRE = [sys.executable, "-m", "nacre"]


def main() -> None:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="folder of the idx files; by default NACRE_DATA's")
    parser.add_argument("--only", choices=["onnx", "parquet"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--results", type=Path, default=rows.RESULTS, help="folder of the rows")
    asked = parser.parse_args()
    source = f"mnist:{asked.mnist}" if asked.mnist else "mnist"
    protocols = {part.split()[0].lower(): " ".join(part.split()) for part in (__doc__ or "").split("\n\n")[2:]}
    with tempfile.TemporaryDirectory(prefix="hand-over-") as folder:
        for name, measured in (("onnx", differences), ("parquet", sampled)):
            if asked.only in (None, name):
                begun = time.perf_counter()
                values, n = measured(source, Path(folder), asked)
                print(json.dumps(values, indent=1))
                took = time.perf_counter() - begun
                told = f"{protocols[name]} --steps {asked.steps}, --count {asked.count}"
                row = rows.write_row(
                    f"hand-over-{name}", told, values, [0], n, results=asked.results, wall_seconds=took
                )
                print(row)


def nacre(*words: object) -> str:
    """What a command answers; it must not fail."""
    return subprocess.run([*NACRE, *map(str, words)], check=True, capture_output=True, text=True).stdout


def trained(model: str, source: str, folder: Path, steps: int) -> Path:
    """A run of a model, made if it is not there."""
    run = folder / model
    if run.exists():
        return run
    flags = ["--encoder", trained("ae", source, folder, steps)] if model == "transfer" else []
    if getattr(find_class(model), "sides", None):
        flags += ["--data-b", source]
    nacre("train", model, "--data", source, "--steps", steps, "--sample-every", 0, "--out", run, *flags)
    return run


def differences(source: str, folder: Path, asked: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """The largest difference of each model's files, and the number of files."""
    found, count = {}, 0
    for model in CATALOGUE:
        run = trained(model, source, folder, asked.steps)
        files = json.loads(nacre("export", run, "--onnx", folder / f"{model}-onnx", "--json"))["files"]
        found[model], count = max(each["difference"] for each in files), count + len(files)
        print(f"{model}: {len(files)} files, {found[model]:.1e}", flush=True)
    each = {f"difference/{model}": difference for model, difference in found.items()}
    return {**each, "worst": max(found.values()), "files": count, "models": len(found)}, count


def sampled(source: str, folder: Path, asked: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Memory, time and number of samples of one command."""
    run, out = trained("gan", source, folder, asked.steps), folder / "samples"
    begun = time.perf_counter()
    words = ["sample", str(run), "-n", str(asked.count), "--format", "parquet", "--out", str(out)]
    process = subprocess.Popen([*NACRE, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    early, most, total = 0.0, 0.0, max(1, asked.count // 10_000)
    while process.poll() is None:
        memory = anonymous(process.pid)
        most = max(most, memory)
        if len(list(out.glob("*.parquet"))) <= total // 10:
            early = max(early, memory)
        time.sleep(0.2)
    took, files = time.perf_counter() - begun, sorted(out.glob("*.parquet"))
    count = sum(parquet.ParquetFile(file).metadata.num_rows for file in files)
    assert process.returncode == 0
    assert count == asked.count
    size = sum(file.stat().st_size for file in files) / 1e6
    memory_told = {"rss_anon_mb_first_tenth": early, "rss_anon_mb_most": most}
    return {**memory_told, "seconds": took, "samples_per_s": count / took, "files": len(files), "mb": size}, count


def anonymous(pid: int) -> float:
    """Anonymous memory of a process in MB; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("RssAnon")), 0.0)


if __name__ == "__main__":
    main()
