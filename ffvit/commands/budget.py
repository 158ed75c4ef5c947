"""Which recipe to train in a given time: its cost and accuracy, as forecasts, and the command."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--model", required=True, help="tiny, base or large")
    parser.add_argument("--gpu", required=True, help="a100, h100, h200, ...")
    parser.add_argument("--hours", required=True, type=float, help="on the clock")
    parser.add_argument("--num_gpus", type=int, default=1, help="GPUs of that kind [1]")
    parser.add_argument(
        "--mfu",
        type=float,
        help="share of the peak that is reached at 224 px, as runs log it [0.4; tiny 0.25]",
    )
    parser.add_argument(
        "--configs", type=Path, default=Path("ff_configs"), help="folder of recipes [ff_configs]"
    )


def run(options: argparse.Namespace) -> None:
    """Print the recommendation.

    Raises:
        UserError: An unknown model or GPU, too little time, no recipes in the folder.
    """
    from ffvit.budget import recommend  # noqa: PLC0415

    text = recommend(
        options.model, options.gpu, options.hours, options.num_gpus, options.mfu, options.configs
    )
    sys.stdout.write(f"{text}\n")
