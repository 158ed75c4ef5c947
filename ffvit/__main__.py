"""Commands beside the two scripts: `python -m ffvit COMMAND`, see `--help`."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ffvit.errors import one_line_errors


def main(argv: Sequence[str]) -> None:
    """Run one command; a user's error is printed as one line and ends it with status 2."""
    parser = argparse.ArgumentParser(prog="python -m ffvit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    report = commands.add_parser("report", help="table and charts of one or several runs")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    report.add_argument(
        "--out",
        type=Path,
        help="folder to write to; default: the run's own, or report/ for several",
    )

    sample = commands.add_parser("sample", help="write the built-in sample images")
    sample.add_argument("folder", type=Path, metavar="DIR", help="folder to write to")
    sample.add_argument("--seed", type=int, default=0, help="seed of the images [0]")

    repack = commands.add_parser("repack", help="add restart markers to a beton's JPEGs, lossless")
    repack.add_argument("old", type=Path, metavar="OLD.beton", help="beton to read")
    repack.add_argument("new", type=Path, metavar="NEW.beton", help="beton to write")
    repack.add_argument(
        "--restart_interval", type=int, default=4, help="MCUs between restart markers [4]"
    )

    options = parser.parse_args(argv)
    # Imports wait until a command needs them: a report needs neither torch nor ffcv.
    with one_line_errors():
        if options.command == "report":
            from ffvit.reports import write_report  # noqa: PLC0415

            default = options.runs[0] if len(options.runs) == 1 else Path("report")
            path = write_report(options.runs, options.out or default)
            sys.stdout.write(f"{path}\n")
        elif options.command == "repack":
            from ffvit.data.repack import repack_beton  # noqa: PLC0415

            repack_beton(options.old, options.new, options.restart_interval)
        else:
            from ffvit.data.sample import write_sample  # noqa: PLC0415

            write_sample(options.folder, seed=options.seed)


if __name__ == "__main__":
    # A batch system's SIGTERM takes the same way out as Ctrl-C, so that no half-written file stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
