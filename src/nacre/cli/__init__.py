"""The command line. Commands are imported when they are called: `nacre --help` takes no torch."""

import gc
import importlib
import logging
import sys
from collections.abc import Sequence

from nacre import __version__
from nacre.errors import NacreError

COMMANDS = {
    "train": "train a model on images of your own, or on a named data set",
    "resume": "go on with a run, exactly where it stopped",
    "fork": "branch a run at a step: same data, same noise, one thing changed",
    "evaluate": "hold a run against real items: a table, and a page to send",
    "compare": "hold models against each other: which differences are real; or train them for it",
    "diagnose": "say what is wrong with a run, with evidence and advice",
    "sample": "draw new images from a run",
    "reconstruct": "send images through an autoencoder and back",
    "encode": "turn images into codes",
    "classify": "tell the classes of images, by a model that learned from labels",
    "interpolate": "walk through a latent space, from image to image",
    "invert": "find the latents of images in a model without an encoder",
    "arithmetic": "add to images what makes others differ: smile - neutral",
    "inpaint": "fill what is missing in images",
    "translate": "turn images of one kind into another, by a model that learned both",
    "convert": "turn the weights of CycleGAN's own code into a model folder",
    "edit": "move images towards an attribute that two sets of images show",
    "anomaly": "tell which images are not of the kind that a model has learned",
    "export": "write a model for other runtimes (ONNX), checked against PyTorch",
    "models": "list the models and what they can do",
    "data": "look at a data source before training on it",
    "lab": "watch theory at work: the game, a true posterior, the Dirac-GAN",
    "check-model": "check a model of your own against the contract",
}

HELP = f"""\
usage: nacre COMMAND [...]

Autoencoders, VAEs and GANs trained on your own images, measured honestly and put to use.

commands:
{"".join(f"  {name:<13} {help}{chr(10)}" for name, help in COMMANDS.items())}
`nacre COMMAND --help` says more. A first try: nacre train vae
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 (it failed), 2 (it cannot be meant), 128 + the signal that stopped it."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if argv[0] == "--version":
        print(f"nacre {__version__}")
        return 0
    try:
        return _command(argv[0])(argv[1:])
    except NacreError as error:
        return error.exit_code if error.told else _failed(str(error), error.exit_code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        return _failed(f"{argv[0]} failed: {error.strerror or error}{place}; what was saved before is intact.", 1)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "allocate" not in str(error) and "out of memory" not in str(error):
            raise
        return _failed(
            f"{argv[0]} ran out of memory; take a smaller --batch-size, --width or --hidden, or --accumulate.", 1
        )


def _command(name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
    if name not in COMMANDS and name != "rank":
        import difflib

        from nacre.errors import ConfigError

        nearest = difflib.get_close_matches(name, COMMANDS, n=1)
        raise ConfigError(
            f"there is no command '{name}'; " + (f"did you mean '{nearest[0]}'?" if nearest else "see nacre --help")
        )
    gc.disable()  # imports drop nothing, and looking for what they dropped takes an eighth of their time
    try:
        _talk()
        return importlib.import_module(f"nacre.cli.{name.replace('-', '_')}").main
    finally:
        gc.enable()


def _talk() -> None:
    """What the library logs goes to standard error, one plain line each."""
    from nacre.run.launch import is_follower

    logger = logging.getLogger("nacre")
    logger.setLevel(logging.ERROR if is_follower() else logging.INFO)
    logger.propagate = False
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]


def _failed(sentence: str, code: int) -> int:
    print("nacre: " + " ".join(sentence.split()), file=sys.stderr)
    return code
