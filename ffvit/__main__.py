"""Commands beside the two scripts: `python -m ffvit COMMAND`, see `--help`."""

import argparse
import importlib
import io
import signal
import sys
from collections.abc import Sequence

from ffvit.errors import one_line_errors

# Name of a module in ffvit/commands: what it does.
COMMANDS = {
    "doctor": "what is wrong with this machine, and what mends it",
    "stage": "copy a config's betons from URLs to this machine's disk",
    "preview": "a picture of a config's data: as stored, and as the model will see them",
    "budget": "which recipe to train in a given time, and what it may give",
    "report": "table and charts of one or several runs",
    "explain": "which classes a trained model confuses, what its token mixing learned",
    "sample": "write the built-in sample images",
    "repack": "add restart markers to a beton's JPEGs, lossless",
    "verify": "decode every image of betons, compare every byte with their manifests",
    "profile": "where the time of a training run goes",
    "export": "a run's model for timm, the Hugging Face hub, ONNX Runtime and torch.export",
    "predict": "what a model sees in images: its five best classes, or a CSV of a folder",
    "evaluate": "top-1 and top-5 of a model on betons and on class folders",
    "inspect": "what is inside a beton; or save one image",
}


def main(argv: Sequence[str]) -> None:
    """Run one command; a user's error is printed as one line and ends it with status 2."""
    parser = argparse.ArgumentParser(prog="python -m ffvit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text)
    name = parser.parse_args(argv[:1]).command
    # A class may have a name that the terminal's encoding has no letters for.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with one_line_errors():
        command = importlib.import_module(f"ffvit.commands.{name}")
        own_parser = argparse.ArgumentParser(
            prog=f"python -m ffvit {name}", description=command.__doc__
        )
        command.add_arguments(own_parser)
        options, rest = own_parser.parse_known_args(argv[1:])
        if rest and not getattr(command, "TAKES_TRAIN_OPTIONS", False):
            own_parser.error(f"unrecognized arguments: {' '.join(rest)}")
        options.train_options = rest
        command.run(options)


if __name__ == "__main__":
    # A batch system's SIGTERM takes the same way out as Ctrl-C, so that no half-written file stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
