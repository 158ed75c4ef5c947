"""Copy the betons that a config names by URLs to this machine's disk, before training starts.

Takes the options of train_imagenet.py: --config FILE, --section.option=value. Training does the
same by itself; on several machines this lets the fast ones wait for the slow ones without a limit.
"""

import argparse
import sys

# The rest of the command line is for ffvit.config.
TAKES_TRAIN_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments: none."""
    del parser


def run(options: argparse.Namespace) -> None:
    """Copy what is not there yet, and print where each beton is."""
    from ffvit.config import load_train_config  # noqa: PLC0415
    from ffvit.data.storage import find_betons  # noqa: PLC0415

    data = load_train_config(options.train_options)[0].data
    for paths in (data.train_path, data.val_path):
        for path in find_betons(paths, data.stage_dir):
            sys.stdout.write(f"{path}\n")
