"""Half a minute with nacre: a VAE learns the embedded 8×8 digits, with a latent that can be drawn as a map."""

import logging
import sys
import time

import nacre

RUN = "runs/demo"


def main() -> None:
    """Train, and say where to look."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    begun = time.perf_counter()
    run = nacre.train("vae", data="digits", latent_dim=2, steps=4000, out=RUN, overwrite=True)
    say = sys.stdout.write
    say(f"\ntrained in {time.perf_counter() - begun:.0f} s; {run.score}\n")
    say(
        f"\nlook at {RUN}/samples.png           new digits, decoded from the prior"
        f"\n        {RUN}/reconstructions.png   pairs: a digit it never saw, and its reconstruction"
        f"\n        {RUN}/latent_map.png        the whole two-dimensional latent, decoded\n"
        "\nnext, try"
        "\n  . .venv/bin/activate"
        f"\n  nacre sample {RUN} -n 100 --seed 1 --out more.png"
        "\n  nacre train gan --data digits --out runs/gan"
        "\n  nacre data path/to/your/photos --sheet crops.png\n"
    )


if __name__ == "__main__":
    main()
