"""Run folders -> a table and charts."""

import argparse
import sys
from pathlib import Path

from ffvit.reports import write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder to write to; default: the run's own, or report/ for several",
    )


def run(options: argparse.Namespace) -> None:
    """Write the report, print where it is."""
    default = options.runs[0] if len(options.runs) == 1 else Path("report")
    path = write_report(options.runs, options.out or default)
    sys.stdout.write(f"{path}\n")
