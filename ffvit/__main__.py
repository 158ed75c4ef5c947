"""Commands beside the two scripts: `python -m ffvit COMMAND`, see `--help`."""

import argparse
import io
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

    verify = commands.add_parser(
        "verify", help="decode every image of betons, compare every byte with their manifests"
    )
    verify.add_argument("betons", nargs="+", type=Path, metavar="BETON", help="beton to verify")

    inspect = commands.add_parser("inspect", help="what is inside a beton; or save one image")
    inspect.add_argument("beton", type=Path, metavar="BETON", help="beton to look into")
    inspect.add_argument("--all_classes", action="store_true", help="list every class")
    inspect.add_argument("--sample", type=int, metavar="N", help="save image N, counted from 0")
    inspect.add_argument("--out", type=Path, help="file for it: .jpg (as stored) or .png")

    options = parser.parse_args(argv)
    if options.command == "inspect" and (options.sample is None) != (options.out is None):
        inspect.error("--sample=N and --out=FILE go together")
    # A class may have a name that the terminal's encoding has no letters for.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
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
        elif options.command == "verify":
            from ffvit.data.verify import verify_betons  # noqa: PLC0415

            verify_betons(options.betons)
        elif options.command == "inspect":
            from ffvit.data.inspect import describe_beton, save_sample  # noqa: PLC0415

            if options.sample is None:
                text = describe_beton(options.beton, options.all_classes)
            else:
                text = save_sample(options.beton, options.sample, options.out)
            sys.stdout.write(f"{text}\n")
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
